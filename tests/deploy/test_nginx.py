"""deploy/nginx under a real nginx, before a real server of the app."""

import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from html.parser import HTMLParser
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from urllib.parse import quote

import pytest

from bad_requests import Address
from lookalike.release.root import ReleaseRoot
from servers import (
    NGINX,
    Front,
    Server,
    cpu_s,
    free_port,
    host_port,
    in_session,
    nginx_before,
    unit,
)
from support import TOKEN, change, etag_of, integer_catalogue, publish, string_catalogue
from waiting import HUNG_S, quickest_s

RELATED = "/related?product_id=100&category_id=1&visitor=v"
TARGET = "/nns?category_id=1&product_id=100"
BODY = b'{"category_id":1,"product_ids":[100]}'
INSIDE, OUTSIDE = "127.0.0.1", "127.0.0.2"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
BRIEF = {"LOOKALIKE_MAX_AGE_S": "1"}
EXPIRED_S = 2.1  # nginx counts whole seconds
UNBOUND = {"LOOKALIKE_MAX_SEARCHES": "10000", "LOOKALIKE_SEARCH_PERCENT": "100"}
NOT_KEPT = {"LOOKALIKE_MAX_AGE_S": "0"}

pytestmark = [pytest.mark.nginx, pytest.mark.unit]


@dataclass(frozen=True)
class Answer:
    """What nginx answered; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def cache(self) -> str | None:
        """What the cache had to do with it."""
        return self.headers.get("x-cache-status")


def ask(
    server: Server | Address,
    target: str,
    method: str = "GET",
    body: bytes | None = None,
    source: str = INSIDE,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """The answer to one request on a connection of its own, from the address `source`."""
    address = server.address if isinstance(server, Server) else server
    with closing(
        HTTPConnection(*address, timeout=HUNG_S, source_address=(source, 0))
    ) as connection:
        # The target as it is, which `request` would refuse where it is odd.
        connection.putrequest(method, target, skip_accept_encoding=True)
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())


def asked(server: Server, status: int, route: str = "/nns") -> int:
    """How many requests Unit has answered so."""
    line = f'lookalike_requests_total{{route="{route}",status="{status}"}} '
    text = server.get("/metrics")[2].decode()
    return int(text.partition(line)[2].partition("\n")[0] or 0)


@pytest.fixture(scope="module")
def both(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Server, Front]]:
    """Unit and nginx before it; tests ask questions of their own, since answers are kept."""
    folder = tmp_path_factory.mktemp("both")
    root = publish(folder / "root", integer_catalogue(), folder / "features")
    with (
        unit(root, LOOKALIKE_TOKEN=TOKEN, LOOKALIKE_BROWSE="true") as server,
        nginx_before(server.address) as front,
    ):
        yield server, front


def test_a_process_that_dies_under_a_request_is_not_seen(integer_root: ReleaseRoot) -> None:
    with (
        unit(integer_root, None, **NOT_KEPT) as server,
        nginx_before(server.address) as front,
        closing(HTTPConnection(*front.address, timeout=HUNG_S)) as connection,
    ):

        def answer_to(method: str, target: str, body: bytes | None = None) -> bytes:
            connection.request(method, target, body)
            answer = connection.getresponse()
            assert answer.status == 200
            assert answer.getheader("x-cache-status") == ("MISS" if method == "GET" else None)
            return answer.read()

        def answers_right() -> bool:
            assert answer_to("GET", TARGET) == right
            assert answer_to("POST", "/nns", BODY) == b"[" + right + b"]"
            return True

        right = answer_to("GET", TARGET)
        assert right == server.get(TARGET)[2]
        for _ in range(3):
            server.kill(min(server.workers()))
            for _ in range(100):
                assert answers_right()
            server.wait_until(lambda: answers_right() and len(server.workers()) == 2)


def test_a_request_in_the_hands_of_a_process_that_dies_is_asked_again(
    integer_root: ReleaseRoot,
) -> None:
    def asking_for(n: int) -> bytes:
        ids = [5000 + 10 * (i % 300) for i in range(n)]
        return json.dumps({"category_id": 40, "product_ids": ids, "limit": 290}).encode()

    with (
        unit(integer_root, None, LOOKALIKE_MAX_PRODUCT_IDS="10000", **UNBOUND) as server,
        nginx_before(server.address) as front,
        ThreadPoolExecutor(1) as pool,
    ):
        before = {pid: cpu_s(pid) for pid in server.workers()}
        ask(server, "/nns", "POST", asking_for(100))
        # Half a second of work: long enough to be killed at.
        body = asking_for(int(100 * 0.5 / max(0.01, sum(used(before).values()))))
        right = ask(server, "/nns", "POST", body).body
        tries = retried = 0
        while retried < 3:
            server.wait_until(lambda: len(server.workers()) == 2)
            before = {pid: cpu_s(pid) for pid in server.workers()}
            asking = pool.submit(ask, front, "/nns", "POST", body)
            server.wait_until(partial(one_works, before, asking))
            at_work = used(before)
            server.kill(max(at_work, key=lambda pid: at_work[pid]))
            answer = asking.result()
            assert (answer.status, answer.body) == (200, right)
            tries += 1
            tried = [each["upstream_status"] for each in front.logged("POST /nns ", tries)]
            # One that was just done was not in its hands.
            retried = sum(1 for each in tried if re.fullmatch("50[23], 200", each))
            assert set(tried) <= {"200", "502, 200", "503, 200"}
            assert tries < 30


def one_works(before: Mapping[int, float], asking: "Future[Answer]") -> bool:
    return asking.done() or max(used(before).values()) > 0.05


def used(before: Mapping[int, float]) -> dict[int, float]:
    """The seconds of CPU that each process has used since."""
    return {pid: cpu_s(pid) - then for pid, then in before.items()}


def test_the_largest_body_taken_reaches_the_app(both: tuple[Server, Front]) -> None:
    _, front = both
    for size, status, said in ((2**21, 400, b"not JSON"), (2**21 + 1, 413, b"2097152")):
        answer = ask(front, "/nns", "POST", b" " * size)
        assert (answer.status, said in answer.body) == (status, True)


def test_an_answer_is_kept(both: tuple[Server, Front]) -> None:
    server, front = both
    target = "/nns?category_id=1&product_id=101"
    before = asked(server, 200)
    first, second, head = ask(front, target), ask(front, target), ask(front, target, "HEAD")
    straight = server.get(target)
    assert [first.cache, second.cache, head.cache] == ["MISS", "HIT", "HIT"]
    assert asked(server, 200) == before + 2
    for answer in (first, second):
        assert (answer.status, answer.body) == (200, straight[2])
    assert head.body == b""
    for answer in (first, second, head):
        for name in ("etag", "cache-control", "content-type", "content-length"):
            assert answer.headers[name] == straight[1][name], name


def test_head_first_is_kept_for_get(both: tuple[Server, Front]) -> None:
    server, front = both
    target = "/nns?category_id=1&product_id=102"
    assert ask(front, target, "HEAD").cache == "MISS"
    answer = ask(front, target)
    assert (answer.cache, answer.body) == ("HIT", server.get(target)[2])


def test_an_unknown_product_is_kept_as_such(both: tuple[Server, Front]) -> None:
    _, front = both
    answers = [ask(front, "/nns?category_id=1&product_id=99") for _ in range(2)]
    assert [(a.status, a.cache, a.body) for a in answers] == [
        (404, cache, b'{"error":"not_found"}') for cache in ("MISS", "HIT")
    ]


@pytest.mark.parametrize(
    ("product_id", "targets"),
    [
        (
            103,
            [
                "category_id=1&product_id=103#&limit=3",
                "category_id=1&product_id=103",
                "product_id=103&category_id=1",
                "category_id=1&product_id=103&limit=10",
                "limit=10&distances=false&product_id=103&exclude_self=false&category_id=1",
                "exclude_self=false&category_id=1&product_id=103",
            ],
        ),
        (
            104,
            [
                "category_id=1&product_id=104&limit=3&exclude_self=true&distances=true",
                "distances=true&exclude_self=true&limit=3&product_id=104&category_id=1",
            ],
        ),
        (
            108,
            [
                "category_id=1&product_id=108&limit=3&exclude_self=true&distances=true&max_distance=1",
                "max_distance=1&distances=true&exclude_self=true&limit=3&product_id=108&category_id=1",
            ],
        ),
    ],
)
def test_the_same_question_is_one_entry(
    both: tuple[Server, Front], product_id: int, targets: Sequence[str]
) -> None:
    server, front = both
    right = server.get(f"/nns?{targets[-1]}")[2]
    answers = [ask(front, f"/nns?{target}") for target in targets]
    assert [answer.cache for answer in answers] == ["MISS"] + ["HIT"] * (len(targets) - 1)
    assert {answer.body for answer in answers} == {right}


def test_questions_that_differ_are_entries_of_their_own(both: tuple[Server, Front]) -> None:
    server, front = both
    about = "category_id=1&product_id=105"
    targets = [
        f"/nns?{about}",
        f"/nns?{about}&limit=9",
        f"/nns?{about}&limit=100",
        f"/nns?{about}&exclude_self=true",
        f"/nns?{about}&distances=true",
        f"/nns?{about}&max_distance=0.9",
        f"/nns?{about}&max_distance=0.5",
        f"/nns?{about}&hidden__missing=true",
        f"/nns?{about}&hidden__missing=false",
        f"/nns?{about}&hidden__missing=true&distinct=photo",
        f"/nns?{about}&closer_than=10",
        "/nns?category_id=1&product_id=106",
        "/nns?category_id=1&product_id=%3105",
        "/nns?category_id=40&product_id=5000",
        "/nns?category_id=5000&product_id=40",
        "/nns?category_id=40&product_id=500&limit=0",
    ]
    first = [ask(front, target) for target in targets]
    again = [ask(front, target) for target in targets]
    straight = [server.get(target) for target in targets]
    assert [(a.status, a.body) for a in first] == [(s[0], s[2]) for s in straight]
    assert [(a.status, a.body) for a in again] == [(s[0], s[2]) for s in straight]
    assert {answer.cache for answer in first} == {"MISS"}
    assert [a.cache == "HIT" for a in again] == [a.status != 400 for a in again]


MALFORMED = [
    "",
    "?",
    "?category_id=1",
    "?product_id=107",
    "?category_id=1&limit=10",
    "?limit=10&product_id=107",
    "?category_id=1&product_id=",
    "?category_id=1&product_id",
    "?category_id=1&product_id=107&",
    "?&category_id=1&product_id=107",
    "?category_id=1&&product_id=107",
    "?category_id=1&product_id=107&product_id=107",
    "?category_id=1&product_id=107&category_id=2",
    "?category_id=1&product_id=107&limit=10&limit=10",
    "?category_id=1&product_id=107&limit=10&l%69mit=3",
    "?category_id=1&product_id=107&distances=false&distances=true",
    "?category_id=1&product_id=107&limit=",
    "?category_id=1&product_id=107&limit",
    "?category_id=1&product_id=107&Limit=10",
    "?CATEGORY_ID=1&product_id=107",
    "?category_id=1&product_id=107&limit=10.0",
    "?category_id=1&product_id=107&limit=%2010",
    "?category_id=1&product_id=107&exclude_self=FALSE",
    "?category_id=1&product_id=107&exclude_self=False",
    "?category_id=1&product_id=107&distances=FALSE",
    "?category_id=1&product_id=107&distances=falsey",
    "?category_id=1&product_id=107&distances=0",
    "?category_id=1&product_id=107&max_distance=3",
    "?category_id=1&product_id=107&max_distance=1&max_distance=1",
    "?category_id=1&product_id=107&hidden=true&hidden=true",
    "?category_id=1&product_id=107&hidden=",
    "?category_id=1&product_id=107&hidden=perhaps",
    "?category_id=1&product_id=107&distinct=photo&",
    "?category_id=1&product_id=107&callback=f",
    "?category_id=1&product_id=107&_=123",
    "?category_id=1&product_id=107;limit=10",
    "?category_id=1&product_id=107?limit=10",
    "?category_id=1&product_id=107%26limit=10",
    "?category_id=1&product_id=limit=10&limit=10",
    "?category_id=1&product_id=107%0d%0aX-Injected:%201",
    "?category_id=1&product_id=107%00",
    "?category_id=1&product_id=" + "1" * 193,
    "?category_id=1&product_id=107&" + "limit=10&" * 400 + "limit=10",
    "?category_id=1&product_id=107&" + "x" * 4000,
    "?" + "&" * 4000,
]


@pytest.mark.parametrize("query", MALFORMED, ids=lambda query: query[:70])
def test_a_malformed_question_reaches_the_app_and_is_not_kept(
    both: tuple[Server, Front], query: str
) -> None:
    server, front = both
    well_formed = "/nns?category_id=1&product_id=107&limit=10"
    kept = ask(front, well_formed)
    before = asked(server, 400)
    status, headers, body = server.get(f"/nns{query}")
    answers = [ask(front, f"/nns{query}") for _ in range(2)]
    assert (status, headers["cache-control"]) == (400, "no-store")
    assert [(a.status, a.body) for a in answers] == [(400, body)] * 2
    assert all(a.cache in (None, "MISS") and "x-injected" not in a.headers for a in answers)
    assert asked(server, 400) == before + 3
    assert ask(front, well_formed).body == kept.body


def test_what_the_app_understands_and_nginx_does_not_is_answered_and_not_kept(
    both: tuple[Server, Front],
) -> None:
    server, front = both
    target = "/nns?%63ategory_id=1&product_id=111&limit=7"
    right = server.get(target)[2]
    for _ in range(2):
        answer = ask(front, target)
        assert (answer.status, answer.body, answer.cache) == (200, right, None)


def test_ids_of_any_characters_are_asked_for_as_they_are(string_root: ReleaseRoot) -> None:
    with unit(string_root) as server, nginx_before(server.address) as front:
        for category_id, (product_ids, _) in string_catalogue().items():
            for product_id in product_ids:
                for encoded in (quote(product_id, safe=""), quote(product_id, safe="/:=?@ü")):
                    query = f"product_id={encoded}&category_id={quote(str(category_id), safe='')}"
                    target = f"/nns?{query}".encode().decode("latin-1")
                    status, _, body = server.get(target)
                    assert (status, json.loads(body)[0]) == (200, product_id)
                    for _ in range(2):
                        answer = ask(front, target)
                        assert (answer.status, answer.body) == (200, body)
                    assert answer.cache == "HIT"


def test_a_condition_is_the_clients_own(both: tuple[Server, Front]) -> None:
    server, front = both
    target = "/nns?category_id=1&product_id=108"
    _, headers, body = server.get(target)
    etag = headers["etag"]
    before = asked(server, 200), asked(server, 304)
    # The first to ask already has the answer; the cache has not.
    conditional = ask(front, target, headers={"If-None-Match": etag})
    assert (conditional.status, conditional.body, conditional.cache) == (304, b"", "MISS")
    assert conditional.headers["etag"] == etag
    assert (asked(server, 200), asked(server, 304)) == (before[0] + 1, before[1])
    for condition, status in (
        (None, 200),
        ('"another"', 200),
        (etag, 304),
        (f'"another", W/{etag}', 304),
        ("*", 304),
    ):
        given = {"If-None-Match": condition} if condition else {}
        answer = ask(front, target, headers=given)
        assert (answer.status, answer.cache) == (status, "HIT")
        assert answer.body == (body if status == 200 else b"")
    # What is not kept is asked of the app with the condition.
    malformed = ask(front, f"{target}&limit=x", headers={"If-None-Match": etag})
    assert malformed.status == 400


def test_a_part_asked_for_is_not_kept_as_the_whole(both: tuple[Server, Front]) -> None:
    server, front = both
    target = "/nns?category_id=1&product_id=109"
    ask(front, target, headers={"Range": "bytes=0-3"})
    answer = ask(front, target)
    assert (answer.status, answer.body, answer.cache) == (200, server.get(target)[2], "HIT")


def test_post_is_never_kept(both: tuple[Server, Front]) -> None:
    server, front = both
    before = asked(server, 200, "POST /nns")
    for _ in range(2):
        answer = ask(front, "/nns", "POST", BODY)
        assert (answer.status, answer.cache) == (200, None)
    assert asked(server, 200, "POST /nns") == before + 2
    assert ask(front, TARGET, "POST", BODY).status == 400
    assert ask(front, TARGET, "DELETE").status == 405


@pytest.mark.parametrize("elsewhere", [False, True], ids=["no change", "a change elsewhere"])
def test_an_answer_that_still_holds_is_asked_for_by_its_etag(
    root: ReleaseRoot, elsewhere: bool
) -> None:
    with unit(root, None, **BRIEF) as server, nginx_before(server.address) as front:
        answers = [ask(front, TARGET)]
        if elsewhere:
            release = change(root, {3: {78: integer_catalogue()[1][1][7]}})
            assert etag_of(root, 1) == answers[0].headers["etag"]
            server.wait_until(lambda: _served(server, 3) == {etag_of(root, 3, release)})
        time.sleep(EXPIRED_S)
        before = asked(server, 200), asked(server, 304)
        answers += [ask(front, TARGET), ask(front, TARGET)]
        while answers[-1].cache == "REVALIDATED":  # expired again by now
            answers.append(ask(front, TARGET))
        caches = [a.cache for a in answers]
        n = len(answers) - 2
        assert caches == ["MISS", *["REVALIDATED"] * n, "HIT"]
        assert (asked(server, 200), asked(server, 304)) == (before[0], before[1] + n)
        assert {a.body for a in answers} == {server.get(TARGET)[2]}
        logged = front.logged(TARGET, len(answers))
        statuses = {(each["status"], each["upstream_status"]) for each in logged[1:-1]}
        assert statuses == {(200, "304")}


def test_no_answer_of_an_old_release_is_given_once_it_has_expired(root: ReleaseRoot) -> None:
    removed, left = TARGET, "/nns?category_id=1&product_id=101&limit=60"
    added = "/nns?category_id=1&product_id=999"
    vector = integer_catalogue()[1][1][7]
    with unit(root, None, **BRIEF) as server, nginx_before(server.address) as front:
        old = [ask(front, target) for target in (removed, left, added)]
        assert [a.status for a in old] == [200, 200, 404]
        old_etag = server.get(TARGET)[1]["etag"]
        release = change(root, {1: {100: None, 999: vector}})
        etag = etag_of(root, 1, release)
        server.wait_until(lambda: _served(server, 1) == {etag})
        time.sleep(EXPIRED_S)
        # Kept anew for a second; a slow machine may find them expired again.
        for caches in ({"EXPIRED"}, {"HIT", "EXPIRED", "REVALIDATED"}):
            answers = [ask(front, target) for target in (removed, left, added)]
            assert [a.status for a in answers] == [404, 200, 200]
            assert {a.cache for a in answers} <= caches
            assert 999 in json.loads(answers[1].body)
            assert 100 not in json.loads(answers[1].body)
            assert {answer.headers["etag"] for answer in answers[1:]} == {etag} != {old_etag}
        time.sleep(EXPIRED_S)
        assert ask(front, removed).status == 404


def _served(server: Server, category_id: int) -> set[str]:
    """The ETags of a category's answers by the processes of a server."""
    target = {1: "/nns?category_id=1&product_id=101", 3: "/nns?category_id=3&product_id=77"}
    return {server.get(target[category_id])[1]["etag"] for _ in range(20)}


def test_answers_go_on_while_unit_is_down_and_follow_it_when_it_is_back(root: ReleaseRoot) -> None:
    with ExitStack() as stack:
        with unit(root, None, **BRIEF) as server:
            front = stack.enter_context(nginx_before(server.address))
            first = ask(front, TARGET)
            time.sleep(EXPIRED_S)
        for _ in range(3):
            stale = ask(front, TARGET)
            assert (stale.status, stale.body, stale.cache) == (200, first.body, "STALE")
        new = ask(front, "/nns?category_id=1&product_id=101")
        assert (new.status, new.body) == (502, b'{"error":"unavailable"}')
        assert ask(front, "/readyz").status == 502
        change(root, {1: {150: None}})
        with unit(root, server.address, **BRIEF) as server:
            back = ask(front, TARGET)
            assert (back.status, back.cache) == (200, "EXPIRED")
            assert back.headers["etag"] == server.get(TARGET)[1]["etag"] != first.headers["etag"]
            assert ask(front, "/readyz").status == 200


def test_answers_go_on_while_no_release_is_open(root: ReleaseRoot) -> None:
    with ExitStack() as stack:
        with unit(root, None, **BRIEF) as server:
            front = stack.enter_context(nginx_before(server.address))
            first = ask(front, TARGET)
            time.sleep(EXPIRED_S)
        with Stub(server.address):
            for _ in range(2):
                stale = ask(front, TARGET)
                assert (stale.status, stale.body, stale.cache) == (200, first.body, "STALE")
            assert ask(front, "/nns?category_id=1&product_id=101").status == 503


class Stub:
    """Something in Unit's place: notes the head of each request, answers with a status or never."""

    def __init__(self, address: Address, status: int | None = 503) -> None:
        self.heads: list[str] = []
        self._status = status
        self._listener = socket.create_server(address)
        self._pool = ThreadPoolExecutor(1)

    def __enter__(self) -> "Stub":
        self._pool.submit(self._run)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._pool.shutdown()

    def _run(self) -> None:
        head = f"HTTP/1.1 {self._status} As asked\r\nCache-Control: no-store\r\nRetry-After: 1\r\n"
        head += "Connection: close\r\nContent-Length: 2\r\n\r\n{}"
        with ExitStack() as open_until_the_end:
            while True:
                try:
                    connection, _ = self._listener.accept()
                except OSError:
                    return
                self.heads.append(connection.recv(65536).decode())
                if self._status is None:
                    open_until_the_end.enter_context(connection)
                    continue
                with connection:
                    connection.sendall(head.encode())


@pytest.mark.parametrize(
    ("method", "target", "times"),
    [
        ("GET", TARGET, 2),
        ("GET", RELATED, 2),
        ("POST", "/nns", 1),
        ("PUT", "/products/1/100", 1),
        ("PATCH", "/products/1/100", 1),
        ("DELETE", "/products/1/100", 1),
    ],
)
def test_after_a_timeout_only_look_ups_are_asked_again(
    method: str, target: str, times: int
) -> None:
    address = ("127.0.0.1", free_port())
    with nginx_before(address, impatient=True) as front, Stub(address, None) as hung:
        _lower(front, "proxy_read_timeout 30s", "proxy_read_timeout 2s")
        answer = ask(front, target, method, BODY if method == "POST" else None)
        assert (answer.status, answer.body) == (504, b'{"error":"unavailable"}')
        assert [head.split()[0] for head in hung.heads] == [method] * times


def _lower(front: Front, shipped: str, ours: str) -> None:
    """Have nginx take up its files with another value in them."""
    file = front.log.parent / "lookalike" / "lookalike.conf"
    file.write_text(file.read_text().replace(shipped, ours))
    # Its master, its worker, and what looks after the cache.
    front.wait_until(lambda: len(in_session(front.session)) > 2)
    before = set(in_session(front.session))
    os.kill(front.session, signal.SIGHUP)
    front.wait_until(lambda: not (before - {front.session}) & set(in_session(front.session)))


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("method", "target"), [("GET", TARGET), ("GET", RELATED), ("POST", "/nns")]
)
def test_what_tells_to_come_later_is_never_kept_and_tells_when(
    status: int, method: str, target: str
) -> None:
    address = ("127.0.0.1", free_port())
    with nginx_before(address) as front, Stub(address, status) as busy:
        for _ in range(2):
            answer = ask(front, target, method, BODY if method == "POST" else None)
            assert (answer.status, answer.body) == (status, b"{}")
            assert answer.headers["retry-after"] == "1"
            assert answer.cache in (None, "MISS")
        # A host that has no time for searches is not lost: the next one is not asked too.
        assert len(busy.heads) == 2 * (1 if status == 429 else 2)


def test_who_passes_on_when_the_request_came_is_nginx_alone() -> None:
    address, other = ("127.0.0.1", free_port()), ("127.0.0.1", free_port())
    lie = {"X-Request-Start": "t=1"}
    with Stub(address) as one, Stub(other) as another:
        before = time.time()
        with nginx_before(address) as front:
            ask(front, TARGET, headers=lie)
            ask(front, "/nns", "POST", BODY, headers=lie)
        told = [re.findall(r"X-Request-Start: (.*)\r\n", head) for head in one.heads]
        assert len(told) == 4
        for (text,) in told:
            assert before - 1 < float(text.removeprefix("t=")) < time.time() + 1
        # Other hosts may have another clock.
        one.heads.clear()
        with nginx_before(address, other) as front:
            ask(front, TARGET, headers=lie)
        assert one.heads + another.heads
        assert "X-Request-Start" not in "".join(one.heads + another.heads)


def test_many_who_ask_a_new_question_at_once_are_one_request(both: tuple[Server, Front]) -> None:
    server, front = both
    target = "/nns?category_id=40&product_id=5010&limit=290&distances=true"
    before = asked(server, 200)
    answers = ask_at_once(front, target, 30)
    assert asked(server, 200) == before + 1
    right = server.get(target)[2]
    assert [body for _, body in answers] == [right] * 30


def test_none_waits_long_for_another(both: tuple[Server, Front]) -> None:
    """Left to itself, nginx looks every half second whether another's answer has come."""
    server, _ = both
    product_ids = iter(range(5020, 8000, 10))
    with nginx_before(server.address, impatient=True) as front:

        def ask_something_new() -> None:
            ask_at_once(front, f"/nns?category_id=40&product_id={next(product_ids)}", 30)

        assert quickest_s(ask_something_new, enough_s=0.4) < 0.4


def ask_at_once(
    front: Front, target: str, times: int, source: str = INSIDE, body: bytes = b""
) -> list[tuple[int, bytes]]:
    """Ask the same on so many connections; nginx finds all of them at the same moment.

    POST, where there is a `body`.
    """
    head = f"{'POST' if body else 'GET'} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    with ExitStack() as stack:
        connections = [
            stack.enter_context(socket.create_connection(front.address, HUNG_S, (source, 0)))
            for _ in range(times)
        ]
        ask(front, "/healthz")  # nginx has accepted them
        with front.held():
            for connection in connections:
                connection.sendall(request)
        answers = [HTTPResponse(connection) for connection in connections]
        for answer in answers:
            answer.begin()
        return [(answer.status, answer.read()) for answer in answers]


def test_a_client_that_asks_too_much_is_told_so(both: tuple[Server, Front]) -> None:
    _, front = both
    source = "127.0.0.3"
    answers = ask_at_once(front, TARGET, 300, source)
    statuses = [status for status, _ in answers]
    assert statuses.count(200) > 60
    assert set(statuses) == {200, 429}
    refused = {body for status, body in answers if status == 429}
    assert refused == {b'{"error":"too_many_requests"}'}
    # Others are not held back by it, nor for long is it itself.
    assert ask(front, TARGET, source="127.0.0.4").status == 200
    front.wait_until(lambda: ask(front, TARGET, source=source).status == 200)


QUESTION = "category_id=40&product_id=5000"
SEARCHES = [
    f"/nns?{QUESTION}&limit=102",
    f"/nns?limit=1000&{QUESTION}",
    f"/nns?{QUESTION}&limit=0000000102",
    f"/nns?{QUESTION}&limit=10%32",
    f"/nns?{QUESTION}&l%69mit=102",
    f"//nns?{QUESTION}&limit=102",
    f"/related?{QUESTION}&limit=51",
    f"/related?{QUESTION}&%6cimit=51",
]
LOOK_UPS = [
    f"/nns?{QUESTION}",
    f"/nns?{QUESTION}&limit=101",
    f"/nns?limit=0099&{QUESTION}",
    f"/related?{QUESTION}&limit=50&exclude=5010",
    "/nns?category_id=%34%30&product_id=5000",
]


@pytest.mark.parametrize("target", SEARCHES)
def test_a_client_may_search_less_often_than_look_up(
    both: tuple[Server, Front], target: str
) -> None:
    _, front = both
    source = f"127.0.2.{1 + SEARCHES.index(target)}"
    statuses = [status for status, _ in ask_at_once(front, target, 40, source)]
    assert set(statuses) == {200, 429}
    assert statuses.count(200) >= 10
    assert statuses.count(429) > 10
    assert ask(front, LOOK_UPS[0], source=source).status == 200


@pytest.mark.parametrize("target", LOOK_UPS)
def test_a_look_up_is_no_search_to_nginx(both: tuple[Server, Front], target: str) -> None:
    _, front = both
    source = f"127.0.3.{1 + LOOK_UPS.index(target)}"
    assert {ask(front, target, source=source).status for _ in range(50)} == {200}


def test_a_client_may_post_less_often_than_get(both: tuple[Server, Front]) -> None:
    _, front = both
    for source, expected in (("127.0.4.1", {200, 429}), (INSIDE, {200})):
        answers = ask_at_once(front, "/nns", 40, source, BODY)
        assert {status for status, _ in answers} == expected
        assert ask(front, TARGET, source=source).status == 200


def test_the_web_tier_asks_as_much_as_it_wants(both: tuple[Server, Front]) -> None:
    _, front = both
    assert {ask(front, TARGET).status for _ in range(200)} == {200}


# Targets of requests from outside, and what is answered: nginx's 403 and 404, or, for what is but /nns
# written otherwise, its own answer.
REFUSED = {
    "/metrics": 403,
    "/metrics?category_id=1&product_id=100": 403,
    "/metrics?/nns": 403,
    "//metrics": 403,
    "/./metrics": 403,
    "/%6detrics": 403,
    "/%2e/metrics": 403,
    "/%2Fmetrics": 403,
    "/nns/../metrics": 403,
    "/nns/%2e%2e/metrics": 403,
    "/nns%2f..%2fmetrics": 403,
    "/nns/..//metrics#x": 403,
    "http://127.0.0.1/metrics": 403,
    "http://localhost:8081//metrics": 403,
    "/metrics/": 404,
    "/metrics%2f": 404,
    "/metrics%20": 404,
    "/metrics%00": 400,
    "/metrics%0a": 403,
    "/metrics%0d%0a": 404,
    "/metrics;x": 404,
    "/metrics%3fx": 404,
    "/metrics%23": 404,
    "/METRICS": 404,
    "/%256detrics": 404,
    "/\\metrics": 404,
    "/nns\\..\\metrics": 404,
    "/..%5cmetrics": 404,
    "/../metrics": 400,
    "/%2e%2e/metrics": 400,
    "metrics": 400,
    "*": 400,
    "/release": 403,
    "/readyz/../release": 403,
    "/browse": 403,
    "/browse?category_id=1": 403,
    "/browse/style.css": 403,
    "/browse/../release": 403,
    "/browse/..%2frelease": 403,
    "/browsex": 404,
    "/products/1/100": 403,
    "/products//1/100": 403,
    "/products/..%2fmetrics": 403,
    "/products/../products/1/100": 403,
    "/nns/../products/1/100": 403,
    "/products": 404,
    "/changes/1": 403,
    "/%63hanges/1": 403,
    "/changes": 404,
    "/": 404,
    "/nns/": 404,
    "/nns/metrics": 404,
    "/nns%0d%0aX-Injected:%201": 404,
    "/nns%20HTTP/1.1%0d%0aHost:%20x%0d%0a%0d%0aGET%20/metrics": 404,
    "/nns?%0d%0a%0d%0aGET%20/metrics": 400,
    "/nns?/../metrics": 400,
    "/nns#/../metrics": 400,
    "/healthz/": 404,
    "/healthz/../metrics": 403,
    "/openapi.json/../release": 403,
    "/index.html": 404,
    "/lookalike_error": 404,
    "/control/applications": 404,
    "/config": 404,
    "/.git/config": 404,
}


@pytest.mark.parametrize("target", REFUSED)
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_nothing_private_is_given_outside(
    both: tuple[Server, Front], target: str, method: str
) -> None:
    server, front = both
    # A client to each, so that none asks too much.
    source = f"127.0.1.{1 + list(REFUSED).index(target)}"
    before = private_requests(server)
    raw = f"{method} {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
    raw += "Connection: close\r\nContent-Length: 0\r\n\r\n"
    with socket.create_connection(front.address, HUNG_S, (source, 0)) as connection:
        connection.sendall(raw.encode("latin-1"))
        answer = HTTPResponse(connection)
        answer.begin()
        body = answer.read()
    expected = REFUSED[target]
    if method == "PUT" and target.startswith("/nns") and expected == 400:
        expected = 405  # the app's
    assert answer.status == expected
    assert answer.getheader("x-injected") is None
    if expected in (403, 404):
        assert json.loads(body) == {"error": {403: "forbidden", 404: "not_found"}[expected]}
    assert private_requests(server) == before + 1  # for what we asked it ourselves


def private_requests(server: Server) -> int:
    """How many requests Unit has had for paths that are not for everybody."""
    text = server.get("/metrics")[2].decode()
    counts = re.findall(r'requests_total{route="(.*?)",status="\d+"} (\d+)', text)
    public = {"/nns", "POST /nns", "/related", "/healthz", "/readyz", "/openapi.json"}
    return sum(int(count) for route, count in counts if route not in public)


def test_everybody_may_ask_whether_it_is_well(both: tuple[Server, Front]) -> None:
    server, front = both
    for path in ("/healthz", "/readyz", "/openapi.json", TARGET, RELATED):
        answer = ask(front, path, source=OUTSIDE)
        assert (answer.status, answer.body) == (200, server.get(path)[2])


def test_the_answer_to_a_visitor_is_never_kept(both: tuple[Server, Front]) -> None:
    _, front = both
    for _ in range(2):
        answer = ask(front, RELATED, source=OUTSIDE)
        assert (answer.status, answer.cache) == (200, None)
    assert ask(front, "/related?product_id=100", source=OUTSIDE).status == 400


def test_inside_all_paths_are_there_and_never_kept(both: tuple[Server, Front]) -> None:
    _, front = both
    for path, said in (
        ("/metrics", b"lookalike_requests_total"),
        ("/release", b'"n_items"'),
        ("/browse?category_id=1", b"<html"),
        ("/browse/style.css", b"{"),
    ):
        for _ in range(2):
            answer = ask(front, path)
            assert (answer.status, said in answer.body, answer.cache) == (200, True, None)


def test_inside_products_change(string_root: ReleaseRoot, tmp_path: Path) -> None:
    root = publish(tmp_path / "root", string_catalogue(), tmp_path / "features")
    path = f"/products/shoes/{quote('ü/3', safe='')}"
    photo = bytes(2**23)
    with unit(root, LOOKALIKE_TOKEN=TOKEN) as server, nginx_before(server.address) as front:
        accepted = ask(front, path, "PUT", photo, headers=BEARER)
        assert accepted.status == 202
        location = accepted.headers["location"]
        for _ in range(2):
            told = ask(front, location, headers=BEARER)
            assert (told.status, told.cache) == (200, None)
            assert json.loads(told.body)["product_id"] == "ü/3"
        assert ask(front, path, "PATCH", b'{"hidden": true}', headers=BEARER).status == 202
        assert ask(front, path, "DELETE", headers=BEARER).status == 202
        # The token is the client's own, each time.
        assert ask(front, location).status == 401
        assert ask(front, path, "PUT", b"photo").status == 401
        too_large = ask(front, path, "PUT", photo + b"x", headers=BEARER)
        assert (too_large.status, too_large.body) == (413, b'{"error":"too_large"}')
        logged = [(each["request"].split()[0], each["status"]) for each in front.logged(path, 5)]
        accepted_all = [("PUT", 202), ("PATCH", 202), ("DELETE", 202)]
        assert logged == [*accepted_all, ("PUT", 401), ("PUT", 413)]
        assert TOKEN not in front.log.read_text()
        assert TOKEN not in (front.log.parent / "error.log").read_text()


def test_the_log_says_where_the_time_went(both: tuple[Server, Front]) -> None:
    _, front = both
    target = "/nns?category_id=1&product_id=110&limit=7"
    for _ in range(2):
        ask(front, target, source=OUTSIDE)
    miss, hit = front.logged(target, 2)
    assert (miss["cache"], hit["cache"]) == ("MISS", "HIT")
    assert (miss["client"], miss["status"]) == (OUTSIDE, 200)
    assert miss["request"] == f"GET {target} HTTP/1.1"
    assert float(miss["upstream_seconds"]) <= miss["seconds"] + 0.001
    assert hit["upstream_seconds"] == ""
    assert miss["bytes"] == hit["bytes"] > 0


# Of the root and others: the root's may be all of one host's.
CATEGORIES = [1, 2, 3, 40, *range(100, 130)]


def hosts(front: Front, straight: Server, limit: int) -> list[str]:
    """Who answers for each category, all of them right. `limit` is to be another each time."""
    known = {number: ids[0] for number, (ids, _) in integer_catalogue().items()}
    for category_id in CATEGORIES:
        product_id = known.get(category_id, 1)
        target = f"/nns?category_id={category_id}&product_id={product_id}&limit={limit}"
        status, _, body = straight.get(target)
        answer = ask(front, target)
        assert (answer.status, answer.body) == (status, body)
        assert status == (200 if category_id in known else 404)
    logged = front.logged(f"&limit={limit} ", len(CATEGORIES))
    return [each["upstream"].split(", ")[-1] for each in logged]


def test_a_lost_hosts_categories_are_answered_by_others_and_come_back(root: ReleaseRoot) -> None:
    numbers = iter(range(1, 1000))
    with ExitStack() as stack:
        first, third = (stack.enter_context(unit(root, None, **NOT_KEPT)) for _ in range(2))
        with unit(root, None, **NOT_KEPT) as second:
            gone = second.address
            front = stack.enter_context(nginx_before(first.address, gone, third.address))
            before = hosts(front, first, next(numbers))
            assert hosts(front, first, next(numbers)) == before
            assert len(set(before)) == 3
        after = hosts(front, first, next(numbers))
        assert hosts(front, first, next(numbers)) == after
        # The others keep what they have, and share what was the lost one's.
        moved = [new for old, new in zip(before, after, strict=True) if old != new]
        assert {old for old, new in zip(before, after, strict=True) if old != new} == {
            host_port(gone)
        }
        assert set(moved) == {host_port(first.address), host_port(third.address)}
        with unit(root, gone, **NOT_KEPT):
            front.wait_until(lambda: hosts(front, first, next(numbers)) == before)


def test_one_host_more_moves_no_category_between_the_others(root: ReleaseRoot) -> None:
    with ExitStack() as stack:
        first, second, third = (stack.enter_context(unit(root, None, **NOT_KEPT)) for _ in range(3))
        with nginx_before(first.address, third.address) as front:
            before = hosts(front, first, 1)
        with nginx_before(first.address, second.address, third.address) as front:
            after = hosts(front, first, 1)
        moved = {new for old, new in zip(before, after, strict=True) if old != new}
        assert moved == {host_port(second.address)}


def test_posts_go_to_any_host_or_to_that_of_the_category_named(root: ReleaseRoot) -> None:
    with (
        unit(root, None, **NOT_KEPT) as first,
        unit(root, None, **NOT_KEPT) as second,
        nginx_before(first.address, second.address) as front,
    ):
        for _ in range(20):
            assert ask(front, "/nns", "POST", BODY).status == 200
        assert len({each["upstream"] for each in front.logged("POST /nns ", 20)}) == 2
        for _ in range(20):
            assert ask(front, "/nns", "POST", BODY, headers={"X-Category-Id": "1"}).status == 200
        ask(front, TARGET)
        (host,) = (each["upstream"] for each in front.logged(TARGET, 1))
        assert {each["upstream"] for each in front.logged("POST /nns ", 40)[20:]} == {host}


class Related(HTMLParser):
    """The product ids that a page carries, by the id of the element."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: dict[str, str] = {}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if "data-product-ids" in given:
            self.found[given["id"] or ""] = given["data-product-ids"] or ""


def page_of(*questions: str) -> str:
    """The shipped page, its part with related products once for each question, ids "0", "1"…"""
    text = (NGINX / "related.html").read_text()
    question = "category_id=1&product_id=234"
    parts = []
    for line in text.splitlines():
        of_a_product = question in line or 'id="related"' in line
        parts += [
            line.replace(question, each).replace('"related"', f'"related{i}"')
            for i, each in enumerate(questions if of_a_product else [question])
        ]
    return "\n".join(parts)


def test_a_page_carries_related_products(string_root: ReleaseRoot, tmp_path: Path) -> None:
    catalogue = string_catalogue()
    asked_for = [("shoes", "a&b=c"), ("shoes", "b 2"), ("../hats & caps", "only")]
    questions = [
        f"category_id={quote(str(category_id), safe='')}&product_id={quote(product_id, safe='')}"
        for category_id, product_id in asked_for
    ]
    (tmp_path / "page.html").write_text(page_of(*questions))
    with unit(string_root) as server, nginx_before(server.address, pages=tmp_path) as front:
        answers = [ask(front.pages, "/page.html") for _ in range(2)]
        # Conditions are the page's, not Lookalike's.
        etag = ask(front, f"/nns?{questions[0]}&limit=12&exclude_self=true").headers["etag"]
        answers.append(ask(front.pages, "/page.html", headers={"If-None-Match": etag}))
        for answer in answers:
            assert answer.status == 200
            found = Related(answer.body.decode()).found
            for i, (category_id, product_id) in enumerate(asked_for):
                ids = json.loads(found[f"related{i}"])
                others = set(catalogue[category_id][0]) - {product_id}
                assert set(ids) == others
            assert b"<!--#" not in answer.body
            assert b"error" not in answer.body
        logged = front.logged(questions[0], 4)
        assert [each["cache"] for each in logged] == ["MISS", "HIT", "HIT", "HIT"]
        # It is there for pages only.
        assert ask(front.pages, f"/related-products?{questions[0]}").body == b"[]"


@pytest.mark.parametrize("trouble", ["unknown", "malformed", "down", "hung"])
def test_a_page_never_fails(root: ReleaseRoot, tmp_path: Path, trouble: str) -> None:
    known = "category_id=1&product_id=100"
    other = {"unknown": "category_id=1&product_id=1", "malformed": "category_id=1&product_id=x"}
    (tmp_path / "page.html").write_text(page_of(known, other.get(trouble, known + "&limit=x")))
    with ExitStack() as stack:
        with unit(root) as server:
            front = stack.enter_context(
                nginx_before(server.address, pages=tmp_path, impatient=trouble == "hung")
            )
            if trouble in other:
                answer = ask(front.pages, "/page.html")
                found = Related(answer.body.decode()).found
                assert (answer.status, json.loads(found["related1"])) == (200, [])
                assert len(json.loads(found["related0"])) == 12
                return
        if trouble == "hung":
            stack.enter_context(socket.create_server(server.address))
        answer = ask(front.pages, "/page.html")
        found = Related(answer.body.decode()).found
        assert (answer.status, found) == (200, {"related0": "[]", "related1": "[]"})
        assert answer.body.rstrip().endswith(b"</html>")
        assert quickest_s(lambda: ask(front.pages, "/page.html"), enough_s=2) < 2
