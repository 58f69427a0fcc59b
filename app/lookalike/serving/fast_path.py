"""The fast path of ``GET /nns``: integer ids, a limit, conditions, and an answer that the table has.

Most requests have this form. One regular expression and a few look-ups answer them, in a third of the
time of the full path. Requests of another form, and those that are not answered by a plain 200, are
left to the full path. A test holds the answers of both to each other.
"""

import re
from contextlib import AbstractContextManager
from typing import Any

from lookalike.release.category import Category
from lookalike.release.neighbours import first_that_meet, nearest
from lookalike.release.opened import Release
from lookalike.release.selection import EVERYTHING, Selection
from lookalike.serving.query import DEFAULT_LIMIT
from lookalike.serving.selections import Selections, etag_of

_match = re.compile(
    r"category_id=([0-9]{1,18})&product_id=([0-9]{1,18})(?:&limit=([0-9]{1,9}))?(?:&(.+))?"
).fullmatch


def fast_body(
    release: Release, query: str, max_limit: int, selections: Selections
) -> tuple[str, bytes] | None:
    """The ETag and the body of the 200; None to leave `query` to the full path."""
    match = _match(query)
    if match is None:
        return None
    category_id, product_id, limit_text, rest = match.groups()
    limit = int(limit_text) if limit_text else DEFAULT_LIMIT
    if not 1 <= limit <= max_limit:
        return None
    category = release.categories.get(int(category_id))
    if category is None or category.integers is None:
        return None
    product = int(product_id)
    selection = selections.of(release.manifest, rest)
    rules = category.rules
    if selection is EVERYTHING and (rules is None or not rules.concern(product)):
        etag, neighbours = category.etag, category.integers.neighbours_of(product, limit - 1)
    elif selection is None:
        return None
    else:
        etag = etag_of(category, selection)
        neighbours = _selected(category, product, limit - 1, selection)
    if neighbours is None:
        return None
    # Four times as fast as msgspec, which allocates for a document of any size.
    return etag, _ARRAYS[len(neighbours)] % (product, *neighbours)


def _selected(
    category: Category, product_id: int, n: int, selection: Selection
) -> list[Any] | None:
    item = category.item_of(product_id)
    if item is None:
        return None
    if category.rules is None and selection.is_of_conditions:
        found = first_that_meet(category, item, n, selection)
        if found is not None:
            return category.ids(found)
    try:
        items, _ = nearest(category, item, n, selection, _leave)
    except LookupError:
        return None
    return category.ids(items)


def _leave() -> AbstractContextManager[object]:
    """Leave the request to the full path, which bounds the time of searches."""
    raise LookupError


class _Arrays(dict[int, bytes]):
    """Templates of a JSON array of n + 1 numbers, by n."""

    def __missing__(self, n: int) -> bytes:
        self[n] = b"[%d" + n * b",%d" + b"]"
        return self[n]


_ARRAYS = _Arrays()
