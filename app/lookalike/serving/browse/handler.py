"""``/browse``: a page for people, with products and their neighbours in one release or in two.

    /browse                                     the categories
    /browse?category_id=1                       its products
    /browse?category_id=1&product_id=234        the product and its neighbours, as in figures 6 to 8 of
                                                Miyake et al. (2017)

`release` shows another release than the one served, `compare` a second one beside it. `conditions`, a
query string, applies to neighbours. The module `lookalike.serving.browse.page` makes the HTML from
templates.
"""

import secrets
from collections.abc import Callable
from functools import partial
from importlib.resources import files as files_of_package
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lookalike.release.category import Category, identity_of
from lookalike.release.conditions import SELECTING, names_of
from lookalike.release.files import ReleaseError
from lookalike.release.ids import Id, category_folder
from lookalike.release.manifest import CategoryEntry, Manifest
from lookalike.release.neighbours import NotKnown, Searching, nearest
from lookalike.release.opened import Release, same_category
from lookalike.release.root import ReleaseRoot, RootError
from lookalike.release.rules import NO_RULES
from lookalike.release.selection import Selection
from lookalike.serving.answer import NO_STORE, OK, Answer, Handler, Headers, reading
from lookalike.serving.browse import page
from lookalike.serving.browse.card import card_of, cards_of, cards_of_neighbours
from lookalike.serving.browse.page import Shown, State
from lookalike.serving.errors import BadRequest, HttpError, NotFound
from lookalike.serving.query import split_query, typed_count, typed_id, typed_selection
from lookalike.serving.searches import Searches
from lookalike.serving.selections import Selections
from lookalike.serving.source import ReleaseSource

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

BROWSE_PATH: Final = "/browse"
PARAMETERS: Final = (
    "category_id",
    "product_id",
    "limit",
    "page",
    "release",
    "compare",
    "conditions",
)
DEFAULT_SHOWN: Final = 12
"""How many neighbours are shown, as on the page of the shop in Miyake et al. (2017)."""
MAX_SHOWN: Final = 100

_MAX_OPEN = 4
_PER_PAGE = 60
_ASSETS: Final = {"style.css": "text/css", "script.js": "text/javascript"}


class Browse:
    """Serves the page and its files, from `source`'s release and the others under `root`.

    `image_url` is where photos are, with ``{product_id}`` and optionally ``{category_id}`` in it.
    `searches` bounds the time of searches, `selections` has the defaults of requests.
    """

    def __init__(
        self,
        root: ReleaseRoot,
        source: ReleaseSource,
        image_url: str | None,
        searches: Searches | None = None,
        selections: Selections | None = None,
    ) -> None:
        self._root = root
        self._source = source
        self._image_url = image_url
        self._searches = searches or Searches()
        self._selections = selections or Selections()
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
            text, problem = self._html(environ)
        except HttpError as error:
            detail = error.detail or "there is no such page"
            text, problem = page.render("problem", status=error.status, detail=detail), error
        if problem:
            return (problem.status, [*self._headers, *problem.headers], text.encode())
        return (OK, self._headers, text.encode())

    def _html(self, environ: "WSGIEnvironment") -> tuple[str, HttpError | None]:
        """A page, and what is wrong with a part of it."""
        query = environ.get("QUERY_STRING", "")
        release = self._source.served(self._source.problem or "no release is open")
        # A form sends empty fields too.
        values = {name: text for name, text in split_query(query, PARAMETERS).items() if text}
        state = State(
            values.get("release"),
            values.get("compare"),
            typed_count(values.get("limit"), "limit", DEFAULT_SHOWN, MAX_SHOWN),
            values.get("conditions"),
            self._selections.text,
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
            return page.render("home", state=state, manifest=manifests[0]), None
        category_id = typed_id(values["category_id"], "category_id", manifests[0].category_id_type)
        if "product_id" not in values:
            category = self._category(manifests[0], category_id, release)
            return self._products(category, category_id, state, values.get("page")), None
        product_id = typed_id(values["product_id"], "product_id", manifests[0].product_id_type)
        searching = partial(self._searches.allowed, environ)
        shown = [
            self._shown(each, category_id, product_id, state, release, searching)
            for each in manifests
        ]
        if all(each.asked is None for each in shown):
            raise NotFound(f"category {category_id} has no product {product_id}")
        text = page.product(category_id, product_id, shown, self._root.names(), state)
        return text, next((each.problem for each in shown if each.problem), None)

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
        (any_one,) = category.ids(items[[secrets.randbelow(n_items)]])
        return page.render(
            "category",
            state=state,
            entry=category.entry,
            cards=cards_of(category, items[first:last]),
            any_one=any_one,
            number=number,
            n_pages=n_pages,
        )

    def _shown(
        self,
        manifest: Manifest,
        category_id: Id,
        product_id: Id,
        state: State,
        release: Release,
        searching: Searching,
    ) -> Shown:
        """The neighbours that one release has for a product."""
        served = manifest is release.manifest
        known = names_of(SELECTING, manifest.known_attributes)
        shown = Shown(manifest.release, served, known)
        category = self._category(manifest, category_id, release)
        item = category.item_of(product_id) if category else None
        if category is None or item is None:
            return shown
        rules = category.rules.for_product(product_id) if category.rules else NO_RULES
        shown = shown._replace(
            asked=card_of(category, item),
            banned=sorted(rules.bans),
            alone=category.entry.n_items == 1,
        )
        try:
            selection = self._selection(manifest, state.conditions or "", served)
            items, distances = nearest(
                category, item, state.limit, selection, searching, measured=True
            )
        except (HttpError, NotKnown) as error:
            problem = error if isinstance(error, HttpError) else BadRequest(str(error))
            return shown._replace(problem=problem)
        return shown._replace(neighbours=cards_of_neighbours(category, items, distances, rules))

    def _selection(self, manifest: Manifest, conditions: str, served: bool) -> Selection:
        """The selection that a request with these conditions gets."""
        # What has been parsed for the release served is kept for its requests.
        selections = self._selections if served else Selections(self._selections.text)
        attributes = manifest.known_attributes
        values = split_query(
            conditions.encode().decode("latin-1"), SELECTING, attributes=attributes
        )
        return typed_selection(values, attributes, selections.defaults(manifest))

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
