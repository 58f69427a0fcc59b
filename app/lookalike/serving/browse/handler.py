"""``/browse``: a page for people, with products and their neighbours in one release or in two.

    /browse                                     the categories
    /browse?category_id=1                       its products
    /browse?category_id=1&product_id=234        the product and its neighbours, as in figures 6 to 8 of
                                                Miyake et al. (2017)

`release` shows another release than the one served, `compare` a second one beside it. The module
`lookalike.serving.browse.page` makes the HTML from templates.
"""

import secrets
from collections.abc import Callable
from importlib.resources import files as files_of_package
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lookalike.release.category import Category, identity_of
from lookalike.release.files import ReleaseError
from lookalike.release.ids import Id, category_folder
from lookalike.release.manifest import CategoryEntry, Manifest
from lookalike.release.opened import Release, same_category
from lookalike.release.root import ReleaseRoot, RootError
from lookalike.serving.answer import NO_STORE, OK, Answer, Handler, Headers, reading
from lookalike.serving.browse import page
from lookalike.serving.browse.page import Shown, State
from lookalike.serving.errors import BadRequest, HttpError, NotFound
from lookalike.serving.query import split_query, typed_count, typed_id
from lookalike.serving.source import ReleaseSource

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

BROWSE_PATH: Final = "/browse"
PARAMETERS: Final = ("category_id", "product_id", "limit", "page", "release", "compare")
DEFAULT_SHOWN: Final = 12
"""How many neighbours are shown, as on the page of the shop in Miyake et al. (2017)."""
MAX_SHOWN: Final = 100

_MAX_OPEN = 4
_PER_PAGE = 60
_ASSETS: Final = {"style.css": "text/css", "script.js": "text/javascript"}


class Browse:
    """Serves the page and its files, from `source`'s release and the others under `root`.

    `image_url` is where photos are, with ``{product_id}`` and optionally ``{category_id}`` in it.
    """

    def __init__(self, root: ReleaseRoot, source: ReleaseSource, image_url: str | None) -> None:
        self._root = root
        self._source = source
        self._image_url = image_url
        self._headers = page.headers(image_url)
        self._open: dict[Path, Category] = {}
        source.each_look.append(self._let_go)

    def routes(self) -> dict[str, dict[str, Handler]]:
        """The handlers by path and method."""
        answers = {
            f"{BROWSE_PATH}/{name}": reading(_asset(name, kind)) for name, kind in _ASSETS.items()
        }
        return {BROWSE_PATH: reading(self._page), **answers}

    def _page(self, environ: "WSGIEnvironment") -> Answer:
        try:
            text = self._html(environ.get("QUERY_STRING", ""))
        except HttpError as error:
            detail = error.detail or "there is no such page"
            text = page.render("problem", status=error.status, detail=detail)
            return (error.status, [*self._headers, *error.headers], text.encode())
        return (OK, self._headers, text.encode())

    def _html(self, query: str) -> str:
        release = self._source.served(self._source.problem or "no release is open")
        # A form sends empty fields too.
        values = {name: text for name, text in split_query(query, PARAMETERS).items() if text}
        state = State(
            values.get("release"),
            values.get("compare"),
            typed_count(values.get("limit"), "limit", DEFAULT_SHOWN, MAX_SHOWN),
            self._image_url,
        )
        names = [state.release or release.manifest.release]
        names += [state.compare] if state.compare else []
        manifests = [self._manifest(name, release) for name in names]
        if len({each.id_types for each in manifests}) > 1:
            raise BadRequest(
                "the ids of the two releases are of different types: nothing to compare"
            )
        if "page" in values and set(values) & {"category_id", "product_id"} != {"category_id"}:
            raise BadRequest("page goes with category_id and no product_id: it is of its products")
        if "category_id" not in values:
            if "product_id" in values:
                raise BadRequest("category_id is missing")
            return page.render("home", state=state, manifest=manifests[0])
        category_id = typed_id(values["category_id"], "category_id", manifests[0].category_id_type)
        if "product_id" not in values:
            category = self._category(manifests[0], category_id, release)
            return self._products(category, category_id, state, values.get("page"))
        product_id = typed_id(values["product_id"], "product_id", manifests[0].product_id_type)
        shown = [self._shown(each, category_id, product_id, state, release) for each in manifests]
        if all(each.neighbours is None for each in shown):
            raise NotFound(f"category {category_id} has no product {product_id}")
        return page.product(category_id, product_id, shown, self._root.names(), state)

    def _manifest(self, name: str, release: Release) -> Manifest:
        if name == release.manifest.release:
            return release.manifest
        try:
            return self._root.manifest(name)
        except (RootError, ReleaseError) as error:
            raise NotFound(str(error)) from error

    def _products(
        self, category: Category | None, category_id: Id, state: State, text: str | None
    ) -> str:
        if category is None:
            raise NotFound(f"no category {category_id}")
        n_items = category.entry.n_items
        n_pages = -(-n_items // _PER_PAGE)
        number = typed_count(text, "page", 1, n_pages)
        first = (number - 1) * _PER_PAGE
        last = min(first + _PER_PAGE, n_items)
        items = category.items()
        product_ids = category.ids(items[first:last])
        (any_one,) = category.ids(items[[secrets.randbelow(n_items)]])
        return page.render(
            "category",
            state=state,
            entry=category.entry,
            product_ids=product_ids,
            any_one=any_one,
            number=number,
            n_pages=n_pages,
        )

    def _shown(
        self, manifest: Manifest, category_id: Id, product_id: Id, state: State, release: Release
    ) -> Shown:
        """The neighbours that one release has for a product."""
        served = manifest is release.manifest
        category = self._category(manifest, category_id, release)
        item = category.item_of(product_id) if category else None
        if category is None or item is None:
            return Shown(manifest.release, served, None)
        items, distances = category.nearest(item, state.limit)
        found = zip(category.ids(items), distances.tolist(), strict=True)
        return Shown(manifest.release, served, list(found))

    def _category(self, manifest: Manifest, category_id: Id, release: Release) -> Category | None:
        if manifest is release.manifest:
            return release.categories.get(category_id)
        entries = (entry for entry in manifest.categories if entry.category_id == category_id)
        entry = next(entries, None)
        if entry is None:
            return None
        try:
            folder = self._root.folder(manifest.release) / category_folder(category_id)
            same = same_category(release, entry, manifest, folder)
            return same or self._opened(folder, entry, manifest)
        except (RootError, ReleaseError) as error:
            raise NotFound(f"release {manifest.release}: {error}") from error

    def _opened(self, folder: Path, entry: CategoryEntry, manifest: Manifest) -> Category:
        category = self._open.get(folder)
        if category is None:
            while len(self._open) >= _MAX_OPEN:
                self._open.pop(next(iter(self._open)), None)
            category = self._open[folder] = Category(folder, entry, manifest, slim=True)
        return category

    def _let_go(self) -> None:
        """Close pruned and replaced categories: open files take up the disk."""
        for folder, category in list(self._open.items()):
            try:
                there = identity_of(folder, category.identity) == category.identity
            except OSError:
                there = False
            if not there:
                self._open.pop(folder, None)


def _asset(name: str, kind: str) -> Callable[["WSGIEnvironment"], Answer]:
    file = files_of_package("lookalike.serving.browse").joinpath(name)
    headers: Headers = [
        NO_STORE,
        ("Content-Type", f"{kind}; charset=utf-8"),
        ("X-Content-Type-Options", "nosniff"),
    ]
    return lambda _: (OK, headers, file.read_bytes())
