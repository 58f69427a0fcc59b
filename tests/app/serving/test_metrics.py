"""Metrics count every answer, over all processes, however a process ends."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lookalike.release.root import ReleaseRoot
from lookalike.serving.application import Application
from lookalike.serving.metrics import BUCKETS_S, ROUTES, Metrics, file_name, shared_metrics
from lookalike.serving.source import ReleaseSource
from support import Client, publish, string_catalogue


def values(metrics: Metrics) -> dict[str, float]:
    """Every sample of the text, by name and labels."""
    lines = metrics.text(None).splitlines()
    samples = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in samples}


def requests(metrics: Metrics) -> dict[tuple[str, str], float]:
    """Requests counted, by route and status."""
    pattern = re.compile(r'lookalike_requests_total\{route="(.*)",status="(.*)"\}')
    found = {pattern.fullmatch(name): value for name, value in values(metrics).items()}
    return {(match[1], match[2]): value for match, value in found.items() if match}


def test_every_answer_is_counted_by_route_and_status(root: ReleaseRoot) -> None:
    source = ReleaseSource(root)
    client = Client(Application(source))
    client.get("/readyz")
    source.look()
    for target in ("/nns?category_id=1&product_id=100",) * 3 + ("/nns", "/x", "/y", "/healthz"):
        client.get(target)
    client.get("/nns?category_id=1&product_id=1")
    client.get("/nns?category_id=1&product_id=100", HTTP_IF_NONE_MATCH="*")
    client.get("/nns", method="PUT")
    client.get("/nns", method="POST")
    client.get("/healthz", method="HEAD")
    assert requests(source.metrics) == {
        ("/readyz", "503"): 1,
        ("/nns", "200"): 3,
        ("/nns", "304"): 1,
        ("/nns", "400"): 1,
        ("/nns", "404"): 1,
        ("/nns", "405"): 1,
        ("POST /nns", "400"): 1,
        ("/healthz", "200"): 2,
        ("other", "404"): 2,
    }
    assert values(source.metrics)['lookalike_request_seconds_count{route="/nns"}'] == 7


def test_releases_taken_up_and_refused_are_counted(root: ReleaseRoot, tmp_path: Path) -> None:
    source = ReleaseSource(root)
    source.look()
    publish(root.path, string_catalogue(), tmp_path / "f")
    (root.folder(str(root.current())) / "manifest.json").write_text("{}")
    source.look()
    source.look()
    found = values(source.metrics)
    assert (found["lookalike_swaps_total"], found["lookalike_refusals_total"]) == (1, 1)


def test_latencies_fall_into_cumulative_buckets() -> None:
    metrics = Metrics()
    for nanoseconds in (1, 10_000, 10_001, 99_000_000, 100_000_001, 10**10):
        metrics.answered("/nns", "200 OK", nanoseconds)
    found = values(metrics)
    bucket = 'lookalike_request_seconds_bucket{{route="/nns",le="{}"}}'
    counts = [found[bucket.format(bound)] for bound in BUCKETS_S]
    assert counts == [2.0, *[3.0] * 11, 4.0, 5.0, 5.0]
    assert found[bucket.format("+Inf")] == 6
    assert found['lookalike_request_seconds_sum{route="/nns"}'] == pytest.approx(10.199020002)


def test_the_text_is_prometheus_with_awkward_labels_escaped(string_root: ReleaseRoot) -> None:
    source = ReleaseSource(string_root)
    client = Client(Application(source))
    source.look()
    answer = client.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    sample = re.compile(
        r'[a-z_]+(\{[a-z_]+="(\\.|[^"\\])*"(,[a-z_]+="(\\.|[^"\\])*")*\})? [0-9.e+-]+'
    )
    for line in answer.body.decode().splitlines():
        assert line.startswith(("# HELP ", "# TYPE ")) or sample.fullmatch(line), line
    assert f'release="{string_root.current()}",model="test"'.encode() in answer.body
    assert b'lookalike_items{category_id="../hats & caps"} 2' in answer.body


def test_the_release_says_when_it_was_made_until_it_is_removed(root: ReleaseRoot) -> None:
    source = ReleaseSource(root)
    client = Client(Application(source))
    source.look()
    name = "lookalike_release_timestamp_seconds"
    made_at = time.time() - 100_000.5
    manifest = root.folder(str(root.current())) / "manifest.json"
    os.utime(manifest, (0, made_at))
    assert f"\n{name} {made_at:.3f}\n" in client.get("/metrics").body.decode()
    shutil.rmtree(manifest.parent)
    answer = client.get("/metrics")
    assert (answer.status, name in answer.body.decode()) == ("200 OK", False)


WRITER = """
import sys
from pathlib import Path
from lookalike.serving.metrics import Metrics
metrics = Metrics(Path(sys.argv[1]))
for _ in range(int(sys.argv[2])):
    metrics.answered("/nns", "200 OK", 1000)
print("done", flush=True)
for _ in sys.stdin:
    metrics.join()
    print("joined", flush=True)
"""


def start_writer(path: Path, n: int) -> "subprocess.Popen[bytes]":
    """A process that has counted n answers and lives on until its input ends."""
    command = [sys.executable, "-c", WRITER, str(path), str(n)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"done\n"
    return process


@pytest.mark.slow
def test_counts_are_summed_over_processes_and_survive_their_deaths(tmp_path: Path) -> None:
    path = tmp_path / "metrics"
    reader = Metrics(path)
    writers = [start_writer(path, n) for n in (1, 20, 300)]
    assert requests(reader) == {("/nns", "200"): 321}
    assert values(reader)["lookalike_processes"] == 4
    for writer in writers:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    assert requests(reader) == {("/nns", "200"): 321}
    assert values(reader)["lookalike_processes"] == 1
    # Others take over the rows of the dead, more than once.
    for n in (4000, 50_000):
        with start_writer(path, n) as writer:
            writer.communicate()
    assert requests(reader) == {("/nns", "200"): 54_321}
    for writer in writers:
        writer.communicate()


def test_processes_that_serve_one_root_share_a_file_wherever_it_is_named_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("root")
    names = {file_name(root) for root in ("root", "./root/", f"{tmp_path}/root", "link")}
    assert len(names) == 1
    assert file_name("other") not in names


def test_whoever_counts_something_else_has_another_file(monkeypatch: pytest.MonkeyPatch) -> None:
    before = file_name("root")
    monkeypatch.setattr("lookalike.serving.metrics.ROUTES", (*ROUTES, "/new"))
    assert file_name("root") != before


@pytest.mark.slow
def test_a_process_takes_what_was_counted_before_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lookalike.serving.metrics.SHARED_MEMORY", tmp_path)
    with start_writer(tmp_path / file_name("root"), 5) as writer:
        writer.communicate()
    with start_writer(tmp_path / file_name("ended"), 1) as writer:
        writer.communicate()
    with start_writer(tmp_path / file_name("lives"), 1) as writer:
        for path in tmp_path.iterdir():
            os.utime(path, (0, 0))
        assert requests(shared_metrics("root")) == {("/nns", "200"): 5}
        # It removes what nobody uses, and only that.
        assert {path.name for path in tmp_path.iterdir()} == {file_name("root"), file_name("lives")}
        writer.communicate()


def test_without_any_folder_for_the_file_a_process_counts_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def none() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("lookalike.serving.metrics.SHARED_MEMORY", tmp_path / "missing")
    monkeypatch.setattr("tempfile.gettempdir", none)
    metrics = shared_metrics("root")
    metrics.answered("/nns", "200 OK", 1)
    assert requests(metrics) == {("/nns", "200"): 1}
    assert "No usable temporary directory" in caplog.text
