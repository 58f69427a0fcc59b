"""Those who mean ill, over raw connections: nothing leaks or leads elsewhere, and serving goes on.

What a server makes of a malformed request is its own; ours is that whoever asks next is answered right.
"""

import json
import re
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from lookalike.journal import Journal
from lookalike.release.ids import Id
from lookalike.release.root import ReleaseRoot
from servers import Serve, Server, cpu_s
from support import TOKEN, publish, string_catalogue
from waiting import HUNG_S

CANARY = "canary"
SECRET = "what nobody may see"
HOST = "Host: localhost\r\n"
AUTHORIZED = f"{HOST}Authorization: Bearer {TOKEN}\r\n"
NNS = "/nns?category_id=shoes&product_id=A-1"
NEXT = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
ALIVE = b'{"status":"ok"}'
REFUSED = {400, 401, 404, 405, 411, 413, 414, 431, 501}
SENT_HEADERS = {"allow", "cache-control", "connection", "content-length", "content-type", "date"}
SENT_HEADERS |= {"content-security-policy", "referrer-policy", "x-content-type-options"}
SENT_HEADERS |= {"etag", "location", "server", "www-authenticate"}

Answer = tuple[int, dict[str, str], bytes]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> ReleaseRoot:
    """A root of string ids, and beside it what nobody may see: a file, and a release."""
    folder = tmp_path_factory.mktemp("security")
    root = publish(folder / "root", string_catalogue(), folder / "features")
    (folder / "secret").write_text(SECRET)
    shutil.copytree(root.folder(str(root.current())), folder / "outside")
    return root


@pytest.fixture(scope="module")
def server(serve: Serve, root: ReleaseRoot) -> Iterator[Server]:
    with serve(root, LOOKALIKE_TOKEN=TOKEN, LOOKALIKE_BROWSE="true") as running:
        yield running


def exchange(server: Server, request: str | bytes) -> list[Answer]:
    """All answers on one connection to what is sent, until the server closes it."""
    sent = request.encode("latin-1") if isinstance(request, str) else request
    with socket.create_connection(server.address, HUNG_S) as connection:
        answered = b""
        try:
            connection.sendall(sent)
            while piece := connection.recv(65536):
                answered += piece
        except ConnectionError:
            pass  # closed while there was still something to read or to send
    answers = []
    while answered:
        head, _, answered = answered.partition(b"\r\n\r\n")
        line, *fields = head.decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value for name, _, value in (each.partition(": ") for each in fields)
        }
        assert len(headers) == len(fields), head
        length = int(headers.get("content-length", 0))
        if not line.startswith("HTTP/1.1 100"):
            answers.append((int(line.split()[1]), headers, answered[:length]))
        answered = answered[length:]
    return answers


def refused(server: Server, request: str | bytes) -> Answer | None:
    """The refusal of a request, None where it closed the connection; the next one is answered."""
    sent = request.encode("latin-1") if isinstance(request, str) else request
    answers = exchange(server, sent + NEXT.encode())
    for _, headers, body in answers:
        assert set(headers) <= SENT_HEADERS
        assert CANARY not in str(headers)
        assert SECRET.encode() not in body
    if len(answers) > 1:
        assert [body for _, _, body in answers[1:]] == [ALIVE]
    assert exchange(server, NEXT)[0][2] == ALIVE
    if not answers:
        return None
    assert answers[0][0] in REFUSED, answers[0]
    return answers[0]


def files_beside(root: ReleaseRoot) -> list[Path]:
    """All files in the root and beside it, but for those of SQLite."""
    return [
        path
        for path in sorted(root.path.parent.rglob("*"))
        if root.journal.parent not in path.parents
    ]


def journaled(root: ReleaseRoot) -> int:
    with closing(Journal(root.journal)) as journal:
        return len(journal.pending(10_000))


def get(target: str, *lines: str, method: str = "GET", version: str = "1.1") -> str:
    return "\r\n".join([f"{method} {target} HTTP/{version}", HOST.strip(), *lines, "", ""])


def post(length: str, body: str) -> str:
    return f"POST /nns HTTP/1.1\r\n{HOST}{length}\r\n\r\n{body}"


SMUGGLED = f"DELETE /products/shoes/A-1 HTTP/1.1\r\n{AUTHORIZED}Content-Length: 0\r\n\r\n"
MALFORMED: dict[str, str | bytes] = {
    "a length twice": post("Content-Length: 2\r\nContent-Length: 3", "{} "),
    "the same length twice": post("Content-Length: 2\r\nContent-Length: 2", "{}"),
    "a length below 0": post("Content-Length: -1", ""),
    "a length of many digits": post(f"Content-Length: {'9' * 40}", ""),
    "a length and chunks": post("Content-Length: 4\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
    "chunks": post("Transfer-Encoding: chunked", "2\r\n{}\r\n0\r\n\r\n"),
    "chunks without an end": post("Transfer-Encoding: chunked", "zz\r\n{}\r\n0\r\n\r\n"),
    "compressed chunks": post("Transfer-Encoding: gzip, chunked", "2\r\n{}\r\n0\r\n\r\n"),
    "chunks announced oddly": post("Transfer-Encoding : chunked", "2\r\n{}\r\n0\r\n\r\n"),
    "a request after the last chunk": post("Transfer-Encoding: chunked", f"0\r\n\r\n{NEXT}"),
    "a request in a body too short": post("Content-Length: 5\r\nTransfer-Encoding: x", "0\r\n\r\n"),
    "a header over two lines": get("/healthz", "X: a", f" {CANARY}"),
    "NUL in a header": get("/nothing", f"X: a\0{CANARY}"),
    "an escape in a header": get("/nothing", f"X: \x1b[2J{CANARY}"),
    "CR in a header": get("/nothing", f"X: a\rSet-Cookie: {CANARY}"),
    "a header of 100 KB": get("/nothing", f"X: {'x' * 100_000}"),
    "2,000 headers": get("/nothing", *(f"X-{i}: a" for i in range(2000))),
    "a path of 70 KB": get("/" + "x" * 70_000),
    "a method of 5 KB": get("/healthz", method="A" * 5000),
    "no version": "GET /nothing\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "TRACE": get("/nns", f"X-Secret: {CANARY}", method="TRACE"),
    "CONNECT": get("localhost:443", method="CONNECT"),
    "OPTIONS of all": get("*", method="OPTIONS"),
    "OPTIONS": get("/nns", "Origin: http://canary", method="OPTIONS"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_malformed_is_refused_and_the_next_request_answered(
    server: Server, root: ReleaseRoot, name: str
) -> None:
    before = journaled(root)
    answer = refused(server, MALFORMED[name])
    assert answer is None or CANARY.encode() not in answer[2]
    assert journaled(root) == before


@pytest.mark.parametrize(
    "request_",
    [
        f"POST /nns HTTP/1.1\r\n{HOST}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        f"POST /nns HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        f"GET {NNS} HTTP/1.1\r\n{HOST}Content-Length: {len(SMUGGLED)}\r\n\r\n",
        f"PUT {NNS} HTTP/1.1\r\n{HOST}Content-Length: {len(SMUGGLED)}\r\n\r\n",
        f"POST /nns?x HTTP/1.1\r\n{HOST}Content-Length: {len(SMUGGLED)}\r\n\r\n",
        f"PUT /products/shoes/A-1 HTTP/1.1\r\n{HOST}Content-Length: {len(SMUGGLED)}\r\n\r\n",
    ],
)
def test_a_body_is_never_taken_for_a_request(
    server: Server, root: ReleaseRoot, request_: str
) -> None:
    before = journaled(root)
    body = SMUGGLED if "Transfer" not in request_ else ""
    for _ in range(3):
        answers = exchange(server, request_ + body + NEXT)
        assert 202 not in [status for status, _, _ in answers]
        assert len(answers) <= 2
        assert answers[1:] == [] or answers[1][2] == ALIVE
    assert journaled(root) == before


PATHS = [
    "/../../../secret",
    "/%2e%2e/%2e%2e/secret",
    "/..%2f..%2fsecret",
    "/..%5c..%5csecret",
    "/..\\..\\secret",
    "//secret",
    "/./secret",
    "/secret%00.json",
    "/healthz%00",
    "/nns%00?category_id=shoes&product_id=A-1",
    "/nns/../secret",
    "/nns/",
    "/NNS?category_id=shoes&product_id=A-1",
    "/\xff\xfe",
    "/%ff%fe",
    "/%",
    "/%zz",
    "/%c0%ae%c0%ae/secret",
    "/browse/../secret",
    "/browse/%2e%2e/%2e%2e/secret",
    "/browse/style.css/..",
    "/browse?release=../../outside",
    "/browse?release=..%2F..%2Foutside",
    "/browse?category_id=shoes&product_id=A-1&compare=../../outside",
    "/browse?release=%00",
    "/changes/../../secret",
    "/changes/%2e%2e%2f%2e%2e%2fsecret",
    "/changes/1%00",
    "/changes/" + "9" * 1000,
    "/products/shoes/%2e%2e%2f%2e%2e%2f%2e%2e%2fsecret%00",
    "/products/%c0%ae%c0%ae/x%",
    "/products//" + "x" * 5000,
    "/products/shoes/a%0d%0aSet-Cookie:%20canary",
    "/products/shoes/a%0aX-Canary:%201",
    "/products/shoes/" + "%2F" * 65,
    "/products/shoes/%ff",
    "/metrics/../../secret",
    f"{NNS}%0d%0aSet-Cookie:%20canary",
    f"{NNS}&limit=1%0d%0aX-Canary:1",
    f"{NNS}&%0d%0aX-Canary:1=1",
    "/nns?category_id=..%2F..%2Foutside&product_id=A-1",
    "/nns?category_id=%2e%2e%2fhats%20%26%20caps%00&product_id=only",
]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_no_path_leads_outside_or_into_a_header(
    server: Server, root: ReleaseRoot, method: str
) -> None:
    before, files = journaled(root), files_beside(root)
    for path in PATHS:
        body = "Content-Length: 1\r\n\r\nx" if method == "PUT" else "\r\n"
        refused(server, f"{method} {path} HTTP/1.1\r\n{AUTHORIZED}{body}")
    assert journaled(root) == before
    assert files_beside(root) == files


def test_an_id_of_dots_is_an_id_or_no_path_at_all(server: Server, root: ReleaseRoot) -> None:
    """Where a server does not follow the dots: in the journal an id is a value and no path."""
    journaled(root)  # there is a journal from now on
    files = files_beside(root)
    said: set[tuple[Id, Id]] = set()
    for path in ("../secret", "%2e%2e/%2e%2e", "shoes/..", "shoes/%2e", "..%2F..%2Fsecret/x"):
        before = journaled(root)
        ((status, _, _), *_) = exchange(
            server, f"DELETE /products/{path} HTTP/1.1\r\n{AUTHORIZED}Connection: close\r\n\r\n"
        )
        assert status in (202, 400, 404)
        with closing(Journal(root.journal)) as journal:
            pending = journal.pending(10_000)
        assert len(pending) == before + (status == 202)
        said |= {(change.category_id, change.product_id) for _, change in pending[before:]}
    ids = {("..", "secret"), ("..", ".."), ("shoes", ".."), ("shoes", "."), ("../../secret", "x")}
    assert said <= ids
    assert files_beside(root) == files


FORMS = {
    "HTTP/1.0": get(NNS, version="1.0"),
    "HTTP/1.0, kept alive": get(NNS, "Connection: keep-alive", version="1.0"),
    "a whole URL": get(f"http://elsewhere{NNS}"),
    "two slashes": get(f"/{NNS}"),
    "a fragment": get(f"{NNS}#{CANARY}"),
    "no Host": f"GET {NNS} HTTP/1.1\r\n\r\n",
    "two Hosts": f"GET {NNS} HTTP/1.1\r\n{HOST}{HOST}\r\n",
    "bare LF": f"GET {NNS} HTTP/1.1\n{HOST.strip()}\n\n",
    "Expect": f"POST /nns HTTP/1.1\r\n{HOST}Expect: 100-continue\r\nContent-Length: 2\r\n\r\n{{}}",
    "Upgrade": get(NNS, "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
    "other names for headers": get(NNS, "Script_Name: /canary", "Script-Name: /canary"),
    "another scheme and host": get(NNS, "X-Forwarded-Host: canary", "X-Forwarded-Prefix: /canary"),
}


@pytest.mark.parametrize("name", FORMS)
def test_odd_forms_of_a_request_are_answered_right_or_refused(server: Server, name: str) -> None:
    right = exchange(server, get(NNS, "Connection: close"))[0][2]
    answers = exchange(server, FORMS[name] + NEXT)
    status, headers, body = answers[0]
    assert (status == 200 and body == right) or status in REFUSED
    assert CANARY not in str(headers)
    assert [body for _, _, body in answers[1:]] in ([], [ALIVE])


BOMBS = {
    "2 MiB of brackets": "[" * 2**21,
    "nested objects": '{"a":' * 400_000,
    "nested in a field": f'{{"category_id":{"[" * 100_000}{"]" * 100_000},"product_ids":[1]}}',
    "deep in a list": f'{{"category_id":"shoes","product_ids":[{"[" * 900}{"]" * 900}]}}',
    "a number of a million digits": f'{{"category_id":"shoes","vector":[{"1" * 1_000_000}]}}',
    "a limit of 400 digits": f'{{"category_id":"shoes","product_ids":["A-1"],"limit":{"9" * 400}}}',
    "numbers that are none": '{"category_id":"shoes","vector":[NaN,Infinity,-Infinity]}',
    "beyond the largest number": f'{{"category_id":"shoes","vector":[{"1e999," * 15}1]}}',
    "a long key": f'{{"{"k" * 2_000_000}":1}}',
    "100,000 keys": "{" + ",".join(f'"{i}":1' for i in range(100_000)) + "}",
    "a key 100,000 times": "{" + ",".join(['"limit":1'] * 100_000) + "}",
    "a million ids": f'{{"category_id":"shoes","product_ids":[{"1," * 999_999}1]}}',
    "half a surrogate": '{"category_id":"\\ud800","product_ids":["A-1"]}',
    "NUL": '{"category_id":"shoes\\u0000","product_ids":["A-1"]}',
    "UTF-16": '{"category_id":"shoes"}'.encode("utf-16").decode("latin-1"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_of_json_is_a_400_and_little_work(server: Server, name: str) -> None:
    bomb = BOMBS[name]
    before = sum(map(cpu_s, server.workers()))
    answer = refused(server, post(f"Content-Length: {len(bomb)}", bomb))
    assert sum(map(cpu_s, server.workers())) - before < 3
    assert answer is not None
    assert answer[0] == 400
    assert len(answer[2]) < 1000  # a little of what was sent, and no more


@pytest.mark.parametrize(
    "number", ["1.7976931348623157e308", "5e-324", "18446744073709551615", "-0.0"]
)
def test_a_vector_of_extreme_numbers_is_answered_or_refused(server: Server, number: str) -> None:
    body = f'{{"category_id":"shoes","vector":[{f"{number}," * 15}{number}],"distances":true}}'
    for status, _, text in exchange(server, post(f"Content-Length: {len(body)}", body) + NEXT)[:1]:
        assert status == (400 if number == "-0.0" else 200)
        answer = json.loads(text, parse_constant=pytest.fail)
        assert all(0 <= distance <= 2 for distance in answer.get("distances", ()))


def test_a_body_that_trickles_in_is_answered_and_one_that_never_ends_harms_nobody(
    server: Server, root: ReleaseRoot
) -> None:
    before = journaled(root)
    body = b'{"category_id":"shoes","product_ids":["A-1"]}'
    head = f"POST /nns HTTP/1.1\r\n{HOST}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(server.address, HUNG_S) as connection:
        for byte in head.encode() + body:
            connection.sendall(bytes([byte]))
            time.sleep(0.002)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
    head = f"PUT /products/shoes/A-1 HTTP/1.1\r\n{AUTHORIZED}Content-Length: 100\r\n\r\n"
    connections = [socket.create_connection(server.address, HUNG_S) for _ in range(20)]
    for connection in connections:
        connection.sendall(head.encode() + b"x")
    for _ in range(10):
        assert exchange(server, NEXT)[0][2] == ALIVE
    for connection in connections:
        connection.close()
    assert exchange(server, NEXT)[0][2] == ALIVE
    assert journaled(root) == before


WRONG = TOKEN[::-1]


def test_no_token_is_logged_or_answered_and_nobody_writes_the_log(
    serve: Serve, tmp_path: Path
) -> None:
    """Right and wrong tokens, everywhere, and then with the journal broken and a defect at look-ups."""
    root = publish(tmp_path / "root", string_catalogue(), tmp_path / "features")
    with serve(root, LOOKALIKE_TOKEN=TOKEN, LOOKALIKE_BROWSE="true") as server:
        server.expected.append("Traceback")
        _send_tokens(server)
        _break(root)
        assert _send_tokens(server).count(503) > 10
        logged = server.log.read_text(errors="replace")
    assert TOKEN not in logged
    assert WRONG not in logged
    assert "defect while answering /nns" in logged
    assert "changes of products are not taken" in logged
    ours_or_the_servers = re.compile(r"lookalike\[\d+\] [A-Z]+ |    |\[INFO\] |\d{4}/\d\d/\d\d |$")
    for line in logged.splitlines():
        assert ours_or_the_servers.match(line), line
        assert line.isprintable()
        assert not line.strip().startswith("forged")


def _send_tokens(server: Server) -> list[int]:
    """Send tokens, right and wrong, everywhere; the statuses of the answers."""
    statuses = []
    for target in (NNS, f"/browse{NNS[4:]}", "/products/shoes/A-1", "/changes/1", "/metrics", "/x"):
        path = target.partition("?")[0]
        for token in (TOKEN, WRONG):
            bearer = f"Authorization: Bearer {token}"
            for request in (
                get(target, bearer),
                get(target, bearer, method="DELETE"),
                get(target, f"Authorization: Basic {token}", f"Cookie: token={token}"),
                get(target, f"Authorization: {token}", f"Referer: http://x/?token={token}"),
                get(f"{path}?token={token}", f"X-Token: {token}"),
            ):
                for status, headers, body in exchange(server, request + NEXT):
                    statuses.append(status)
                    assert token not in f"{headers}{body!r}"
            # Whoever has these wrong may be shown what is wrong.
            for request in (
                get(f"{path}?{token}", bearer),
                get(f"{path}?category_id={token}", bearer),
                get(f"/products/{token}/{token}", bearer),
                get(f"/{token}", bearer),
                get(f"{target}%0D%0Aforged"),
                get(f"{target}\x1b[2J\x9b2J"),
                post(f"Content-Length: {len(token) + 2}", f'"{token}"'),
            ):
                exchange(server, request + NEXT)
    return statuses


def _break(root: ReleaseRoot) -> None:
    """Overwrite tables that are mapped, so that look-ups fail, and take the journal away."""
    for table in root.folder(str(root.current())).glob("*/neighbours.npy"):
        size = table.stat().st_size
        with table.open("r+b") as file:
            file.seek(128)
            file.write(b"\xff" * (size - 128))
    shutil.rmtree(root.journal.parent)
    root.journal.parent.touch()
