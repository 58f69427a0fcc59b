"""JSON access logs of Unit and nginx: a request a line, some of which are records of an experiment."""

from collections.abc import Collection
from typing import Any, Final, NamedTuple

import msgspec

from lookalike_build.tables.quoting import literal


class LogPaths(NamedTuple):
    """Which requests of an access log are records of the experiment.

    A line is a JSON object with `request_uri` (path and query), `status`, `time`, `request_method`
    (which may be missing) and, if `related` is to count, two headers of the response,
    `x_lookalike_pattern` and `x_lookalike_method`.

    A request of `shown`, `clicked` or `purchased` with a status from 200 to 299, except HEAD and
    OPTIONS, is an impression, a click or a purchase; the query has the rest. A request of `related`
    with status 200 is an impression where the log has these headers: they have the pattern and the
    method, the query the category and the visitor.
    """

    related: str = "/related"
    shown: str = "/shown"
    clicked: str = "/clicked"
    purchased: str = "/purchased"


PATHS: Final = LogPaths()
FIELDS: Final = (
    "request_uri",
    "status",
    "time",
    "request_method",
    "x_lookalike_pattern",
    "x_lookalike_method",
)


def first_object(text: bytes, keys: Collection[str]) -> dict[str, Any]:
    """The first line that is a JSON object with one of these keys; an empty object if there is none."""
    for line in text.splitlines():
        try:
            record = msgspec.json.decode(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and any(key in record for key in keys):
            return record
    return {}


def columns(paths: LogPaths) -> str:
    """SQL of the columns of `EventFile.select`, from a table with `FIELDS`.

    Each line is a column that later ones may use: an event has a path and a status; its pattern and
    method come from the response's headers if it is an answer of `related`, otherwise from the query.
    """
    # Without the headers, impressions are other requests of the log. A missing header is "" in nginx
    # and "-" in Unit.
    return f"""
        regexp_extract(request_uri, '^[^?#]*') AS path,
        path = {literal(paths.related)} AS is_related,
        status BETWEEN '200' AND '299' AS is_done,
        CASE
            WHEN request_method IN ('HEAD', 'OPTIONS') THEN NULL
            WHEN is_related AND status = '200' AND x_lookalike_pattern IS NOT NULL THEN 'impression'
            WHEN is_done AND path = {literal(paths.shown)} THEN 'impression'
            WHEN is_done AND path = {literal(paths.clicked)} THEN 'click'
            WHEN is_done AND path = {literal(paths.purchased)} THEN 'purchase'
        END AS event,
        {_header_or_parameter("pattern")} AS pattern,
        {_header_or_parameter("method")} AS method,
        parameter(request_uri, 'category_id') AS category_id,
        parameter(request_uri, 'visitor') AS visitor,
        time,
        moment(time) AS at_s,
        event IS NULL AND request_uri IS NOT NULL AND status IS NOT NULL AS other,
        coalesce(is_done AND path = {literal(paths.shown)}, false) AS is_shown
    """


def _header_or_parameter(name: str) -> str:
    header, parameter = f"nullif(x_lookalike_{name}, '-')", f"parameter(request_uri, '{name}')"
    return f"CASE WHEN is_related THEN {header} ELSE {parameter} END"
