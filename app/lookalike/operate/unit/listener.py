"""Asks the app through one of Unit's listeners."""

import http.client
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lookalike.operate.unit.control import UnixConnection

_ANSWER_S = 10.0

Answer = tuple[int, dict[str, Any]]


def ask(addresses: Iterable[str], path: str) -> Answer | None:
    """Status and JSON object of the app's answer to GET `path`, on the first address that answers.

    None if none does. Unit's own answers, which are HTML, do not count.
    """
    for address in addresses:
        connection = _connection(address)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            document = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError):
            continue
        finally:
            connection.close()
        if isinstance(document, dict):
            return response.status, document
    return None


def problem_of(answer: Answer | None) -> str | None:
    """What `/readyz` says is wrong; None if the app is ready."""
    if answer is None:
        return "it does not answer; Unit's log (/var/log/unit.log) has the reason"
    status, document = answer
    return None if status == 200 else str(document.get("detail") or document)


def _connection(address: str) -> http.client.HTTPConnection:
    if address.startswith("unix:"):
        return UnixConnection(Path(address.removeprefix("unix:")), _ANSWER_S)
    host, _, port = address.rpartition(":")
    host = {"*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "::1"}.get(host, host)  # noqa: S104
    return http.client.HTTPConnection(host.strip("[]"), int(port), timeout=_ANSWER_S)
