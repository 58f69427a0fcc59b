"""Which of two patterns a visitor gets: A, what others rated too, or B, similar images.

As in the experiment of Miyake et al. (2017). Assigned at random, and for a visitor who can be told from
others always the same.
"""

import hashlib
import random
from typing import Final, Literal

Pattern = Literal["A", "B"]
Method = Literal["behaviour", "image", "none"]

PATTERNS: Final[tuple[Pattern, ...]] = ("A", "B")
METHODS: Final[tuple[Method, ...]] = ("behaviour", "image", "none")

_HASHES: Final = 2**64


class Experiment:
    """Assigns `b_percent` of visitors pattern B, the others A.

    `key` is the hash's, at most 64 bytes: another one assigns all visitors anew, and who does not
    know it cannot choose a pattern.
    """

    def __init__(self, key: bytes = b"lookalike", b_percent: int = 50) -> None:
        self._hash = hashlib.blake2b(key=key, digest_size=8)
        self._b_percent = b_percent
        self._bound = _HASHES * b_percent // 100

    def pattern_of(self, visitor: str | None) -> Pattern:
        """The pattern of a visitor, told by any text; one at random for None."""
        if visitor is None:
            chance = 100 * random.random()  # noqa: S311  # nothing is secret about it
            return "B" if chance < self._b_percent else "A"
        keyed = self._hash.copy()
        keyed.update(visitor.encode())
        return "B" if int.from_bytes(keyed.digest()) < self._bound else "A"
