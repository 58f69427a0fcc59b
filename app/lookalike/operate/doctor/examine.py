"""Runs all checks, and sums up their findings."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import msgspec

from lookalike.operate.doctor import kernel, nginx, release, secrets, unit
from lookalike.operate.doctor.finding import Finding, Level, warning
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


def summary(findings: Sequence[Finding]) -> str:
    """The last line: how many problems and warnings there are."""
    levels = [finding.level for finding in findings]
    problems, warnings = levels.count(Level.PROBLEM), levels.count(Level.WARNING)
    return f"problems: {problems}, warnings: {warnings}"


def as_json(findings: Sequence[Finding]) -> str:
    """The findings as a JSON array of objects: check, level, text, remedy."""
    level = {Level.PROBLEM: "problem", Level.ABSENT: "absent"}
    document = [
        {
            "check": finding.check,
            "level": level.get(finding.level, str(finding.level)),
            "text": finding.text,
            "remedy": finding.remedy,
        }
        for finding in findings
    ]
    return msgspec.json.format(msgspec.json.encode(document)).decode()
