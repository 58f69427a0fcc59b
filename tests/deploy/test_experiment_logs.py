"""The access logs that build/README.md has nginx and Unit write, by real ones, through the report."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from experiments import report
from lookalike.operate.unit.control import UnitError
from lookalike.operate.unit.private import PrivateUnit, find_unitd
from servers import free_port
from support import REPOSITORY
from waiting import HUNG_S, wait_until

RELATED = """
from urllib.parse import parse_qs


def application(environ, start_response):
    query = parse_qs(environ["QUERY_STRING"])
    if "visitor" not in query:
        start_response("400 Bad Request", [("Content-Length", "0")])
        return [b""]
    pattern = "AB"[int(query["visitor"][0]) % 2]
    method = "behaviour" if pattern == "A" else "image"
    headers = [("X-Lookalike-Pattern", pattern), ("X-Lookalike-Method", method)]
    start_response("200 OK", [*headers, ("Content-Length", "2")])
    return [b"{}"]
"""
"""A stand-in for the app: `/related`, without a release."""


def block(start: str) -> str:
    """The README's block of code that starts so, as it is to be put into a file."""
    readme = (REPOSITORY / "build" / "README.md").read_text()
    found = re.search(
        rf"\n\n((?: {{4}}.*\n)*? {{4}}{re.escape(start)}(?:.*\n)(?: {{4}}.*\n)*)", readme
    )
    assert found is not None
    return textwrap.dedent(found[1])


@contextmanager
def unit(log: Path) -> Iterator[str]:
    """Unit with the stand-in and with the README's access log at `log`; its address."""
    unitd = find_unitd()
    if unitd is None:
        pytest.skip("NGINX Unit is not installed: no unitd on PATH")
    with tempfile.TemporaryDirectory() as folder, PrivateUnit(unitd, Path(folder)) as private:
        Path(folder, "related.py").write_text(RELATED)
        address = f"127.0.0.1:{free_port()}"
        config: dict[str, Any] = json.loads("{" + block('"access_log": {') + "}")
        config["access_log"]["path"] = str(log)
        python = f"python {sys.version_info.major}.{sys.version_info.minor}"
        config["listeners"] = {address: {"pass": "routes"}}
        beacons = {"uri": ["/shown", "/clicked", "/purchased"]}
        config["routes"] = [
            {"match": beacons, "action": {"return": 204}},
            {"action": {"pass": "applications/related"}},
        ]
        config["applications"] = {"related": {"type": python, "path": folder, "module": "related"}}
        try:
            private.control.check_python({**config["applications"]["related"], "home": sys.prefix})
        except UnitError as error:
            pytest.skip(str(error))
        private.control.configure(config)
        yield address


@contextmanager
def nginx(log: Path, behind: str) -> Iterator[str]:
    """nginx with the README's lines before the app at `behind`; its address."""
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed: sudo apt install nginx-light")
    address = f"127.0.0.1:{free_port()}"
    formats, beacons = (
        block(start).replace("/var/log/nginx/experiment.log", str(log))
        for start in ("log_format experiment", "location ~ ^/(shown")
    )
    with tempfile.TemporaryDirectory() as folder:
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        places = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
        Path(folder, "nginx.conf").write_text(
            f"daemon off; pid {folder}/pid; worker_processes 1;\n"
            f"{'user root;' if os.getuid() == 0 else ''}\n"
            f"events {{}}\nhttp {{ access_log off;\n{places}{formats}\n"
            f"server {{ listen {address};\n{beacons}\n"
            f"location / {{ access_log {log} experiment; proxy_pass http://{behind}; }} }} }}\n"
        )
        command = ["nginx", "-p", folder, "-c", f"{folder}/nginx.conf", "-e", f"{folder}/error.log"]
        process = subprocess.Popen(command)
        try:
            wait_until(Path(folder, "pid").exists, process, Path(folder, "error.log"))
            yield address
        finally:
            process.send_signal(signal.SIGQUIT)
            process.wait()


def ask(address: str, target: str, method: str = "GET") -> int:
    connection = HTTPConnection(address, timeout=HUNG_S)
    try:
        connection.request(method, target)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def shop(front: str) -> None:
    """What comes to `/related` of ten visitors; then what is no impression."""
    for visitor in range(10):
        target = f"/related?product_id=7&category_id=a%2Fb+%22c&visitor={visitor}"
        assert ask(front, target) == 200
        assert ask(front, target) == 200
    assert ask(front, "/related?product_id=7") == 400
    assert ask(front, "/related?visitor=1&category_id=1", "HEAD") == 200


@pytest.mark.unit
@pytest.mark.nginx
def test_what_nginx_logs_is_an_experiment(tmp_path: Path) -> None:
    log = tmp_path / "experiment.log"
    query = "method=image&category_id=a%2Fb%20%22c"
    with unit(tmp_path / "unit.log") as behind, nginx(log, behind) as front:
        shop(front)
        for visitor in (1, 3, 3):
            assert ask(front, f"/clicked?pattern=B&visitor={visitor}&{query}", "POST") == 204
        assert ask(front, f"/clicked?pattern=A&visitor=2&{query}") == 204
        assert ask(front, f"/purchased?pattern=B&visitor=3&{query}") == 204
        assert ask(front, f"/clicked?pattern=%1B%5B31m&visitor=3&{query}") == 204
    wait_until(lambda: log.read_text().count("\n") == 28)
    found = report(log, "--from", "2020-01-01")
    rows = {pattern: [*row.values()][:4] for pattern, row in found["patterns"].items()}
    assert rows == {"A": [5, 10, 1, 0], "B": [5, 10, 3, 1]}
    assert [each["category_id"] for each in found["categories"]] == ['a/b "c']
    assert found["traffic"][0]["method"] == "behaviour"
    assert found["left_out"]["other"] == 2
    assert found["left_out"]["malformed"] == 1
    assert found["faults"][0].endswith(r'line 28: pattern must be A or B, not "\u001b[31m"')


@pytest.mark.unit
def test_what_unit_logs_is_an_experiment(tmp_path: Path) -> None:
    log = tmp_path / "unit-experiment.log"
    with unit(log) as front:
        shop(front)
        for visitor in (*range(8), *range(8)):
            pattern, query = "AB"[visitor % 2], f"visitor={visitor}&category_id=a%2Fb"
            assert ask(front, f"/shown?pattern={pattern}&method=image&{query}", "POST") == 204
        for path in ("clicked", "purchased"):
            assert ask(front, f"/{path}?pattern=B&visitor=3&category_id=a%2Fb") == 204
        wait_until(lambda: log.read_text().count("\n") == 40)
    found = report(log, "--from", "2020-01-01")
    rows = {pattern: [*row.values()][:4] for pattern, row in found["patterns"].items()}
    assert rows == {"A": [4, 8, 0, 0], "B": [4, 8, 1, 1]}
    assert found["left_out"]["other"] == 22
