"""The command ``lookalike``: serve a release root and manage the releases in it."""

from collections.abc import Sequence

from lookalike import __version__
from lookalike.terminal.command import Group, call, program

COMMANDS = program(
    Group(
        "lookalike",
        "Serve related products, and manage the releases served.",
        __package__,
        {
            "serve": "Serve on the embedded WSGI server, where there is no NGINX Unit.",
            "check": "Compare every byte of a release with its manifest.",
            "switch": "Check a release, then make it the current one.",
            "rollback": "Check the release before the current one, then make it the current one.",
            "releases": "List the releases, oldest first, and mark the current one.",
            "prune": "Remove old releases, the current one never.",
            "unit": "Configure NGINX Unit for the app, and see how the app is served there.",
            "doctor": "Say what is wrong with this host and what to do about it.",
            "plan": "Say what a catalogue will need of disk, memory and time.",
        },
    ),
    __version__,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status: 0, 1 (the work failed) or 2 (the call was wrong)."""
    return call(COMMANDS, arguments)
