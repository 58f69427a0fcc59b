"""The HTML of ``/browse``: templates of Jinja that stand beside this; usable without the script too."""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from lookalike.release.ids import Id
from lookalike.serving.answer import NO_STORE, Headers
from lookalike.serving.browse.card import Card
from lookalike.serving.errors import HttpError
from lookalike.terminal.output import printable

if TYPE_CHECKING:
    from jinja2 import Environment


class Shown(NamedTuple):
    """What is shown of one release: its name, whether it is the one served, what conditions know
    there, and the product `asked` for with its neighbours, nearest first.

    `asked` is None where there is no such product, and `alone` if the category has no other; `banned`
    are products that never come. `problem` is why neighbours cannot be told.
    """

    release: str
    served: bool
    known: str
    asked: Card | None = None
    neighbours: Sequence[Card] = ()
    alone: bool = False
    banned: Sequence[Id] = ()
    problem: HttpError | None = None


class State(NamedTuple):
    """What all links of a page hand on (None is left out), and where photos are.

    `conditions` are a query string, as ``GET /nns`` takes it; those that requests get without them are
    the `defaults`.
    """

    release: str | None
    compare: str | None
    limit: int
    conditions: str | None
    defaults: str
    image_url: str | None

    def href(self, **parameters: object) -> str:
        """A link to the page with these parameters."""
        kept = {
            "limit": self.limit,
            "release": self.release,
            "compare": self.compare,
            "conditions": self.conditions,
        }
        given = {name: value for name, value in {**parameters, **kept}.items() if value is not None}
        return "browse?" + urlencode(given, quote_via=quote)

    def photo(self, category_id: Id, product_id: Id) -> str:
        """The URL of a product's photo, empty if there are none."""
        # Encoded ids have no braces, so that the second cannot be found in the first.
        url = (self.image_url or "").replace("{category_id}", quote(str(category_id), safe=""))
        return url.replace("{product_id}", quote(str(product_id), safe=""))


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


def render(name: str, **values: object) -> str:
    """The page of that name, with what its template takes."""
    return _templates().get_template(f"{name}.html").render(values)


def product(
    category_id: Id, product_id: Id, shown: Sequence[Shown], releases: Sequence[str], state: State
) -> str:
    """A product and its neighbours, as one or two releases have them."""
    lists = [[card.product_id for card in each.neighbours] for each in shown]
    return render(
        "product",
        state=state,
        category_id=category_id,
        product_id=product_id,
        asked=next(each.asked for each in shown if each.asked),
        known=shown[0].known,
        releases=releases,
        # Each with what the other one has: the rest is marked.
        columns=zip(shown, map(set, reversed(lists)) if len(lists) > 1 else [None], strict=True),
        agreement=_agreement(*lists) if len(lists) > 1 and all(lists) else None,
    )


def _agreement(ids: Sequence[Id], other_ids: Sequence[Id]) -> dict[str, int]:
    return {
        "n_same": len(set(ids) & set(other_ids)),
        "n_places": sum(a == b for a, b in zip(ids, other_ids, strict=False)),
        "most": max(len(ids), len(other_ids)),
    }


@cache
def _templates() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined  # the page alone needs it

    templates = Environment(
        loader=PackageLoader("lookalike.serving.browse", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["printable"] = printable
    return templates
