"""Following the catalogue: changes from the journal become a new release within seconds.

A batch is all changes that wait, up to a bound: their photos are extracted, the rejected settled, a
release made and published that names the last change it holds, and then the rest of the batch is
settled as live. Whatever moment this dies at, what is pending is done again from the release that is
current, or found in it already; every change says what a product is from then on, so to do it again
makes no difference. A photo that it dies of is found by trying alone what was at work.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from itertools import groupby

from lookalike.errors import LookalikeError
from lookalike.journal import DELETE, Change, Journal
from lookalike.release.arrays import Features
from lookalike.release.ids import Id, IdType, id_problem
from lookalike.release.manifest import Applied, Manifest
from lookalike.release.opened import is_slim
from lookalike.release.root import LOCK_WAIT_S, ReleaseRoot
from lookalike_build.extraction.known_photos import KnownPhotos
from lookalike_build.extraction.pipeline import PhotoPipeline, Reader
from lookalike_build.following.at_work import AtWork
from lookalike_build.following.background import Background
from lookalike_build.following.feed import Feed
from lookalike_build.following.seal import FeedSeal
from lookalike_build.following.update import Updater
from lookalike_build.indexing.live import ChangesByCategory
from lookalike_build.photos.decoding import PhotoError

BATCH = 128
"""The most changes that one release takes up: 4 s of extraction on two cores."""
MOST_FED = 16_384
"""While as many changes are pending, the feed waits: its own file holds what is to come as well."""
POLL_S = 0.05
"""How often the journal is looked at."""
_SENT = "change:"

IdTypes = tuple[IdType, IdType]
"""Those of the category and the product ids."""


class FollowError(LookalikeError):
    """What is current cannot be followed; the text says what to do."""


class Follower:
    """Takes changes from `journal` into releases under `root`, whose follow lock the caller holds.

    The reader of `photos` reads those that did not come with their change. `keep` releases of its own
    making are kept, and as many others. Worn indexes are rebuilt in the `background`. `tell` hears a
    line for what was done.
    """

    def __init__(
        self,
        root: ReleaseRoot,
        journal: Journal,
        photos: PhotoPipeline,
        background: Background,
        keep: int = 5,
        tell: Callable[[str], object] = lambda _: None,
        at_work: AtWork | None = None,
    ) -> None:
        self._root = root
        self._journal = journal
        self._pipeline = photos
        self._photos = _Photos(journal, photos.reader, FeedSeal(root.feed_key))
        self._updater = Updater(root, background, tell)
        self._keep = keep
        self._tell = tell
        self._at_work = at_work or AtWork(root.at_work, tell)
        self._problems: dict[str, str] = {}

    def begin(self) -> None:
        """Settle what a follower that died had published; remove what it left half-made."""
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
            self._tell(
                f"tried alone, since a follower ended at work on them: {len(suspects)} changes from "
                f"{suspects[0]} to {suspects[-1]}"
            )

    def end(self) -> None:
        """Leave nothing that would look as if the follower had died."""
        self._updater.end()

    def has_room(self) -> bool:
        """Whether so little is pending that a feed may add to it."""
        return self._journal.n_pending(MOST_FED) < MOST_FED

    def step(self) -> bool:
        """Do a batch, or publish a rebuilt index; False where there was nothing to do.

        Raises FollowError, HostError, JournalError, ReleaseError, RootError or OSError; the current
        release then stays, and what is pending stays so.
        """
        pending = self._journal.pending(BATCH)
        if pending:
            self._batch(pending)
        elif self._updater.has_work():
            self._publish({}, None, None)
        else:
            return False
        return True

    def _batch(self, pending: list[tuple[int, Change]]) -> None:
        started = time.monotonic()
        types = _id_types(self._current())
        reasons: dict[int, str] = {}
        changes: dict[Id, dict[Id, Features | None]] = defaultdict(dict)
        taken: list[int] = []
        failure = None
        for group in self._groups(pending):
            try:
                self._take(group, types, reasons, changes)
            except Exception as error:
                if not taken:
                    raise
                failure = error  # what came before need not wait
                break
            taken += [number for number, _ in group]
        self._reject(reasons)
        last = taken[-1]
        release = self._publish(changes, last, types)
        self._journal.settle(last, release)
        seconds = time.monotonic() - started
        self._optionally(
            "the batch could not be counted", lambda: self._journal.batch_done(len(taken), seconds)
        )
        live = len(taken) - len(reasons)
        self._tell(f"changes up to {last}: {live} live in {release}, in {seconds:.2f} s")
        if failure:
            raise failure

    def _groups(self, pending: list[tuple[int, Change]]) -> Iterator[list[tuple[int, Change]]]:
        """The changes in their order: each suspect alone, those between two together."""
        for _, group in groupby(
            pending, lambda one: one[0] if one[0] in self._at_work.suspects else None
        ):
            yield list(group)

    def _reject(self, reasons: Mapping[int, str]) -> None:
        if reasons:
            self._journal.reject(reasons)
        for number, reason in sorted(reasons.items()):
            self._tell(f"change {number} rejected: {reason}")

    def _take(
        self,
        group: list[tuple[int, Change]],
        types: IdTypes,
        reasons: dict[int, str],
        changes: dict[Id, dict[Id, Features | None]],
    ) -> None:
        """Add why some are rejected, by number, and what the others come to: the last of a product."""
        for number, change in group:
            if problem := _problem(change, types):
                reasons[number] = problem
        images = [
            (number, change.image or f"{_SENT}{number}")
            for number, change in group
            if number not in reasons and change.op != DELETE
        ]
        features = self._extracted(images, reasons) if images else {}
        for number, change in group:
            if number not in reasons:
                changes[change.category_id][change.product_id] = features.get(number)

    def _extracted(
        self, images: list[tuple[int, str]], reasons: dict[int, str]
    ) -> dict[int, Features]:
        """The features of photos, by number; to `reasons` why some have none."""
        photos: dict[int, str] = {}
        features: dict[str, Features] = {}
        with (
            self._at_work.on(number for number, _ in images),
            closing(self._pipeline.engine(images, self._photos, KnownPhotos())) as given,
        ):
            for result in (result for results in given for result in results):
                if result.reason:
                    reasons[result.row] = result.reason
                    continue
                photos[result.row] = result.photo_sha256
                if result.features is not None:
                    features[result.photo_sha256] = result.features
        return {number: features[photo] for number, photo in photos.items()}

    def _current(self) -> Manifest:
        """The manifest of the current release; FollowError where there is none to follow with this."""
        name = self._root.current()
        if name is None:
            raise self._root.none_yet()
        manifest = self._root.manifest(name)
        if is_slim(self._root.folder(name), manifest):
            raise FollowError(
                f"release {name} is a slim copy, without what an update is made of; follow where "
                "releases are built"
            )
        model, n_dims = self._pipeline.model, self._pipeline.n_dims
        if (manifest.model, manifest.n_dims) != (model, n_dims):
            raise FollowError(
                f"release {name} has features of {manifest.model.name} {manifest.model.digest}, and "
                f"this makes those of {model.name} {model.digest}; give the options that "
                "`extract` was given"
            )
        return manifest

    def _publish(self, changes: ChangesByCategory, last: int | None, types: IdTypes | None) -> str:
        """Publish the current release with `changes`, whose ids are of `types`, up to the number
        `last`; what is current then."""
        with self._root.lock(LOCK_WAIT_S):
            manifest = self._current()
            if types and types != _id_types(manifest):
                raise FollowError(
                    f"release {manifest.release} came meanwhile, which has ids of other types; follow "
                    "again"
                )
            applied = manifest.applied if last is None else Applied(self._journal.id, last)
            release = self._updater.publish(manifest, changes, applied)
            self._prune()
        return release

    def _prune(self) -> None:
        self._optionally("old releases could not be removed", lambda: self._root.prune(self._keep))

    def _optionally(self, problem: str, work: Callable[[], object]) -> None:
        """Do what comes again with the next batch; tell once why it fails."""
        try:
            work()
        except Exception as error:
            if self._problems.get(problem) != str(error):
                self._tell(f"{problem}: {error}; tried again with the next changes")
            self._problems[problem] = str(error)
        else:
            self._problems.pop(problem, None)


def follow(
    follower: Follower, feed: Feed | None, stop: threading.Event, once: bool = False
) -> None:
    """Have the follower take changes, from `feed` too, until `stop` is set and its batch is done.

    With `once`, or when a feed has ended, until nothing is pending. Raises what `Follower.step` raises.
    """
    follower.begin()
    while not stop.is_set():
        added = feed.poll() if feed and follower.has_room() else 0
        if follower.step() or added:
            continue
        if once or (feed and feed.ended):
            break
        stop.wait(POLL_S)
    follower.end()


class _Photos:
    """Reads the photos of changes: those in the journal, and with `reader` those of the feed."""

    def __init__(self, journal: Journal, reader: Reader, seal: FeedSeal) -> None:
        self._journal = journal
        self._reader = reader
        self._seal = seal

    def read(self, image: str) -> bytes:
        """The bytes of a photo; PhotoError."""
        if not image.startswith(_SENT):
            return self._reader.read(self._seal.opened(image))
        photo = self._journal.photo(int(image.removeprefix(_SENT)))
        if photo is None:
            raise PhotoError("its photo is not in the journal")
        return photo


def _id_types(manifest: Manifest) -> IdTypes:
    return manifest.category_id_type, manifest.product_id_type


def _problem(change: Change, types: IdTypes) -> str | None:
    """What makes a change's ids unfit for the release; a journal may outlive what it was made for."""
    names = "category_id", "product_id"
    for name, value, id_type in zip(names, change[1:3], types, strict=True):
        if isinstance(value, int) != (id_type == "integer"):
            return f"{name} must be {_A_TYPE[id_type]} as in the release, not {value!r}"
        if problem := id_problem(value):
            return f"{name} {problem}"
    return None


_A_TYPE = {"integer": "a whole number", "string": "text"}
