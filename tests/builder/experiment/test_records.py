"""Records of an experiment in all forms, sound and malformed."""

import gzip
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest

from experiments import Record, event, records_in, report, write_jsonl
from lookalike_build.experiment.checks import Period
from lookalike_build.experiment.files import EventColumns, event_files
from lookalike_build.experiment.log import LogPaths
from lookalike_build.experiment.records import EventError, Memory, Records, Tally, read_records
from lookalike_build.experiment.writer import event_writer
from lookalike_build.simulation.files import records_of, schema
from lookalike_build.simulation.visitors import PAPER_CTR, PAPER_CVR, Preferences, Simulation
from lookalike_build.tables.csv import Dialect
from lookalike_build.tables.error import TableError

TIME = "2026-01-02T03:04:05+00:00"


def read(
    *names: object,
    period: Period | None = None,
    memory: str = "1GB",
    columns: Mapping[str, str] | None = None,
) -> Records:
    files = event_files([str(name) for name in names], EventColumns(**(columns or {})))
    return read_records(files, period or Period(), Memory(memory), lambda _: None)


RECORDS = [
    event("impression", "A", visitor="v1", time=TIME),
    event("impression", "A", visitor="v1", time=TIME),
    event("impression", "A", "image", visitor="v2", time=TIME),
    event("impression", "A", "none", visitor="v9", time=TIME),
    event(
        "impression", "B", category_id="a&b/c ü+", visitor="v3", time="2026-01-05T00:00:00+00:00"
    ),
    event("impression", "B", visitor="v4", time=TIME),
    event("impression", "B", visitor=None, time=TIME),
    event("click", "A", visitor="v1", time=TIME),
    event("click", "A", visitor="v1", time=TIME),
    event("click", "B", category_id="a&b/c ü+", visitor="v3", time=TIME),
    event("purchase", "B", category_id="a&b/c ü+", visitor="v3", time=TIME),
]


def assert_read(found: Records) -> None:
    """That these are RECORDS and nothing else."""
    assert found.n_malformed == 0
    assert_sums(found)


def assert_sums(found: Records) -> None:
    """What all of RECORDS add up to, by hand."""
    assert found.patterns == {
        "A": Tally(2, 1, 0, 0, 3, 2, 0, 2 * 2 + 1, 2 * 2, 2 * 2, 0, 0),
        "B": Tally(2, 1, 1, 0, 3, 1, 1, 3, 1, 1, 1, 1),
    }
    assert found.categories == {
        "1": {"A": found.patterns["A"], "B": Tally(1, 0, 1, 0, 2, 0, 0, 2)},
        "a&b/c ü+": {"A": Tally(), "B": Tally(1, 1, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1)},
    }
    assert [tuple(each) for each in found.methods] == [
        ("A", "behaviour", 2, 2, 0),
        ("A", "image", 1, 0, 0),
        ("A", "none", 1, 0, 0),
        ("B", "image", 3, 1, 1),
    ]
    assert found.assigned == {"A": 2, "B": 3}
    assert found.period == (1767323045, 1767571200)
    assert (found.n_in_both, found.n_outside) == (0, 0)


def as_csv(path: Path, records: Iterable[Record] = RECORDS) -> Path:
    with path.open("wb") as file:
        pc.write_csv(as_table(records), file)
    return path


def as_table(records: Iterable[Record] = RECORDS) -> pa.Table:
    return pa.Table.from_pylist(
        [{**each, "category_id": str(each["category_id"])} for each in records]
    )


def as_parquet(path: Path) -> Path:
    table = as_table()
    moments = table["time"].cast(pa.timestamp("us", "UTC"))
    pq.write_table(table.set_column(5, "time", moments), path)
    return path


def as_log(path: Path, records: Iterable[Record] = RECORDS) -> Path:
    """The records as nginx logs them."""
    paths = {"impression": "/related", "click": "/clicked", "purchase": "/purchased"}
    lines = []
    for each in records:
        query = {name: each[name] for name in ("category_id", "visitor") if each[name] is not None}
        line = {"time": each["time"], "request_method": "GET", "status": "204"}
        if each["event"] == "impression":
            line["status"] = "200"
            line["x_lookalike_pattern"] = str(each["pattern"])
            line["x_lookalike_method"] = str(each["method"])
        else:
            query = {"pattern": each["pattern"], "method": each["method"], **query}
            line |= {"x_lookalike_pattern": "", "x_lookalike_method": "-"}
        line["request_uri"] = f"{paths[str(each['event'])]}?product_id=9&{urlencode(query)}"
        lines.append(line)
    return write_jsonl(path, lines)


def zipped(path: Path) -> Path:
    target = path.with_name(f"{path.name}.gz")
    target.write_bytes(gzip.compress(path.read_bytes()))
    return target


FORMS: dict[str, Callable[[Path], Path]] = {
    "csv": lambda folder: as_csv(folder / "r.csv"),
    "csv, gzip": lambda folder: zipped(as_csv(folder / "r.csv")),
    "Parquet": lambda folder: as_parquet(folder / "r.parquet"),
    "JSON Lines": lambda folder: write_jsonl(folder / "r.jsonl", RECORDS),
    "JSON Lines, gzip": lambda folder: zipped(write_jsonl(folder / "r.jsonl", RECORDS)),
    "log": lambda folder: as_log(folder / "access.log"),
    "log, gzip": lambda folder: zipped(as_log(folder / "access.log.2")),
}


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_are_read_alike(tmp_path: Path, form: str) -> None:
    assert_read(read(FORMS[form](tmp_path)))


def test_several_files_of_several_forms_are_one_experiment(tmp_path: Path) -> None:
    for name, some in (("1.csv", RECORDS[:5]), ("2.csv", RECORDS[5:8])):
        as_csv(tmp_path / name, some)
    rest = write_jsonl(tmp_path / "3.jsonl", RECORDS[8:])
    (tmp_path / "4.jsonl").touch()  # rotated, and nothing came since
    assert_read(read(tmp_path / "*.csv", rest, tmp_path / "[1-9].*"))


def test_visitors_in_numbers_and_text_are_the_same(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "r.jsonl", [event(visitor=7)])
    as_csv(tmp_path / "r.csv", [event("click", visitor="7"), event(pattern="B", visitor="8")])
    table = pa.table(
        {"event": ["click"], "pattern": ["A"], "method": [None], "category_id": [1], "visitor": [7]}
    )
    pq.write_table(table, tmp_path / "r.parquet")
    found = read(tmp_path / "r.*")
    assert found.patterns["A"] == Tally(1, 1, 0, 0, 1, 2, 0, 1, 2, 4)
    assert list(found.categories) == ["1"]


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_sums_of_many_visitors_are_those_of_their_definition(
    tmp_path: Path, suffix: str, known: bool
) -> None:
    rng = np.random.default_rng(2)
    likes = Preferences.drawn(rng, 5, (0.1, 0.2), (0.05, 0.06), spread=1.5)
    made = Simulation(likes, 5.0, 0.4, (0.3, 0.1), 0.1, known)
    drawn = made.draw(rng, 0, 3000)
    with event_writer(tmp_path / f"r{suffix}", schema(known)) as write:
        write(records_of(rng, drawn, likes.category_ids, 3, known))
    found = read(tmp_path / f"r{suffix}")
    expected = records_in(drawn, likes.category_ids, known)
    assert found.patterns == expected.patterns
    assert found.categories == expected.categories
    assert found.assigned == expected.assigned


def test_columns_may_have_other_names(tmp_path: Path) -> None:
    own = {"event": "what", "pattern": "arm", "method": "by", "category_id": "shelf"}
    own |= {"visitor": 'who "it" is', "time": "at"}
    renamed = [{own[name]: value for name, value in each.items()} for each in RECORDS]
    assert_read(read(write_jsonl(tmp_path / "r.jsonl", renamed), columns=own))
    table = pa.Table.from_pylist([{**each, "shelf": str(each["shelf"])} for each in renamed])
    pq.write_table(table, tmp_path / "r.parquet")
    assert_read(read(tmp_path / "r.parquet", columns=own))


def test_other_columns_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_bytes(
        b"\xef\xbb\xbfx,event,method,pattern,x,category_id\r\n"
        b'1,impression,image,A,"a\nb",1\r\n\r\n2,click,,A,,"1"\r\n3,impression,image,B,,1'
    )
    assert read(path).patterns["A"] == Tally(0, 0, 1, 1, 1, 1, 0, 1, 1, 1)


@pytest.mark.parametrize(
    "time",
    [
        "2026-01-02T03:04:05Z",
        "2026-01-02 03:04:05",
        "2026-01-02T12:04:05+09:00",
        "1767323045",
        "1767323045.25",
        "02/Jan/2026:12:04:05 +0900",
    ],
)
def test_times_in_all_forms(tmp_path: Path, time: str) -> None:
    path = write_jsonl(tmp_path / "r.jsonl", [event(time=time), event(pattern="B", time=time)])
    found = read(path).period
    assert found is not None
    assert found[0] == found[1] == pytest.approx(1767323045, abs=0.3)


def test_only_records_of_the_period_count(tmp_path: Path) -> None:
    times = ["2026-01-01T23:59:59Z", "2026-01-02", "2026-01-02T23:59:59.9Z", "2026-01-03"]
    path = write_jsonl(tmp_path / "r.jsonl", [event(time=time) for time in times])
    day = 1767312000.0
    found = read(path, period=Period(day, day + 86400))
    assert (found.patterns["A"].impressions, found.n_outside) == (2, 2)
    assert read(path, period=Period(start=day)).n_outside == 1
    assert read(path, period=Period(until=day)).n_outside == 3


def test_without_a_time_a_record_is_of_no_period(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "r.jsonl", [event(), event(time="")])
    assert read(path).period is None
    found = read(path, period=Period(until=0.0))
    assert (found.n_malformed, found.faults[0]) == (2, f"{path}: line 1: has no time")


MALFORMED: list[tuple[dict[str, Any], str]] = [
    ({"event": ""}, "has no event"),
    ({"pattern": None}, "has no pattern"),
    ({"method": None}, "has no method"),
    ({"category_id": ""}, "has no category_id"),
    (
        {"time": "yesterday\x1b[31m"},
        "time must be ISO 8601, Unix seconds or like 31/Dec/2026:23:59:59 +0900, not "
        r'"yesterday\u001b[31m"',
    ),
    ({"time": "1767323045000"}, "time must be ISO 8601, Unix seconds or like"),
]


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(("wrong", "said"), MALFORMED)
def test_malformed_records_are_left_out_counted_and_named(
    tmp_path: Path, form: str, wrong: dict[str, Any], said: str
) -> None:
    sound = event(visitor="v", time=TIME)
    path = tmp_path / f"r.{form}"
    records = [sound, {**sound, **wrong}, {**sound, "pattern": "B"}]
    if form == "jsonl":
        write_jsonl(path, records)
    elif form == "csv":
        as_csv(path, records)
    else:
        pq.write_table(as_table(records), path)
    found = read(path)
    assert found.n_malformed == 1
    place = {"csv": "line 3", "jsonl": "line 2", "parquet": "row 2"}[form]
    (fault,) = found.faults
    if form == "jsonl" and "event" in wrong:
        said = "is no JSON object with event"
    assert fault.startswith(f"{path}: {place}: {said}")
    assert {pattern: its.impressions for pattern, its in found.patterns.items()} == {"A": 1, "B": 1}


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_other_delimiters_are_seen_from_the_header(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "r.csv"
    lines = [
        "event,pattern,method,category_id,visitor",
        "impression,A,behaviour,1,v",
        ",A,image,1,v",
    ]
    path.write_text("\n".join(lines).replace(",", delimiter))
    found = read(path)
    assert found.patterns["A"].impressions == 1
    assert found.faults == [f"{path}: line 3: has no event"]


def test_lines_that_are_no_rows_of_csv_are_named(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    row = b"impression,A,behaviour,1,v\n"
    lines = [b"event,pattern,method,category_id,visitor\n", row, b"impression,A\n", row]
    lines += [b"impression,A,behaviour,1,v,2,3\n", b",A,behaviour,1,v\n"]
    lines += [b"impression,A,behaviour,caf\xe9,v\n", b'impression,A,"beha"viour,1,v\n', row]
    path.write_bytes(b"".join(lines))
    found = read(path)
    assert found.patterns["A"].impressions == 3
    assert found.n_malformed == 5
    assert found.faults == [
        f"{path}: line 3: is no row of CSV (missing columns)",
        f"{path}: line 5: is no row of CSV (too many columns)",
        f"{path}: line 6: has no event",
        f"{path}: line 7: is no row of CSV (invalid encoding)",
        f"{path}: line 8: is no row of CSV (unquoted value)",
    ]


def test_lines_that_are_no_json_are_named(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    sound = json.dumps(event()).encode()
    path.write_bytes(
        b"\n".join([sound, b"[1]", b"", b"{", sound + b"\r", b'"x"', b"caf\xe9", sound])
    )
    found = read(path)
    assert found.patterns["A"].impressions == 3
    assert found.n_malformed == 4
    places = [f"{path}: line {n}: is no JSON object with event" for n in (2, 4, 6, 7)]
    assert found.faults == places


@pytest.mark.slow
def test_of_many_malformed_records_the_first_ten_are_named(tmp_path: Path) -> None:
    wrong = [event(category_id="")] * 70_000
    first = write_jsonl(tmp_path / "1.jsonl", [event(), *wrong[:4], event()])
    second = write_jsonl(tmp_path / "2.jsonl", [event(pattern="B")] * 70_000 + wrong)
    found = read(first, second)
    assert found.n_malformed == 70_004
    assert len(found.faults) == 10
    assert found.faults[3] == f"{first}: line 5: has no category_id"
    assert found.faults[4] == f"{second}: line 70001: has no category_id"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"event": "view"}, 'event must be impression or click or purchase, not "view"'),
        ({"pattern": "C"}, 'pattern must be A or B, not "C"'),
        ({"pattern": "a"}, 'pattern must be A or B, not "a"'),
        ({"method": "random"}, 'method must be behaviour or image or none, not "random"'),
    ],
)
def test_a_word_that_nobody_knows_is_refused(
    tmp_path: Path, wrong: dict[str, Any], said: str
) -> None:
    path = write_jsonl(tmp_path / "r.jsonl", [event(), event(category_id=""), {**event(), **wrong}])
    with pytest.raises(EventError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: line 3: {said}; change it, or leave")


def test_a_word_that_only_duckdb_reads_is_refused_too(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    sound = json.dumps(event())
    path.write_text(f'{sound}\n{{"event":"view",{sound[1:]}\n')
    with pytest.raises(EventError, match=r"r.jsonl: a record has an unknown event; change it, or"):
        read(path)


def test_of_a_log_only_what_was_answered_counts(tmp_path: Path) -> None:
    query = "category_id=1&visitor=v"
    headers = {"x_lookalike_pattern": "A", "x_lookalike_method": "image", "time": TIME}

    def line(uri: str, status: object = 200, **more: str) -> dict[str, object]:
        return {"request_uri": uri, "status": status, **headers, **more}

    lines = [
        line(f"/related?{query}"),
        line(f"/related?{query}", request_method="POST"),
        line(f"/related?{query}", request_method="HEAD"),
        line(f"/related?{query}", 404),
        line(f"/related?{query}", 503),
        line(f"/relatedness?{query}"),
        line(f"/nns?{query}"),
        line(f"/shown?{query}&pattern=B&method=behaviour", 204),
        line(f"/shown?{query}&pattern=B&method=image", 404),
        line(f"/clicked?{query}&pattern=A", 204, request_method="OPTIONS"),
        line(f"/clicked?{query}&pattern=A", 404),
        line(f"/clicked?{query}&pattern=A&method=", 204),
        line(f"/purchased?{query}&pattern=A", 202, request_method="POST"),
    ]
    found = read(write_jsonl(tmp_path / "access.log", lines))
    assert found.patterns["A"] == Tally(1, 1, 0, 0, 2, 1, 1, 4, 2, 1, 1, 1)
    assert found.patterns["B"].impressions == 1
    assert found.methods[-1][:3] == ("B", "behaviour", 1)
    assert (found.n_other, found.n_malformed) == (8, 0)


def test_without_its_headers_related_is_no_impression(tmp_path: Path) -> None:
    lines = [
        {"request_uri": "/related?category_id=1&visitor=v", "status": 200},
        {"request_uri": "/shown?category_id=1&visitor=v&pattern=A&method=image", "status": 204},
    ]
    found = read(write_jsonl(tmp_path / "access.log", lines))
    assert (found.patterns["A"].impressions, found.n_other, found.n_malformed) == (1, 1, 0)


def test_what_anybody_sends_to_a_log_stops_no_report(tmp_path: Path) -> None:
    path = as_log(tmp_path / "access.log")
    junk = [
        {"request_uri": "/clicked?pattern=C&category_id=1", "status": 204},
        {"request_uri": "/clicked?pattern=A", "status": 204},
        {"request_uri": "/clicked?pattern=A&category_id=%FF", "status": 204},
        {"request_uri": "/related?category_id=1", "status": 200, "x_lookalike_pattern": "-"},
        {"status": 204},
    ]
    with path.open("a") as file:
        file.writelines(f"{json.dumps(each)}\n" for each in junk)
        file.write('{"request_uri": "/rel')
    found = read(path)
    assert found.n_malformed == 6
    assert [fault.removeprefix(f"{path}: ") for fault in found.faults] == [
        'line 12: pattern must be A or B, not "C"',
        "line 13: has no category_id",
        "line 14: has no category_id",
        "line 15: has no pattern",
        "line 16: is no JSON object with request_uri and status",
        "line 17: is no JSON object with request_uri and status",
    ]


def test_a_log_may_have_other_paths(tmp_path: Path) -> None:
    path = as_log(tmp_path / "access.log")
    text = path.read_text()
    for own in ("related", "clicked", "purchased"):
        text = text.replace(f"/{own}?", f"/shop/{own}.gif?")
    path.write_text(text)
    paths = LogPaths("/shop/related.gif", "/no", "/shop/clicked.gif", "/shop/purchased.gif")
    files = event_files([str(path)], paths=paths)
    assert_read(read_records(files, Period(), Memory("1GB"), lambda _: None))


def test_visitors_of_both_patterns_are_told(tmp_path: Path) -> None:
    both = [event(pattern=pattern, visitor="v") for pattern in "AB"]
    more = [event(pattern=pattern, visitor=f"v{pattern}") for pattern in "ABB"]
    found = read(write_jsonl(tmp_path / "r.jsonl", both + more))
    assert found.n_in_both == 1
    assert found.assigned == {"A": 1, "B": 1}
    assert found.patterns["B"].visitors == 2


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("gone.csv", None, "no such file, and no file matches it"),
        ("r.csv", b"even;method\n", "has no column event, expected one (it has even, method)"),
        ("r.csv", b"event!method\n", "has no column event, expected one (it has event!method)"),
        ("r.csv", b"event,event,pattern\n", "has 2 column event, expected one"),
        ("r.csv", b"event,pattern,method,shelf\n", "--category-id-column says what it is called"),
        ("r.json", b'[{"event":"click"}]', "is one JSON array"),
        ("r.json", b'[\n{"event":"click"},\n{"event":"click"}\n]', "is one JSON array"),
        ("r.gz", b"\x1f\x8b\x08broken", "cannot be read as gzip"),
        ("r.parquet", b"PAR1 and no more", "cannot be read as Parquet"),
        ("r.xlsx", b"PK\x03\x04", "is a spreadsheet or a ZIP archive; save it as CSV in UTF-8"),
        ("r.log", b'[ {"request_uri": "/"}]', "is one JSON array"),
    ],
)
def test_files_that_are_no_records_are_refused(
    tmp_path: Path, name: str, content: bytes | None, said: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(TableError, match="^" + str(tmp_path / name)) as caught:
        read(tmp_path / name)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["csv", "log"])
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, form: str) -> None:
    path = FORMS[form](tmp_path)
    head, *lines = path.read_bytes().splitlines(keepends=True)
    many = gzip.compress(head + b"".join(lines) * 5000)
    cut = tmp_path / "cut.gz"
    cut.write_bytes(many[:-5000])
    with pytest.raises(TableError, match=r"cut.gz: cannot be read as gzip: .* ended before"):
        read(cut)


@pytest.mark.slow
def test_what_does_not_fit_in_memory_goes_to_disk(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    made = Simulation(Preferences.drawn(rng, 50, PAPER_CTR, PAPER_CVR), 3.0)
    drawn = made.draw(rng, 0, 400_000)
    path = tmp_path / "r.parquet"
    with event_writer(path, schema(True)) as write:
        write(records_of(rng, drawn, made.preferences.category_ids, 3, True))
    found = read(path, memory="200MB")
    assert found.patterns == records_in(drawn, ()).patterns


def test_a_file_whose_name_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r\udcff.csv").write_text("event,pattern,method,category_id\n")
    with pytest.raises(TableError, match="its name is not UTF-8; rename it"):
        read(tmp_path / "*.csv")


def test_too_little_memory_is_said_with_the_folder_for_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("event,pattern,method,category_id\nimpression,A,image,1\n")
    (file,) = event_files([str(path)])
    room = rf"; give more --memory-limit, or room in {tmp_path} \(--temporary\)$"
    with pytest.raises(EventError, match=f"^Out of Memory Error: .*{room}"):
        read_records([file], Period(), Memory("1MB", tmp_path), lambda _: None)


@pytest.mark.parametrize(
    "nobody",
    [
        "undefined",
        "null",
        "NULL",
        "NaN",
        "None",
        "(null)",
        "[object Object]",
        "-",
        " ",
        " undefined ",
        "nil",
    ],
)
@pytest.mark.parametrize("form", ["csv", "jsonl", "log"])
def test_a_visitor_that_names_nobody_is_no_visitor_and_is_counted(
    tmp_path: Path, nobody: str, form: str
) -> None:
    named = [event(pattern="AB"[n % 2], visitor=f"v{n}", time=TIME) for n in range(6)]
    records = [
        *named,
        *[event(pattern="B", visitor=nobody, time=TIME)] * 3,
        event(visitor="", time=TIME),
    ]
    path = tmp_path / f"r.{form}"
    if form == "csv":
        as_csv(path, records)
    elif form == "jsonl":
        write_jsonl(path, records)
    else:
        as_log(path, records)
    found = read(path)
    assert (found.patterns["A"].visitors, found.patterns["A"].anonymous) == (3, 1)
    assert (found.patterns["B"].visitors, found.patterns["B"].anonymous) == (3, 3)
    assert found.n_unnamed == 3
    assert found.n_malformed == 0


@pytest.mark.parametrize(
    "somebody", ["0", "undefined7", "nullable", "Nan Goldin", "--x", "falsetto"]
)
def test_a_visitor_that_looks_like_nobody_may_be_somebody(tmp_path: Path, somebody: str) -> None:
    found = read(write_jsonl(tmp_path / "r.jsonl", [event(visitor=somebody)] * 3))
    assert (found.patterns["A"].visitors, found.n_unnamed) == (1, 0)


OTHER_STARTS = {
    "another format": b'127.0.0.1 - - [02/Jan/2026:03:04:05 +0000] "GET / HTTP/1.1" 200 2 "-" "curl"\n',
    "a start-up line": b'2026/01/02 03:04:05 [notice] 1#1: using the "epoll" event method\n',
    "an empty line": b"\n",
    "blanks": b"  \r\n\t\n",
    "the end of a line": b'quest_uri":"/related?category_id=1","x_lookalike_pattern":"A"}\n',
    "the start of a line": b'{"time": "2026-01-02T03:04:05+00:00", "status": "20\n',
    "another object": b'{"level":"info","msg":"started"}\n',
    "a header": b"time,status,request_uri\n",
    "a hole left by rotation": b"\0" * 500 + b"\n",
    "a large hole": b"\0" * 1_000_000 + b"\n",
    "bytes of anything": b"\x1b[31m\xff\xfe\x80\n",
    "many lines": b"Starting ...\n" * 200,
}


@pytest.mark.parametrize("start", OTHER_STARTS)
@pytest.mark.parametrize("form", ["log", "jsonl", "log.gz"])
def test_a_log_that_begins_with_something_else_is_a_log(
    tmp_path: Path, start: str, form: str
) -> None:
    path = tmp_path / f"r.{form}"
    if form == "jsonl":
        write_jsonl(path, RECORDS)
    else:
        as_log(path)
    content = OTHER_STARTS[start] + path.read_bytes()
    path.write_bytes(gzip.compress(content) if form.endswith("gz") else content)
    found = read(path)
    n_malformed = {"an empty line": 0, "blanks": 0, "many lines": 200}.get(start, 1)
    assert found.n_malformed == n_malformed
    assert len(found.faults) == min(n_malformed, 10)
    if n_malformed:
        assert found.faults[0].startswith(f"{path}: line 1: ")
    assert_sums(found)


@pytest.mark.parametrize("form", ["csv", "jsonl", "log", "log.gz"])
def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"r.{form}"
    if form == "csv":
        as_csv(path)
    elif form == "jsonl":
        write_jsonl(path, RECORDS)
    else:
        as_log(path)
    content = b"\xef\xbb\xbf" + path.read_bytes()
    path.write_bytes(gzip.compress(content) if form.endswith("gz") else content)
    assert_read(read(path))


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_csv_of_a_spreadsheet_is_read_as_it_begins(
    tmp_path: Path, delimiter: str, encoding: str
) -> None:
    path = as_csv(tmp_path / "r.csv")
    text = path.read_text().replace(",", delimiter)
    path.write_bytes(text.encode(encoding))
    assert_read(read(path))
    path.write_bytes(f"{text}impression{delimiter}\n".encode(encoding))
    assert read(path).n_malformed == 1


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_line_that_names_the_delimiter_is_no_header(tmp_path: Path, end: str) -> None:
    path = as_csv(tmp_path / "r.csv")
    text = f"sep=;\n{path.read_text().replace(',', ';')}impression;A;image;;v;\nimpression;A\n"
    path.write_bytes(text.replace("\n", end).encode())
    found = read(path)
    assert_sums(found)
    assert found.faults == [
        f"{path}: line 14: has no category_id",
        f"{path}: line 15: is no row of CSV (missing columns)",
    ]


@pytest.mark.parametrize("place", [0, 1, 5, 10])
@pytest.mark.parametrize(("most", "one"), [(b"\n", b"\r\n"), (b"\r\n", b"\n")])
def test_lines_may_end_in_different_ways(
    tmp_path: Path, place: int, most: bytes, one: bytes
) -> None:
    path = as_csv(tmp_path / "r.csv")
    lines = [*path.read_bytes().splitlines(), b"impression"]
    ends = [most] * len(lines)
    ends[place] = one
    path.write_bytes(b"".join(line + end for line, end in zip(lines, ends, strict=True)))
    found = read(path)
    assert_sums(found)
    assert found.faults == [f"{path}: line 13: is no row of CSV (missing columns)"]


@pytest.mark.parametrize(("encoding", "text"), [("cp1252", "Röcke"), ("cp932", "手芸")])
def test_another_encoding_is_given(tmp_path: Path, encoding: str, text: str) -> None:
    path = tmp_path / "r.csv"
    header = "event,pattern,method,category_id"
    path.write_bytes(f"{header}\nimpression,A,image,{text}\nimpression,,image,1\n".encode(encoding))
    assert not read(path).categories
    (file,) = event_files([str(path)], dialect=Dialect(encoding))
    found = read_records([file], Period(), Memory("1GB"), lambda _: None)
    assert list(found.categories) == [text]
    assert found.faults == [f"{path}: line 3: has no pattern"]


def test_the_command_takes_an_encoding_and_a_delimiter(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    rows = ["event!pattern!method!category_id"]
    rows += [f"impression!{pattern}!image!Röcke" for pattern in "AB"]
    path.write_bytes("\n".join(rows).encode("cp1252"))
    found = report(path, "--encoding", "cp1252", "--delimiter", "!")
    assert [each["category_id"] for each in found["categories"]] == ["Röcke"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
@pytest.mark.parametrize("form", ["log", "jsonl"])
def test_logs_in_utf_16_are_read(tmp_path: Path, encoding: str, form: str) -> None:
    path = tmp_path / f"r.{form}.txt"
    as_log(path) if form == "log" else write_jsonl(path, RECORDS)
    path.write_bytes(path.read_text().encode(encoding))
    assert_read(read(path))
