"""lookalike doctor, of what answers: it is the app, and serves what is current."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

import servers
from findings import only
from lookalike.operate.doctor import unit
from lookalike.operate.doctor.finding import Finding, Level
from lookalike.operate.doctor.host import Asked, Host
from lookalike.release.root import ReleaseRoot
from support import make_slim


def test_what_is_served_is_compared_with_what_is_current() -> None:
    def said(release: str, current: str | None, **description: object) -> Finding:
        return unit.taken_up("http://x", release, current, description, None)

    assert said("b", "b", problem=None).level == Level.OK
    assert said("b", None).text == "http://x serves b; which release is current is unknown"
    assert said("a", "b").text == "http://x serves a, current is b"
    refused = said("a", "b", problem="1/index.ann: is missing")
    assert refused.text == (
        "http://x refuses the current release: 1/index.ann: is missing; it serves a"
    )


def test_a_slim_copy_completed_in_place_is_told(root: ReleaseRoot) -> None:
    name = str(root.current())
    on_disk = root.folder(name), root.manifest(name)
    found = unit.taken_up("http://x", name, name, {"problem": None, "slim": True}, on_disk)
    assert (found.level, f"`lookalike switch {name}`" in found.remedy) == (Level.WARNING, True)
    make_slim(root)
    found = unit.taken_up("http://x", name, name, {"problem": None, "slim": True}, on_disk)
    assert (found.level, "a slim copy" in found.text) == (Level.OK, True)


@pytest.mark.usefixtures("no_unit")
@pytest.mark.slow
def test_a_running_app_is_asked(integer_root: ReleaseRoot) -> None:
    pytest.importorskip("granian")
    with servers.embedded(integer_root) as server:
        url = "http://{}:{}".format(*server.address)
        found = only(unit.served(Host(Asked(root=integer_root.path, url=url))))
    assert (found.level, found.text) == (Level.OK, f"{url} serves the current release")


@pytest.mark.usefixtures("no_unit")
@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (503, b'{"error":"not_ready","detail":"no release yet"}', "nothing: no release yet"),
        (404, b"<html>", "answers 404, which is not what Lookalike answers"),
        (200, b"[]", "answers 200, which is not what Lookalike answers"),
    ],
)
def test_what_answers_otherwise_is_a_problem(
    integer_root: ReleaseRoot, status: int, body: bytes, said: str
) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        found = only(unit.served(Host(Asked(root=integer_root.path, url=url))))
        server.shutdown()
    assert (found.level, said in found.text) == (Level.PROBLEM, True), found


@pytest.mark.usefixtures("no_unit")
def test_silence_is_a_problem_only_where_nothing_could_serve(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = f"http://127.0.0.1:{servers.free_port()}"
    for there, level in ((object(), Level.WARNING), (None, Level.PROBLEM)):
        monkeypatch.setattr(unit, "find_spec", lambda _, there=there: there)
        assert only(unit.served(Host(Asked(url=url)))).level == level
