"""Requests made at random from the description that a server gives: every answer is one it describes.

Schemathesis makes fit and unfit ones, the same at each run. With DESCRIBED_CASES=5000 it makes so many
for each operation, and others at each run, in an hour or two.
"""

import json
import os
import re
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import product
from typing import Any, Final
from urllib.parse import quote

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode, Response
from schemathesis.checks import not_a_server_error
from schemathesis.core import NOT_SET
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    positive_data_acceptance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

import lookalike.serving.errors
from lookalike.journal import Change, Journal
from lookalike.release.root import ReleaseRoot
from lookalike.serving.errors import HttpError
from servers import Serve
from support import REPOSITORY, TOKEN, integer_catalogue, make_slim, publish, string_catalogue
from waiting import HUNG_S

AnyCase = Case[Any]
CASES: Final = int(os.environ.get("DESCRIBED_CASES", "60"))
PATHS = json.loads((REPOSITORY / "app/lookalike/serving/openapi.json").read_text())["paths"]
OPERATIONS = [(path, method) for path, methods in PATHS.items() for method in methods]

# Of every category some products, and the features of each.
KNOWN = [
    (category_id, product_id, feature.tolist())
    for catalogue in (integer_catalogue(), string_catalogue())
    for category_id, (product_ids, features) in catalogue.items()
    for product_id, feature in list(zip(product_ids, features, strict=True))[:11]
]
BEYOND = next(known for known in KNOWN if known[0] == 40)
"""A product of a category that is larger than its table."""
SETTLED = (1, 2)
"""Changes that the journal has before the server starts: one live, one rejected."""

ERRORS: Final[dict[int, set[str]]] = defaultdict(set)
for kind in vars(lookalike.serving.errors).values():
    if isinstance(kind, type) and issubclass(kind, HttpError) and kind is not HttpError:
        ERRORS[int(kind.status[:3])].add(kind.error)

UNSAID = re.compile(
    # what the release decides
    r"(category_id|product_id|exclude|product_ids\[\d+\])"
    r" must be (a whole number|a string|1 to 64 bytes)"
    r"|vector must be an array of 16 numbers|page must be a whole number from 1 to \d, "
    # what no schema can say: of a number, of two parameters
    r"|limit must be a whole number from 1 to 1000, not \d+(\.0|e\d+)\W|vector is all zeros"
    r"|a limit of \d+ is beyond the table|category_id is missing|page goes with category_id"
    r"|unknown attribute|hidden must be true or false"
    # of a query string in a parameter, beside which the page shows what is known
    r"|id=\"known\""
    # a slash in an id that was sent as it is
    r"|in an id write %2F"
)
"""Why something is refused that is fit as far as the schemas say; their descriptions say this too."""

CONFORMANCE: Final[list[Any]] = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
OF_THE_SERVER = {"connection", "content-length", "content-type", "date", "keep-alive", "server"}

BEARER = {"Authorization": f"Bearer {TOKEN}"}
WRONG = {"Authorization": f"Bearer {TOKEN}x"}
UNKNOWN = (99, 99, KNOWN[0][2])
# Headers, query, another method; and bodies by method, the last too large.
VARIATIONS: Final[list[tuple[dict[str, str], dict[str, str], Any]]] = [
    (BEARER, {}, None),
    ({**BEARER, "If-None-Match": "*"}, {}, None),
    (WRONG, {}, None),
    (BEARER, {"x": "1"}, None),
    (BEARER, {}, "OPTIONS"),
]
BODIES: Final[dict[str, list[Any]]] = {
    "put": [b"photo", bytes(1025)],
    "patch": [{"hidden": True}, {"hidden": "x" * 2**15}],
    "post": [{"product_ids": []}, {"vector": []}, bytes(2**21 + 1)],
}

authorizations = st.sampled_from([BEARER] * 4 + [WRONG, {"Authorization": f"Basic {TOKEN}"}, {}])
other_methods = st.sampled_from([None] * 9 + ["GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"])
latin = st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_categories=["Cc"])
HEADERS = (
    "Accept Accept-Encoding Content-Encoding Content-Type Cookie Forwarded If-Match "
    "If-Modified-Since If-None-Match Origin Range Referer User-Agent X-Forwarded-Host "
    "X-HTTP-Method-Override X-Original-URL"
)
texts = st.sampled_from(["*", "bytes=0-1", "GET"]) | st.text(latin, max_size=50).map(str.strip)
more_headers = st.dictionaries(st.sampled_from(HEADERS.split()), texts, max_size=2)


@dataclass(frozen=True)
class Host:
    """A running server and a connection to it; `errors` are the 5xx that are right there."""

    url: str
    session: requests.Session
    errors: frozenset[int]


@pytest.fixture(scope="module")
def hosts(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Host]]:
    """Releases with ids of both kinds, a slim copy that takes no changes, and no release at all."""
    folder = tmp_path_factory.mktemp("hosts")
    integers = publish(folder / "integers", integer_catalogue(), folder / "f1")
    with closing(Journal(integers.journal)) as journal:
        journal.add([Change("delete", 1, product_id) for product_id in SETTLED])
        journal.settle(1, str(integers.current()))
        journal.reject({2: "no such product"})
    strings = publish(folder / "strings", string_catalogue(), folder / "f2")
    slim = publish(folder / "slim", integer_catalogue(), folder / "f3")
    make_slim(slim)
    empty = ReleaseRoot(folder / "empty")
    empty.path.mkdir()
    empty.journal.parent.touch()  # a file where the journal's folder would be
    everything = {"LOOKALIKE_TOKEN": TOKEN, "LOOKALIKE_BROWSE": "true"}
    everything["LOOKALIKE_MAX_PHOTO_BYTES"] = "1024"
    with ExitStack() as stack:

        def host(root: ReleaseRoot, errors: set[int], **settings: str) -> Host:
            server = stack.enter_context(serve(root, **settings))
            session = stack.enter_context(requests.Session())
            session.trust_env = False
            return Host("http://{}:{}".format(*server.address), session, frozenset(errors))

        yield [
            host(integers, set(), **everything),
            host(strings, set(), **everything),
            host(slim, {501}),
            host(empty, {503}, **everything),
        ]


OF_NO_BODY = {408}
"""Bodies that do not come, and `lookalike serve` alone: tests/app/serving/test_asgi.py has them."""

every_operation = pytest.mark.parametrize(("path", "method"), OPERATIONS)


def operation_of(host: Host, path: str, method: str) -> Any:
    schema = schemathesis.openapi.from_url(f"{host.url}/openapi.json")
    schema.config.generation.with_security_parameters = False  # `authorizations` are
    return schema[path][method]


@every_operation
def test_every_answer_described_is_given(hosts: list[Host], path: str, method: str) -> None:
    operation = operation_of(hosts[0], path, method)
    described = PATHS[path][method]
    names = [each["name"] for each in described.get("parameters", []) if each["in"] == "path"]
    kinds = list(described.get("requestBody", {"content": [None]})["content"])
    bodies = BODIES.get(method, [NOT_SET])
    seen = set()
    for known, body in product([KNOWN[0], KNOWN[-1], UNKNOWN], bodies):
        for headers, query, other in VARIATIONS:
            case = operation.Case(
                path_parameters=dict.fromkeys(names), body=body, media_type=kinds[0]
            )
            make_known(case, *known)
            case.query = {**case.query, **query}
            case.method = other or case.method
            seen |= {check(host, case, headers) for host in hosts}
    if "429" in described["responses"]:
        case = operation.Case(body=bodies[-1], media_type=kinds[0])
        seen.add(check(hosts[0], search(case), {"X-Request-Start": f"t={time.time() - 10:.3f}"}))
    assert seen == set(map(int, described["responses"])) - OF_NO_BODY


@every_operation
def test_every_answer_is_described(hosts: list[Host], path: str, method: str) -> None:
    operation = operation_of(hosts[0], path, method)
    can_be_unfit = not {"parameters", "requestBody"}.isdisjoint(PATHS[path][method])
    n_cases = CASES // 2 if can_be_unfit else CASES // 4
    for mode in GenerationMode if can_be_unfit else [GenerationMode.POSITIVE]:

        @settings(
            max_examples=n_cases,
            derandomize="DESCRIBED_CASES" not in os.environ,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        )
        @given(
            case=operation.as_strategy(generation_mode=mode),
            known=st.none() | st.sampled_from(KNOWN),
            headers=st.builds(dict.__or__, more_headers, authorizations),
            query=st.sampled_from([{}, {}, {}, {"x": "1"}]),
            other=other_methods,
        )
        def ask(
            case: AnyCase, known: Any, headers: dict[str, str], query: dict[str, str], other: Any
        ) -> None:
            if known:
                make_known(case, *known)
            if query:
                case.query = {**case.query, **query}
            if other and other.lower() not in PATHS[path]:
                case.method = other
            for host in hosts:
                check(host, case, headers)

        ask()


def make_known(case: AnyCase, category_id: Any, product_id: Any, feature: list[float]) -> None:
    """Have a case ask for a product that there is; for one of the settled changes."""
    if "category_id" in case.path_parameters:
        names = {"category_id": category_id, "product_id": product_id}
        case.path_parameters = {k: quote(str(v), safe="") for k, v in names.items()}
    elif "change" in case.path_parameters:
        case.path_parameters = {"change": SETTLED[len(str(product_id)) % 2]}
    elif isinstance(case.body, dict):
        asked: dict[str, Any] = (
            {"vector": feature} if "vector" in case.body else {"product_ids": [product_id, "?"]}
        )
        case.body = {**case.body, "category_id": category_id, **asked}
    elif case.operation.path in ("/nns", "/related", "/browse") and case.operation.method == "get":
        case.query = {**case.query, "category_id": category_id, "product_id": product_id}


def search(case: AnyCase) -> AnyCase:
    """Have a case ask for what no table holds, which is refused when it comes late."""
    category_id, product_id, feature = BEYOND
    case.query = {"category_id": category_id, "product_id": product_id, "limit": 200}
    if case.operation.path == "/browse":
        case.query |= {"limit": 100, "conditions": "hidden=true"}
    if case.method == "POST":
        case.query, case.body = {}, {"category_id": category_id, "vector": feature}
    return case


def check(host: Host, case: AnyCase, headers: dict[str, str]) -> int:
    """Ask a host for a case; the status of the answer, which is as the description has it."""
    answer = case.call(host.url, host.session, headers, timeout=HUNG_S)
    sent = {"session": host.session, "headers": headers, "base_url": host.url}
    if case.method.lower() in PATHS[case.operation.path]:
        excluded: list[Any] = [not_a_server_error, positive_data_acceptance]
        if case.operation.path == "/related":
            # Ids need not be known there, any short text is one, and one value is an array of one: what
            # is unfit as data is fit as it is sent. What is not, tests/app/serving/test_related.py has.
            excluded.append(negative_data_rejection)
        case.validate_response(
            answer, headers=headers, transport_kwargs=sent, excluded_checks=excluded
        )
        _check_refusal(host, case, answer)
    else:
        case.validate_response(answer, CONFORMANCE, headers=headers, transport_kwargs=sent)
        assert answer.status_code in (401, 404, 405), case.as_curl_command()
    _check_headers(case, answer)
    if case.operation.method == "get" and case.method == "GET":
        _check_head(host, answer)
    return answer.status_code


def _check_refusal(host: Host, case: AnyCase, answer: Response) -> None:
    """An error is one of its status, right on this host; what is fit is refused for good reasons."""
    status = answer.status_code
    if status < 400:
        return
    assert status < 500 or status in host.errors, answer.text
    if answer.headers["content-type"] == ["application/json"]:
        assert answer.json()["error"] in ERRORS[status], answer.text
    fit = case.meta and case.meta.generation.mode.is_positive and "x" not in case.query
    if status == 400 and fit:
        assert UNSAID.search(answer.text), (answer.text, case.as_curl_command())


def _check_headers(case: AnyCase, answer: Response) -> None:
    """No header that is not described, and each just once."""
    responses = PATHS[case.operation.path][case.operation.method]["responses"]
    described = {name.lower() for name in responses[str(answer.status_code)]["headers"]}
    assert set(answer.headers) <= described | OF_THE_SERVER
    assert all(len(values) == 1 for values in answer.headers.values())
    assert ("retry-after" in answer.headers) == (answer.status_code in (429, 503))


def _check_head(host: Host, answer: Response) -> None:
    """HEAD is answered as GET is, without the body."""
    url = answer.request.url or ""
    headers = {k: v for k, v in answer.request.headers.items() if not k.startswith("Content-")}
    head = host.session.head(url, headers=headers, timeout=HUNG_S)
    assert (head.status_code, head.content) == (answer.status_code, b"")
    same = set(answer.headers) - {"connection", "date", "server"}
    if "/metrics" in url:
        same.remove("content-length")
    if "/related" in url and "visitor=" not in url:  # the pattern is drawn anew
        same -= {"content-length", "x-lookalike-pattern", "x-lookalike-method"}
    assert {name: [head.headers[name]] for name in same} == {n: answer.headers[n] for n in same}
