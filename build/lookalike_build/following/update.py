"""Updates: a new release that is the current one with a few products changed and all else linked.

The neighbour table is exact at once, as if everything were indexed from scratch: the lists that have
changed come beside it. The index for vectors stays; products that it does not know are compared with a
vector one by one. When either has become much, table or index are rebuilt in the background and come
with a later release, with what has changed meanwhile. If a rebuild fails, answers are as before, and it
is tried again later.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from shutil import rmtree
from time import monotonic
from typing import NamedTuple

from lookalike.release.files import BASE_FILES, reason_of
from lookalike.release.ids import Id, category_folder
from lookalike.release.manifest import Applied, CategoryEntry, Manifest
from lookalike.release.root import UPDATE_SUFFIX, ReleaseRoot
from lookalike_build.features.store import sort_key
from lookalike_build.following.background import Background
from lookalike_build.indexing.live import (
    CategoryChanges,
    ChangesByCategory,
    Checked,
    LiveCategory,
    NewCategory,
    settings_of,
    write_changed,
)
from lookalike_build.indexing.rows import FeatureStatistics
from lookalike_build.indexing.table import ListEnds
from lookalike_build.publishing.category import CategoryWriter, Written
from lookalike_build.publishing.files import link
from lookalike_build.publishing.staging import Staging

_RETRY_S = 60.0
"""The wait between a rebuild's first failure and the next try; it doubles with each further one."""
_MAX_RETRY_S = 3600.0
_AFTER_DEATH_S = 600.0
"""The first wait if the process died during a rebuild, perhaps killed for the memory it took."""


class _Failure(NamedTuple):
    """How often a rebuild has failed, and when (monotonic) to try again."""

    times: int
    again_at: float


# A category that was rebuilt, and what it was rebuilt from.
_Rebased = tuple[LiveCategory, LiveCategory]
# What becomes of a category: it is changed, made of new products, or (None) removed.
_Plan = dict[Id, LiveCategory | NewCategory | None]


class Updater:
    """Publishes updates under `root`; between them it keeps what would else be read through again.

    `log` is called with a line for each rebuild that failed.
    """

    def __init__(
        self,
        root: ReleaseRoot,
        background: Background,
        log: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._root = root
        self._background = background
        self._log = log
        self._statistics: dict[Id, tuple[str, FeatureStatistics]] = {}
        self._ends: dict[Id, tuple[CategoryEntry, ListEnds]] = {}
        self._checked: Checked = {}
        self._found: dict[tuple[str, Id], LiveCategory | None] = {}
        self._rebasing: dict[Id, Future[_Rebased]] = {}
        self._failures: dict[Id, _Failure] = {}
        self._release = ""

    def begin(self, manifest: Manifest) -> None:
        """Remove a dead updater's unfinished files; `manifest` is the current release's."""
        if self._root.updating.exists():
            rmtree(self._root.updating)
        for entry in manifest.categories:
            if any(folder.exists() for folder in self._rebase_folders(entry.category_id)):
                reason = "the follower ended during the rebuild"
                self._failed(entry.category_id, reason, _AFTER_DEATH_S)
        # What this cannot remove is removed before the next rebuild.
        rmtree(self._root.rebasing, ignore_errors=True)

    def end(self) -> None:
        """Give up unfinished rebuilds, in such a way that the next updater sees no failure."""
        # The thread still writes to them: one rename puts them where `begin` removes them.
        with suppress(OSError):
            self._root.rebasing.rename(self._root.updating)

    def has_work(self) -> bool:
        """Whether a rebuilt index waits to be published, or a failed rebuild is due again."""
        return any(future.done() for future in self._rebasing.values()) or bool(self._due())

    def find(self, manifest: Manifest, category_id: Id) -> LiveCategory | None:
        """The category of that id in the release of `manifest`, read once; None if it has none."""
        if (manifest.release, category_id) not in self._found:
            live = LiveCategory.find(self._root, manifest, category_id, self._checked)
            self._found[manifest.release, category_id] = live
        return self._found[manifest.release, category_id]

    def there(
        self, manifest: Manifest, category_id: Id, product_ids: Collection[Id]
    ) -> frozenset[Id]:
        """Which of the products the category has in the release of `manifest`."""
        live = self.find(manifest, category_id)
        return live.there([*product_ids]) if live else frozenset()

    def publish(
        self, manifest: Manifest, changes: ChangesByCategory, applied: Applied | None
    ) -> str:
        """Publish the current release (`manifest`) with `changes`; the caller holds the root's lock.

        Returns the name of the release that is then current: the same if nothing differs. `applied`
        goes into the manifest. Raises ReleaseError, RootError, OSError.
        """
        try:
            return self._publish(manifest, changes, applied)
        finally:
            self._found.clear()

    def _publish(
        self, manifest: Manifest, changes: ChangesByCategory, applied: Applied | None
    ) -> str:
        if manifest.release != self._release:
            self._forget(list(self._rebasing))  # their rows may have changed
        rebased = self._rebased()
        try:
            release = self._published(manifest, changes, applied, rebased)
        except Exception as error:
            if not rebased or self._root.current() != manifest.release:
                raise
            # A rebuilt index may be the cause. If it is not, the next attempt raises the same.
            self._forget(rebased)
            for category_id in rebased:
                self._failed(category_id, error)
            release = self._published(manifest, changes, applied, {})
        self._release = release
        self._begin_due(release)
        return release

    def _published(
        self,
        manifest: Manifest,
        changes: ChangesByCategory,
        applied: Applied | None,
        rebased: Mapping[Id, _Rebased],
    ) -> str:
        plan = self._plan(manifest, changes, rebased)
        if not plan:
            return manifest.release
        staging = Staging(self._root, self._root.updating)
        try:
            written = list(self._written(staging, manifest, plan))
            draft = replace(manifest, applied=applied, behaviour=None)
            published = staging.publish(draft, written, UPDATE_SUFFIX)
        finally:
            staging.discard()
        for left_out in published.left_out:
            self._log(left_out)
        self._forget(rebased)
        for category_id in rebased:
            self._failures.pop(category_id, None)
        entries = {one.entry.category_id: one.entry for one in written}
        self._remember(plan, entries, self._root.folder(published.release))
        return published.release

    def _rebased(self) -> dict[Id, _Rebased]:
        """The rebuilt categories; failed rebuilds are logged and scheduled again."""
        rebased = {}
        for category_id, future in list(self._rebasing.items()):
            if not future.done():
                continue
            error = future.exception()
            if error is None:
                rebased[category_id] = future.result()
            else:
                self._forget([category_id])
                self._failed(category_id, error)
        return rebased

    def _failed(
        self, category_id: Id, reason: BaseException | str, retry_s: float = _RETRY_S
    ) -> None:
        times = self._failures[category_id].times + 1 if category_id in self._failures else 1
        wait_s = min(_MAX_RETRY_S, retry_s * 2.0 ** (times - 1))
        self._failures[category_id] = _Failure(times, monotonic() + wait_s)
        text = reason if isinstance(reason, str) else _reason(reason)
        self._log(
            f"category {category_id}: it could not be rebuilt in the background: {text}; next try in "
            f"{wait_s:.0f} s"
        )

    def _due(self) -> list[Id]:
        """The categories whose failed rebuild is due again."""
        now = monotonic()
        return [
            category_id
            for category_id, failure in self._failures.items()
            if failure.again_at <= now and category_id not in self._rebasing
        ]

    def _begin_due(self, release: str) -> None:
        for category_id in self._due():
            try:
                manifest = self._root.manifest(release)
                live = self.find(manifest, category_id)
            except Exception as error:
                self._failed(category_id, error)
                continue
            if live and live.upkeep():
                self._rebase(category_id, live)
            else:
                del self._failures[category_id]

    def _plan(
        self, manifest: Manifest, changes: ChangesByCategory, rebased: Mapping[Id, _Rebased]
    ) -> _Plan:
        plan: _Plan = {}
        known = manifest.known_attributes
        for category_id in {*changes, *rebased}:
            products, values = changed = changes.get(category_id, CategoryChanges({}))
            if live := self.find(manifest, category_id):
                now = live
                if found := rebased.get(category_id):
                    now, before = found
                    products = {**live.since(before), **products}
                    since = live.values_since(before)
                    values = since | {
                        one: {**since.get(one, {}), **each} for one, each in values.items()
                    }
                after = now.with_changes(
                    products,
                    values,
                    known,
                    partial(self._statistics_of, category_id, now),
                    partial(self._ends_of, category_id, now),
                )
                if after is not live:
                    plan[category_id] = after
            elif (new := NewCategory.of(changed, known)).products:
                plan[category_id] = new
        return plan

    def _written(self, staging: Staging, manifest: Manifest, plan: _Plan) -> Iterator[Written]:
        settings = settings_of(manifest.categories)
        known = (entry.category_id for entry in manifest.categories)
        for category_id in sorted({*known, *plan}, key=sort_key):
            writer = staging.category(category_id)
            if category_id not in plan:
                yield writer.keep()
                continue
            if (planned := plan[category_id]) is not None:
                yield write_changed(planned, settings, writer)

    def _statistics_of(self, category_id: Id, live: LiveCategory) -> FeatureStatistics:
        digest, statistics = self._statistics.get(category_id, (None, None))
        if statistics is None or digest != live.base_digest:
            statistics = live.statistics()
            self._statistics[category_id] = live.base_digest, statistics
        return statistics

    def _ends_of(self, category_id: Id, live: LiveCategory) -> ListEnds:
        entry, ends = self._ends.get(category_id, (None, None))
        return ends if ends and entry == live.entry else live.table.ends()

    def _remember(self, plan: _Plan, entries: Mapping[Id, CategoryEntry], release: Path) -> None:
        """Keep what is known of the categories in the folder `release`; begin to rebuild some."""
        for category_id, planned in plan.items():
            self._ends.pop(category_id, None)
            if not isinstance(planned, LiveCategory):
                self._statistics.pop(category_id, None)
                self._forget([category_id])
                continue
            entry = entries[category_id]
            if planned.ends and entry.updates:  # else its items have other numbers now
                self._ends[category_id] = entry, planned.ends
            if planned.upkeep():
                folder = release / category_folder(category_id)
                self._rebase(category_id, replace(planned, folder=folder))

    def _rebase(self, category_id: Id, live: LiveCategory) -> None:
        failure = self._failures.get(category_id)
        waits = failure and failure.again_at > monotonic()
        if category_id in self._rebasing or waits:
            return
        folder, base = self._rebase_folders(category_id)
        try:
            # Until it comes to this, the release may have been removed.
            base.mkdir(parents=True, exist_ok=True)
            for file in BASE_FILES:
                link(live.folder / file, base / file)
        except OSError as error:
            self._failed(category_id, error)
            return

        def work() -> _Rebased:
            held = replace(live, folder=base)
            rebuild = held.upkeep() or held.folded
            entry = rebuild(CategoryWriter(category_id, folder, None)).entry
            return LiveCategory.read(folder, entry), live

        self._rebasing[category_id] = self._background(work)

    def _forget(self, category_ids: Iterable[Id]) -> None:
        """Forget rebuilds; remove their files now, or once they have ended."""
        for category_id in category_ids:
            if future := self._rebasing.pop(category_id, None):
                future.add_done_callback(partial(_remove, self._rebase_folders(category_id)))

    def _rebase_folders(self, category_id: Id) -> tuple[Path, Path]:
        """Where a category is rebuilt, and where what it is rebuilt from is held."""
        folder = self._root.rebasing / category_folder(category_id)
        return folder, folder.with_name(f"{folder.name}.base")


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError):
        return f"{error.filename}: {reason_of(error)}" if error.filename else reason_of(error)
    if isinstance(error, MemoryError):
        return "out of memory"
    return (str(error) or type(error).__name__).splitlines()[0]


def _remove(folders: Iterable[Path], _: object) -> None:
    for folder in folders:
        rmtree(folder, ignore_errors=True)
