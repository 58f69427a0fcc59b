"""A table of rules: a row for each, in the order in which pins come.

Its columns are `category_id`, `product_id` (blank for every product of the category), `rule` (`pin` or
`ban`) and `other_id`, or others that `RuleColumns` names.
"""

import reprlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

from lookalike.release.ids import Id, IdType
from lookalike.release.rules import MAX_RULES, Rule
from lookalike_build.catalogue.ids import ReleasedIds
from lookalike_build.tables.chunks import Problem
from lookalike_build.tables.columns import STRINGS, WHOLE_OR_STRINGS, Column
from lookalike_build.tables.csv import Dialect
from lookalike_build.tables.reader import open_table

_MAX_PROBLEMS: Final = 1000
_KINDS: Final = ("pin", "ban")


class RuleColumns(NamedTuple):
    """What a table of rules calls its columns."""

    category_id: str = "category_id"
    product_id: str = "product_id"
    rule: str = "rule"
    other_id: str = "other_id"


RULE_COLUMNS: Final = RuleColumns()
"""What Lookalike calls them."""

RulesByCategory = Mapping[Id, Sequence[Rule]]
"""The rules of each category, in order, each once."""


def read_rules(
    path: Path, names: RuleColumns, dialect: Dialect, id_types: tuple[IdType, IdType]
) -> RulesByCategory:
    """Read and check a table of rules; ids are of `id_types`, those of categories and products.

    Raises TableError with the malformed rows by line number, the first thousand, or OSError if the
    file cannot be read.
    """
    category, product, other = (
        ReleasedIds(names.category_id, id_types[0], "category"),
        ReleasedIds(names.product_id, id_types[1], "product"),
        ReleasedIds(names.other_id, id_types[1], "product"),
    )
    # A column of blanks has no type.
    blank = Column(names.product_id, replace(WHOLE_OR_STRINGS, optional=True))
    columns = [category.column, blank, Column(names.rule, STRINGS), other.column]
    problems: list[Problem] = []
    rules: dict[Id, dict[Rule, None]] = defaultdict(dict)
    with open_table(path, columns, dialect) as table:
        for chunk in table.chunks:
            problems += chunk.problems
            for number, category_id, product_id, kind, other_id in chunk.rows():
                is_of_all = product_id is None or product_id == ""
                problem = (
                    category.problem(category_id)
                    or (None if is_of_all else product.problem(product_id))
                    or other.problem(other_id)
                )
                if kind not in _KINDS:
                    problem = f"{names.rule} must be pin or ban, not {reprlib.repr(kind)}"
                if problem:
                    problems.append((number, problem))
                    continue
                asked = None if is_of_all else product.valid(product_id)
                rule = Rule(asked, kind, other.valid(other_id))
                if asked == rule.other_id:
                    same = f"{names.other_id} is the product itself, which its answers never list"
                    problems.append((number, same))
                rules[category.valid(category_id)][rule] = None
            if len(problems) >= _MAX_PROBLEMS:
                break
        problems += [
            (1, f"category {one} has {len(each)} rules, at most {MAX_RULES} are possible")
            for one, each in rules.items()
            if len(each) > MAX_RULES
        ]
        if problems:
            raise table.error(sorted(problems)[:_MAX_PROBLEMS])
    return {category_id: list(each) for category_id, each in rules.items()}
