"""``lookalike-build follow``: changes of products become live."""

import signal
import threading
from contextlib import closing
from pathlib import Path

from lookalike.journal import Journal
from lookalike.release.root import ReleaseRoot
from lookalike.terminal.command import REQUIRED, command, flag, option
from lookalike.terminal.output import complain, say
from lookalike.terminal.types import PRESENT_FOLDER
from lookalike_build.commands import options
from lookalike_build.extraction.local_engine import LocalEngine
from lookalike_build.extraction.pipeline import PhotoPipeline
from lookalike_build.following.at_work import AtWork
from lookalike_build.following.background import in_background
from lookalike_build.following.feed import open_feed
from lookalike_build.following.follower import Follower, follow
from lookalike_build.following.seal import FeedSeal
from lookalike_build.following.status import report
from lookalike_build.networks.settings import ExtractorSettings, warm_up
from lookalike_build.photos.reader import PhotoReader


@command("lookalike-build follow --root /var/lib/lookalike --changes changes.jsonl")
@option("--root", PRESENT_FOLDER, REQUIRED, "the release root to publish in")
@option(
    "--changes FEED",
    str,
    None,
    "take changes from FEED as well: a file of JSON lines, followed as it grows and is "
    "rotated, a named pipe, or - for standard input, whose end ends this",
)
@flag("--once", "stop when all changes that are there are live")
@flag(
    "--status",
    "say where following stands (changes pending, live and rejected, batches, the current "
    "release) and stop",
)
@options.network
@options.reader
@options.connections
@options.keep("releases to keep of those made here, and as many of the others")
def run(
    root: Path,
    changes: str | None,
    once: bool,
    status: bool,
    network: ExtractorSettings,
    reader: PhotoReader,
    connections: int,
    keep: int,
) -> None:
    """Take changes of products as they come, and make them live within seconds.

    They come from the journal, which the app writes for `PUT` and `DELETE`, and from a feed. SIGTERM
    ends it when what it is at is done.
    """
    releases = ReleaseRoot(root.absolute())
    if status:
        say(*report(releases))
        return
    releases.chosen()  # an error, where there is none
    stop = threading.Event()
    at_work = AtWork(releases.at_work, _log)

    def end(*_: object) -> None:
        stop.set()
        at_work.forgive()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    with releases.follow_lock(), closing(Journal(releases.journal)) as journal:
        types = releases.manifest(releases.chosen()).id_types
        feed = None
        if changes is not None:
            seal = FeedSeal(releases.feed_key).seal
            feed = open_feed(changes, journal, types, _complain, seal)
        extractor = network.make()
        engine = LocalEngine(extractor, connections)
        photos = PhotoPipeline(reader, engine, extractor.model, extractor.n_dims)
        follower = Follower(releases, journal, photos, in_background, keep, _log, at_work)
        warm_up(extractor)
        say(f"following {releases.path}, model {extractor.model.name}")
        follow(follower, feed, stop, once)
    say("stopped; what is pending stays in the journal")


def _log(line: str) -> None:
    """Say what a follower does; it goes on where that cannot be written."""
    try:
        say(line)
    except OSError as error:
        _complain(str(error))


def _complain(line: str) -> None:
    complain(f"lookalike-build: {line}")
