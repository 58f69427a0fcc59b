"""Runs all checks."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from lookalike.operate.doctor import kernel, nginx, release, secrets, unit
from lookalike.operate.doctor.finding import Finding, warning
from lookalike.operate.doctor.host import Host

Check = Callable[[Host], Iterator[Finding]]

CHECKS: dict[str, Check] = {
    "Unit": unit.unit,
    "control": unit.control,
    "app": unit.app,
    "Annoy": kernel.annoy,
    "memory": kernel.memory,  # before `release`, which reads in the hot files
    "locked memory": kernel.locked,
    "open files": kernel.descriptors,
    "mapped files": kernel.mapped_files,
    "shared memory": kernel.shared_memory,
    "release": release.release,
    "permissions": release.permissions,
    "secrets": secrets.secrets,
    "disk": release.disk,
    "served": unit.served,
    "nginx": nginx.nginx,
    "clock": kernel.clock,
}


def examine(host: Host, checks: dict[str, Check] | None = None) -> Iterator[Finding]:
    """Run all checks, or those given by name, and yield the findings of each when it is done.

    Never raises: an error in a check becomes a finding that names the check.
    """
    for name, check in (CHECKS if checks is None else checks).items():
        try:
            for finding in check(host):
                yield replace(finding, check=name)
        except Exception as error:  # an odd host must get the findings of all other checks
            reason = " ".join(str(error).split()) or "no reason given"
            finding = warning(
                f"this check failed: {type(error).__name__}: {reason}",
                "check this yourself, and report this line",
            )
            yield replace(finding, check=name)
