"""The app follows `current`: within a second, off the request path, whole releases only."""

import json
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import lookalike.serving.source
from lookalike.release.root import ReleaseRoot
from lookalike.serving.application import Application
from lookalike.serving.metrics import Metrics
from lookalike.serving.source import ReleaseSource
from support import (
    Client,
    client_of,
    etag_of,
    integer_catalogue,
    make_slim,
    publish,
    random_features,
)
from waiting import wait_until


def test_ready_and_release_tell_what_is_served(integer_root: ReleaseRoot) -> None:
    client = client_of(integer_root)
    name = integer_root.current()
    assert json.loads(client.get("/readyz").body) == {"status": "ready", "release": name}
    release = json.loads(client.get("/release").body)
    assert (release["release"], release["n_items"], release["problem"]) == (name, 368, None)
    assert release["model"] == {"name": "test", "digest": "sha256:0"}
    assert [category["category_id"] for category in release["categories"]] == [1, 2, 3, 40]


def test_no_release_is_503_until_there_is_one(tmp_path: Path) -> None:
    source = ReleaseSource(ReleaseRoot(tmp_path / "root"))
    client = Client(Application(source))
    source.look()
    assert client.get("/healthz").status == "200 OK"
    for path in ("/readyz", "/release", "/nns?category_id=1&product_id=100"):
        assert client.get(path).status == "503 Service Unavailable"
        assert json.loads(client.get(path).body)["error"] == "not_ready"
    publish(tmp_path / "root", integer_catalogue(), tmp_path / "features")
    source.look()
    assert client.get("/readyz").status == "200 OK"


def test_a_new_release_is_served_at_the_next_of_several_looks_a_second(
    root: ReleaseRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept, awake = [], threading.Semaphore(0)

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        awake.acquire()

    clock = SimpleNamespace(sleep=sleep, monotonic=time.monotonic)
    monkeypatch.setattr(lookalike.serving.source, "time", clock)
    source = ReleaseSource(root)
    source.start()
    client = Client(Application(source))
    assert client.get("/nns?category_id=9&product_id=1").status == "404 Not Found"
    publish(root.path, {9: ([1, 2], random_features(2, 0))}, tmp_path / "features")
    awake.release()
    wait_until(lambda: len(slept) == 2)
    assert client.get("/nns?category_id=9&product_id=1").body == b"[1,2]"
    root.switch(root.names()[0])
    awake.release()
    wait_until(lambda: len(slept) == 3)
    assert client.get("/readyz").body.count(root.names()[0].encode()) == 1
    assert max(slept) <= 0.25


def test_an_answer_of_another_release_has_another_etag(root: ReleaseRoot, tmp_path: Path) -> None:
    source = ReleaseSource(root)
    client = Client(Application(source))
    source.look()
    target = "/nns?category_id=1&product_id=100"
    old = client.get(target)
    publish(root.path, {1: ([100, 1], random_features(2, 0))}, tmp_path / "features")
    assert client.get(target) == old
    source.look()
    new = client.get(target)
    assert new.body == b"[100,1]"
    assert new.headers["ETag"] == etag_of(root, 1)
    again = client.get(target, HTTP_IF_NONE_MATCH=old.headers["ETag"])
    assert again.status == "200 OK"


def test_a_slim_copy_completed_in_place_is_taken_up_by_switching_to_it_again(
    root: ReleaseRoot,
) -> None:
    name = str(root.current())
    kept = {path: path.read_bytes() for path in root.folder(name).glob("*/index.ann")}
    make_slim(root)
    source = ReleaseSource(root)
    source.look()
    assert source.release is not None
    assert source.release.slim
    for path, data in kept.items():
        path.write_bytes(data)
    root.switch(name)
    source.look()
    assert not source.release.slim


def test_a_defect_costs_one_answer_and_is_logged(
    integer_root: ReleaseRoot, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        problem = None
        metrics = Metrics()

        @property
        def release(self) -> object:
            raise RuntimeError("out of luck")

        served = release

    client = Client(Application(Broken()))  # type: ignore[arg-type]
    answer = client.get("/nns?category_id=1&product_id=100")
    assert answer.status == "503 Service Unavailable"
    assert answer.headers["Retry-After"] == "60"
    assert answer.body == b'{"error":"unavailable","detail":"the log has the reason"}'
    assert "out of luck" in caplog.text
