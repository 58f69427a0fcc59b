"""The commands of ``lookalike`` about a host, which need no release root: ``doctor``."""

import argparse
from collections.abc import Callable
from pathlib import Path

from lookalike import doctor
from lookalike.arguments import url

DONE, FAILED, WRONG = 0, 1, 2
"""Exit statuses; argparse itself exits with the last."""

Add = Callable[..., argparse.ArgumentParser]
"""`add(name, run, text, example, …)` adds a command, which `run` carries out."""


def add_host_commands(add: Add) -> None:
    """Add the commands."""
    _add_doctor(add)


def _add_doctor(add: Add) -> None:
    added = add(
        "doctor",
        _doctor,
        "Say what is wrong with this host and what to do about it. Run it as root to see all.",
        "lookalike doctor --root /var/lib/lookalike",
        needs_root=False,
    )
    added.add_argument("--control", type=Path, metavar="SOCKET", help="Unit's control socket")
    added.add_argument("--url", type=url, help="where the app answers (default: as Unit is told)")
    added.add_argument("--nginx", type=Path, metavar="FILE", help="nginx's main configuration file")
    added.add_argument("--full", action="store_true", help="compare every byte of the release")
    added.add_argument("--json", action="store_true", help="print JSON")


def _doctor(options: argparse.Namespace) -> int:
    asked = doctor.Asked(options.root, options.control, options.url, options.nginx, options.full)
    findings = []
    for finding in doctor.examine(doctor.Host(asked)):
        findings.append(finding)
        if not options.json:
            print(*finding.lines(), sep="\n", flush=True)
    print(doctor.as_json(findings) if options.json else doctor.summary(findings))
    found = any(finding.level == doctor.Level.PROBLEM for finding in findings)
    return FAILED if found else DONE
