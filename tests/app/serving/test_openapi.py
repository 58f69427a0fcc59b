"""openapi.json, app/README.md and the app say the same of the HTTP interface."""

import io
import json
import re
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

import lookalike.serving.errors
from lookalike.journal import Journal
from lookalike.release.root import ReleaseRoot
from lookalike.serving.errors import HttpError
from support import REPOSITORY, TOKEN, Client, Response, client_of

README = (REPOSITORY / "app" / "README.md").read_text()
PATHS = (
    "/nns",
    "/related",
    "/healthz",
    "/readyz",
    "/release",
    "/metrics",
    "/openapi.json",
    "/browse",
)
PRODUCT = "/products/{category_id}/{product_id}"
CHANGE = "/changes/{change}"
BEARER = {"HTTP_AUTHORIZATION": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def described(integer_root: ReleaseRoot) -> dict[str, Any]:
    """The description as the app gives it."""
    return dict(json.loads(client_of(integer_root).get("/openapi.json").body))


def check(described: dict[str, Any], path: str, answer: Response, method: str = "get") -> None:
    status = described["paths"][path][method]["responses"][answer.status[:3]]
    ((kind, content),) = status["content"].items()
    assert answer.headers["Content-Type"].partition(";")[0] == kind
    if kind in ("text/plain", "text/html"):
        return
    schema = content["schema"]
    whole = {**schema, "components": described["components"]}
    Draft202012Validator(whole).validate(json.loads(answer.body))
    assert set(status.get("headers", {})) <= set(answer.headers)


@pytest.mark.parametrize(
    "target",
    [
        "/nns?category_id=1&product_id=100",
        "/nns?category_id=3&product_id=77&exclude_self=true",
        "/nns?category_id=40&product_id=5000&limit=300&distances=true",
        "/nns?category_id=1&product_id=100&max_distance=0",
        "/related?product_id=100&category_id=1&visitor=v&exclude=101&exclude=102",
        "/related?product_id=1&category_id=1",
        *PATHS[2:],
    ],
)
def test_answers_are_as_described(
    described: dict[str, Any], integer_root: ReleaseRoot, target: str
) -> None:
    answer = client_of(integer_root).get(target)
    assert answer.status == "200 OK"
    check(described, target.partition("?")[0], answer)


@pytest.mark.parametrize("target", ["/nns?category_id=shoes&product_id=A-1&limit=20", "/release"])
def test_answers_with_string_ids_are_as_described(
    described: dict[str, Any], string_root: ReleaseRoot, target: str
) -> None:
    check(described, target.partition("?")[0], client_of(string_root).get(target))


@pytest.mark.parametrize("path", ["/nns", "/related", "/readyz", "/release", "/browse"])
def test_answers_without_a_release_are_as_described(
    described: dict[str, Any], tmp_path: Path, path: str
) -> None:
    answer = client_of(ReleaseRoot(tmp_path)).get(path)
    assert answer.status == "503 Service Unavailable"
    assert answer.headers["Retry-After"] == "10"
    check(described, path, answer)


def test_every_503_says_when_to_try_again(described: dict[str, Any]) -> None:
    for path, operations in described["paths"].items():
        for operation in operations.values():
            answer = operation["responses"].get("503")
            assert answer is None or "Retry-After" in answer["headers"], path


def test_every_path_is_described(described: dict[str, Any], integer_root: ReleaseRoot) -> None:
    assert set(described["paths"]) == {*PATHS, PRODUCT, CHANGE}
    for path in PATHS:
        assert client_of(integer_root).get(path).status[:3] != "404"
        assert f"`{path}`" in README or path == "/nns"


@pytest.mark.parametrize(("path", "ends"), [("/nns", "POST /nns"), ("/related", "### The page")])
def test_the_same_parameters_are_described_listed_and_taken(
    described: dict[str, Any], integer_root: ReleaseRoot, path: str, ends: str
) -> None:
    parameters = described["paths"][path]["get"]["parameters"]
    names = [each["name"] for each in parameters if each["in"] == "query"]
    names = [name for name in names if not name.startswith("hidden")]
    section = README.partition(f"\n    GET {path}?")[2].partition(ends)[0]
    listed = re.findall(r"^\| `([a-z_]+)` \|", section, re.MULTILINE)
    refused = json.loads(client_of(integer_root).get(f"{path}?x=1").body)["detail"]
    known = refused.partition("known are ")[2].partition(", and conditions on ")[0]
    assert names == listed == known.split(", ")


def test_bounds_are_described_as_they_are_set(integer_root: ReleaseRoot) -> None:
    for max_limit, *defaults in ((1000, 10, 12), (11, 10, 11), (5, 5, 5)):
        text = client_of(integer_root, max_limit).get("/openapi.json").body
        schemas = json.loads(text)["components"]["schemas"]
        limits = [schemas[name] for name in ("Limit", "RelatedLimit")]
        assert [limit["maximum"] for limit in limits] == [max_limit, max_limit]
        assert [limit["default"] for limit in limits] == defaults


def test_every_error_is_described_and_listed(described: dict[str, Any]) -> None:
    kinds = [kind for kind in vars(lookalike.serving.errors).values() if isinstance(kind, type)]
    errors = {kind.error for kind in kinds if issubclass(kind, HttpError) and kind is not HttpError}
    assert set(described["components"]["schemas"]["Error"]["properties"]["error"]["enum"]) == errors
    for error in errors:
        assert f'"error":"{error}"' in README


@pytest.fixture
def client(root: ReleaseRoot) -> Client:
    """A client of an app that takes changes."""
    return client_of(root, token=TOKEN, max_photo_bytes=1024)


@pytest.mark.parametrize(
    ("method", "environ", "status"),
    [
        ("PUT", {}, "202"),
        ("DELETE", {"CONTENT_LENGTH": "0"}, "202"),
        ("PUT", {"QUERY_STRING": "x=1"}, "400"),
        ("DELETE", {}, "400"),
        ("PUT", {"HTTP_AUTHORIZATION": ""}, "401"),
        ("DELETE", {"HTTP_AUTHORIZATION": ""}, "401"),
        ("PUT", {"CONTENT_LENGTH": "1025"}, "413"),
        ("PATCH", {}, "400"),
        ("PATCH", {"HTTP_AUTHORIZATION": ""}, "401"),
        ("PATCH", {"CONTENT_LENGTH": str(2**15 + 1)}, "413"),
    ],
)
def test_answers_to_changes_are_as_described(
    described: dict[str, Any], client: Client, method: str, environ: dict[str, str], status: str
) -> None:
    body = {"CONTENT_LENGTH": "5", "wsgi.input": io.BytesIO(b"photo")}
    answer = client.get("/products/1/2", method, **{**BEARER, **body, **environ})
    assert answer.status[:3] == status
    check(described, PRODUCT, answer, method.lower())


def test_answers_of_changes_are_as_described(
    described: dict[str, Any], client: Client, root: ReleaseRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        client.get("/products/1/2", "DELETE", **BEARER)
    with closing(Journal(root.journal)) as journal:
        journal.reject({1: "no photo"})
        journal.settle(2, str(root.current()))
    later = time.time() + 5
    monkeypatch.setattr(time, "time", lambda: later)
    states = []
    for number in (1, 2, 3):
        answer = client.get(f"/changes/{number}", **BEARER)
        states.append(json.loads(answer.body)["state"])
        check(described, CHANGE, answer)
    assert states == ["rejected", "live", "pending"]
    check(described, CHANGE, client.get("/changes/4", **BEARER))
    check(described, CHANGE, client.get("/changes/1?x", **BEARER))
    check(described, CHANGE, client.get("/changes/1"))


@pytest.mark.parametrize(("path", "target"), [(PRODUCT, "/products/1/2"), (CHANGE, "/changes/1")])
def test_the_methods_described_for_changes_are_those_taken(
    described: dict[str, Any], client: Client, path: str, target: str
) -> None:
    answer = client.get(target, "POST", **BEARER)
    operations = described["paths"][path]
    assert answer.headers["Allow"].removesuffix(", HEAD") == ", ".join(operations).upper()
    for method in operations:
        check(described, path, answer, method)


def test_changes_need_the_token_described(described: dict[str, Any]) -> None:
    (scheme,) = described["components"]["securitySchemes"].items()
    assert scheme[1]["scheme"] == "bearer"
    for path, operations in described["paths"].items():
        for operation in operations.values():
            assert operation.get("security", []) == (
                [{scheme[0]: []}] if path in (PRODUCT, CHANGE) else []
            )
