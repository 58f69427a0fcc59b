"""The application made from settings: as Unit's, and nothing of the process is changed for it."""

import gc
import json
import os
import resource
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lookalike import SettingError, Settings, make_application
from lookalike.release.root import ReleaseRoot
from lookalike.serving.assembly import application_from
from support import Client
from waiting import wait_until

RELATED = "/related?product_id=100&category_id=1"


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Applications made here are gone afterwards, and so are their threads."""
    yield
    gc.collect()


def state() -> tuple[object, ...]:
    """What of the process an application might change."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE), resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return dict(os.environ), limits, signal.getsignal(signal.SIGTERM), Path.cwd()


def test_an_application_answers_and_changes_nothing_of_its_process(
    integer_root: ReleaseRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOKALIKE_MAX_LIMIT", "1")
    before = state()
    application = make_application(Settings(integer_root.path, max_limit=7, browse=True))
    client = Client(application)
    assert client.get("/nns?category_id=3&product_id=77").status == "200 OK"
    assert client.get("/nns?category_id=3&product_id=77&limit=8").status == "400 Bad Request"
    assert client.get("/browse").status == "200 OK"
    assert state() == before


def test_what_follows_the_root_ends_with_the_application(integer_root: ReleaseRoot) -> None:
    gc.collect()
    before = threading.active_count()
    application = make_application(Settings(integer_root.path))
    assert threading.active_count() == before + 1
    del application
    gc.collect()
    wait_until(lambda: threading.active_count() == before)


def test_an_application_without_a_release_says_so(tmp_path: Path) -> None:
    client = Client(make_application(Settings(tmp_path)))
    answer = client.get("/readyz")
    assert answer.status == "503 Service Unavailable"
    assert b"no release in" in answer.body


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"max_limit": 0}, 'LOOKALIKE_MAX_LIMIT must be a whole number from 1 to 100000, not "0"'),
        ({"b_percent": 101}, 'LOOKALIKE_B_PERCENT must be a whole number from 0 to 100, not "101"'),
        ({"token": "short"}, "LOOKALIKE_TOKEN must be at least 16 printable ASCII characters"),
        ({"image_url": "x"}, "LOOKALIKE_IMAGE_URL must be a URL or a path"),
        ({"experiment_key": bytes(65)}, "LOOKALIKE_EXPERIMENT_KEY must have at most 64 bytes"),
    ],
)
def test_an_invalid_setting_is_named(values: dict[str, object], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        Settings(Path("/r"), **values)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_choice_is_followed(tmp_path: Path, integer_root: ReleaseRoot) -> None:
    path = tmp_path / "choice.json"
    path.write_text('{"default":"behaviour","categories":{"1":"image"}}')
    environ = {"LOOKALIKE_ROOT": str(integer_root.path), "LOOKALIKE_CHOICE": str(path)}
    client = Client(application_from({**environ, "LOOKALIKE_HOLDOUT_PERCENT": "0"}))
    assert json.loads(client.get(RELATED).body)["pattern"] == "chosen"
    assert json.loads(client.get("/release").body)["choice_problem"] is None
    patterns = {
        json.loads(Client(application_from(environ)).get(f"{RELATED}&visitor={n}").body)["pattern"]
        for n in range(100)
    }
    assert patterns == {"chosen", "A", "B"}
    assert make_application(Settings(integer_root.path, choice=path, holdout_percent=0))


@pytest.mark.parametrize("content", [None, "{}", '{"default":"both","categories":{}}'])
def test_a_choice_that_cannot_be_used_is_named_and_stops_nothing(
    tmp_path: Path,
    integer_root: ReleaseRoot,
    content: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = tmp_path / "cho\nice.json"
    if content is not None:
        path.write_text(content)
    environ = {"LOOKALIKE_ROOT": str(integer_root.path), "LOOKALIKE_CHOICE": str(path)}
    client = Client(application_from(environ))
    (said,) = [each.getMessage() for each in caplog.records if each.levelname == "ERROR"]
    assert said.startswith("LOOKALIKE_CHOICE: ")
    assert "cho\\nice.json" in said
    assert said.isprintable()
    for target in ("/readyz", "/release"):
        answer = client.get(target)
        assert answer.status == "200 OK"
        assert json.loads(answer.body)["choice_problem"] == said
    answers = [client.get(f"{RELATED}&visitor={n}") for n in range(40)]
    assert {answer.status for answer in answers} == {"200 OK"}
    assert {json.loads(answer.body)["pattern"] for answer in answers} == {"A", "B"}
