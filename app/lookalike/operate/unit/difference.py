"""The difference between two configurations of Unit, for people to read, with secrets hidden."""

import difflib
import json
import re
from collections.abc import Mapping
from typing import Any

from lookalike.operate.unit.config import APPLICATIONS

_SECRET = re.compile(r"token|secret|passw|key|auth|cookie|ticket|credential|dsn", re.IGNORECASE)
_PATH = re.compile(r"_(file|path|dir)$", re.IGNORECASE)  # where a secret is, not the secret


def difference(before: Mapping[str, Any], after: Mapping[str, Any], name: str) -> list[str]:
    """The lines of a unified diff of both as JSON, `name` for the new one; none if equal."""
    if before == after:
        return []
    was, now = (
        json.dumps(_shown(each, before, ()), indent=4, ensure_ascii=False).split("\n")
        for each in (before, after)
    )
    return list(difflib.unified_diff(was, now, "Unit now", name, lineterm=""))


def _shown(value: Any, before: Any, path: tuple[str, ...]) -> Any:
    """`value` with secrets hidden; those that differ from `before` are marked."""
    if isinstance(value, Mapping):
        was = before if isinstance(before, Mapping) else {}
        return {name: _shown(each, was.get(name), (*path, name)) for name, each in value.items()}
    if isinstance(value, list):
        earlier = [*(before if isinstance(before, list) else []), *[None] * len(value)]
        return [_shown(each, was, path) for each, was in zip(value, earlier, strict=False)]
    if not isinstance(value, str) or not _is_secret(path):
        return value
    return "(hidden)" if value == before or before is None else "(hidden, another)"


def _is_secret(path: tuple[str, ...]) -> bool:
    match path:
        # Other applications may have secrets by any name.
        case ("applications", name, "environment", *_) if name not in APPLICATIONS:
            return True
        case (*_, name):
            return bool(_SECRET.search(name)) and not _PATH.search(name)
    return False
