"""The command: runs all checks and prints their findings."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from lookalike.operate import options
from lookalike.operate.doctor import kernel, nginx, release, secrets, unit
from lookalike.operate.doctor.finding import Finding, Level, warning
from lookalike.operate.doctor.host import Asked, Host
from lookalike.terminal.command import DONE, FAILED, command, flag, gathered, option
from lookalike.terminal.output import say, say_json
from lookalike.terminal.types import FILE, url

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


@command("lookalike doctor --root /var/lib/lookalike")
@gathered(
    "asked",
    Asked,
    options.root(required=False),
    option("--control SOCKET", FILE, None, "Unit's control socket"),
    option("--url URL", url, None, "where the app answers (Unit's listeners unless given)"),
    option("--nginx", FILE, None, "nginx's main configuration file"),
    flag("--full", "compare every byte of the release"),
)
@flag("--json", "print JSON")
def run(asked: Asked, json: bool) -> int:
    """Say what is wrong with this host and what to do about it.

    Run it as root to see all.
    """
    findings = []
    for finding in examine(Host(asked)):
        findings.append(finding)
        if not json:
            say(*finding.lines())
    levels = [finding.level for finding in findings]
    if json:
        say_json(findings)
    else:
        say(f"problems: {levels.count(Level.PROBLEM)}, warnings: {levels.count(Level.WARNING)}")
    return FAILED if Level.PROBLEM in levels else DONE


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
            text = f"this check failed: {type(error).__name__}: {reason}"
            yield warning(text, "check this yourself, and report this line", check=name)
