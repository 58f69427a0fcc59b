"""The HTML of ``/browse``: plain, without a framework, and usable without its script too."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from lookalike.release.ids import Id
from lookalike.release.manifest import CategoryEntry, Manifest
from lookalike.serving.answer import NO_STORE, Headers
from lookalike.terminal.output import printable

PER_PAGE = 60


class Shown(NamedTuple):
    """What is shown of one release: its name, whether it is the one served, and a product's neighbours.

    These are product ids with their distances, nearest first, or None where it has no such product.
    """

    release: str
    served: bool
    neighbours: list[tuple[Id, float]] | None


class State(NamedTuple):
    """What all links of a page hand on (None is left out), and where photos are."""

    release: str | None
    compare: str | None
    limit: int
    image_url: str | None

    def href(self, **parameters: object) -> str:
        """A link to the page with these parameters."""
        kept = {"limit": self.limit, "release": self.release, "compare": self.compare}
        given = {name: value for name, value in {**parameters, **kept}.items() if value is not None}
        return "browse?" + escape(urlencode(given, quote_via=quote))

    def photo(self, category_id: Id, product_id: Id, described: bool = False) -> str:
        """The photo of a product, if there are any; `described` where no text beside it names it."""
        if self.image_url is None:
            return ""
        # Encoded ids have no braces, so that the second cannot be found in the first.
        url = self.image_url.replace("{category_id}", quote(str(category_id), safe=""))
        url = url.replace("{product_id}", quote(str(product_id), safe=""))
        alt = f"photo of product {escape(str(product_id))}" if described else ""
        return f'<img src="{escape(url)}" alt="{alt}" loading="lazy">'


def headers(image_url: str | None) -> Headers:
    """The headers of the page: it may show photos from `image_url`'s host and load its own files."""
    parts = urlsplit(image_url or "")
    photos = f"{parts.scheme}://{parts.netloc}" if parts.netloc else "'self'"
    policy = (
        f"default-src 'none'; img-src {photos}; style-src 'self'; script-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    return [
        NO_STORE,
        ("Content-Type", "text/html; charset=utf-8"),
        ("Content-Security-Policy", policy),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
    ]


def home(manifest: Manifest, state: State) -> str:
    """The categories of a release, with a form to go to a product at once."""
    categories = "".join(
        f'<li><a href="{state.href(category_id=entry.category_id)}">{_text(entry.category_id)}</a> '
        f'<span class="count">{entry.n_items}</span></li>'
        for entry in manifest.categories
    )
    about = f"{manifest.n_items} products, model {escape(manifest.model.name)}"
    return _page(
        "Categories",
        f"{_form(state, None, None)}<h1>{len(manifest.categories)} categories</h1>"
        f'<p class="about">{about}, release {escape(manifest.release)}</p>'
        f'<ul class="categories">{categories}</ul>',
    )


def category(
    entry: CategoryEntry,
    product_ids: Iterable[Id],
    any_one: Id,
    number: int,
    n_pages: int,
    state: State,
) -> str:
    """Page `number` of a category's products; `any_one` is where "any product" leads."""
    category_id = entry.category_id
    cards = "".join(_card(state, category_id, product_id) for product_id in product_ids)
    any_href = state.href(category_id=category_id, product_id=any_one)
    return _page(
        f"Category {category_id}",
        f"{_trail(state, category_id)}{_form(state, category_id, None)}"
        f"<h1>Category {_text(category_id)}</h1>"
        f'<p class="about">{entry.n_items} products · <a href="{any_href}">any product</a></p>'
        f'<ol class="cards">{cards}</ol>{_pages(state, category_id, number, n_pages)}',
    )


def product(
    category_id: Id, product_id: Id, shown: Sequence[Shown], releases: Sequence[str], state: State
) -> str:
    """A product and its neighbours, as one or two releases have them."""
    columns = []
    for each in shown:
        others = [other for other in shown if other is not each]
        known = {found for other in others for found, _ in other.neighbours or ()}
        columns.append(_column(each, known if others else None, category_id, state))
    return _page(
        f"{product_id} in category {category_id}",
        f"{_trail(state, category_id)}{_form(state, category_id, product_id, releases)}"
        f'<figure class="asked">{state.photo(category_id, product_id, described=True)}<figcaption>'
        f"<h1>Product {_text(product_id)}</h1>{_common(shown)}</figcaption></figure>"
        f'<div class="columns">{"".join(columns)}</div>',
    )


def problem(status: str, detail: str | None) -> str:
    """What is wrong with what was asked for."""
    said = printable(detail or "there is no such page")
    back = '<p><a href="browse">All categories</a></p>'
    return _page(status, f'<h1>{escape(status)}</h1><p role="alert">{escape(said)}</p>{back}')


def _page(title: str, body: str) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(printable(title))} · Lookalike</title>"
        '<link rel="stylesheet" href="browse/style.css">'
        '<script src="browse/script.js" defer></script></head>\n'
        f"<body><main>{body}</main></body></html>\n"
    )


def _trail(state: State, category_id: Id) -> str:
    to_category = state.href(category_id=category_id)
    return (
        f'<nav aria-label="Where you are"><a href="{state.href()}">Categories</a> › '
        f'<a href="{to_category}">{_text(category_id)}</a></nav>'
    )


def _form(
    state: State, category_id: Id | None, product_id: Id | None, releases: Sequence[str] = ()
) -> str:
    """What is asked for, to ask for something else; with the releases to compare if there are any."""
    fields = [_field("category", "category_id", category_id)]
    fields += [_field("product", "product_id", product_id)]
    fields += [_field("limit", "limit", state.limit)]
    if releases:
        fields += [_choice("release", "release", "the one served", state.release, releases)]
        fields += [_choice("compare with", "compare", "none", state.compare, releases)]
    else:
        chosen = {"release": state.release, "compare": state.compare}
        fields += [
            f'<input type="hidden" name="{name}" value="{escape(value)}">'
            for name, value in chosen.items()
            if value is not None
        ]
    return f'<form action="browse">{"".join(fields)}<button>Show</button></form>'


def _field(label: str, name: str, value: object) -> str:
    text = "" if value is None else escape(str(value))
    return f'<label>{label} <input name="{name}" value="{text}" autocomplete="off"></label>'


def _choice(label: str, name: str, none: str, chosen: str | None, values: Sequence[str]) -> str:
    options = "".join(
        f"<option{' selected' if value == chosen else ''}>{escape(value)}</option>"
        for value in reversed(values)
    )
    return (
        f'<label>{label} <select name="{name}"><option value="">{none}</option>{options}'
        "</select></label>"
    )


def _column(shown: Shown, known: set[Id] | None, category_id: Id, state: State) -> str:
    """One release's neighbours; those not in `known`, of the other one, are marked."""
    served = ", served now" if shown.served else ""
    head = f"<h2>Release {escape(shown.release)}{served}</h2>"
    if shown.neighbours is None:
        return f"<section>{head}<p>This release does not have the product.</p></section>"
    cards = "".join(
        _card(state, category_id, found, distance, known is not None and found not in known)
        for found, distance in shown.neighbours
    )
    none = "" if shown.neighbours else "<p>It is the only product of its category.</p>"
    return f'<section>{head}{none}<ol class="cards">{cards}</ol></section>'


def _card(
    state: State,
    category_id: Id,
    product_id: Id,
    distance: float | None = None,
    only: bool = False,
) -> str:
    href = state.href(category_id=category_id, product_id=product_id)
    far = "" if distance is None else f'<span class="distance">{distance:.4f}</span>'
    mark = '<span class="only">only here</span>' if only else ""
    return (
        f'<li><a href="{href}">{state.photo(category_id, product_id)}'
        f'<span class="id">{_text(product_id)}</span>{far}{mark}</a></li>'
    )


def _common(shown: Sequence[Shown]) -> str:
    """In how much two releases agree."""
    lists = [[found for found, _ in each.neighbours or ()] for each in shown]
    if len(lists) < 2 or not all(lists):
        return ""
    n_same = len(set(lists[0]) & set(lists[1]))
    n_places = sum(a == b for a, b in zip(*lists, strict=False))
    most = max(map(len, lists))
    return f"<p>{n_same} of {most} neighbours are in both, {n_places} at the same place.</p>"


def _pages(state: State, category_id: Id, number: int, n_pages: int) -> str:
    if n_pages == 1:
        return ""

    def link(to: int, text: str) -> str:
        fit = 1 <= to <= n_pages and to != number
        href = state.href(category_id=category_id, page=to)
        return f'<a href="{href}">{text}</a>' if fit else f"<span>{text}</span>"

    return (
        f'<nav class="pages" aria-label="Pages">{link(1, "first")} {link(number - 1, "previous")} '
        f"page {number} of {n_pages} {link(number + 1, 'next')} {link(n_pages, 'last')}</nav>"
    )


def _text(value: object) -> str:
    """An id to be seen: what it holds changes the direction of nothing around it."""
    return f"<bdi>{escape(str(value))}</bdi>"
