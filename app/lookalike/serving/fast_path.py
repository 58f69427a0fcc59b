"""The fast path of ``GET /nns``: integer ids, a limit within the table, nothing else.

Most requests have this form. One regular expression and a few look-ups answer them, in a third of the
time of the full path. Requests of another form, and those that are not answered by a plain 200, are
left to the full path. A test holds the answers of both to each other.
"""

import re

from lookalike.release.category import Category
from lookalike.release.opened import Release
from lookalike.serving.query import DEFAULT_LIMIT

_match = re.compile(
    r"category_id=([0-9]{1,18})&product_id=([0-9]{1,18})(?:&limit=([0-9]{1,9}))?"
).fullmatch


def fast_body(release: Release, query: str, max_limit: int) -> tuple[Category, bytes] | None:
    """The category asked for and the body of the 200; None to leave `query` to the full path."""
    match = _match(query)
    if match is None:
        return None
    category_id, product_id, limit_text = match.groups()
    limit = int(limit_text) if limit_text else DEFAULT_LIMIT
    if not 1 <= limit <= max_limit:
        return None
    category = release.categories.get(int(category_id))
    if category is None or category.integers is None:
        return None
    product = int(product_id)
    neighbours = category.integers.neighbours_of(product, limit - 1)
    if neighbours is None:
        return None
    # Four times as fast as msgspec, which allocates for a document of any size.
    return category, _ARRAYS[len(neighbours)] % (product, *neighbours)


class _Arrays(dict[int, bytes]):
    """Templates of a JSON array of n + 1 numbers, by n."""

    def __missing__(self, n: int) -> bytes:
        self[n] = b"[%d" + n * b",%d" + b"]"
        return self[n]


_ARRAYS = _Arrays()
