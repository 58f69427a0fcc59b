"""A table of rules, in every format, and what is wrong with one."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lookalike.release.ids import IdType
from lookalike.release.rules import Rule
from lookalike_build.rules.files import RULE_COLUMNS, RuleColumns, RulesByCategory, read_rules
from lookalike_build.tables.csv import AS_IT_BEGINS
from lookalike_build.tables.error import TableError

ROWS = [(1, 234, "pin", 871), (1, None, "pin", 902), (1, None, "ban", 5), (2, 7, "ban", 8)]
RULES = {
    1: [Rule(234, "pin", 871), Rule(None, "pin", 902), Rule(None, "ban", 5)],
    2: [Rule(7, "ban", 8)],
}


def read(
    path: Path, id_type: IdType = "integer", names: RuleColumns = RULE_COLUMNS
) -> RulesByCategory:
    return read_rules(path, names, AS_IT_BEGINS, (id_type, id_type))


def csv(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "rules.csv"
    path.write_text("\n".join(["category_id,product_id,rule,other_id", *lines]) + "\n")
    return path


def test_every_format_says_the_same(tmp_path: Path) -> None:
    texts = [",".join("" if one is None else str(one) for one in row) for row in ROWS]
    assert read(csv(tmp_path, *texts)) == RULES
    records = [dict(zip(RULE_COLUMNS, row, strict=True)) for row in ROWS]
    path = tmp_path / "rules.parquet"
    pq.write_table(pa.Table.from_pylist(records), path)
    assert read(path) == RULES
    lines = [{name: one for name, one in each.items() if one is not None} for each in records]
    path = tmp_path / "rules.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    assert read(path) == RULES
    path = tmp_path / "rules.sql"
    path.write_text("SELECT * FROM read_csv('rules.csv')")
    assert read(path) == RULES
    pq.write_table(pa.Table.from_pylist(records[1:3]), path.with_suffix(".parquet"))
    assert read(path.with_suffix(".parquet")) == {1: RULES[1][1:]}  # all blank, without a type


def test_ids_are_those_of_the_release_and_columns_may_have_other_names(tmp_path: Path) -> None:
    path = tmp_path / "rules.csv"
    path.write_text("cat,asked,what,other\nshoes, 007 ,pin,a b\nshoes,,ban,7\n")
    found = read(path, "string", RuleColumns("cat", "asked", "what", "other"))
    assert found == {"shoes": [Rule("007", "pin", "a b"), Rule(None, "ban", "7")]}


def test_the_same_rule_twice_is_one_and_a_header_alone_is_none(tmp_path: Path) -> None:
    assert read(csv(tmp_path, "1,2,pin,3", "1,2,pin,4", "1,2,pin,3")) == {
        1: [Rule(2, "pin", 3), Rule(2, "pin", 4)]
    }
    assert read(csv(tmp_path)) == {}


def test_what_is_wrong_is_said_of_each_line(tmp_path: Path) -> None:
    lines = ["1,x,pin,3", "1,2,Pin,3", "1,2,pin,", "y,2,pin,3", "1,2,ban,2", "1,2,pin", "1,,,3"]
    with pytest.raises(TableError) as raised:
        read(csv(tmp_path, *lines))
    *said, sixth, last = raised.value.problems
    assert said == [
        "line 2: product_id must be a whole number as in the release, not 'x'",
        "line 3: rule must be pin or ban, not 'Pin'",
        "line 4: other_id must be a whole number as in the release, not ''",
        "line 5: category_id must be a whole number as in the release, not 'y'",
        "line 6: other_id is the product itself, which its answers never list",
    ]
    assert sixth.startswith("line 7: ")
    assert last == "line 8: rule must be pin or ban, not ''"


def test_a_column_that_is_missing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rules.csv"
    path.write_text("category_id,product_id,rule\n")
    with pytest.raises(TableError, match="no column other_id"):
        read(path)
