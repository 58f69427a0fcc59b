"""Every request of tests/data/bad_requests is refused by the WSGI app in exactly the words written."""

import io
import json
import re
from collections import Counter
from importlib.resources import files
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from jsonschema import Draft202012Validator

from bad_requests import FOLDER, SUFFIX, BadRequest, all_bad_requests
from lookalike.release.root import ReleaseRoot
from support import Client, Response, client_of

BAD_REQUESTS = all_bad_requests()
DESCRIPTION: dict[str, Any] = json.loads(
    files("lookalike.serving").joinpath("openapi.json").read_bytes()
)
ERROR = Draft202012Validator(
    {"$ref": "#/components/schemas/Error", "components": DESCRIPTION["components"]}
)

every_bad_request = pytest.mark.parametrize(
    "bad", [pytest.param(bad, id=bad.name) for bad in BAD_REQUESTS]
)
# wsgiref's validator warns of a method that it does not know; to the app it is one more to refuse.
odd_methods = pytest.mark.filterwarnings("ignore:Unknown REQUEST_METHOD")


@pytest.fixture(scope="module")
def clients(integer_root: ReleaseRoot, string_root: ReleaseRoot) -> dict[str, Client]:
    return {"integer": client_of(integer_root), "string": client_of(string_root)}


def ask(client: Client, bad: BadRequest) -> Response:
    """Put the request to the app with the environment that an HTTP server would make of it."""
    path, _, query = bad.target.partition("?")
    environ: dict[str, Any] = {
        "PATH_INFO": unquote_to_bytes(path.encode("latin-1")).decode("latin-1"),
        "QUERY_STRING": query,
        "wsgi.input": io.BytesIO(bad.body),
    }
    for name, value in bad.headers:
        key = name.upper().replace("-", "_")
        environ[key if key == "CONTENT_TYPE" else f"HTTP_{key}"] = value
    if bad.body:
        environ["CONTENT_LENGTH"] = str(len(bad.body))
    return client.get(bad.target, bad.method, **environ)


@every_bad_request
@odd_methods
def test_bad_request_is_refused_as_written(clients: dict[str, Client], bad: BadRequest) -> None:
    answer = ask(clients[bad.catalogue], bad)
    assert (answer.status[:4], answer.body.decode()) == (
        f"{bad.status} ",
        bad.expected_body.decode(),
    )
    assert 400 <= bad.status < 500
    assert answer.headers["Content-Type"] == "application/json"
    if bad.method != "HEAD":
        assert answer.headers["Content-Length"] == str(len(answer.body))
    assert answer.headers.get("Allow") == bad.allow


@every_bad_request
@odd_methods
def test_every_bad_request_is_described_by_openapi(
    clients: dict[str, Client], bad: BadRequest
) -> None:
    answer = ask(clients[bad.catalogue], bad)
    if bad.method != "HEAD":
        ERROR.validate(json.loads(answer.body))
    operations = DESCRIPTION["paths"].get(bad.path)
    if operations is None:
        assert answer.status[:3] == "404"
        return
    operation = operations.get(bad.method.lower(), operations["get"])
    described = operation["responses"][answer.status[:3]]
    assert set(described.get("headers", ())) <= set(answer.headers)


def test_there_are_at_least_200_bad_requests_each_of_its_own() -> None:
    assert len(BAD_REQUESTS) >= 200
    asked = Counter(
        (bad.catalogue, bad.method, bad.target, bad.headers, bad.body) for bad in BAD_REQUESTS
    )
    assert [request for request, count in asked.items() if count > 1] == []


def test_every_file_is_read_and_has_a_name_that_any_file_system_takes() -> None:
    names = sorted(path.name for path in FOLDER.iterdir())
    assert names == sorted(["README.md", *(bad.name + SUFFIX for bad in BAD_REQUESTS)])
    assert [bad.name for bad in BAD_REQUESTS if not re.fullmatch("[a-z0-9_]+", bad.name)] == []
