"""Rules: products that a shop pins to the top of answers, or bans from them.

``rules.json`` is a JSON array with an array for each rule, in the order in which pins come:
``[234,"pin",871]`` for the answers to product 234, ``[null,"ban",5]`` for all answers of the category.
A rule may name a product that is not there; it has no effect then.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple

import msgspec
from msgspec import Meta

from lookalike.release.files import ReleaseError, reason_of
from lookalike.release.ids import Id, IdType, json_id_problem

RuleKind = Literal["pin", "ban"]
MAX_RULES: Final = 1_000_000
"""The most rules of a category."""


class Rule(NamedTuple):
    """`other_id` is pinned in the answers to `product_id`, or banned from them; None is for those to
    every product of the category."""

    product_id: Id | None
    kind: RuleKind
    other_id: Id


class ProductRules(NamedTuple):
    """The products to come first in the answers to one product, in order, and those never to come."""

    pins: tuple[Id, ...]
    bans: frozenset[Id]


_File = Annotated[tuple[Rule, ...], Meta(min_length=1, max_length=MAX_RULES)]
NO_RULES: Final = ProductRules((), frozenset())


@dataclass(frozen=True)
class Rules:
    """The rules of a category: its own, which apply to every product, and those of products."""

    own: ProductRules
    by_product: Mapping[Id, ProductRules]

    @classmethod
    def of(cls, rules: Iterable[Rule]) -> "Rules":
        """The rules in their order."""
        pins: dict[Id | None, list[Id]] = defaultdict(list)
        bans: dict[Id | None, list[Id]] = defaultdict(list)
        for product_id, kind, other_id in rules:
            (pins if kind == "pin" else bans)[product_id].append(other_id)
        each = {
            product_id: ProductRules(tuple(pins[product_id]), frozenset(bans[product_id]))
            for product_id in [*pins, *(one for one in bans if one not in pins)]
        }
        return cls(
            each.pop(None, NO_RULES), {one: of for one, of in each.items() if one is not None}
        )

    def concern(self, product_id: Id) -> bool:
        """Whether there are rules for answers to the product."""
        return self.own is not NO_RULES or product_id in self.by_product

    def for_product(self, product_id: Id) -> ProductRules:
        """The rules for answers to a product: its own pins first, without those banned or itself."""
        pins, bans = self.by_product.get(product_id, NO_RULES)
        bans = bans | self.own.bans if bans else self.own.bans
        each = dict.fromkeys((*pins, *self.own.pins))
        return ProductRules(
            tuple(one for one in each if one not in bans and one != product_id), bans
        )


def read_rules(path: Path, file: str, id_type: IdType) -> tuple[Rule, ...]:
    """The rules in a file; ReleaseError for `file` if they are invalid."""
    try:
        rules = msgspec.json.decode(path.read_bytes(), type=_File)
    except (OSError, ValueError, RecursionError) as error:
        raise ReleaseError(file, reason_of(error)) from error
    ids = {one.other_id for one in rules} | {one.product_id for one in rules} - {None}
    for one in ids:
        if problem := json_id_problem(one, id_type):
            raise ReleaseError(file, f"has a product id that {problem}")
    return rules
