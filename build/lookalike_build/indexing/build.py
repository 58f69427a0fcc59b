"""Indexing: a feature store becomes a checked, published release."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lookalike.release.ids import Id
from lookalike.release.manifest import Manifest, Model
from lookalike.release.root import LOCK_WAIT_S, ReleaseRoot
from lookalike_build.features.adopted import UNKNOWN_DIGEST
from lookalike_build.features.memory import MemoryFeatures, ProductFeatures
from lookalike_build.features.store import FeatureError, FeatureSource
from lookalike_build.indexing.carry_over import carry_over, check_order
from lookalike_build.indexing.category import Done, IndexSettings, index_features
from lookalike_build.publishing.category import CategoryWriter, Written
from lookalike_build.publishing.removal import AllowedRemoval, check_removal, in_source, released
from lookalike_build.publishing.staging import Published, Staging

__all__ = ["Done", "IndexEngine", "IndexSettings", "index", "index_category"]

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
) -> Published:
    """Make a release of all of `store` and publish it under `root`.

    A category whose features and settings are those of the current release is taken over from there;
    where that holds for all of them, it stays current. Products that have changed since the catalogue
    are as in the current release. The same features and settings give the same bytes. `done` hears how
    many more products are finished. Raises RemovalError where more than `allowed` would be taken away,
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
        root.remove_staging()
        staging = Staging(root, root.staging)
        try:
            staging.hold_current()
            writers = [staging.category(category_id) for category_id in store.categories]
            written = {one.entry.category_id: one for one in engine(store, settings, writers, done)}
            categories = [written[category_id] for category_id in store.categories]
            with root.lock(LOCK_WAIT_S):
                categories, applied = carry_over(store, root, staging, categories)
                draft = Manifest("draft", store.model, store.n_dims, *store.id_types, (), applied)
                return staging.publish(draft, categories)
        finally:
            root.remove_staging()  # what was not published, a full disk's worth perhaps


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
    """Index one category, or take it over unchanged; done again from the start, the same comes out."""
    features = writer.begin(store.categories[writer.category_id], store.n_dims)
    writer.add_ids(store.read(writer.category_id, features).product_ids)
    if same := writer.take_over(settings.made_with):
        done(len(features))
        return same
    return index_features(features, settings, writer, done)
