"""Options that several commands take."""

from lookalike.serving.settings import ROOT
from lookalike.terminal.command import REQUIRED, Decorator, option
from lookalike.terminal.types import FOLDER


def root(required: bool = True) -> Decorator:
    """`--root`; if it is not `required`, the command does what it can without."""
    default = REQUIRED if required else None
    return option("--root", FOLDER, default, "the release root", envvar=ROOT.name, show_envvar=True)


LOCK_WAIT_S = 30.0
"""How long to wait for another writer of the root: longer than a follower takes to publish."""
