"""Indexing: a feature store becomes a checked, published release."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from lookalike.release.columns import Columns
from lookalike.release.files import ReleaseError
from lookalike.release.ids import Id
from lookalike.release.manifest import Manifest, Model
from lookalike.release.root import LOCK_WAIT_S, ReleaseRoot
from lookalike_build.features.adopted import UNKNOWN_DIGEST
from lookalike_build.features.memory import MemoryFeatures, ProductFeatures
from lookalike_build.features.store import FeatureError, FeatureSource
from lookalike_build.indexing.carry_over import carry_over, check_order
from lookalike_build.indexing.category import Done, IndexSettings, index_features
from lookalike_build.indexing.difference import difference
from lookalike_build.indexing.live import (
    FeatureChanges,
    LiveCategory,
    check_published,
    write_changed,
)
from lookalike_build.indexing.values import carry_values, values_of
from lookalike_build.publishing.category import CategoryWriter, Counts, Written, values_digest
from lookalike_build.publishing.columns import no_columns
from lookalike_build.publishing.ids import Ids, ItemIds, id_array
from lookalike_build.publishing.removal import AllowedRemoval, check_removal, in_source, released
from lookalike_build.publishing.staging import Published, Staging

__all__ = ["Done", "IndexEngine", "IndexSettings", "index", "index_category"]

_UPDATED_SHARE = 0.2
"""Up to this share of a category's products may be new or have another feature for it to be updated."""

IndexEngine = Callable[
    [FeatureSource, IndexSettings, Sequence[CategoryWriter], Done], list[Written]
]
"""Calls `index_category` with each of the writers, in any order; the results, in any order."""


def index_here(
    store: FeatureSource, settings: IndexSettings, writers: Sequence[CategoryWriter], done: Done
) -> list[Written]:
    """The local engine: one category after the other, each on all cores."""
    return [index_category(store, settings, writer, done) for writer in writers]


def index(
    store: FeatureSource,
    root: ReleaseRoot,
    settings: IndexSettings,
    done: Done = lambda _: None,
    engine: IndexEngine = index_here,
    allowed: AllowedRemoval = AllowedRemoval(),  # noqa: B008
    rebuild: bool = False,
) -> Published:
    """Make a release of all of `store` and publish it under `root`.

    It costs what has changed: a category of the current release is kept where nothing has, updated
    where little has, and rebuilt where much or a setting has, or with `rebuild`. The answers are those
    of a release made from nothing. If nothing at all has changed, the current release stays. Products
    that have changed since the catalogue are as in the current release. A build that was killed goes on
    where it was, but for the categories in progress. `done` hears how many more products are finished.
    Raises RemovalError where more than `allowed` would be taken away,
    CarryOverError, FeatureError, JournalError, ReleaseError, RootError, or what the engine raises; the
    current release then stays.
    """
    if not store.categories:
        raise FeatureError(f"{store.folder} holds no products: a release of it would serve nothing")
    root.create()
    with root.build_lock():
        changes = check_order(store, root)
        if current := released(root):
            live = {(str(change.category_id), str(change.product_id)) for change in changes}
            check_removal(current.without(live), in_source(store), allowed)
        root.remove_staging(but_finished=not rebuild)
        staging = Staging(root, root.staging, root.finished)
        try:
            staging.hold_current()
            writers = [staging.category(category_id) for category_id in store.categories]
            if rebuild:
                writers = [replace(writer, current=None) for writer in writers]
            written = {one.entry.category_id: one for one in engine(store, settings, writers, done)}
            categories = [written[category_id] for category_id in store.categories]
            with root.lock(LOCK_WAIT_S):
                categories, applied = carry_over(store, root, staging, categories)
                categories, attributes, reasons = carry_values(store, root, staging, categories)
                draft = Manifest("draft", store.model, store.n_dims, *store.id_types, (), applied)
                draft = replace(draft, attributes=attributes)
                left_out = tuple(
                    f"attributes are left out: {reason}; run `lookalike-build attributes`"
                    for reason in reasons
                )
                published = staging.publish(draft, categories, left_out=left_out)
        except Exception:
            root.remove_staging()  # a full disk's worth perhaps
            raise
        root.remove_staging()
        return published


def build_release(
    root: str | os.PathLike[str],
    categories: Mapping[Id, ProductFeatures],
    *,
    model: str,
    settings: IndexSettings | None = None,
    as_of: float | None = None,
    allowed: AllowedRemoval | None = None,
) -> str:
    """Publish a release of products whose features are in memory; its name.

    `categories` has, by category id, the product ids (n,) and their features (n, n_dims), none all
    zeros; ids are all integers or all strings. `model` names what made the features: by another one
    nothing is compared. `as_of` is when the products were read from the shop (Unix time, seconds);
    it must be given where products are changed live. `allowed` is how much the release may take away of
    what the current one has. Raises as `index` does.
    """
    source = MemoryFeatures.of(categories, Model(model, UNKNOWN_DIGEST), as_of)
    where = ReleaseRoot(Path(root).absolute())
    allowed = allowed or AllowedRemoval()
    return index(source, where, settings or IndexSettings(), allowed=allowed).release


def index_category(
    store: FeatureSource,
    settings: IndexSettings,
    writer: CategoryWriter,
    done: Done = lambda _: None,
) -> Written:
    """Write a category of `store`: kept, updated or rebuilt, whatever costs least.

    Where the current release has it of these very features, only what answers ``GET /nns`` is read, and
    the ends of the other files. Otherwise all features are compared. Done again from the start, the
    same comes out.
    """
    category_id = writer.category_id
    n_items = store.categories[category_id]
    digest = store.digest_of(category_id)
    made_with = settings.made_of(digest)
    if digest and (finished := writer.finished(made_with)):
        done(n_items)
        return finished
    if digest and _is_sound(writer, made_with):
        done(n_items)
        return writer.keep()._replace(
            counts=Counts(unchanged=n_items), values_digest=values_digest(writer.values)
        )
    counts, written, values = Counts(new=n_items), None, None
    if live := _comparable(store, writer):
        most = int(_UPDATED_SHARE * n_items)
        counts, changes = difference(store, category_id, live, most)
        if changes is not None and live.is_made_with(settings):
            written = _updated(live, changes, writer)
            values = values_digest(writer.values)
            done(n_items)
    if written is None:
        features = writer.begin(n_items, store.n_dims)
        product_ids = id_array(store.read(category_id, features).product_ids)
        writer.add_ids(product_ids)
        columns, values = _current_values(writer, product_ids)
        written = index_features(features, settings, writer, done, columns=columns)
    entry = replace(written.entry, made_with=made_with)
    return writer.finish(written._replace(entry=entry, counts=counts, values_digest=values))


def _current_values(writer: CategoryWriter, product_ids: Ids) -> tuple[Columns, str | None]:
    """The columns of products by their current values, and what stands for these.

    None where these cannot be read: `carry_values` says so in the end.
    """
    with suppress(ReleaseError):
        items = ItemIds(product_ids, np.zeros(product_ids.size, np.bool_))
        return values_of(writer.values, items), values_digest(writer.values)
    return no_columns(product_ids.size), None


def _is_sound(writer: CategoryWriter, made_with: str) -> bool:
    """Whether the current release has the category made so, and undamaged as far as is looked."""
    if writer.current is None or writer.current[1].made_with != made_with:
        return False
    folder, entry = writer.current
    try:
        for file in entry.files:
            check_published(folder, entry, file)
    except ReleaseError:
        return False
    return True


def _comparable(store: FeatureSource, writer: CategoryWriter) -> LiveCategory | None:
    """The category in the current release, if it is undamaged and of features like those of `store`."""
    if writer.current is None:
        return None
    try:
        live = LiveCategory.read(*writer.current)
    except ReleaseError:
        return None
    same_ids = (live.table.ids.dtype.kind == "i") == (store.id_types[1] == "integer")
    return live if same_ids and live.features.shape[1] == store.n_dims else None


def _updated(live: LiveCategory, changes: FeatureChanges, writer: CategoryWriter) -> Written | None:
    """The category after `changes`, written; None where no product is left."""
    after = live.with_changes(changes)
    if after is None:
        return None
    if after is live:
        return writer.keep()
    upkeep = after.upkeep() if isinstance(after, LiveCategory) else None
    if upkeep:
        return upkeep(writer)._replace(rebuilt=False)
    return write_changed(after, IndexSettings.of(live.entry.made_with), writer)
