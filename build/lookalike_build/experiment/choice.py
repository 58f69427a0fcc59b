"""From the report to the shop: which method each category is to have."""

from typing import Final

import msgspec

from lookalike.choice import ANSWERING, Answering, Choice
from lookalike.errors import LookalikeError
from lookalike.experiment import PATTERNS
from lookalike_build.experiment.report import Report

MEASURE: Final = "ctr"


class NoChoice(LookalikeError):  # noqa: N818
    """No method must be chosen by this report; the text says why."""


def choice_of(report: Report, default: Answering) -> Choice:
    """The method of the pattern that won a category for certain by CTR, elsewhere the default.

    NoChoice if the assignment is wrong, or records do not count for it.
    """
    if report.mismatch:
        raise NoChoice("no choice is written: sample ratio mismatch, see the report's warning")
    if report.records.count_by != "pattern":
        raise NoChoice("no choice is written: records must count by pattern for that")
    methods: dict[str | None, Answering] = dict(zip(PATTERNS, ANSWERING, strict=True))
    return Choice(
        default,
        {
            category_id: methods.get(winner, default)
            for category_id, winner in certain_winners(report).items()
        },
    )


def certain_winners(report: Report) -> dict[str, str | None]:
    """The pattern that won each category for certain; None where neither did."""
    return {
        each.category_id: measure.won
        if (measure := each.measures.get(MEASURE)) and measure.certain
        else None
        for each in report.categories
    }


def as_json(choice: Choice) -> bytes:
    """The file that `Choice.read` reads, for people too."""
    return msgspec.json.format(msgspec.json.encode(choice)) + b"\n"


def summary(report: Report, choice: Choice) -> str:
    """How many categories have which method, and how many of these are certain."""
    winners = certain_winners(report)
    parts = []
    for pattern, method in zip(PATTERNS, ANSWERING, strict=True):
        n = sum(each == method for each in choice.categories.values())
        certain = sum(each == pattern for each in winners.values())
        parts.append(f"{method} in {n} categories ({certain} won for certain)")
    return f"chosen: {', '.join(parts)}; {choice.default} in all others"
