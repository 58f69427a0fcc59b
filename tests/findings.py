"""What tests of the doctor look at its findings with."""

from collections.abc import Iterable, Iterator

from lookalike.operate.doctor.finding import Finding, Level


def only(findings: Iterator[Finding]) -> Finding:
    """The one finding of a check."""
    (finding,) = findings
    return finding


def levels(findings: Iterable[Finding]) -> list[Level]:
    """The level of each finding."""
    return [finding.level for finding in findings]
