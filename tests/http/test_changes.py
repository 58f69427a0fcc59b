"""Changes of products over real servers: photos of any size, awkward ids, and those who mean ill."""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException

import pytest

from lookalike.journal import Change, Journal
from lookalike.release.root import ReleaseRoot
from servers import Serve, Server, unit
from support import TOKEN, integer_catalogue, publish, string_catalogue
from waiting import HUNG_S

BEARER = {"Authorization": f"Bearer {TOKEN}"}
LARGEST = 8388608
Answer = tuple[int, dict[str, str], bytes]


@pytest.fixture(scope="module")
def numbers(
    serve: Serve, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, ReleaseRoot]]:
    folder = tmp_path_factory.mktemp("numbers")
    root = publish(folder / "root", integer_catalogue(), folder / "features")
    with serve(root, LOOKALIKE_TOKEN=TOKEN) as server:
        yield server, root
        assert TOKEN not in server.log.read_text()


@pytest.fixture(scope="module")
def strings(
    serve: Serve, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, ReleaseRoot]]:
    folder = tmp_path_factory.mktemp("strings")
    root = publish(folder / "root", string_catalogue(), folder / "features")
    with serve(root, LOOKALIKE_TOKEN=TOKEN) as server:
        yield server, root


def ask(
    server: Server,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: dict[str, str] = BEARER,
) -> Answer:
    """Status, headers with lower-case names and body, on a connection of its own."""
    with closing(HTTPConnection(*server.address, timeout=HUNG_S)) as connection:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()


def listens(server: Server) -> bool:
    """Whether a connection is accepted."""
    with suppress(ConnectionError), socket.create_connection(server.address, HUNG_S):
        return True
    return False


def raw(server: Server, request: bytes) -> bytes:
    """What is answered to the bytes sent, until the server closes or is done."""
    with socket.create_connection(server.address, HUNG_S) as connection:
        connection.sendall(request)
        answer = b""
        try:
            while piece := connection.recv(65536):
                answer += piece
        except ConnectionError:
            pass
        return answer


def pending(root: ReleaseRoot) -> list[tuple[int, Change]]:
    with closing(Journal(root.journal)) as journal:
        return journal.pending(1000)


def accepted(answer: Answer) -> int:
    status, headers, body = answer
    number = json.loads(body)["change"]
    assert status == 202
    assert headers["location"] == f"/changes/{number}"
    assert headers["cache-control"] == "no-store"
    return int(number)


def test_changes_are_taken_by_all_processes_and_asked_for(
    numbers: tuple[Server, ReleaseRoot],
) -> None:
    server, root = numbers
    photos = {
        accepted(ask(server, "PUT", f"/products/1/{i}", photo)): (i, photo)
        for i, photo in enumerate([b"\r\n\r\n\x00\xff", b"x", os.urandom(100_000)] * 4)
    }
    number = accepted(ask(server, "PATCH", "/products/1/1", b'{"hidden": true}'))
    assert dict(pending(root))[number].values == {"hidden": True}
    gone = accepted(ask(server, "DELETE", "/products/40/5000"))
    assert list(photos) == sorted(photos)
    with closing(Journal(root.journal)) as journal:
        for number, (product_id, photo) in photos.items():
            assert journal.photo(number) == photo
            outcome = journal.outcome(number)
            assert outcome is not None
            assert outcome[:3] == ("put", 1, product_id)
        journal.reject({gone: "no such product"})
        journal.settle(max(photos), str(root.current()))
    answers = [ask(server, "GET", f"/changes/{gone}") for _ in range(10)]
    assert {json.loads(body)["reason"] for _, _, body in answers} == {"no such product"}
    path = f"/changes/{max(photos)}"
    assert json.loads(ask(server, "GET", path)[2])["state"] == "pending"

    def answers_to_many() -> list[bytes]:
        return [ask(server, "GET", path)[2] for _ in range(10)]

    # A process may have kept for a second how far the journal is settled.
    server.wait_until(lambda: {json.loads(body)["state"] for body in answers_to_many()} == {"live"})
    status, headers, body = ask(server, "HEAD", path)
    assert (status, body, int(headers["content-length"])) == (200, b"", len(answers_to_many()[0]))


def test_the_largest_photo_is_taken_and_one_byte_more_is_413(
    numbers: tuple[Server, ReleaseRoot],
) -> None:
    server, root = numbers
    photo = os.urandom(LARGEST)
    number = accepted(ask(server, "PUT", "/products/1/234", photo))
    with closing(Journal(root.journal)) as journal:
        assert journal.photo(number) == photo
    before = len(pending(root))
    length = f"Content-Length: {LARGEST + 1}\r\n".encode()
    head = b"PUT /products/1/234 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + length
    # Before the body, as a client hears it that waits with it.
    answer = raw(server, head + f"Authorization: Bearer {TOKEN}\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 413 ")
    try:
        status, _, _ = ask(server, "PUT", "/products/1/234", photo + b"x")
        assert status == 413
    except (HTTPException, OSError):
        pass  # a server may close the connection while it is still being sent to
    assert len(pending(root)) == before
    assert server.get("/healthz")[0] == 200


def test_a_smaller_bound_is_the_apps(serve: Serve, root: ReleaseRoot) -> None:
    with (
        serve(root, LOOKALIKE_TOKEN=TOKEN, LOOKALIKE_MAX_PHOTO_BYTES="1024") as server,
        closing(HTTPConnection(*server.address, timeout=HUNG_S)) as connection,
    ):
        # One connection: what is left unread of a body must not become a request.
        for size, status in ((1025, 413), (1024, 202), (1025, 413), (0, 400), (1, 202)):
            connection.request("PUT", "/products/1/2", b"x" * size, BEARER)
            answer = connection.getresponse()
            kind = answer.getheader("Content-Type")
            assert (answer.status, kind) == (status, "application/json")
            answer.read()
    assert len(pending(root)) == 2


def test_a_client_that_is_gone_before_its_photo_is_sent_leaves_no_change(
    numbers: tuple[Server, ReleaseRoot],
) -> None:
    server, root = numbers
    before = pending(root)
    head = f"PUT /products/1/2 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
    for half_closed in (False, True):
        with socket.create_connection(server.address, HUNG_S) as connection:
            connection.sendall(f"{head}Content-Length: 100000\r\n\r\n".encode() + b"x" * 50_000)
            time.sleep(0.2)
            if half_closed:
                connection.shutdown(socket.SHUT_WR)
                time.sleep(0.2)
    time.sleep(0.5)
    assert pending(root) == before
    assert {ask(server, "GET", "/healthz")[0] for _ in range(10)} == {200}


def test_a_body_in_chunks_is_refused(numbers: tuple[Server, ReleaseRoot]) -> None:
    """Unit answers 411, the app 400: its length is not told."""
    server, root = numbers
    before = pending(root)
    head = f"PUT /products/1/2 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
    chunks = "Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    answer = raw(server, (head + chunks).encode())
    assert answer.split(b" ")[1] in (b"400", b"411")
    assert pending(root) == before


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/products/1/100", "PUT, PATCH, DELETE"),
        ("HEAD", "/products/1/100", "PUT, PATCH, DELETE"),
        ("POST", "/products/1/100", "PUT, PATCH, DELETE"),
        ("OPTIONS", "/products/1/100", "PUT, PATCH, DELETE"),
        ("PUT", "/changes/1", "GET, HEAD"),
        ("DELETE", "/changes/1", "GET, HEAD"),
        ("POST", "/changes/1", "GET, HEAD"),
    ],
)
def test_another_method_is_405(
    numbers: tuple[Server, ReleaseRoot], method: str, path: str, allow: str
) -> None:
    status, headers, _ = ask(numbers[0], method, path)
    assert (status, headers["allow"]) == (405, allow)
    assert ask(numbers[0], method, path, headers={})[0] == 401


def test_without_the_right_token_it_is_401(numbers: tuple[Server, ReleaseRoot]) -> None:
    server, root = numbers
    before = pending(root)
    for given in ("", "Bearer", f"Bearer {TOKEN}x", f"Basic {TOKEN}", "Bearer \xff"):
        for method, path in (("PUT", "/products/1/2"), ("GET", "/changes/1")):
            answer = ask(server, method, path, b"x" * 1000, {"Authorization": given})
            assert (answer[0], answer[1]["www-authenticate"]) == (401, "Bearer")
    assert pending(root) == before


@pytest.mark.parametrize(
    ("sent", "product_id"),
    [
        ("A-1", "A-1"),
        ("b%202", "b 2"),
        ("a+b", "a+b"),
        ("%C3%BC", "ü"),
        ("\xc3\xbc", "ü"),
        ("%2541", "%41"),
        ("a%3Fb%23c", "a?b#c"),
        ("a&b=c;d", "a&b=c;d"),
        ("%E6%97%A5%E6%9C%AC", "日本"),
    ],
)
def test_an_id_is_what_it_says_percent_encoded(
    strings: tuple[Server, ReleaseRoot], sent: str, product_id: str
) -> None:
    server, root = strings
    head = f"PUT /products/shoes/{sent} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    rest = f"Authorization: Bearer {TOKEN}\r\nContent-Length: 1\r\n\r\nx"
    assert raw(server, (head + rest).encode("latin-1")).startswith(b"HTTP/1.1 202 ")
    assert pending(root)[-1][1] == Change("put", "shoes", product_id)


@pytest.mark.parametrize(
    ("sent", "category_id", "product_id"),
    [
        ("shoes/%C3%BC%2F3", "shoes", "ü/3"),
        ("shoes/..%2Fx", "shoes", "../x"),
        ("%2E%2E%2Fhats%20%26%20caps/only", "../hats & caps", "only"),
        ("shoes/%2F", "shoes", "/"),
        ("shoes/a%2F%2Fb", "shoes", "a//b"),
    ],
)
def test_an_id_with_a_slash_is_taken(
    serve: Serve,
    strings: tuple[Server, ReleaseRoot],
    sent: str,
    category_id: str,
    product_id: str,
) -> None:
    server, root = strings
    before = pending(root)
    answer = ask(server, "DELETE", f"/products/{sent}")
    if serve is unit and sent.startswith("%2E%2E"):
        # Where dots lead out of the path, Unit has it as another one.
        assert answer[0] == 404
        assert pending(root) == before
        return
    assert pending(root)[-1][0] == accepted(answer)
    assert pending(root)[-1][1] == Change("delete", category_id, product_id)


@pytest.mark.parametrize(
    "target",
    [
        "/products/shoes/%0D%0ASet-Cookie:%20a=b",
        "/products/shoes/a%00b",
        "/products/shoes/%FF",
        "/products/shoes/",
        "/products/shoes",
        "/products/shoes/a/b",
        "/products/shoes/../../../etc/passwd",
        "/products/shoes/%2e%2e/%2e%2e/journal/journal.sqlite",
        "/products/shoes/a?x=1",
        "/products/shoes/" + "z" * 65,
        "/products/" + "z/" * 500,
        "/changes/1%0D%0AX:1",
        "/changes/../products/shoes",
        "/changes/%2e%2e",
        "/changes/1%00",
    ],
)
def test_an_unfit_path_is_a_4xx_and_no_change(
    strings: tuple[Server, ReleaseRoot], target: str
) -> None:
    server, root = strings
    before = pending(root)
    files = sorted(root.path.rglob("*"))
    for method in ("PUT", "DELETE", "GET"):
        request = f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        body = "Content-Length: 1\r\n\r\nx" if method == "PUT" else "\r\n"
        answer = raw(server, f"{request}Authorization: Bearer {TOKEN}\r\n{body}".encode())
        assert answer.startswith(b"HTTP/1.1 4"), answer
        assert b"set-cookie" not in answer.partition(b"\r\n\r\n")[0].lower()
    assert pending(root) == before
    assert sorted(root.path.rglob("*")) == files


@pytest.mark.parametrize(
    "line",
    [
        "Content-Length: 5\r\nContent-Length: 1",
        "Content-Length: +1",
        "Content-Length: 1_0",
        "Content-Length: -1",
        "Content-Length: 0x1",
        "Content-Length: " + "9" * 30,
        "Content-Length: 1\r\nTransfer-Encoding: chunked",
    ],
)
def test_a_length_that_can_be_read_in_two_ways_is_no_change(
    numbers: tuple[Server, ReleaseRoot], line: str
) -> None:
    server, root = numbers
    before = pending(root)
    head = f"PUT /products/1/2 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
    answer = raw(server, f"{head}Connection: close\r\n{line}\r\n\r\nDELET".encode())
    assert not answer.startswith((b"HTTP/1.1 2", b"HTTP/1.1 5"))
    assert pending(root) == before


def test_without_a_token_configured_there_is_no_such_path(serve: Serve, root: ReleaseRoot) -> None:
    with serve(root) as server:
        for method, path in (("PUT", "/products/1/2"), ("GET", "/changes/1")):
            status, _, body = ask(server, method, path, b"x")
            assert (status, body) == (404, b'{"error":"not_found"}')
        assert b"lookalike_changes" not in server.get("/metrics")[2]
    assert not root.journal.parent.exists()


def test_a_process_killed_while_photos_come_loses_nothing_acknowledged(
    serve: Serve, root: ReleaseRoot
) -> None:
    told = {}
    with serve(root, LOOKALIKE_TOKEN=TOKEN) as server:
        for product_id in range(60):
            if product_id % 20 == 10:
                server.wait_until(lambda: len(server.workers()) == 2)
                server.kill(min(server.workers()))
            photo = os.urandom(20_000)
            try:
                answer = ask(server, "PUT", f"/products/1/{product_id}", photo)
            except (HTTPException, OSError):
                # It was in the hands of the one killed; the other may be new, and not listen yet.
                server.wait_until(lambda: listens(server))
                continue
            if answer[0] == 202:
                told[accepted(answer)] = photo
        server.wait_until(lambda: len(server.workers()) == 2)
    with closing(Journal(root.journal)) as journal:
        assert {number: journal.photo(number) for number in told} == told
    assert len(told) > 30
