"""A release on disk: every category's index, immutable, listed in one manifest.

This is the only description of the files. The builder writes them so; the app and the commands read
them through this module. A release is a folder:

===========================  ====================================================================
``manifest.json``            `Manifest`: only the files that it lists are opened
``<category>/product_ids.npy``  ``<i8``, or ``|S<width>`` UTF-8 (n_items,): each item's product id,
                             ascending, so that a binary search finds the item of a product id
``<category>/neighbours.npy``   ``<u4`` (n_items, k): the exact k nearest items, nearest first,
                             without the item itself; k is at most n_visible - 1
``<category>/spares.npy``       ``<u4`` (n_items, n_spare): the next nearest that are known, then the
                             item itself
``<category>/distances.npy``    ``<f4`` (n_items, k + n_spare): the angular distances of both, 0 to 2;
                             infinite where no neighbour is known
``<category>/same_photo.npy``   ``<u2`` (n_items,): how many of an item's first neighbours show the same
                             photo: they are no further away than the manifest's `same_photo`
``<category>/rows.npy``         ``<u4`` (n_items,): the row of an item's feature in ``features.npy``
                             with ``added.npy`` after it; the item itself until something changes
``<category>/features.npy``     ``<f4`` (n_base, n_dims): the features that the index was built from
``<category>/added.npy``        ``<f4`` (n_added, n_dims): the features that came after these
``<category>/lengths.npy``      ``<f8`` (n_base,): the lengths of these features
``<category>/projection.npy``   ``<f4`` (n_dims, n_index_dims): the features' principal axes
``<category>/projected.npy``    ``<f4`` (n_index_dims, n_base): the features, scaled to length 1, along
                             these axes
``<category>/index.ann``        Annoy, angular: a node (`node_dtype`) for each of the n_base features,
                             projected so; then the trees
``<category>/columns-<i>.npy``  the values of attributes, with ``texts-<i>.npy``: see
                             `lookalike.release.columns`; optional
``<category>/rules.json``       pins and bans, see `lookalike.release.rules`; optional
``behaviour.d/``             see `lookalike.release.behaviour`; optional
===========================  ====================================================================

What an update changes comes beside the table, in files of its own:

===========================  ====================================================================
``<category>/later_ids.npy``    the product ids of the items that came later, number n_table and up, in
                             the order in which they came
``<category>/left.npy``         ``<u4`` (n_left,), ascending: the items, also later ones, that have left
``<category>/lists-<n>.npy``    (n_lists,) of `lists_dtype`, what update n has changed: whole lists, as
                             spares and distances have them; the newest list of an item counts
``<category>/later-<n>.npy``    ``<f4`` (n_later, n_dims): the features of the items that came with it;
                             their rows follow those of ``added.npy`` and of the updates before
===========================  ====================================================================

Once they are many, a table is written that has them, and the next update begins anew.

Spares make it cheap to remove a product from the lists of others: the next nearest is already there.

A serving host may hold a *slim* copy. It has no ``index.ann`` and needs none of the other files that
only vectors and the builder need. It answers everything but vectors; its behaviour is complete.

Releases of the formats 4 and 5 have no lengths and no ``projected.npy``, those of the formats 4 to 6 no
``same_photo.npy``. They are served, and the next build indexes them anew.

``<category>`` is the category id, percent-encoded by `category_folder`. Only the builder writes, and
only into a folder that has no release name yet.

Annoy checks nothing that it maps (github.com/spotify/annoy issues 394 and 423). `map_release` checks
sizes, headers, the digest of each file's ends and the item numbers, in milliseconds a category.
`verify_digests` reads every byte.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from lookalike.release.arrays import Distances, Items
from lookalike.release.behaviour import Behaviour, check_behaviour
from lookalike.release.category import Category, identity_of, same_files
from lookalike.release.conditions import (
    SELECTING,
    ConditionError,
    is_condition,
    names_of,
    parse_selection,
)
from lookalike.release.files import (
    BEHAVIOUR,
    BEHAVIOUR_FILES,
    BEHAVIOUR_HOT_FILES,
    HOT_FILES,
    INDEX,
)
from lookalike.release.ids import Id, category_folder
from lookalike.release.manifest import CategoryEntry, Manifest
from lookalike.release.memory import lock, resident_share
from lookalike.release.neighbours import nearest, search
from lookalike.release.selection import Selection
from lookalike.release.vectors import unit_vector

_TYPES: Final = {"integer": (int, np.integer), "string": (str,)}


class Neighbours(NamedTuple):
    """Products, nearest first, and their angular distances, 0 to 2."""

    product_ids: list[Id]
    distances: list[float]


@dataclass(eq=False)
class Release:
    """An open release: its folder, manifest and categories by id, its behaviour, whether it is slim."""

    folder: Path
    manifest: Manifest
    categories: Mapping[Id, Category]
    behaviour: Behaviour | None
    slim: bool

    def neighbours(
        self, category_id: Id, product_id: Id, limit: int = 10, **selecting: Any
    ) -> Neighbours:
        """The `limit` products nearest to a product of a category, nearest first, without itself.

        `selecting` are `max_distance`, `closer_than`, `distinct` and conditions on attributes, as in
        ``POST /nns``: ``price__lte=5000, distinct="photo"``. What is pinned comes first, in a slim copy
        perhaps with the distance NaN. The others are exact as far as the category's table goes. There
        are fewer if the category has no more that meet all of them; a slim copy has only the table.
        LookupError if the release has no such product, ValueError for anything else that is
        invalid.
        """
        category = self._category(category_id)
        item = None
        # A string cannot be compared with integer ids.
        if isinstance(product_id, _TYPES[self.manifest.product_id_type]):
            item = category.item_of(product_id)
        if item is None:
            raise LookupError(f"category {category_id!r} has no product {product_id!r}")
        selection = self._selection(selecting)
        found = nearest(category, item, _at_least_one(limit), selection, measured=True)
        return _neighbours(category, *found)

    def search(
        self,
        category_id: Id,
        vector: npt.ArrayLike,
        limit: int = 10,
        **selecting: Any,
    ) -> Neighbours:
        """The `limit` products of a category whose features are nearest to `vector` (n_dims,).

        `vector` is a feature of the release's model, of any length; `selecting` as in `neighbours`.
        Nearest first; some may be missing, see `recall` in the manifest's entry of the category.
        LookupError for an unknown category, ValueError for an invalid argument and in a slim copy.
        """
        category = self._category(category_id)
        query = np.asarray(vector, np.float64)
        n_dims = self.manifest.n_dims
        if query.shape != (n_dims,):
            raise ValueError(f"vector must have the shape ({n_dims},), not {query.shape}")
        if not np.isfinite(query).all():
            raise ValueError("vector has a NaN or infinite number")
        if category.vectors is None:
            raise ValueError(f"{self.folder} is a slim copy, which has no index for vectors")
        try:
            query = unit_vector(query)
        except ValueError as error:
            raise ValueError(f"vector {error}") from None
        selection = self._selection(selecting)
        return _neighbours(category, *search(category, query, _at_least_one(limit), selection))

    def _selection(self, selecting: Mapping[str, Any]) -> Selection:
        attributes = self.manifest.known_attributes
        for name in selecting:
            if name not in SELECTING[:-1] and not is_condition(name, attributes):
                known = names_of(SELECTING[:-1], attributes)
                raise ConditionError(f"unknown argument {name}; known are {known}")
        return parse_selection(selecting, attributes, is_text=False)

    def find(self, product_id: Id, category_id: Id) -> tuple[Category, int] | None:
        """A product's category, that of the id if it is there, and its item; None if it is unknown.

        The ids have the release's types.
        """
        first = self.categories.get(category_id)
        for category in (*filter(None, [first]), *self.categories.values()):
            if (item := category.item_of(product_id)) is not None:
                return category, item
        return None

    def _category(self, category_id: Id) -> Category:
        category = self.categories.get(category_id)
        if category is None:
            raise LookupError(f"release {self.manifest.release} has no category {category_id!r}")
        return category

    def resident_share(self) -> float | None:
        """The share of the hot files that is in memory, see `memory.resident_share`."""
        return resident_share(hot_files_of(self.folder, self.manifest))

    def lock(self) -> None:
        """Keep the hot files in memory while the release is open; OSError if not all can be."""
        categories = self.categories.values()
        hot = [array for each in categories for array in each.hot_arrays()]
        if self.behaviour:
            hot += self.behaviour.table.arrays
        refused = None
        for array in hot:
            try:
                lock(array)
            except OSError as error:
                refused = error
        if refused:
            raise refused


def _neighbours(category: Category, items: Items, distances: Distances) -> Neighbours:
    return Neighbours(category.ids(items), distances.tolist())


def _at_least_one(limit: int) -> int:
    if limit < 1:
        raise ValueError(f"limit must be at least 1, not {limit}")
    return limit


def map_release(folder: Path, manifest: Manifest, before: Release | None = None) -> Release:
    """Check the release in `folder` (sizes, headers, ends; not every byte) and map it.

    Its hot files are read in, if there is memory. A category whose files are also those of the open
    release `before` is taken from there. ReleaseError names the file; nothing stays open then.
    """
    slim = is_slim(folder, manifest)
    comparable = before if before and _kind(before.manifest) == _kind(manifest) else None
    categories: dict[Id, Category] = {}
    for entry in manifest.categories:
        category = folder / category_folder(entry.category_id)
        known = comparable.categories.get(entry.category_id) if comparable else None
        categories[entry.category_id] = _opened(category, entry, manifest, slim, known)
    behaviour = None
    if manifest.behaviour:
        behaviour = Behaviour(
            folder / BEHAVIOUR,
            manifest.behaviour,
            manifest.product_id_type,
            comparable.behaviour if comparable else None,
        )
    return Release(folder, manifest, categories, behaviour, slim)


def _opened(
    folder: Path, entry: CategoryEntry, manifest: Manifest, slim: bool, known: Category | None
) -> Category:
    """The category in `folder`; of the `known` one, which is open, what they share."""
    if known is None:
        return Category(folder, entry, manifest, slim)
    try:
        identity = identity_of(folder, entry.file_names(slim))
    except OSError:
        identity = {}
    if entry == known.entry and identity == known.identity:
        return known
    shared = same_files((entry, identity), (known.entry, known.identity))
    return Category(folder, entry, manifest, slim, shared)


def check_release(
    folder: Path, manifest: Manifest, before: tuple[Path, Manifest] | None = None
) -> None:
    """`map_release` without keeping anything open: for any number of categories.

    Files that are also those of the release `before` (folder, manifest) are skipped: they were checked
    when that release was published.
    """
    slim = is_slim(folder, manifest)
    before = before if before and _kind(before[1]) == _kind(manifest) else None
    published = {entry.category_id: entry for entry in before[1].categories} if before else {}
    for entry in manifest.categories:
        category = folder / category_folder(entry.category_id)
        shared: set[str] = set()
        if before and (known := published.get(entry.category_id)):
            with suppress(OSError):
                names = entry.file_names(slim)
                there = set(names) & set(known.files)
                shared = same_files(
                    (entry, identity_of(category, there)),
                    (known, identity_of(before[0] / category.name, there)),
                )
                if entry == known and shared == set(names):
                    continue
        Category(category, entry, manifest, slim, shared)
    if manifest.behaviour:
        check_behaviour(
            folder / BEHAVIOUR,
            manifest.behaviour,
            manifest.product_id_type,
            (before[0] / BEHAVIOUR, before[1].behaviour)
            if before and before[1].behaviour
            else None,
        )


def verify_digests(folder: Path, manifest: Manifest) -> Iterator[CategoryEntry]:
    """Compare every byte with the manifest, category by category; ReleaseError names the file."""
    slim = is_slim(folder, manifest)
    for entry in manifest.categories:
        category = category_folder(entry.category_id)
        for file in entry.file_names(slim):
            path = folder / category / file
            entry.files[file].check_all(path, f"{category}/{file}")
        yield entry
    if manifest.behaviour:
        for file, described in manifest.behaviour.files.items():
            described.check_all(folder / BEHAVIOUR / file, f"{BEHAVIOUR}/{file}")


def files_of(folder: Path, manifest: Manifest) -> dict[Path, int]:
    """All files but the manifest that a copy like the one in `folder` has, and their bytes."""
    slim = is_slim(folder, manifest)
    return _files_of(folder, manifest, lambda entry: entry.file_names(slim), BEHAVIOUR_FILES)


def hot_files_of(folder: Path, manifest: Manifest) -> dict[Path, int]:
    """The files that belong in memory, and their bytes."""
    return _files_of(
        folder,
        manifest,
        lambda entry: tuple(file for file in HOT_FILES if file in entry.files),
        BEHAVIOUR_HOT_FILES,
    )


def _files_of(
    folder: Path,
    manifest: Manifest,
    names: Callable[[CategoryEntry], tuple[str, ...]],
    of_behaviour: tuple[str, ...],
) -> dict[Path, int]:
    found = {
        folder / category_folder(entry.category_id) / file: entry.files[file].n_bytes
        for entry in manifest.categories
        for file in names(entry)
    }
    if behaviour := manifest.behaviour:
        for file in of_behaviour:
            found[folder / BEHAVIOUR / file] = behaviour.files[file].n_bytes
    return found


def is_slim(folder: Path, manifest: Manifest) -> bool:
    """Whether the copy in `folder` is slim: it has categories, but no ``index.ann``."""
    folders = [folder / category_folder(entry.category_id) for entry in manifest.categories]
    return bool(folders) and not any((category / INDEX).exists() for category in folders)


def same_category(
    before: Release, entry: CategoryEntry, manifest: Manifest, folder: Path
) -> Category | None:
    """The open category of `before` with this `entry` and the very files in `folder`, if it has one."""
    known = before.categories.get(entry.category_id)
    if known is None or known.entry != entry or _kind(before.manifest) != _kind(manifest):
        return None
    with suppress(OSError):
        if known.identity == identity_of(folder, known.identity):
            return known
    return None


def _kind(manifest: Manifest) -> tuple[object, ...]:
    """What else a category's files depend on besides its entry."""
    return manifest.n_dims, manifest.product_id_type
