"""Which of two patterns a visitor gets: A, what others rated too, or B, similar images.

As in the experiment of Miyake et al. (2017). The assignment is random, but fixed for a known visitor.
Once a method has been chosen for each category, only some visitors are assigned a pattern and measured.
"""

import hashlib
import random
from typing import Final, Literal

Pattern = Literal["A", "B", "chosen"]
Method = Literal["behaviour", "image", "none"]

PATTERNS: Final[tuple[Pattern, ...]] = ("A", "B")
CHOSEN: Final[Pattern] = "chosen"
"""In place of a pattern: the visitor is not measured, and gets the method chosen for the category."""
METHODS: Final[tuple[Method, ...]] = ("behaviour", "image", "none")
NOBODY: Final = frozenset(
    (
        "",
        "-",
        "(none)",
        "(not set)",
        "(null)",
        "00000000-0000-0000-0000-000000000000",
        "[object object]",
        "false",
        "n/a",
        "nan",
        "nil",
        "none",
        "null",
        "undefined",
    )
)
"""What programs send for an unknown visitor, in lower case and without blanks around it."""


class Experiment:
    """Assigns pattern B to `b_percent` of visitors, A to the others.

    With a `holdout_percent` only that percentage of visitors is assigned a pattern. Who is, has nothing
    to do with which: the share of B among them is the same, and each has the pattern of before.

    `key` is the key of the hashes, at most 64 bytes. Another key reassigns all visitors; without the
    key nobody can choose a pattern.
    """

    def __init__(
        self, key: bytes = b"lookalike", b_percent: int = 50, holdout_percent: int | None = None
    ) -> None:
        self._pattern = _Share(key, b_percent)
        self._held_out = None
        if holdout_percent is not None:
            self._held_out = _Share(key, holdout_percent, b"holdout")

    def pattern_of(self, visitor: str | None) -> Pattern:
        """The pattern of a visitor, known by any text; by chance for None, and for `NOBODY`."""
        if visitor is not None and visitor.strip().lower() in NOBODY:
            visitor = None
        if self._held_out is not None and not self._held_out.has(visitor):
            return CHOSEN
        return "B" if self._pattern.has(visitor) else "A"


class _Share:
    """A percentage of all visitors, by a hash of each; `purpose` makes it independent of others."""

    def __init__(self, key: bytes, percent: int, purpose: bytes = b"") -> None:
        self._hash = hashlib.blake2b(key=key, digest_size=8, person=purpose)
        self._percent = percent
        self._bound = 2**64 * percent // 100  # of the hashes

    def has(self, visitor: str | None) -> bool:
        """Whether a visitor belongs to it; by chance for None."""
        if visitor is None:
            return 100 * random.random() < self._percent  # noqa: S311  # it need not be secret
        keyed = self._hash.copy()
        keyed.update(visitor.encode())
        return int.from_bytes(keyed.digest()) < self._bound
