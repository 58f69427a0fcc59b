"""What a user of the HTTP interface sees, on a real server: right answers, through all that happens."""

import json
import re
import shutil
import socket
import time
from collections.abc import Iterator
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path

import pytest

from lookalike.release.root import ReleaseRoot
from lookalike.serving.metrics import SHARED_MEMORY, file_name
from servers import Serve, Server
from support import brute_force, etag_of, integer_catalogue, publish, random_features
from waiting import HUNG_S

TARGET = "/nns?category_id=1&product_id=100"
ASKED = re.compile(r'lookalike_requests_total{route="/nns",status="200"} (\d+)')


@pytest.fixture(scope="module")
def server(serve: Serve, integer_root: ReleaseRoot) -> Iterator[Server]:
    with serve(integer_root) as running:
        yield running


def test_every_answer_is_the_brute_force_ranking(server: Server) -> None:
    connection = HTTPConnection(*server.address)
    for category_id, (product_ids, features) in integer_catalogue().items():
        for item, product_id in enumerate(product_ids):
            order, _ = brute_force(features, item)
            target = f"/nns?category_id={category_id}&product_id={product_id}&limit=101"
            connection.request("GET", target)
            answer = json.loads(connection.getresponse().read())
            assert answer == [product_id, *(product_ids[other] for other in order[:100])]
    connection.close()


def test_one_connection_serves_get_head_304_and_errors_in_turn(
    server: Server, integer_root: ReleaseRoot
) -> None:
    """A body where none may be, or a wrong length, would spoil the next answer."""
    connection = HTTPConnection(*server.address)
    etag = etag_of(integer_root, 1)
    for _ in range(3):
        for method, target, headers, status in (
            ("GET", TARGET, {}, 200),
            ("HEAD", TARGET, {}, 200),
            ("GET", TARGET, {"If-None-Match": etag}, 304),
            ("HEAD", TARGET, {"If-None-Match": etag}, 304),
            ("GET", "/nns", {}, 400),
            ("PUT", TARGET, {}, 405),
            ("POST", TARGET, {}, 400),
            ("HEAD", "/nothing", {}, 404),
            ("GET", "/openapi.json", {}, 200),
        ):
            connection.request(method, target, headers=headers)
            answer = connection.getresponse()
            body = answer.read()
            assert answer.status == status
            if method == "HEAD" or status == 304:
                assert body == b""
            else:
                assert answer.getheader("Content-Length") == str(len(body))
            if target == TARGET and status < 400:
                assert answer.getheader("ETag") == etag
    connection.close()


def test_a_body_is_ignored_where_none_is_wanted(server: Server) -> None:
    request = f"GET {TARGET} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
    with socket.create_connection(server.address, HUNG_S) as connection:
        for _ in range(2):
            # In one piece: a server may close where the answer is out before the body has come.
            connection.sendall(request.encode() + b"x" * 1000)
            answer = HTTPResponse(connection)
            answer.begin()
            assert answer.read().startswith(b"[100,")


def test_many_products_and_a_vector_are_answered(server: Server) -> None:
    connection = HTTPConnection(*server.address)
    product_ids, features = integer_catalogue()[40]
    for _ in range(3):
        batch = {"category_id": 40, "product_ids": [*product_ids[:99], 1], "limit": 101}
        answers = json.loads(_post(connection, 200, json.dumps(batch).encode()))
        for item, answer in enumerate(answers[:99]):
            order, _ = brute_force(features, item)
            assert answer == [product_ids[item], *(product_ids[other] for other in order[:100])]
        assert answers[99] is None
        vector = {"category_id": 40, "vector": features[7].tolist(), "limit": 5}
        found = json.loads(_post(connection, 200, json.dumps(vector).encode()))
        order, _ = brute_force(features, 7)
        assert found == [product_ids[item] for item in (7, *order[:4])]
        assert b"not JSON" in _post(connection, 400, b" " * 2**21)
    connection.close()


def _post(connection: HTTPConnection, status: int, body: bytes) -> bytes:
    connection.request("POST", "/nns", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == status
    return answer.read()


def test_two_processes_serve(server: Server) -> None:
    assert len(server.workers()) == 2


def _has_two_without(server: Server, killed: int) -> bool:
    workers = server.workers()
    return len(workers) == 2 and killed not in workers


def test_a_killed_process_is_followed_by_right_answers(
    serve: Serve, integer_root: ReleaseRoot
) -> None:
    with serve(integer_root) as server:
        _, _, right = server.get(TARGET)
        for _ in range(3):
            killed = min(server.workers())
            server.kill(killed)
            # A signal is sent, not received: a process at its end may still take a connection.
            server.wait_until(partial(_has_two_without, server, killed))
            server.wait_until(lambda: _answer(server) == right)
            assert {_answer(server) for _ in range(50)} == {right}


@pytest.mark.parametrize("delay_s", [0, 0.1, 0.5, 0.7])
def test_stopping_just_after_a_kill_leaves_no_process(
    serve: Serve, integer_root: ReleaseRoot, delay_s: float
) -> None:
    with serve(integer_root) as server:
        server.kill(min(server.workers()))
        time.sleep(delay_s)  # `serve` fails if a process is left


def _answer(server: Server) -> bytes | None:
    """The body of a 200; None where the killed process took the connection with it."""
    try:
        status, _, body = server.get(TARGET)
    except (OSError, HTTPException):
        return None
    assert status in (200, 503)
    return body if status == 200 else None


def test_a_new_release_is_taken_up_unasked_and_a_damaged_one_never(
    serve: Serve, root: ReleaseRoot, tmp_path: Path
) -> None:
    with serve(root) as server:
        server.wait_until(lambda: len(server.workers()) == 2)
        old = root.current()
        publish(root.path, {1: ([100, 1], random_features(2, 0))}, tmp_path / "features")
        new = root.current()
        server.wait_until(lambda: server.log.read_text().count(f"serving release {new}") == 2)
        assert {server.get(TARGET)[2] for _ in range(20)} == {b"[100,1]"}
        _publish_damaged(root)
        refused = "refused the current release: 1/neighbours.npy"
        server.wait_until(lambda: server.log.read_text().count(refused) == 2)
        answers = [server.get(TARGET) for _ in range(20)]
        assert {(status, body) for status, _, body in answers} == {(200, b"[100,1]")}
        assert {headers["etag"] for _, headers, _ in answers} == {etag_of(root, 1, new)}
        problem = json.loads(server.get("/release")[2])["problem"]
        assert problem.startswith("1/neighbours.npy: ")
        root.make_current(str(old))
        server.wait_until(lambda: server.log.read_text().count(f"serving release {old}") == 4)
        assert server.get("/readyz")[2].count(str(old).encode()) == 1


def _publish_damaged(root: ReleaseRoot) -> None:
    """Make a copy of the current release current, with one file of it cut short."""
    name = f"{root.current()}-damaged"
    folder = root.releases / name
    shutil.copytree(root.folder(str(root.current())), folder)
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace(str(root.current()), name))
    table = folder / "1" / "neighbours.npy"
    table.write_bytes(table.read_bytes()[:-4])
    root.make_current(name)


def test_metrics_go_on_without_their_file_and_after_a_restart(
    serve: Serve, root: ReleaseRoot
) -> None:
    file = SHARED_MEMORY / file_name(str(root.path))
    if not file.parent.is_dir():
        pytest.skip(f"there is no {SHARED_MEMORY}")

    def counted(server: Server, processes: int) -> bool:
        """Whether all processes are there, as any of them says."""
        line = f"\nlookalike_processes {processes}\n"
        return all(line in server.get("/metrics")[2].decode() for _ in range(6))

    def asked(server: Server, processes: int = 2) -> int:
        """How many look-ups are counted; the same by whichever process answers."""
        answers = [server.get("/metrics") for _ in range(6)]
        assert {status for status, _, _ in answers} == {200}
        texts = [body.decode() for _, _, body in answers]
        assert all(f"\nlookalike_processes {processes}\n" in text for text in texts)
        (found,) = {int(found) for text in texts for found in ASKED.findall(text)}
        return found

    with serve(root) as server:
        server.get(TARGET)
        server.wait_until(lambda: len(server.workers()) == 2)
        file.unlink()
        server.get(TARGET)
        assert server.get("/metrics")[0] == 200
        server.wait_until(file.exists)
        server.wait_until(lambda: counted(server, 2))
        server.get(TARGET)
        assert asked(server) == 3
        with serve(root) as another:
            another.wait_until(lambda: len(another.workers()) == 2)
            another.get(TARGET)
            assert asked(server, 4) == asked(another, 4) == 4
    with serve(root) as server:
        server.wait_until(lambda: len(server.workers()) == 2)
        server.get(TARGET)
        assert asked(server) == 5
