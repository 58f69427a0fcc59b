"""The follower: changes in the journal become a new release within seconds.

A batch is all pending changes, up to a bound. The follower extracts their photos, settles those that
are rejected, publishes a release that names the last change it includes, and settles the rest of the
batch as live. It can die at any moment: the next one applies pending changes again, or finds them in
the current release. Each change states what a product is from then on, so applying it twice is
harmless. To find a photo that kills it, the follower tries the changes that were at work alone.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import chain, groupby
from types import MappingProxyType

from lookalike.errors import LookalikeError
from lookalike.journal import PUT, SET, Change, Journal
from lookalike.release.arrays import Features
from lookalike.release.ids import id_problem
from lookalike.release.manifest import Applied, Manifest
from lookalike.release.opened import is_slim
from lookalike.release.root import LOCK_WAIT_S, ReleaseRoot
from lookalike_build.extraction.known_photos import KnownPhotos
from lookalike_build.extraction.pipeline import PhotoPipeline, Reader
from lookalike_build.following.at_work import AtWork
from lookalike_build.following.background import Background
from lookalike_build.following.batch import resolved
from lookalike_build.following.feed import Feed, IdTypes
from lookalike_build.following.seal import FeedSeal
from lookalike_build.following.update import Updater
from lookalike_build.photos.decoding import PhotoError

BATCH = 128
"""The most puts and deletes in one release: 4 s of extraction on two cores."""
MOST_FED = 16_384
"""While this many changes are pending, the feed is not read; its file keeps the rest."""
POLL_S = 0.05
"""Seconds between looks at the journal."""
_GATHERED_S = 0.3
"""Seconds after a batch of sets alone in which more are gathered: thousands a second come to be few
releases, and the processor is left to the server."""
_SENT = "change:"


class FollowError(LookalikeError):
    """The current release cannot be followed; the text says what to do."""


class Follower:
    """Takes changes from `journal` into releases under `root`, whose follow lock the caller holds.

    The reader of `photos` reads those that did not come with their change. Of its own releases, and of
    all others, the newest `keep` are kept. Worn indexes are rebuilt in the `background`. `log` gets a
    line for each thing done. `gathers_s` is for how long the last batch lets the next one gather.
    """

    def __init__(
        self,
        root: ReleaseRoot,
        journal: Journal,
        photos: PhotoPipeline,
        background: Background,
        keep: int = 5,
        log: Callable[[str], object] = lambda _: None,
        at_work: AtWork | None = None,
    ) -> None:
        self._root = root
        self._journal = journal
        self._pipeline = photos
        self._photos = _Photos(journal, photos.reader, FeedSeal(root.feed_key))
        self._updater = Updater(root, background, log)
        self._keep = keep
        self._log = log
        self._at_work = at_work or AtWork(root.at_work, log)
        self.gathers_s = 0.0
        self._problems: dict[str, str] = {}

    def begin(self) -> None:
        """Settle the changes that a dead follower had published; remove its unfinished files."""
        with self._root.lock(LOCK_WAIT_S):
            manifest = self._current()
            self._updater.begin(manifest)
            if manifest.applied and manifest.applied.journal == self._journal.id:
                self._journal.settle(manifest.applied.number, manifest.release)
            self._prune()
        reasons = self._at_work.begin(self._journal)
        self._reject(reasons)
        self._at_work.done(reasons)
        if suspects := sorted(self._at_work.suspects):
            self._log(
                f"a follower ended while working on {len(suspects)} changes from {suspects[0]} to "
                f"{suspects[-1]}: each is tried alone"
            )

    def end(self) -> None:
        """Remove what would make the next follower believe that this one died."""
        self._updater.end()

    def has_room(self) -> bool:
        """Whether few enough changes are pending for a feed to add more."""
        return self._journal.n_pending(MOST_FED) < MOST_FED

    def step(self) -> bool:
        """Publish a batch or a rebuilt index; False if there was nothing to do.

        Raises FollowError, HostError, JournalError, ReleaseError, RootError or OSError; the release
        then stays current and the changes pending.
        """
        pending = self._journal.pending(BATCH)
        self.gathers_s = 0.0
        if pending:
            self._batch(pending)
            if all(change.op == SET for _, change in pending):
                self.gathers_s = _GATHERED_S
        elif self._updater.has_work():
            self._publish()
        else:
            return False
        return True

    def _batch(self, pending: list[tuple[int, Change]]) -> None:
        started = time.monotonic()
        types = self._current().id_types
        reasons: dict[int, str] = {}
        features: dict[int, Features] = {}
        taken: list[tuple[int, Change]] = []
        failure = None
        # Each suspect is in a group of its own, the changes between two suspects are in one.
        for _, each in groupby(
            pending, lambda one: one[0] if one[0] in self._at_work.suspects else None
        ):
            group = list(each)
            try:
                features |= self._features_of(group, types, reasons)
            except Exception as error:
                if not taken:
                    raise
                failure = error  # the groups before it are published first
                break
            taken += group
        self._reject(reasons)
        last = taken[-1][0]
        valid = [one for one in taken if one[0] not in reasons]
        release, rejected = self._publish(last, valid, features, types)
        self._journal.settle(last, release)
        seconds = time.monotonic() - started
        self._optionally(
            "the batch could not be counted", lambda: self._journal.batch_done(len(taken), seconds)
        )
        live = len(valid) - len(rejected)
        self._log(f"changes up to {last}: {live} live in {release}, in {seconds:.2f} s")
        if failure:
            raise failure

    def _reject(self, reasons: Mapping[int, str]) -> None:
        if reasons:
            self._journal.reject(reasons)
        for number, reason in sorted(reasons.items()):
            self._log(f"change {number} rejected: {reason}")

    def _features_of(
        self, group: list[tuple[int, Change]], types: IdTypes, reasons: dict[int, str]
    ) -> dict[int, Features]:
        """The features that puts give their products; adds to `reasons` why changes are rejected."""
        reasons |= {number: why for number, change in group if (why := _problem(change, types))}
        images = [
            (number, change.image or f"{_SENT}{number}")
            for number, change in group
            if number not in reasons and change.op == PUT
        ]
        return self._extracted(images, reasons) if images else {}

    def _extracted(
        self, images: list[tuple[int, str]], reasons: dict[int, str]
    ) -> dict[int, Features]:
        """The features of the changes' photos, by number; adds to `reasons` why some have none."""
        photos: dict[int, str] = {}
        features: dict[str, Features] = {}
        with (
            self._at_work.on(number for number, _ in images),
            closing(self._pipeline.engine(images, self._photos, KnownPhotos())) as batches,
        ):
            for result in chain.from_iterable(batches):
                if result.reason:
                    reasons[result.row] = result.reason
                    continue
                photos[result.row] = result.photo_sha256
                if result.features is not None:
                    features[result.photo_sha256] = result.features
        return {number: features[photo] for number, photo in photos.items()}

    def _current(self) -> Manifest:
        """The current release's manifest; FollowError if this follower cannot update that release."""
        name = self._root.chosen()
        manifest = self._root.manifest(name)
        if is_slim(self._root.folder(name), manifest):
            raise FollowError(
                f"release {name} is a slim copy, without the files that an update needs; run `follow` "
                "where releases are built"
            )
        model, n_dims = self._pipeline.model, self._pipeline.n_dims
        if (manifest.model, manifest.n_dims) != (model, n_dims):
            raise FollowError(
                f"release {name} has features of {manifest.model.name} {manifest.model.digest}, but "
                f"this network is {model.name} {model.digest}; give the options that "
                "`extract` was given"
            )
        return manifest

    def _publish(
        self,
        last: int | None = None,
        batch: Sequence[tuple[int, Change]] = (),
        features: Mapping[int, Features] = MappingProxyType({}),
        types: IdTypes | None = None,
    ) -> tuple[str, Mapping[int, str]]:
        """Publish the current release with a batch of changes up to number `last`.

        Returns the new current one, and why it rejects some. `features` are what puts give; `types` are
        those of the ids in the batch.
        """
        with self._root.lock(LOCK_WAIT_S):
            manifest = self._current()
            if types and types != manifest.id_types:
                raise FollowError(
                    f"release {manifest.release} became current, and its ids have other types; start "
                    "`follow` again"
                )
            there = partial(self._updater.there, manifest)
            changes, reasons = resolved(batch, features, manifest.known_attributes, there)
            self._reject(reasons)
            applied = manifest.applied if last is None else Applied(self._journal.id, last)
            release = self._updater.publish(manifest, changes, applied)
            self._prune()
        return release, reasons

    def _prune(self) -> None:
        self._optionally("old releases could not be removed", lambda: self._root.prune(self._keep))

    def _optionally(self, problem: str, work: Callable[[], object]) -> None:
        """Do work that the next batch repeats; if it fails, log the reason once."""
        try:
            work()
        except Exception as error:
            if self._problems.get(problem) != str(error):
                self._log(f"{problem}: {error}; tried again with the next changes")
            self._problems[problem] = str(error)
        else:
            self._problems.pop(problem, None)


def follow(
    follower: Follower, feed: Feed | None, stop: threading.Event, once: bool = False
) -> None:
    """Have the follower take changes, from `feed` too, until `stop` is set and its batch is done.

    With `once`, or when the feed has ended, stop when nothing is pending. Raises what `Follower.step`
    raises.
    """
    follower.begin()
    while not stop.is_set():
        added = feed.poll() if feed and follower.has_room() else 0
        if follower.step() or added:
            if follower.gathers_s and not once:
                stop.wait(follower.gathers_s)
            continue
        if once or (feed and feed.ended):
            break
        stop.wait(POLL_S)
    follower.end()


class _Photos:
    """Reads the photos of changes: those sent over HTTP from the journal, others with `reader`."""

    def __init__(self, journal: Journal, reader: Reader, seal: FeedSeal) -> None:
        self._journal = journal
        self._reader = reader
        self._seal = seal

    def read(self, image: str) -> bytes:
        """The bytes of a photo; raises PhotoError."""
        if not image.startswith(_SENT):
            return self._reader.read(self._seal.opened(image))
        photo = self._journal.photo(int(image.removeprefix(_SENT)))
        if photo is None:
            raise PhotoError("its photo is not in the journal")
        return photo


def _problem(change: Change, types: IdTypes) -> str | None:
    """What is wrong with a change's ids for this release, if anything.

    A journal may outlive the release that its changes were checked against.
    """
    names = "category_id", "product_id"
    for name, value, id_type in zip(names, change[1:3], types, strict=True):
        if isinstance(value, int) != (id_type == "integer"):
            return f"{name} must be {_A_TYPE[id_type]} as in the release, not {value!r}"
        if problem := id_problem(value):
            return f"{name} {problem}"
    return None


_A_TYPE = {"integer": "a whole number", "string": "text"}
