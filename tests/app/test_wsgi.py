"""Importing lookalike.wsgi raises nothing, whatever the environment, and what it gives answers."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import lookalike
from lookalike.release.root import ReleaseRoot

ASK = """
from lookalike.wsgi import application
for target in sys.argv[1:]:
    path, _, query = target.partition("?")
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "QUERY_STRING": query}
    found = {}
    body = b"".join(application(environ, lambda status, headers: found.update(headers, status=status)))
    print(json.dumps([found["status"], found.get("Retry-After"), body.decode()]))
"""
NNS = "/nns?category_id=3&product_id=77"
SERVED = ["200 OK", None, "[77]"]
UNAVAILABLE = [
    "503 Service Unavailable",
    "60",
    '{"error":"unavailable","detail":"the log has the reason"}',
]

pytestmark = pytest.mark.slow  # each in a process of its own


def import_and_ask(
    hostile: str, *targets: str, root: Path | str, **environ: str
) -> tuple[list[list[str | None]], str]:
    """Of each answer status, Retry-After and body, and the log; the app is imported after `hostile`."""
    run = subprocess.run(
        [sys.executable, "-c", f"import json, os, sys\n{hostile}\n{ASK}", *targets],
        env={**os.environ, "LOOKALIKE_ROOT": str(root), **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()], run.stderr


@pytest.mark.parametrize("module", ["annoy", "msgspec", "numpy", "lookalike.serving.log"])
def test_without_a_module_every_request_is_503_and_the_log_says_why(
    integer_root: ReleaseRoot, module: str
) -> None:
    hostile = f"sys.modules[{module!r}] = None"
    answers, log = import_and_ask(hostile, NNS, "/healthz", root=integer_root.path)
    assert answers == [UNAVAILABLE, UNAVAILABLE]
    assert "cannot serve, every request is answered with 503" in log
    assert module in log


def test_requests_need_nothing_of_the_commands(integer_root: ReleaseRoot) -> None:
    hostile = "sys.modules['click'] = None"
    assert import_and_ask(hostile, NNS, root=integer_root.path)[0] == [SERVED]


def test_without_jinja_the_page_alone_is_503(integer_root: ReleaseRoot) -> None:
    answers, log = import_and_ask(
        "sys.modules['jinja2'] = None",
        *(NNS, "/browse", "/browse/style.css"),
        root=integer_root.path,
        LOOKALIKE_BROWSE="true",
    )
    assert answers[:2] == [SERVED, UNAVAILABLE]
    assert answers[2][0] == "200 OK"
    assert "jinja2" in log


NO_FOLDER = """
import tempfile
def none():
    raise FileNotFoundError(2, "No usable temporary directory found")
os.access, tempfile.gettempdir = lambda *_: False, none
"""
NO_THREAD = """
import threading
def start(self):
    raise RuntimeError("can't start new thread")
threading.Thread.start = start
"""
NO_LIMITS = """
import resource
def refused(*_):
    raise PermissionError(1, "Operation not permitted")
resource.getrlimit = resource.setrlimit = refused
"""
NO_LOCKS = """
import fcntl
def refused(*_):
    raise OSError(22, "Invalid argument")
fcntl.fcntl = refused
"""
NO_STDERR = "os.close(2); sys.stderr = None"
BROKEN_STDERR = """
reading, writing = os.pipe()
os.close(reading)
os.dup2(writing, 2)
"""
NO_FILES = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
"""


@pytest.mark.parametrize(
    ("hostile", "said"),
    [
        (NO_FOLDER, "No usable temporary directory"),
        (NO_THREAD, "can't start new thread"),
        (NO_LIMITS, ""),
        (NO_LOCKS, "cannot share metrics"),
        (NO_STDERR, ""),
        (BROKEN_STDERR, ""),
        (NO_FILES, "metrics"),
    ],
)
def test_a_process_serves_without_what_it_can_do_without(
    root: ReleaseRoot, hostile: str, said: str
) -> None:
    answers, log = import_and_ask(hostile, NNS, "/metrics", "/release", root=root.path)
    assert answers[0] == SERVED
    assert [status for status, _, _ in answers] == 3 * ["200 OK"]
    assert said in log
    assert "Traceback" not in log


def test_a_process_that_cannot_follow_says_so(root: ReleaseRoot) -> None:
    answers, _ = import_and_ask(NO_THREAD, "/release", root=root.path)
    problem = json.loads(answers[0][2] or "")["problem"]
    assert problem == (
        "no release from now on is taken up: can't start new thread; restart the app"
    )


@pytest.mark.parametrize("name", ["LOOKALIKE_ROOT", "LOOKALIKE_BROWSE"])
def test_bytes_that_are_not_utf8_in_a_setting_are_answered_and_logged(name: str) -> None:
    settings = {"root": "/nowhere", name: os.fsdecode(b"/\xff")}
    root = settings.pop("LOOKALIKE_ROOT", settings.pop("root"))
    answers, log = import_and_ask("", "/readyz", NNS, "/metrics", root=root, **settings)
    assert [status for status, _, _ in answers] == 2 * ["503 Service Unavailable"] + ["200 OK"]
    assert "not_ready" in (answers[0][2] or "")
    assert "udcff" in log


def test_a_relative_root_in_a_folder_that_is_gone_is_answered(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    hostile = f"os.chdir({str(gone)!r}); os.rmdir({str(gone)!r})"
    answers, _ = import_and_ask(hostile, "/readyz", root="root")
    assert answers[0][:2] == ["503 Service Unavailable", "10"]


@pytest.mark.parametrize(
    ("file", "path"),
    [("serving/openapi.json", "/openapi.json"), ("serving/browse/style.css", "/browse/style.css")],
)
def test_a_missing_file_of_the_app_costs_its_own_path_only(
    integer_root: ReleaseRoot, tmp_path: Path, file: str, path: str
) -> None:
    shutil.copytree(Path(str(lookalike.__file__)).parent, tmp_path / "lookalike")
    (tmp_path / "lookalike" / file).unlink()
    answers, log = import_and_ask(
        f"sys.path.insert(0, {str(tmp_path)!r})",
        *(NNS, path),
        root=integer_root.path,
        LOOKALIKE_BROWSE="true",
    )
    assert answers == [SERVED, UNAVAILABLE]
    assert file in log
