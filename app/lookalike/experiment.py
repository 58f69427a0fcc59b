"""Which of two patterns a visitor gets: A, what others rated too, or B, similar images.

As in the experiment of Miyake et al. (2017). The choice is random, but fixed for a known visitor.
"""

import hashlib
import random
from typing import Final, Literal

Pattern = Literal["A", "B"]
Method = Literal["behaviour", "image", "none"]

PATTERNS: Final[tuple[Pattern, ...]] = ("A", "B")
METHODS: Final[tuple[Method, ...]] = ("behaviour", "image", "none")


class Experiment:
    """Assigns pattern B to `b_percent` of visitors, A to the others.

    `key` is the key of the hash, at most 64 bytes. Another key reassigns all visitors; without the key
    nobody can choose a pattern.
    """

    def __init__(self, key: bytes = b"lookalike", b_percent: int = 50) -> None:
        self._hash = hashlib.blake2b(key=key, digest_size=8)
        self._b_percent = b_percent
        self._bound = 2**64 * b_percent // 100  # of the hashes

    def pattern_of(self, visitor: str | None) -> Pattern:
        """The pattern of a visitor, known by any text; a random one for None."""
        if visitor is None:
            chance = 100 * random.random()  # noqa: S311  # it need not be secret
            return "B" if chance < self._b_percent else "A"
        keyed = self._hash.copy()
        keyed.update(visitor.encode())
        return "B" if int.from_bytes(keyed.digest()) < self._bound else "A"
