"""Carrying over: a release built from a catalogue keeps the changes made live since.

For each product changed since the catalogue's moment, the new release takes the version in the current
release. Where that has no features to take (it cannot be read, is a slim copy, or is of another model),
a removal is carried over from the journal alone. A photo cannot be: it is gone from there, so the build
is refused, unless a newer change of the product is pending and will have the last word.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial

from lookalike.errors import LookalikeError
from lookalike.journal import DELETE, Change, ForgottenError, Journal
from lookalike.release.arrays import Features
from lookalike.release.files import ReleaseError
from lookalike.release.ids import Id, IdType
from lookalike.release.manifest import Applied, Manifest
from lookalike.release.root import ReleaseRoot, RootError
from lookalike_build.catalogue.ids import whole_number
from lookalike_build.catalogue.moment import as_text, is_ahead
from lookalike_build.features.store import FeatureSource, sort_key
from lookalike_build.indexing.live import (
    FeatureChanges,
    LiveCategory,
    NewCategory,
    index_new,
    settings_of,
    write_changed,
)
from lookalike_build.publishing.category import Written
from lookalike_build.publishing.staging import Staging, full_manifest

_SHOWN = 3
_EXPORT_AGAIN = "export the catalogue again and extract it"


class CarryOverError(LookalikeError):
    """A build would undo live changes, or may; the text says which, and what to do."""


_Lost = tuple[Change, str]
"""A change that cannot be carried over, and why."""


def check_order(store: FeatureSource, root: ReleaseRoot) -> list[Change]:
    """The live changes since the catalogue; raises most of what `carry_over` would, hours earlier."""
    if not root.journal.exists():
        return []
    with closing(Journal(root.journal)) as journal:
        changes = _live_since(store, journal)
        if reason := _unlike(store, root, full_manifest(root, root.current())):
            lost = [(change, reason) for change in changes if change.op != DELETE]
            _refuse(store, journal, lost)
        return changes


def carry_over(
    store: FeatureSource, root: ReleaseRoot, staging: Staging, written: Sequence[Written]
) -> tuple[list[Written], Applied | None]:
    """The categories `written` of `store` with the changes since, and the last change they hold.

    The root's lock is held. Raises CarryOverError, JournalError, ReleaseError, OSError.
    """
    if not root.journal.exists():
        return list(written), None
    manifest = full_manifest(root, root.current())
    with closing(Journal(root.journal)) as journal:
        applied = manifest.applied if manifest else None
        if applied and journal.id != applied.journal:
            applied = None
        if manifest and applied:  # a follower may have died before it could
            journal.settle(applied.number, manifest.release)
        changes, lost = _as_they_are(store, root, manifest, _live_since(store, journal))
        _refuse(store, journal, lost)
    after = _changed(staging, written, changes)
    return sorted(after, key=lambda one: sort_key(one.entry.category_id)), applied


def _live_since(store: FeatureSource, journal: Journal) -> list[Change]:
    """The live changes that the catalogue of `store` cannot show; CarryOverError if not known."""
    if store.as_of is None:
        raise CarryOverError(
            f"{store.folder}: does not say of when its catalogue is, so which live changes are newer; "
            "give the time that it was exported at with --as-of TIME, or extract it again"
        )
    if is_ahead(store.as_of):
        raise CarryOverError(
            f"{store.folder}: its catalogue is of {as_text(store.as_of)}, ahead of this host's clock, "
            "so which live changes are newer is not known; give the time that it was exported at with "
            "--as-of TIME"
        )
    try:
        return journal.live_since(store.as_of)
    except ForgottenError as error:
        raise CarryOverError(
            f"{store.folder}: its catalogue is of {as_text(store.as_of)}, and of live changes up to "
            f"{as_text(error.until)} the journal knows no more what they were: this would undo them; "
            f"{_EXPORT_AGAIN}, or give a later time with --as-of TIME if it was exported then"
        ) from None


def _unlike(store: FeatureSource, root: ReleaseRoot, manifest: Manifest | None) -> str | None:
    """Why features of the current release cannot be among those of `store`; None if they can."""
    if manifest is None:
        return _unreadable(root)
    made = (manifest.model, manifest.n_dims), (store.model, store.n_dims)
    if made[0] != made[1]:
        of = [f"{model.name} {model.digest} ({n_dims} numbers)" for model, n_dims in made]
        return f"release {manifest.release} has features of {of[0]}, this store of {of[1]}"
    return None


def _unreadable(root: ReleaseRoot) -> str:
    try:
        name = root.current()
        if name is None:
            return "there is no current release"
        root.manifest(name)
    except (ReleaseError, RootError) as error:
        fault, _, _ = str(error).partition("; ")  # then comes "index again", which this does
        return f"the current release cannot be read: {fault}"
    return f"release {name} is a slim copy, without features"


def _refuse(store: FeatureSource, journal: Journal, lost: Sequence[_Lost]) -> None:
    """CarryOverError where changes are lost that no pending one will replace."""
    pending = journal.pending_products() if lost else set()
    lost = [(change, reason) for change, reason in lost if change[1:3] not in pending]
    if not lost:
        return
    named = [f"{change.product_id} of category {change.category_id}" for change, _ in lost[:_SHOWN]]
    more = ["…"] if len(lost) > _SHOWN else []
    raise CarryOverError(
        f"{store.folder}: its catalogue is of {as_text(store.as_of or 0)}; products put since, which "
        f"cannot be carried over: {len(lost)} ({', '.join(named + more)}); {lost[0][1]}; "
        f"{_EXPORT_AGAIN} so that it has them, or send them again, or give the time that it was "
        "exported at with --as-of TIME if it has them"
    )


def _as_they_are(
    store: FeatureSource, root: ReleaseRoot, manifest: Manifest | None, changes: Iterable[Change]
) -> tuple[Mapping[Id, FeatureChanges], list[_Lost]]:
    """The changes' products as they are in the release of `manifest`, and which cannot be had."""
    unlike = _unlike(store, root, manifest)
    types = manifest.id_types if manifest else store.id_types
    by_category: dict[Id | None, list[Change]] = defaultdict(list)
    for change in changes:
        by_category[_typed(change.category_id, types[0])].append(change)
    taken: dict[Id, dict[Id, Features | None]] = defaultdict(dict)
    lost: list[_Lost] = []
    for category_id, group in by_category.items():
        live, reason = None, unlike
        if manifest and not unlike:
            try:
                live = LiveCategory.find(root, manifest, category_id)
            except ReleaseError as error:
                reason = f"release {manifest.release} is damaged: {error}"
        for change in group:
            if reason and change.op != DELETE:
                lost.append((change, reason))
                continue
            product_id = _typed(change.product_id, types[1])
            feature = live.feature_of(product_id) if live and product_id is not None else None
            to_category = _typed(change.category_id, store.id_types[0])
            to_product = _typed(change.product_id, store.id_types[1])
            if to_category is not None and to_product is not None:
                taken[to_category][to_product] = feature
            elif feature is not None:
                lost.append((change, "ids of this store are whole numbers"))
    return taken, lost


def _typed(value: Id, id_type: IdType) -> Id | None:
    """An id as one of that type, None where there is none; a catalogue's ids may change their type."""
    if id_type == "string":
        return str(value)
    return value if isinstance(value, int) else whole_number(value)


def _changed(
    staging: Staging, written: Sequence[Written], changes: Mapping[Id, FeatureChanges]
) -> Iterator[Written]:
    settings = settings_of(one.entry for one in written)
    for one in written:
        products = changes.get(one.entry.category_id)
        if not products:
            yield one
            continue
        writer = staging.category(one.entry.category_id)
        live = LiveCategory.read(writer.folder, one.entry)
        after = live.with_changes(products)
        if after is None:
            writer.remove()
        elif after is live:
            yield one
        else:
            anew = writer.replace(partial(write_changed, after, settings))
            yield one._replace(entry=anew.entry, unchanged=False, values_digest=None)
    for category_id in changes.keys() - {one.entry.category_id for one in written}:
        products = {
            product_id: feature
            for product_id, feature in changes[category_id].items()
            if feature is not None
        }
        if products:
            yield index_new(NewCategory(products), settings, staging.category(category_id))
