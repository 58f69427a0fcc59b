"""Carrying over: a release built from a catalogue keeps what has changed since.

A build takes its time, and changes become live meanwhile. A product that one of them concerns comes
into the new release as it is in the current one, which has the last word on it.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing

from lookalike.journal import Journal
from lookalike.manifest import Applied, Id, Manifest, category_folder
from lookalike.root import ReleaseRoot
from lookalike_build.feature_rows import Measured
from lookalike_build.features import FeatureSource, sort_key
from lookalike_build.live_category import AllChanges, LiveCategory, index_new, settings_of
from lookalike_build.staging import Staging, Written, current_manifest


def carry_over(
    store: FeatureSource, root: ReleaseRoot, staging: Staging, written: Sequence[Written]
) -> tuple[list[Written], Applied | None]:
    """The categories `written` of `store` with the changes since, and the last change they hold.

    The root's lock is held. Features of another model cannot be carried over: then the products are
    as the catalogue says. Raises JournalError, ReleaseError, OSError.
    """
    manifest = current_manifest(root)
    if not root.journal.exists() or manifest is None:
        return list(written), None
    with closing(Journal(root.journal)) as journal:
        applied = manifest.applied
        if applied and journal.id != applied.journal:
            applied = None
        if applied:  # a follower may have died before it could
            journal.settle(applied.number, manifest.release)
        products = [change[1:3] for change in journal.live_since(store.as_of)]
    made = manifest.model, manifest.category_id_type, manifest.product_id_type
    if made != (store.model, *store.id_types):
        return list(written), applied
    changes = _as_they_are(root, manifest, products)
    return sorted(_changed(staging, written, changes), key=_category_key), applied


def _as_they_are(
    root: ReleaseRoot, manifest: Manifest, products: Iterable[tuple[Id, Id]]
) -> AllChanges:
    """The products, category and product id, as they are in the release."""
    entries = {entry.category_id: entry for entry in manifest.categories}
    by_category = defaultdict(list)
    for category_id, product_id in products:
        by_category[category_id].append(product_id)
    changes = {}
    for category_id, product_ids in by_category.items():
        live = None
        if category_id in entries:
            folder = root.folder(manifest.release) / category_folder(category_id)
            live = LiveCategory.read(folder, entries[category_id])
        changes[category_id] = {one: live.feature_of(one) if live else None for one in product_ids}
    return changes


def _changed(
    staging: Staging, written: Sequence[Written], changes: AllChanges
) -> Iterator[Written]:
    settings = settings_of(one.entry for one in written)
    for one in written:
        category_id = one.entry.category_id
        writer = staging.category(category_id)
        products = changes.get(category_id, {})
        live = LiveCategory.read(writer.folder, one.entry) if products else None
        if live and live.n_items_after(products) == 0:
            writer.remove()
            continue
        after = live and live.with_changes(products, Measured.of(live.features.base))
        yield writer.replace(after.write) if after else one
    for category_id in changes.keys() - {one.entry.category_id for one in written}:
        products = {
            product_id: feature
            for product_id, feature in changes[category_id].items()
            if feature is not None
        }
        if products:
            yield index_new(products, settings, staging.category(category_id))


def _category_key(written: Written) -> int | bytes:
    return sort_key(written.entry.category_id)
