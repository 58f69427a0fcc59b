"""`lookalike serve` itself: who ends with whom, and that a port has one server."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lookalike.release.root import ReleaseRoot
from servers import Server, free_port, in_session
from waiting import wait_until


@contextmanager
def started(root: ReleaseRoot, folder: Path, host: str) -> Iterator[tuple[Server, int]]:
    """A server that has answered, and its first process, which is ended in the end if it lives."""
    server = Server(("127.0.0.1", free_port()), folder / "log")
    with server.log.open("wb") as log:
        first = subprocess.Popen(
            command(root, host, server.address[1]),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until(lambda: len(server.workers()) == 2 and answers(server), first, server.log)
        yield server, first.pid
    finally:
        first.terminate()
        first.wait()
        wait_until(lambda: not in_session(first.pid))


def command(root: ReleaseRoot, host: str, port: int) -> list[str]:
    serve = [sys.executable, "-m", "lookalike", "serve", "--root", str(root.path)]
    return [*serve, "--host", host, "--port", str(port), "--workers", "2"]


def answers(server: Server) -> bool:
    try:
        return server.get("/healthz")[0] == 200
    except OSError:
        return False


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_second_server_on_a_port_says_that_it_is_in_use(
    integer_root: ReleaseRoot, tmp_path: Path, host: str
) -> None:
    with started(integer_root, tmp_path, host) as (server, _):
        second = subprocess.run(
            command(integer_root, host, server.address[1]),
            capture_output=True,
            text=True,
            check=False,
        )
        assert second.returncode == 1
        said = f"lookalike: cannot listen on {host}:{server.address[1]}: address already in use; "
        assert second.stderr.startswith(said)
        assert answers(server)


def test_workers_end_with_the_first_process_however_it_ends(
    integer_root: ReleaseRoot, tmp_path: Path
) -> None:
    with started(integer_root, tmp_path, "127.0.0.1") as (server, first):
        os.kill(first, 9)
        wait_until(lambda: not server.workers())
        assert not answers(server)
