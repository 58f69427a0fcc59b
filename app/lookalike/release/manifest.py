"""The manifest of a release: the words, the ids, the file names and what is said of each file.

`lookalike.release.opened` describes the whole; nothing of a release is opened that its manifest does
not list.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from lookalike.release.files import (
    BEHAVIOUR_FILES,
    BEHAVIOUR_TABLE,
    FILES,
    MANIFEST,
    FileEntry,
    ReleaseError,
    reason_of,
    regular_size,
)
from lookalike.release.ids import Id, IdType, category_folder, id_problem

FORMAT: Final = 4
BEHAVIOUR_FORMAT: Final = 5
"""That of a release with behaviour, which versions that do not know it are to refuse."""
METRIC: Final = "angular"


MAX_DIMS: Final = 65_536
MAX_ANNOY: Final = 2**31 - 1
MAX_ROWS: Final = 2**32 - 1
MAX_UNIX_TIME: Final = 253_402_300_799
"""The last second of the year 9999."""


_RELEASE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def is_release_name(name: str) -> bool:
    """Whether `name` is fit for a folder, a URL and an HTTP header: 1 to 100 of A-Z a-z 0-9 . _ -."""
    return _RELEASE_NAME.fullmatch(name) is not None


@dataclass(frozen=True)
class Model:
    """The network that made the features: what it is called and the digest of its weights."""

    name: str
    digest: str


@dataclass(frozen=True)
class CategoryEntry:
    """What the manifest says of one category.

    Every list of neighbours has `k` exact ones and up to `n_spare` more. `n_base` features are in the
    index and `n_added` came later; a product that left the category may still have one there.

    `n_index_dims`, `n_trees`, `candidates` and `search_k` are for vectors, as `VectorIndex` says;
    `recall` is the share of the exact k nearest that it finds so, over `recall_sample` items; None
    where there are no neighbours to find. `made_with` is the builder's word for its method and
    settings: of the same features, the same text makes the same category.
    """

    category_id: Id
    n_items: int
    k: int
    n_spare: int
    n_base: int
    n_added: int
    n_index_dims: int
    n_trees: int
    candidates: int
    search_k: int
    recall: float | None
    recall_sample: int
    made_with: str
    files: Mapping[str, FileEntry]


@dataclass(frozen=True)
class BehaviourEntry:
    """What the manifest says of behaviour, see `lookalike.release.behaviour`.

    `n_products` have lists, of `n_related` in all; `n_gone` of those in lists are in no category of the
    release. `newest_rating` is when the newest of all ratings was made (Unix time, seconds);
    `made_with` is the builder's word for its method and settings.
    """

    n_products: int
    n_related: int
    n_gone: int
    newest_rating: int
    made_with: str
    files: Mapping[str, FileEntry]

    @property
    def table(self) -> tuple[object, ...]:
        """What is the same as long as behaviour is not made anew."""
        return self.n_products, self.n_related, *(self.files[file] for file in BEHAVIOUR_TABLE)


@dataclass(frozen=True)
class Applied:
    """The last change that a release holds: the id of the journal it is from and its number there."""

    journal: str
    number: int


@dataclass(frozen=True)
class Manifest:
    """``manifest.json``: one JSON object with these fields and ``format`` and ``metric``.

    Without behaviour it has no such field and is of the `FORMAT` from before there was any.
    """

    release: str
    model: Model
    n_dims: int
    category_id_type: IdType
    product_id_type: IdType
    categories: tuple[CategoryEntry, ...]
    applied: Applied | None = None
    behaviour: BehaviourEntry | None = None

    @property
    def n_items(self) -> int:
        """Products over all categories."""
        return sum(entry.n_items for entry in self.categories)

    def to_json(self) -> str:
        """The text of ``manifest.json``."""
        return json.dumps(self._document(), indent=1, ensure_ascii=False) + "\n"

    def content_digest(self) -> str:
        """SHA-256 of everything but the release's name: equal for equal content."""
        document = self._document() | {"release": None}
        return hashlib.sha256(json.dumps(document).encode()).hexdigest()

    def _document(self) -> dict[str, Any]:
        fields = asdict(self)
        if self.behaviour is None:
            del fields["behaviour"]
        return {"format": _format_of(fields), "metric": METRIC, **fields}

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Read and check ``manifest.json`` of the release in `folder`; ReleaseError if unfit."""
        try:
            regular_size(folder / MANIFEST, MANIFEST)
            document = json.loads((folder / MANIFEST).read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise ReleaseError(MANIFEST, reason_of(error)) from error
        return _ManifestReader(document).manifest()


def _format_of(document: Mapping[str, object]) -> int:
    return BEHAVIOUR_FORMAT if "behaviour" in document else FORMAT


class _ManifestReader:
    """Turns the parsed ``manifest.json`` into a `Manifest`, naming the first field that is unfit."""

    def __init__(self, document: object) -> None:
        self.root = document

    def manifest(self) -> Manifest:
        root = self.root
        self.expect(isinstance(root, dict), "is not a JSON object")
        found = self.field(root, "format", int)
        expected = _format_of(root) if isinstance(root, dict) else FORMAT
        readable = f"{FORMAT}, and {BEHAVIOUR_FORMAT} with behaviour"
        self.expect(
            found == expected, f"format is {found}, this version reads {readable}; index again"
        )
        metric = self.field(root, "metric", str)
        self.expect(metric == METRIC, f"metric is {metric!r}, this version serves {METRIC!r}")
        release = self.field(root, "release", str)
        self.expect(is_release_name(release), f"release is not a release name: {release!r}")
        n_dims = self.whole(root, "n_dims", 1)
        self.expect(n_dims <= MAX_DIMS, f"n_dims is {n_dims}, expected at most {MAX_DIMS}")
        model = self.field(root, "model", dict)
        categories = tuple(
            self.category(entry, self.field(root, "category_id_type", str))
            for entry in self.field(root, "categories", list)
        )
        folders = {category_folder(entry.category_id) for entry in categories}
        self.expect(len(folders) == len(categories), "a category is listed twice")
        return Manifest(
            release=release,
            model=Model(self.text(model, "name"), self.text(model, "digest")),
            n_dims=n_dims,
            category_id_type=self.id_type(root, "category_id_type"),
            product_id_type=self.id_type(root, "product_id_type"),
            categories=categories,
            applied=self.applied(),
            behaviour=self.behaviour(),
        )

    def applied(self) -> Applied | None:
        if isinstance(self.root, dict) and self.root.get("applied", "missing") is None:
            return None
        applied = self.field(self.root, "applied", dict)
        return Applied(self.text(applied, "journal"), self.whole(applied, "number", 0))

    def behaviour(self) -> BehaviourEntry | None:
        if isinstance(self.root, dict) and "behaviour" not in self.root:
            return None
        entry = self.field(self.root, "behaviour", dict)
        n_products = self.whole(entry, "n_products", 1, MAX_ROWS)
        return BehaviourEntry(
            n_products=n_products,
            n_related=self.whole(entry, "n_related", 0),
            n_gone=self.whole(entry, "n_gone", 0, n_products),
            newest_rating=self.whole(entry, "newest_rating", 0, MAX_UNIX_TIME),
            made_with=self.text(entry, "made_with"),
            files=self.files(entry, BEHAVIOUR_FILES, "behaviour"),
        )

    def category(self, entry: object, category_id_type: str) -> CategoryEntry:
        id_type = int if category_id_type == "integer" else str
        category_id = self.field(entry, "category_id", id_type)
        self.expect(id_problem(category_id) is None, f"category_id is unfit: {category_id!r}")
        n_items, k = self.whole(entry, "n_items", 1), self.whole(entry, "k", 0)
        fit = 0 < k < n_items or k == n_items - 1
        self.expect(fit, f"category {category_id}: k is {k} of {n_items} items")
        n_base, n_added = self.whole(entry, "n_base", 1), self.whole(entry, "n_added", 0)
        self.expect(
            n_items <= n_base + n_added,
            f"category {category_id}: {n_items} items of {n_base} + {n_added} features",
        )
        return CategoryEntry(
            category_id=category_id,
            n_items=n_items,
            k=k,
            n_spare=self.whole(entry, "n_spare", 0, n_items - 1 - k),
            n_base=n_base,
            n_added=n_added,
            n_index_dims=self.whole(entry, "n_index_dims", 1, MAX_DIMS),
            n_trees=self.whole(entry, "n_trees", 1, MAX_ANNOY),
            candidates=self.whole(entry, "candidates", 1, MAX_ANNOY),
            search_k=self.whole(entry, "search_k", 1, MAX_ANNOY),
            recall=self.recall(entry),
            recall_sample=self.whole(entry, "recall_sample", 0),
            made_with=self.text(entry, "made_with"),
            files=self.files(entry, FILES, f"category {category_id}"),
        )

    def recall(self, entry: object) -> float | None:
        if isinstance(entry, dict) and entry.get("recall", "missing") is None:
            return None
        value: float = self.field(entry, "recall", float)
        self.expect(0 <= value <= 1, f"recall is {value}, expected 0 to 1")
        return value

    def files(self, entry: object, names: tuple[str, ...], what: str) -> dict[str, FileEntry]:
        files = self.field(entry, "files", dict)
        self.expect(set(files) == set(names), f"{what}: files are not {names}")
        return {name: self.file(files[name]) for name in names}

    def file(self, entry: object) -> FileEntry:
        return FileEntry(
            self.whole(entry, "n_bytes", 1),
            self.field(entry, "sha256", str),
            self.field(entry, "ends_sha256", str),
        )

    def field(self, parent: object, name: str, kind: type[Any]) -> Any:
        value = parent.get(name) if isinstance(parent, dict) else None
        fit = isinstance(value, kind) and not isinstance(value, bool)
        self.expect(fit, f"{name} is {value!r:.60}, expected {kind.__name__}")
        return value

    def whole(self, parent: object, name: str, least: int, most: int | None = None) -> int:
        value: int = self.field(parent, name, int)
        self.expect(value >= least, f"{name} is {value}, expected at least {least}")
        self.expect(most is None or value <= most, f"{name} is {value}, expected at most {most}")
        return value

    def text(self, parent: object, name: str) -> str:
        value: str = self.field(parent, name, str)
        self.expect(value.isprintable(), f"{name} is {value!r:.60}, expected printable text")
        return value

    def id_type(self, parent: object, name: str) -> IdType:
        value = self.field(parent, name, str)
        self.expect(value in ("integer", "string"), f"{name} is {value!r}")
        return "integer" if value == "integer" else "string"

    def expect(self, fit: bool, reason: str) -> None:
        if not fit:
            raise ReleaseError(MANIFEST, reason)
