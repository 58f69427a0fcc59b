"""Attributes of a table in a new release that is otherwise the current one."""

from collections.abc import Callable, Collection
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from lookalike.journal import ForgottenError, Journal
from lookalike.release.attributes import AttributeTypes
from lookalike.release.ids import IdType
from lookalike.release.manifest import Manifest
from lookalike.release.root import ReleaseRoot
from lookalike_build.attributes.comparison import Comparison, Live, compare
from lookalike_build.attributes.files import FileValues
from lookalike_build.catalogue.moment import as_text
from lookalike_build.indexing.attributes import (
    AttributesError,
    publish_attributes,
)
from lookalike_build.indexing.live import settings_of
from lookalike_build.publishing.removal import FEW
from lookalike_build.publishing.staging import Published

Read = Callable[[tuple[IdType, IdType]], FileValues]
"""Reads a table whose category and product ids are of these types."""


class Source(NamedTuple):
    """The table at `path` of the attributes `types`, exported at `as_of` (Unix time, seconds; None if
    that is not known)."""

    path: Path
    types: AttributeTypes
    read: Read
    as_of: float | None


class Made(NamedTuple):
    """The published release; of a table, what it says and how that compares with the release before;
    how many values stay that were set live since."""

    published: Published
    found: FileValues | None = None
    comparison: Comparison | None = None
    n_live: int = 0


def set_attributes(
    root: ReleaseRoot,
    source: Source | None,
    dropped: Collection[str] = (),
    max_hidden: float = 0.5,
) -> Made:
    """Publish the current release with the attributes of `source`, and without those `dropped`.

    At most the share `max_hidden` (0 to 1) of the visible products may become hidden. Raises
    AttributesError, JournalError, ReleaseError, RootError, OSError, or what reading the table raises;
    the current release then stays.
    """
    name = root.chosen()
    manifest = root.manifest(name)
    if unknown := [each for each in dropped if each not in manifest.attributes]:
        has = ", ".join(manifest.attributes) or "none"
        raise AttributesError(f"release {name} has no attribute {unknown[0]}; it has {has}")
    if source is None:
        return Made(publish_attributes(root, {}, {}, dropped).published)
    _check_types(manifest, source.types)
    settings_of(manifest.categories)  # refuses those of another method, before all is read
    found = source.read(manifest.id_types)
    values = found.by_category()
    live = _live_values(root, manifest, source)
    comparison = compare(root.folder(name), manifest, values, live)
    _check(comparison, manifest, source.path, max_hidden)
    published = publish_attributes(root, source.types, values, dropped, source.as_of).published
    return Made(published, found, comparison, sum(map(len, live.values())))


def _check_types(manifest: Manifest, types: AttributeTypes) -> None:
    """AttributesError where an attribute would change its type: requests that use it would fail."""
    for name, one in types.items():
        now = manifest.known_attributes.get(name, one)
        if now != one:
            raise AttributesError(
                f"release {manifest.release} has {name} as a {now}, not as a {one}; if that is meant, "
                f"remove it first with --drop {name}"
            )


def _check(comparison: Comparison, manifest: Manifest, path: Path, max_hidden: float) -> None:
    """AttributesError where the table is most likely not what was meant."""
    if not comparison.n_known:
        category_id, product_id = comparison.unknown or ("", "")
        raise AttributesError(
            f"{path}: none of its products is in release {manifest.release}; the first is {product_id} "
            f"of category {category_id}; are its ids those of the catalogue?"
        )
    n_visible = sum(entry.n_visible for entry in manifest.categories)
    if comparison.n_hidden > max(FEW, max_hidden * n_visible):
        raise AttributesError(
            f"{path} would hide {comparison.n_hidden} of {n_visible} visible products of release "
            f"{manifest.release}, which stays as it is (--max-hidden {100 * max_hidden:g}). If that is "
            "meant, give this option a higher value for this run"
        )


def _live_values(root: ReleaseRoot, manifest: Manifest, source: Source) -> Live:
    """The values set live since the table was exported, of those of its attributes that the
    release has."""
    if not root.journal.exists():
        return {}
    if source.as_of is None:
        raise AttributesError(
            f"{source.path}: its time is ahead of this host's clock, so which values set live are "
            "newer is not known; give the time that it was exported at with --as-of TIME"
        )
    with closing(Journal(root.journal)) as journal:
        try:
            live = journal.values_since(source.as_of)
        except ForgottenError as error:
            raise AttributesError(
                f"{source.path}: it is of {as_text(source.as_of)}, and of values set live up to "
                f"{as_text(error.until)} the journal knows no more what they were: this would undo "
                "them; export it again, or give a later time with --as-of TIME if it was exported then"
            ) from None
    names = source.types.keys() & manifest.known_attributes.keys()
    return {
        product: {name: values[name] for name in names & values.keys()}
        for product, values in live.items()
    }
