"""Sound feeds, damaged as transport, spreadsheets and people damage them: what is lost is said.

A feed is read or refused in words. Where it is read, every product that still stands in it is in the
catalogue; where products are gone from it, no more of them than may go unasked.
"""

import csv
import io
import json
import random
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pytest

from lookalike.errors import LookalikeError
from lookalike.release.manifest import Model
from lookalike_build.catalogue.export import EXPORTS, Export
from lookalike_build.catalogue.reader import CatalogueFormat, read_catalogue
from lookalike_build.publishing.removal import AllowedRemoval, Products, check_removal, in_catalogue

MODEL = Model("m", "0")
N = 60
IDS = [str(7_100_000 + number) for number in range(N)]
Table = list[list[str]]
Mutation = Callable[[random.Random, Table], Table]


def sound(system: str | None) -> Table:
    """A header and a product a row; ids are found nowhere else in it."""
    if system == "shopify":
        header = ["Handle", "Title", "Type", "Image Src", "Image Position", "Status"]
        return [header] + [
            [id_, f"Tïtle {n}", "ab"[n % 2], f"http://x/{n}.jpg", "1", "active"]
            for n, id_ in enumerate(IDS)
        ]
    if system == "google-merchant":
        header = ["id", "title", "image_link", "product_type"]
        return [header] + [
            [id_, f"Tïtle {n}", f"http://x/{n}.jpg", f"A > {'bc'[n % 2]}"]
            for n, id_ in enumerate(IDS)
        ]
    header = ["product_id", "category_id", "image", "title"]
    return [header] + [
        [id_, "衣類" if n % 2 else "b", f"photos/{n}.jpg", f"Tïtle {n}, new"]
        for n, id_ in enumerate(IDS)
    ]


def _some(rng: random.Random, table: Table) -> list[int]:
    return sorted(
        rng.sample(range(1, len(table)), min(len(table) - 1, rng.choice([1, 1, 2, 5, 30])))
    )


def cut_rows(rng: random.Random, table: Table) -> Table:
    return table[: rng.randrange(len(table) + 1)]


def without_some(rng: random.Random, table: Table) -> Table:
    gone = _some(rng, table)
    return [row for number, row in enumerate(table) if number not in gone]


def double(rng: random.Random, table: Table) -> Table:
    return table + [table[number] for number in _some(rng, table)]


def header_again(rng: random.Random, table: Table) -> Table:
    place = rng.randrange(len(table) + 1)
    return [*table[:place], table[0], *table[place:]]


def blank_rows(rng: random.Random, table: Table) -> Table:
    place = rng.randrange(1, len(table) + 1)
    blank: list[str] = rng.choice([[], [""] * len(table[0]), [" "]])
    return [*table[:place], blank, *table[place:]]


def shuffled_rows(rng: random.Random, table: Table) -> Table:
    rows = table[1:]
    rng.shuffle(rows)
    return [table[0], *rows]


def shuffled_columns(rng: random.Random, table: Table) -> Table:
    order = rng.sample(range(len(table[0])), len(table[0]))
    return [[row[place] for place in order] if len(row) == len(order) else row for row in table]


def without_a_column(rng: random.Random, table: Table) -> Table:
    place = rng.randrange(len(table[0]))
    return [row[:place] + row[place + 1 :] for row in table]


def another_column(rng: random.Random, table: Table) -> Table:
    place = rng.randrange(len(table[0]) + 1)
    return [
        [*row[:place], "note" if not n else "z" * n, *row[place:]] for n, row in enumerate(table)
    ]


def shifted(rng: random.Random, table: Table) -> Table:
    chosen = set(_some(rng, table))
    shift: Callable[[list[str]], list[str]] = rng.choice(
        [
            lambda row: row[1:],
            lambda row: ["", *row],
            lambda row: [*row[1:], ""],
            lambda row: [*row, ""],
        ]
    )
    return [shift(row) if number in chosen else row for number, row in enumerate(table)]


def retyped(rng: random.Random, table: Table) -> Table:
    chosen = set(_some(rng, table)) if rng.random() < 0.7 else set(range(1, len(table)))
    retype: Callable[[str], str] = rng.choice(
        [
            lambda text: f"{text}.0",
            lambda text: f"{float(text):.5E}" if text.isdigit() else text,
            lambda text: f"{int(text):,}" if text.isdigit() else text,
            lambda text: f" {text}\xa0",
            lambda text: f"'{text}",
            lambda text: f'="{text}"',
            lambda text: "",
            lambda text: f"{text}\n",
            lambda text: f"0{text}",
        ]
    )
    place = 0
    return [
        [*row[:place], retype(row[place]), *row[place + 1 :]] if number in chosen and row else row
        for number, row in enumerate(table)
    ]


MUTATIONS: list[Mutation] = [
    *(cut_rows, without_some, double, header_again, blank_rows, shuffled_rows, shuffled_columns),
    *(without_a_column, another_column, shifted, retyped),
]


def written(rng: random.Random, table: Table) -> bytes:
    """The table as CSV in some dialect, whose bytes may be damaged."""
    text = io.StringIO()
    quoted = rng.random() < 0.5
    delimiter, end = rng.choice(",,;\t|"), rng.choice(["\n", "\r\n", "\r"])
    csv.writer(
        text,
        delimiter=delimiter,
        lineterminator=end,
        quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL,
    ).writerows(table)
    encodings = ["utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp932", "cp1252"]
    data = text.getvalue().encode(rng.choice(encodings), "replace")
    kind = rng.choice(["whole", "whole", "cut", "bytes", "lost"])
    if kind == "cut":
        return data[: rng.randrange(len(data) + 1)]
    if kind == "bytes" and data:
        place = rng.randrange(len(data))
        return data[:place] + rng.choice([b"\0", b'"', b"\xff", b"\n", b","]) + data[place:]
    if kind == "lost" and data:
        place = rng.randrange(len(data))
        return data[:place] + data[place + rng.randrange(200) :]
    return data


def as_json(rng: random.Random, table: Table) -> bytes:
    """The table as JSON Lines, whose bytes may be damaged."""
    header, *rows = table or [[]]
    lines = [json.dumps(dict(zip(header, row, strict=False)), ensure_ascii=False) for row in rows]
    data = "\n".join(lines).encode()
    return data[: rng.randrange(len(data) + 1)] if rng.random() < 0.3 else data


def texts_in(data: bytes) -> str:
    """What stands in a file, read leniently."""
    if b"\0" in data[:8] or data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16-le", "replace")
    return data.decode("utf-8", "replace")


@lru_cache
def served(system: str | None) -> Products:
    """The products of a release made of the sound feed."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "sound.csv"
        path.write_bytes(written_soundly(sound(system)))
        return in_catalogue("the release", read_catalogue(path, format_of(system)), MODEL)


def format_of(system: str | None) -> CatalogueFormat:
    return CatalogueFormat(export=Export(EXPORTS[system]) if system else None)


@pytest.mark.parametrize("seed", range(40))
def test_what_a_damaged_feed_loses_is_said(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    unclear: list[str] = []
    n_refused = 0
    for number in range(25):
        system = rng.choice([None] * 8 + ["shopify", "google-merchant"])
        table = sound(system)
        for mutate in rng.choices(MUTATIONS, k=rng.choice([0, 1, 1, 2, 3])):
            table = mutate(rng, table) if len(table) > 1 else table
        is_json = system is None and rng.random() < 0.15
        data = as_json(rng, table) if is_json else written(rng, table)
        path = tmp_path / f"{number}.{'jsonl' if is_json else 'csv'}"
        path.write_bytes(data)
        try:
            found = read_catalogue(path, format_of(system))
            check_removal(served(system), in_catalogue("it", found, MODEL), AllowedRemoval())
        except LookalikeError as error:
            n_refused += 1
            unclear += [line for line in error.lines() if not line or not line.isprintable()]
            continue
        rows = {str(value) for row in found.rows.to_pylist() for value in row.values()}
        still_there = set(re.findall(r"(?<!\d)71000\d\d(?!\d)", texts_in(data)))
        assert len(still_there - rows) <= sum(found.left_out.values()), (seed, number)
        n_gone = len(set(IDS) - set(map(str, found.rows["product_id"].to_pylist())))
        assert n_gone <= 0.2 * N, (seed, number)
    assert not unclear
    assert 0 < n_refused < 25


def written_soundly(table: Table) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(table)
    return text.getvalue().encode()


def test_a_sound_feed_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "sound.csv"
    path.write_bytes(written_soundly(sound(None)))
    assert read_catalogue(path).rows["product_id"].to_pylist() != []
    assert set(map(str, read_catalogue(path).rows["product_id"].to_pylist())) == set(IDS)
    assert read_catalogue(path).rows.schema.field("product_id").type == pa.int64()
