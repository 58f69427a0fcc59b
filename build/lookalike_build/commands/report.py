"""``lookalike-build report``: records of an experiment become its result."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import click

from lookalike.choice import ANSWERING, Answering
from lookalike.terminal.command import command, gathered, option
from lookalike.terminal.output import say
from lookalike.terminal.types import FILE, PRESENT_FOLDER, Number, WholeNumber
from lookalike_build.commands import options
from lookalike_build.commands.progress import progress
from lookalike_build.experiment import choice
from lookalike_build.experiment.checks import Period
from lookalike_build.experiment.files import COLUMNS, EventColumns, event_files
from lookalike_build.experiment.html import as_html
from lookalike_build.experiment.json import as_json
from lookalike_build.experiment.log import PATHS, LogPaths
from lookalike_build.experiment.records import CountBy, Memory, read_records
from lookalike_build.experiment.report import BestBy, Question, report_of
from lookalike_build.experiment.text import as_text
from lookalike_build.files.whole import whole_file
from lookalike_build.tables.csv import Dialect

_USUAL = Question()
_OF_PATHS = {
    "related": "an impression, if its headers are logged",
    "shown": "an impression",
    "clicked": "a click",
    "purchased": "a purchase",
}


def _moment(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(
            f'must be a date or a time such as 2026-01-31T12:00+09:00, not "{text}"'
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


@command("lookalike-build report '/var/log/nginx/experiment.log*' --html report.html")
@click.argument(
    "records",
    nargs=-1,
    required=True,
    help="CSV, Parquet or JSON Lines files of events, or JSON access logs of Unit and nginx; "
    "wildcards in quotes; text may be compressed by gzip, zstd, xz, bzip2 or zip",
)
@options.columns(COLUMNS, "the records call")
@options.dialect
@gathered(
    "paths",
    LogPaths,
    *(
        option(
            f"--{name}-path PATH",
            str,
            path,
            f"in access logs, the path of which a request is {_OF_PATHS[name]}",
            dest=name,
        )
        for name, path in PATHS._asdict().items()
    ),
)
@gathered(
    "period",
    Period,
    option(
        "--from TIME",
        _moment,
        None,
        "only records from then on: 2026-01-31, or 2026-01-31T12:00+09:00 (UTC unless it says)",
        dest="start",
    ),
    option("--until TIME", _moment, None, "only records from before then, given likewise"),
)
@gathered(
    "question",
    Question,
    option(
        "--confidence",
        Number(0.5, 0.9999),
        _USUAL.confidence,
        "of the intervals; tests are at the level of what is left to 1",
    ),
    option(
        "--share",
        Number(0.01, 0.99),
        _USUAL.share,
        "the share of visitors that is to have pattern B",
    ),
    option(
        "--min-impressions",
        WholeNumber(1),
        _USUAL.min_impressions,
        "a category with fewer of either pattern is undecided by click-through rate",
    ),
    option(
        "--min-clicks",
        WholeNumber(1),
        _USUAL.min_clicks,
        "a category with fewer of either pattern is undecided by conversion rate",
    ),
    option(
        "--best-by",
        click.Choice(get_args(BestBy)),
        _USUAL.best_by,
        "a pattern did best where it leads by most, as in the paper, or where its rate is highest",
    ),
)
@option(
    "--count-by",
    click.Choice(get_args(CountBy)),
    "pattern",
    "what a record counts for: the pattern assigned, or the method that answered, as in the paper. "
    "Only the assignment is random, so only by pattern are both compared on the same pages",
)
@option("--json", FILE, None, "write all of it as JSON, too")
@option("--html", FILE, None, "write a page with plots, too")
@option(
    "--choose",
    FILE,
    None,
    "write as JSON which method each category is to have, for the app's setting LOOKALIKE_CHOICE: the "
    "one that won for certain by click-through rate, elsewhere --default",
)
@option(
    "--default",
    click.Choice(ANSWERING),
    ANSWERING[0],
    "for --choose, the method of categories that neither won for certain",
)
@gathered(
    "memory",
    Memory,
    option(
        "--memory-limit SIZE",
        options.memory_size,
        Memory().limit,
        "how much memory to take, such as 4GB; the rest is on disk",
        dest="limit",
    ),
    option(
        "--temporary",
        PRESENT_FOLDER,
        None,
        "where to put on disk what does not fit, the system's folder for temporary files unless "
        "given",
        dest="folder",
    ),
)
def run(
    records: tuple[str, ...],
    columns: EventColumns,
    dialect: Dialect,
    paths: LogPaths,
    period: Period,
    question: Question,
    count_by: CountBy,
    json: Path | None,
    html: Path | None,
    choose: Path | None,
    default: Answering,
    memory: Memory,
) -> None:
    """Say how pattern B, similar images, did against pattern A, from records of an experiment.

    Click-through and conversion rates by pattern, the categories in which each did best, and how many
    each won, with intervals, tests and a check of the assignment.
    """
    started = time.monotonic()
    files = event_files(records, columns, paths, dialect)
    with progress("report", len(files), "files") as done:
        added_up = read_records(files, period, memory, done, count_by)
    report = report_of(added_up, question)
    for path, render in ((json, as_json), (html, as_html)):
        if path:
            with whole_file(path) as part:
                part.write_bytes(render(report))
    say(*as_text(report).split("\n"))
    if choose:
        chosen = choice.choice_of(report, default)
        with whole_file(choose) as part:
            part.write_bytes(choice.as_json(chosen))
        say(f"{choice.summary(report, chosen)}; written to {choose}")
    say(f"files: {len(files)}, in {time.monotonic() - started:.1f} s")
