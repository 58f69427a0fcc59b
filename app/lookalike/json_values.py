"""Values of JSON documents: ids among them, and how to show one to whoever sent it."""

import orjson

from lookalike.manifest import MAX_INTEGER_ID, IdType, id_problem


def json_id_problem(value: object, id_type: IdType) -> str | None:
    """What makes a value unfit as an id of that type, or None if it is fit."""
    if id_type == "string":
        return (
            id_problem(value) if isinstance(value, str) else f"must be a string, not {shown(value)}"
        )
    if isinstance(value, bool) or not isinstance(value, int) or id_problem(value):
        return f"must be a whole number from 0 to {MAX_INTEGER_ID}, not {shown(value)}"
    return None


def shown(value: object) -> str:
    """A value as JSON, its first 40 characters."""
    try:
        text = orjson.dumps(value).decode()
    except orjson.JSONEncodeError:  # it reads some 1,000 levels and writes 254
        return "something nested too deep"
    return text if len(text) <= 40 else f"{text[:40]}…"
