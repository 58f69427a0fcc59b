"""``manifest.json``: what a release holds, with the size and the digests of each file.

`lookalike.release.opened` describes a whole release. Only files that its manifest lists are opened.
"""

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, get_args

import msgspec
from msgspec import Meta

from lookalike.release.attributes import MAX_ATTRIBUTES, TYPES, AttributeTypes, name_problem
from lookalike.release.columns import part_files
from lookalike.release.files import (
    BEHAVIOUR_FILES,
    BEHAVIOUR_TABLE,
    FILES,
    FILES_BEFORE_6,
    FILES_BEFORE_7,
    LENGTHS,
    MANIFEST,
    RULES,
    SAME_PHOTO,
    SLIM_FILES,
    UPDATE_FILES,
    FileEntry,
    ReleaseError,
    later_file,
    lists_file,
    reason_of,
    regular_size,
)
from lookalike.release.ids import Id, IdType, category_folder, id_problem

FORMAT: Final = 7
OLD_FORMATS: Final = (4, 5, 6)
"""Those of older releases: 4 without behaviour, 5 with it; 6 with lengths and projections by axis."""
METRIC: Final = "angular"

_ETAG_DIGITS = 24

MAX_DIMS: Final = 65_536
MAX_ANNOY: Final = 2**31 - 1
MAX_ROWS: Final = 2**32 - 1
RANDOM_PERCENTS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
"""The shares of random pairs of products, in percent, of which a category knows the distances."""
MAX_UNIX_TIME: Final = 253_402_300_799
"""The last second of the year 9999."""

_Number = Annotated[int, Meta(ge=0)]
_Count = Annotated[int, Meta(ge=1)]
_Dims = Annotated[int, Meta(ge=1, le=MAX_DIMS)]
_OfAnnoy = Annotated[int, Meta(ge=1, le=MAX_ANNOY)]

_RELEASE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def is_release_name(name: str) -> bool:
    """Whether `name` can stand in a path, a URL and an HTTP header: 1 to 100 of A-Z a-z 0-9 . _ -."""
    return _RELEASE_NAME.fullmatch(name) is not None


@dataclass(frozen=True)
class Model:
    """The network that made the features: its name and the digest of its weights."""

    name: str
    digest: str


@dataclass(frozen=True)
class UpdateEntry:
    """One update of a category: its number, which its files are named by, how many lists it has
    changed, and how many products came with it."""

    number: _Count
    n_lists: _Number
    n_later: _Number


@dataclass(frozen=True)
class Updates:
    """What has changed beside a category's table, of `n_table` items: products that came later, and
    `n_left` of both that have left. `each` update, the oldest first, has files of its own."""

    n_table: _Count
    n_left: _Number
    each: Annotated[tuple[UpdateEntry, ...], Meta(min_length=1)]

    @property
    def n_later(self) -> int:
        """How many products came later, also those that have left again."""
        return sum(update.n_later for update in self.each)

    @property
    def n_lists(self) -> int:
        """How many lists the updates have; of one item there may be several."""
        return sum(update.n_lists for update in self.each)


@dataclass(frozen=True)
class CategoryEntry:
    """What the manifest says of one category.

    Every list of neighbours has `k` exact ones and up to `n_spare` more. `n_base` features are in the
    index and `n_added` came later; a product that left the category may still have one there.
    `n_hidden` of its products are in no list. `updates` have come since the table was written. There
    are columns of `attributes`; products have no values of others. It has `n_rules` rules.

    `n_index_dims`, `n_trees`, `candidates` and `search_k` are for vectors, as `VectorIndex` says;
    `recall` is the share of the exact k nearest that it finds so, over `recall_sample` items; None
    where there are no neighbours to find. Products no further apart than `same_photo` show the same
    photo. `random_distances` are those within which `RANDOM_PERCENTS` of random pairs of products are.
    `made_with` is the builder's word for its method, its
    settings and, where one text can stand for them, the features.
    """

    category_id: Id
    n_items: _Count
    k: _Number
    n_spare: _Number
    n_base: _Count
    n_added: _Number
    n_index_dims: _Dims
    n_trees: _OfAnnoy
    candidates: _OfAnnoy
    search_k: _OfAnnoy
    recall: Annotated[float, Meta(ge=0, le=1)] | None
    recall_sample: _Number
    made_with: str
    files: Mapping[str, FileEntry]
    same_photo: Annotated[float, Meta(ge=0, le=2)] | None = None
    random_distances: tuple[Annotated[float, Meta(ge=0, le=2)], ...] = ()
    n_hidden: _Number = 0
    attributes: AttributeTypes = field(default_factory=dict)
    updates: Updates | None = None
    n_rules: _Number = 0

    @cached_property
    def digest(self) -> str:
        """96 bits of SHA-256, hexadecimal, of what the table holds: the same of equal answers."""
        columns = set(self.column_files)
        files = {name: asdict(one) for name, one in self.files.items() if name not in columns}
        document = asdict(self) | {"made_with": None, "attributes": None, "files": files}
        return _digest(document)[:_ETAG_DIGITS]

    @cached_property
    def columns_digest(self) -> str:
        """The same of what conditions depend on besides."""
        files = {name: asdict(self.files[name]) for name in self.column_files}
        return _digest([dict(self.attributes), files])[:_ETAG_DIGITS]

    @property
    def is_old(self) -> bool:
        """Whether it was indexed before format 6: without lengths, and with projections in Annoy's
        file only."""
        return LENGTHS not in self.files

    @property
    def n_visible(self) -> int:
        """How many products may be in lists."""
        return self.n_items - self.n_hidden

    @property
    def most_neighbours(self) -> int:
        """How many neighbours a product may have: all visible ones, less itself if none is hidden."""
        return min(self.n_visible, self.n_items - 1)

    @property
    def n_table(self) -> int:
        """How many items the table has."""
        return self.updates.n_table if self.updates else self.n_items

    @property
    def n_all(self) -> int:
        """How many items there are, also those that came later and those that have left."""
        return self.n_table + (self.updates.n_later if self.updates else 0)

    @property
    def column_files(self) -> list[str]:
        """The files of its columns."""
        return part_files(self.attributes, self.n_all)

    def file_names(self, slim: bool = False) -> tuple[str, ...]:
        """Its files, or those that a slim copy needs."""
        newest = FILES if SAME_PHOTO in self.files else FILES_BEFORE_7
        files = FILES_BEFORE_6 if self.is_old else newest
        if slim:
            files = tuple(file for file in SLIM_FILES if file in files)
        each: list[str] = []
        if self.updates:
            each += [*UPDATE_FILES, *(lists_file(update.number) for update in self.updates.each)]
            if not slim:
                each += [later_file(update.number) for update in self.updates.each]
        if self.n_rules:
            each.append(RULES)
        return (*files, *each, *self.column_files)


@dataclass(frozen=True)
class BehaviourEntry:
    """What the manifest says of behaviour, see `lookalike.release.behaviour`.

    `n_products` have lists, of `n_related` in all; no category of the
    release has and shows `n_gone` of those in lists. `newest_rating` is when the newest of all ratings
    was made (Unix time, seconds); `made_with` is the builder's word for its method and settings.
    """

    n_products: Annotated[int, Meta(ge=1, le=MAX_ROWS)]
    n_related: _Number
    n_gone: _Number
    newest_rating: Annotated[int, Meta(ge=0, le=MAX_UNIX_TIME)]
    made_with: str
    files: Mapping[str, FileEntry]

    @property
    def table(self) -> tuple[object, ...]:
        """What stays the same until behaviour is rebuilt."""
        return self.n_products, self.n_related, *(self.files[file] for file in BEHAVIOUR_TABLE)


@dataclass(frozen=True)
class Applied:
    """The last change that a release holds: the id of the journal it is from and its number there."""

    journal: str
    number: _Number


@dataclass(frozen=True)
class Manifest:
    """``manifest.json``: one JSON object with these fields and ``format`` and ``metric``.

    Products have values of `attributes`. What it does not have, such as behaviour or a category's
    updates, is no field of it.
    """

    release: str
    model: Model
    n_dims: _Dims
    category_id_type: IdType
    product_id_type: IdType
    categories: tuple[CategoryEntry, ...]
    applied: Applied | None
    behaviour: BehaviourEntry | None = None
    attributes: AttributeTypes = field(default_factory=dict)

    @property
    def id_types(self) -> tuple[IdType, IdType]:
        """The types of the category ids and of the product ids."""
        return self.category_id_type, self.product_id_type

    @property
    def known_attributes(self) -> AttributeTypes:
        """The types of all attributes that a product may have a value of."""
        return {**TYPES, **self.attributes}

    @property
    def n_items(self) -> int:
        """Products over all categories."""
        return sum(entry.n_items for entry in self.categories)

    def to_json(self) -> str:
        """The text of ``manifest.json``."""
        return json.dumps(self._document(), indent=1, ensure_ascii=False) + "\n"

    def content_digest(self) -> str:
        """SHA-256 of everything but the release's name: equal for equal content."""
        return _digest(self._document() | {"release": None})

    def _document(self) -> dict[str, Any]:
        document = asdict(self)
        _remove_defaults(Manifest, document)
        for category in document["categories"]:
            _remove_defaults(CategoryEntry, category)
        return {"format": _format_of(document), "metric": METRIC, **document}

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Read and check ``manifest.json`` of the release in `folder`; ReleaseError if invalid."""
        document = None
        try:
            regular_size(folder / MANIFEST, MANIFEST)
            document = msgspec.json.decode((folder / MANIFEST).read_bytes())
            _check_format(msgspec.convert(document, _Format), document)
            manifest = msgspec.convert(document, cls)
        except msgspec.ValidationError as error:
            raise ReleaseError(MANIFEST, _with_value(error, document)) from error
        except (OSError, ValueError, RecursionError) as error:
            raise ReleaseError(MANIFEST, reason_of(error)) from error
        _check(manifest)
        return manifest


def _remove_defaults(of: type, document: dict[str, Any]) -> None:
    """Remove the fields of the dataclass `of` that say nothing."""
    for each in fields(of):
        factory = each.default_factory
        default = each.default if factory is MISSING else factory()
        if document[each.name] == default:
            del document[each.name]


def _digest(document: object) -> str:
    return hashlib.sha256(json.dumps(document).encode()).hexdigest()


def _format_of(document: Mapping[str, object]) -> int:
    """The format of a manifest, whose fields may be of any type."""
    categories = document.get("categories")
    each = categories if isinstance(categories, list | tuple) else ()
    found = [_category_format(one) for one in each if isinstance(one, dict)]
    behaviour = 4 if document.get("behaviour") is None else 5
    return max([*found, FORMAT if "attributes" in document else behaviour])


def _category_format(category: Mapping[str, object]) -> int:
    files = category.get("files")
    names = files if isinstance(files, dict) else {}
    if SAME_PHOTO in names or "attributes" in category or "n_rules" in category:
        return FORMAT
    return 6 if LENGTHS in names or "updates" in category else 0


@dataclass(frozen=True)
class _Format:
    """The fields that say whether this version can read the others."""

    format: int
    metric: str


def _check_format(found: _Format, document: Mapping[str, object]) -> None:
    readable = f"{FORMAT}, and {', '.join(map(str, OLD_FORMATS))} of older releases"
    _expect(
        found.format == _format_of(document),
        f"format is {found.format}, this version reads {readable}; index again",
    )
    _expect(found.metric == METRIC, f"metric is {found.metric!r}, this version serves {METRIC!r}")


def _with_value(error: msgspec.ValidationError, document: Any) -> str:
    """What msgspec says and of which value: ``Expected `int` >= 1 - at `$.n_dims`, not 0``."""
    path, _, unnamed = str(error).partition(" - at `$")[2].partition("[...]")
    value = document
    for name, place in re.findall(r"\.(\w+)|\[(\d+)\]", path):
        value = value[name or int(place)]
    if not path or unnamed or isinstance(value, dict | list):
        return str(error)
    if "enum" in str(error):  # it names the value, and not what it may be
        return f"{error}, expected one of {get_args(IdType)}"
    return f"{error}, not {value!r:.60}"


def _check(manifest: Manifest) -> None:
    """Check what the types of the fields do not say."""
    release, model, applied = manifest.release, manifest.model, manifest.applied
    _expect(is_release_name(release), f"release is not a release name: {release!r}")
    _check_text("model.name", model.name)
    _check_text("model.digest", model.digest)
    _check_text("applied.journal", applied.journal if applied else "")
    for category in manifest.categories:
        _check_category(category, int if manifest.category_id_type == "integer" else str)
        what = f"category {category.category_id}: attributes"
        _check_attributes(what, category.attributes, manifest.attributes)
    folders = {category_folder(entry.category_id) for entry in manifest.categories}
    _expect(len(folders) == len(manifest.categories), "a category is listed twice")
    _check_attributes("attributes", manifest.attributes, manifest.attributes)
    if entry := manifest.behaviour:
        _check_most("behaviour: n_gone", entry.n_gone, entry.n_products)
        _check_text("behaviour: made_with", entry.made_with)
        _check_files("behaviour", entry.files, BEHAVIOUR_FILES)


def _check_category(entry: CategoryEntry, id_type: type[Id]) -> None:
    category_id, n_visible, k = entry.category_id, entry.n_visible, entry.k
    valid = isinstance(category_id, id_type) and id_problem(category_id) is None
    _expect(valid, f"category_id is invalid: {category_id!r}")
    what = f"category {category_id}"
    _check_most(f"{what}: n_hidden", entry.n_hidden, entry.n_items)
    most = max(0, n_visible - 1)
    _expect(0 < k < n_visible or k == most, f"{what}: k is {k} of {n_visible} visible items")
    _check_most(f"{what}: n_spare", entry.n_spare, most - k)
    _check_most(f"{what}: n_items", entry.n_table, entry.n_base + entry.n_added)
    _check_text(f"{what}: made_with", entry.made_with)
    n_random = len(entry.random_distances)
    expected = (0, len(RANDOM_PERCENTS))
    _expect(
        n_random in expected, f"{what}: {n_random} random_distances, expected one of {expected}"
    )
    if entry.updates:
        _check_updates(what, entry, entry.updates)
    _check_files(what, entry.files, entry.file_names())


def _check_attributes(what: str, attributes: AttributeTypes, known: AttributeTypes) -> None:
    _check_most(what, len(attributes), MAX_ATTRIBUTES)
    for name, one in attributes.items():
        problem = name_problem(name)
        _expect(problem is None, f"{what}: {name!r:.60} {problem}")
        _expect(
            known.get(name) == one, f"{what}: {name} is a {one}, the release has {known.get(name)}"
        )


def _check_updates(what: str, entry: CategoryEntry, updates: Updates) -> None:
    expected = updates.n_table + updates.n_later - updates.n_left
    _expect(
        entry.n_items == expected, f"{what}: n_items is {entry.n_items}, updates make it {expected}"
    )
    numbers = [update.number for update in updates.each]
    _expect(numbers == sorted(set(numbers)), f"{what}: updates are not in order: {numbers}")


def _check_most(name: str, value: int, most: int) -> None:
    _expect(value <= most, f"{name} is {value}, expected at most {most}")


def _check_text(name: str, text: str) -> None:
    _expect(text.isprintable(), f"{name} is {text!r:.60}, expected printable text")


def _check_files(what: str, files: Collection[str], names: Collection[str]) -> None:
    _expect([*files] == [*names], f"{what}: files are {[*files]}, expected {[*names]}")


def _expect(valid: bool, reason: str) -> None:
    if not valid:
        raise ReleaseError(MANIFEST, reason)
