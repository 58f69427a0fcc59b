"""The command: takes the options and prints the findings."""

from pathlib import Path

import msgspec

from lookalike.operate import options
from lookalike.operate.doctor.examine import examine
from lookalike.operate.doctor.finding import Level
from lookalike.operate.doctor.host import Asked, Host
from lookalike.terminal.command import DONE, FAILED, command, flag, option
from lookalike.terminal.output import say
from lookalike.terminal.types import FILE, url


@command("lookalike doctor --root /var/lib/lookalike")
@options.root(required=False)
@option("--control", FILE, None, "Unit's control socket", metavar="SOCKET")
@option("--url", url, None, "where the app answers (Unit's listeners unless given)", metavar="URL")
@option("--nginx", FILE, None, "nginx's main configuration file")
@flag("--full", "compare every byte of the release")
@flag("--json", "print JSON")
def run(
    root: Path | None,
    control: Path | None,
    url: str | None,
    nginx: Path | None,
    full: bool,
    json: bool,
) -> int:
    """Say what is wrong with this host and what to do about it.

    Run it as root to see all.
    """
    findings = []
    for finding in examine(Host(Asked(root, control, url, nginx, full))):
        findings.append(finding)
        if not json:
            say(*finding.lines())
    levels = [finding.level for finding in findings]
    if json:
        say(*msgspec.json.format(msgspec.json.encode(findings)).decode().split("\n"))
    else:
        say(f"problems: {levels.count(Level.PROBLEM)}, warnings: {levels.count(Level.WARNING)}")
    return FAILED if Level.PROBLEM in levels else DONE
