"""Simulated experiments: visitors whose clicks and purchases follow known preferences.

A visitor sees impressions in some categories. The probability of a click is the rate of the category
and of the method that answered, times the visitor's own appetite for clicks; that of a purchase after a
click likewise, with another appetite. So the rates that a report estimates are known.
"""

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from lookalike.errors import LookalikeError
from lookalike.experiment import METHODS, PATTERNS
from lookalike.release.arrays import Flags, Float64

PAPER_CTR: Final = (0.0051, 0.0076)
PAPER_CVR: Final = (0.0021, 0.0028)
"""The rates of patterns A and B in table 1 of Miyake et al. (2017)."""

_ANSWERING = METHODS[:2]
_NONE = METHODS.index("none")
_FAVOURITE = 0.5
"""The share of a visitor's impressions in its favourite category; the rest are in any."""

Integers = npt.NDArray[np.int64]


class PreferenceError(LookalikeError):
    """The preferences are invalid; the text says why."""


@dataclass(frozen=True)
class Preferences:
    """What visitors like, in n categories.

    `shares` (n,) of the impressions sum to 1. `ctr` (2, n) are clicks per impression that behaviour (0)
    or image (1) answered, `cvr` (2, n) purchases per click. `spread` is the standard deviation of the
    visitors' appetites over their mean; 0 makes them alike.
    """

    category_ids: tuple[str, ...]
    shares: Float64
    ctr: Float64
    cvr: Float64
    spread: float = 1.0

    def __post_init__(self) -> None:
        if not (self.shares >= 0).all() or not np.isclose(self.shares.sum(), 1):
            raise PreferenceError("the shares of the categories must be 0 or more and sum to 1")
        if not ((self.ctr > 0) & (self.ctr < 1)).all():
            raise PreferenceError("every ctr must be above 0 and below 1")
        if not ((self.cvr >= 0) & (self.cvr < 1)).all():
            raise PreferenceError(
                "every cvr must be 0 or more and below 1: it is purchases per click"
            )
        for name, top in (("ctr", self.ctr.max()), ("cvr", self.cvr.max())):
            most = ((1 - top) / top) ** 0.5 if top else np.inf
            if not 0 <= self.spread < most:
                raise PreferenceError(
                    f"spread must be from 0 to below {most:.3g} with a {name} of {top:.3g}, not "
                    f"{self.spread:g}"
                )

    @classmethod
    def drawn(
        cls,
        rng: np.random.Generator,
        n_categories: int,
        ctr: tuple[float, float] = PAPER_CTR,
        cvr: tuple[float, float] = PAPER_CVR,
        spread: float = 1.0,
        differ: float = 0.3,
    ) -> "Preferences":
        """Categories of different sizes and rates; over all of them these are exactly `ctr` and `cvr`.

        `differ` is the standard deviation of two logarithms: of a category's rates over those of all,
        and of its ratio of image to behaviour over that of all.
        """
        shares = 1 / np.arange(1, n_categories + 1)
        shares /= shares.sum()
        levels, ratios = np.exp(differ * rng.standard_normal((2, n_categories)))
        relative = np.stack([levels, levels * ratios])
        ids = tuple(str(number) for number in range(1, n_categories + 1))
        of_ctr = relative * (np.array(ctr) / (relative @ shares))[:, None]
        clicks = shares * of_ctr
        mean = (relative * clicks).sum(axis=1) / clicks.sum(axis=1)
        of_cvr = relative * (np.array(cvr) / mean)[:, None]
        return cls(ids, shares, of_ctr, of_cvr, spread)

    @classmethod
    def read(cls, document: Any, spread: float) -> "Preferences":
        """From a JSON document like that of `Simulation.truth`; only part of it is needed."""
        try:
            categories = document["categories"]
            shares = np.array([each["share"] for each in categories.values()], np.float64)
            ctr, cvr = (
                np.array(
                    [[each[method][name] for each in categories.values()] for method in _ANSWERING],
                    np.float64,
                )
                for name in ("ctr", "cvr")
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise PreferenceError(
                'must be {"categories": {ID: {"share": …, "behaviour": {"ctr": …, "cvr": …}, "image": '
                f'{{"ctr": …, "cvr": …}}}}, …}}}} ({type(error).__name__}: {error})'
            ) from None
        return cls(tuple(categories), shares, ctr, cvr, spread)


class Impressions(NamedTuple):
    """What visitors saw and did: arrays (n,) with an element for each impression.

    `visitor` is the visitor's number; `pattern`, `method` and `category` are indices into `PATTERNS`
    (one more is `CHOSEN`), `METHODS` and the preferences' categories.
    """

    visitor: Integers
    pattern: Integers
    method: Integers
    category: Integers
    clicked: Flags
    bought: Flags


@dataclass(frozen=True)
class Simulation:
    """The settings of an experiment.

    A visitor has `impressions` on average, geometrically distributed from 1. The share `share` of the
    visitors has pattern B. `fallback` is how often, for patterns A and B, the pattern's own method has
    no answer and the other one answers; `unanswered` is how often neither answers. Unless visitors are
    `known`, no record names its visitor, and every impression is assigned a pattern of its own.
    """

    preferences: Preferences
    impressions: float = 8.0
    share: float = 0.5
    fallback: tuple[float, float] = (0.0, 0.0)
    unanswered: float = 0.0
    known: bool = True

    def draw(self, rng: np.random.Generator, first: int, n: int) -> Impressions:
        """What `n` visitors see and do; their numbers begin at `first`."""
        likes = self.preferences
        each = rng.geometric(1 / self.impressions, n)
        visitor = np.repeat(np.arange(n), each)
        chance = rng.random(n)[visitor] if self.known else rng.random(visitor.size)
        pattern = (chance < self.share).astype(np.int64)
        own = np.array(self.fallback)[pattern] <= rng.random(visitor.size)
        method = np.where(own, pattern, 1 - pattern)  # PATTERNS are in the order of METHODS
        answered = rng.random(visitor.size) >= self.unanswered
        category = self._categories(rng, visitor, n)
        to_click, to_buy = (
            rates[method, category] * _appetites(rng, n, float(rates.max()), likes.spread)[visitor]
            for rates in (likes.ctr, likes.cvr)
        )
        clicked = answered & (rng.random(visitor.size) < to_click)
        bought = clicked & (rng.random(visitor.size) < to_buy)
        method[~answered] = _NONE
        return Impressions(first + visitor, pattern, method, category, clicked, bought)

    def _categories(self, rng: np.random.Generator, visitor: Integers, n: int) -> Integers:
        shares = self.preferences.shares / self.preferences.shares.sum()
        anywhere, favourite = (
            rng.choice(shares.size, size, p=shares) for size in (visitor.size, n)
        )
        at_home = rng.random(visitor.size) < _FAVOURITE
        return np.asarray(np.where(at_home, favourite[visitor], anywhere))

    def truth(self) -> dict[str, Any]:
        """The rates that a report estimates, as a JSON document.

        By pattern, and for each category by pattern and, as preferences, by method.
        """
        likes = self.preferences
        fallback = np.array(self.fallback)[:, None]
        # Of each method, then of each pattern: clicks and purchases per impression in each category.
        of_method = np.stack([likes.ctr, likes.ctr * likes.cvr])
        of_pattern = (1 - fallback) * of_method + fallback * of_method[:, ::-1]

        def rates(clicks: np.float64, purchases: np.float64) -> dict[str, float]:
            return {"ctr": float(clicks), "cvr": float(purchases / clicks)}

        return {
            "patterns": {
                pattern: rates(*(of_pattern[:, p] @ likes.shares))
                for p, pattern in enumerate(PATTERNS)
            },
            "categories": {
                category_id: {
                    "share": float(likes.shares[c]),
                    **{method: rates(*of_method[:, m, c]) for m, method in enumerate(_ANSWERING)},
                    **{pattern: rates(*of_pattern[:, p, c]) for p, pattern in enumerate(PATTERNS)},
                }
                for c, category_id in enumerate(likes.category_ids)
            },
        }


def _appetites(rng: np.random.Generator, n: int, top: float, spread: float) -> Float64:
    """Factors (n,) of mean 1 and standard deviation `spread`, at most 1 / `top`.

    Beta-distributed, so that a visitor's rate is never above 1 and the mean is exact.
    """
    if spread == 0 or top == 0:
        return np.ones(n)
    total = (1 - top) / top / spread**2 - 1
    return rng.beta(top * total, (1 - top) * total, n) / top
