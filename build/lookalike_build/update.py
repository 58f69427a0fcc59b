"""Updates: releases made of the current one, a few products changed, all else linked.

What an update changes is exact at once: the table is as if all were indexed anew. The index for vectors
stays, and what it does not know is compared one by one; where that has become much, an index is made
anew in the background and comes with a later release.
"""

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lookalike.manifest import Applied, Id, Manifest, category_folder
from lookalike.root import UPDATE_SUFFIX, ReleaseRoot
from lookalike_build.background import Background
from lookalike_build.feature_rows import Measured
from lookalike_build.features import sort_key
from lookalike_build.live_category import AllChanges, Changes, LiveCategory, index_new, settings_of
from lookalike_build.staging import CategoryWriter, Staging, Written


class _Rebased(NamedTuple):
    """A category whose index was made anew, of items whose `rows` were those of the index before."""

    category: LiveCategory
    rows: npt.NDArray[np.uint32]


# What a category is to become: changed, one of new products only, or none.
_Plan = dict[Id, LiveCategory | Changes | None]


class Updater:
    """Publishes updates under `root`; keeps between them what saves reading all features again."""

    def __init__(self, root: ReleaseRoot, background: Background) -> None:
        self._root = root
        self._background = background
        self._measured: dict[Id, tuple[str, Measured]] = {}
        self._rebasing: dict[Id, Future[_Rebased]] = {}
        self._release = ""

    def discard(self) -> None:
        """Remove what a killed updater left half-made."""
        for folder in (self._root.updating, self._root.rebasing):
            if folder.exists():
                rmtree(folder)

    def has_rebased(self) -> bool:
        """Whether an index that was made anew waits for the next update."""
        return any(future.done() for future in self._rebasing.values())

    def publish(self, manifest: Manifest, changes: AllChanges, applied: Applied | None) -> str:
        """Publish the current release, of `manifest`, with `changes`; the root's lock is held.

        The name of what is current then: as before where nothing is different. `applied` goes into
        the manifest. Raises ReleaseError, RootError, OSError, also what kept an index from being made.
        """
        if manifest.release != self._release:
            self._forget(list(self._rebasing))  # of rows that may no longer be those
        rebased = self._rebased()
        plan = self._plan(manifest, changes, rebased)
        if not plan:
            return manifest.release
        staging = Staging(self._root, self._root.updating)
        try:
            written = list(self._written(staging, manifest, plan))
            published = staging.publish(
                manifest.model,
                manifest.n_dims,
                (manifest.category_id_type, manifest.product_id_type),
                written,
                applied,
                UPDATE_SUFFIX,
            )
        finally:
            staging.discard()
        self._release = published.release
        self._forget(rebased)
        self._remember(plan)
        return published.release

    def _rebased(self) -> dict[Id, _Rebased]:
        """The indexes made anew. One that failed is begun again when its category next changes."""
        done = {one: future for one, future in self._rebasing.items() if future.done()}
        self._forget([one for one, future in done.items() if future.exception()])
        return {category_id: future.result() for category_id, future in done.items()}

    def _plan(
        self, manifest: Manifest, changes: AllChanges, rebased: Mapping[Id, _Rebased]
    ) -> _Plan:
        folder = self._root.folder(manifest.release)
        entries = {entry.category_id: entry for entry in manifest.categories}
        plan: _Plan = {}
        for category_id in {*changes, *rebased}:
            products = changes.get(category_id, {})
            if category_id in entries:
                live = LiveCategory.read(
                    folder / category_folder(category_id), entries[category_id]
                )
                if anew := rebased.get(category_id):
                    live = live.onto(anew.category, anew.rows)
                if live.n_items_after(products) == 0:
                    plan[category_id] = None
                elif after := live.with_changes(products, self._measured_of(category_id, live)):
                    plan[category_id] = after
                elif anew:
                    plan[category_id] = live
            elif new := {one: feature for one, feature in products.items() if feature is not None}:
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
            planned = plan[category_id]
            if isinstance(planned, LiveCategory):
                yield planned.write(writer)
            elif planned is not None:
                yield index_new(planned, settings, writer)

    def _measured_of(self, category_id: Id, live: LiveCategory) -> Measured:
        digest, measured = self._measured.get(category_id, (None, None))
        if measured is None or digest != live.base_digest:
            measured = Measured.of(live.features.base)
            self._measured[category_id] = live.base_digest, measured
        return measured

    def _remember(self, plan: _Plan) -> None:
        """Begin what is now due, and forget what is gone."""
        for category_id, planned in plan.items():
            if planned is None:
                self._measured.pop(category_id, None)
                self._forget([category_id])
            elif isinstance(planned, LiveCategory) and planned.is_worn:
                self._rebase(category_id, planned)

    def _rebase(self, category_id: Id, live: LiveCategory) -> None:
        if category_id in self._rebasing:
            return
        folder = self._rebase_folder(category_id)

        def work() -> _Rebased:
            folder.parent.mkdir(exist_ok=True)
            entry = live.rebased(CategoryWriter(category_id, folder, None)).entry
            return _Rebased(LiveCategory.read(folder, entry), live.table.rows)

        self._rebasing[category_id] = self._background.submit(work)

    def _forget(self, category_ids: Iterable[Id]) -> None:
        """Forget indexes being made anew, and remove what there is of them, or will be."""
        for category_id in category_ids:
            if future := self._rebasing.pop(category_id, None):
                future.add_done_callback(partial(_remove, self._rebase_folder(category_id)))

    def _rebase_folder(self, category_id: Id) -> Path:
        return self._root.rebasing / category_folder(category_id)


def _remove(folder: Path, _: object) -> None:
    rmtree(folder, ignore_errors=True)
