"""The command ``lookalike-build``: photos to features, features to a release, records to a report."""

from collections.abc import Sequence

from lookalike import __version__
from lookalike.terminal.command import Group, call, program

COMMANDS = program(
    Group(
        "lookalike-build",
        "Turn product photos into a release of related products.",
        __package__,
        {
            "extract": "Take the features of every photo of a catalogue into a feature store.",
            "index": "Make a release of a feature store, check it and make it the current one.",
            "adopt": "Make a release of Annoy's indexes, or of features as CSV, from elsewhere.",
            "export": "Write a feature store as CSV.",
            "follow": "Take changes of products as they come, and make them live within seconds.",
            "report": "Say how similar images did against behaviour, from records of an experiment.",
            "simulate": "Make the records of an experiment whose truth is known.",
            "attributes": "Give the products of the current release attributes, such as price.",
            "rules": "Pin products to the top of answers in the current release, and ban others.",
            "behaviour": "Make a release of the current one and of what users have rated.",
        },
    ),
    __version__,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status: 0, 1 (the work failed) or 2 (the call was wrong)."""
    return call(COMMANDS, arguments)
