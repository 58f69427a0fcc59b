"""The whole way, as a shop goes it: a photo sent to the server, `follow`, the answer."""

import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest
from PIL import Image

from lookalike.release.root import ReleaseRoot
from lookalike_build.commands.cli import main
from lookalike_build.networks.extractor import UNTRAINED
from servers import Serve, Server
from support import TOKEN
from waiting import HUNG_S, wait_until

pytestmark = pytest.mark.tensorflow

COLOURS = ["red", "orange", "yellow", "green", "blue", "black"]


def photo(colour: str) -> bytes:
    picture = io.BytesIO()
    Image.new("RGB", (40, 40), colour).save(picture, "PNG")
    return picture.getvalue()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> ReleaseRoot:
    folder = tmp_path_factory.mktemp("shop")
    rows = ["product_id,category_id,image"]
    for number, colour in enumerate(COLOURS):
        (folder / f"{colour}.png").write_bytes(photo(colour))
        rows.append(f"{number},1,{colour}.png")
    (folder / "catalogue.csv").write_text("\n".join(rows))
    features, root = str(folder / "features"), str(folder / "root")
    catalogue = str(folder / "catalogue.csv")
    assert main(["extract", catalogue, "--features", features, "--weights", UNTRAINED]) == 0
    assert main(["index", "--features", features, "--root", root]) == 0
    return ReleaseRoot(folder / "root")


@pytest.fixture
def following(root: ReleaseRoot, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    log = tmp_path / "log"
    command = [sys.executable, "-m", "lookalike_build", "follow", "--root", str(root.path)]
    command += ["--weights", UNTRAINED, "--changes", str(tmp_path / "changes.jsonl")]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield process
        process.terminate()
        assert process.wait(HUNG_S) == 0, log.read_text()
        assert "Traceback" not in log.read_text()
        assert re.search("rejected: ", log.read_text())
        assert log.read_text().endswith("what is pending stays in the journal\n")
    finally:
        process.kill()


def send(server: Server, method: str, target: str, body: bytes = b"") -> str:
    """Where to ask what became of it."""
    connection = HTTPConnection(*server.address, timeout=HUNG_S)
    connection.request(method, target, body, {"Authorization": f"Bearer {TOKEN}"})
    answer = connection.getresponse()
    assert answer.status == 202, answer.read()
    connection.close()
    return str(answer.headers["Location"])


def test_a_photo_that_is_sent_is_answered_from(
    serve: Serve, root: ReleaseRoot, following: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    with serve(root, LOOKALIKE_TOKEN=TOKEN) as server:

        def state(location: str) -> str:
            _, _, body = server.get(location, Authorization=f"Bearer {TOKEN}")
            return str(json.loads(body)["state"])

        def answer(product_id: int) -> list[int] | None:
            status, _, body = server.get(f"/nns?category_id=1&product_id={product_id}&limit=7")
            return json.loads(body) if status == 200 else None

        new = send(server, "PUT", "/products/1/70", photo("red"))
        bad = send(server, "PUT", "/products/1/71", b"no photo")
        gone = send(server, "DELETE", "/products/1/5")
        log = tmp_path / "log"
        wait_until(lambda: state(gone) == "live", following, log)
        assert [state(new), state(bad)] == ["live", "rejected"]
        assert answer(70)[:2] == [70, 0]  # type: ignore[index]  # the other red one
        assert answer(0)[:2] == [0, 70]  # type: ignore[index]
        assert answer(71) is answer(5) is None

        (tmp_path / "green.png").write_bytes(photo("green"))
        changes = [
            {"op": "put", "category_id": 1, "product_id": 70, "image": "green.png"},
            {"op": "put", "category_id": 1, "product_id": 5, "image": "missing.png"},
        ]
        with (tmp_path / "changes.jsonl").open("w") as feed:
            feed.writelines(json.dumps(change) + "\n" for change in changes)
        wait_until(lambda: (answer(70) or [0, 0])[1] == 3, following, log)
        _, _, metrics = server.get("/metrics")
        assert b'lookalike_changes_total{state="rejected"}' in metrics
        assert following.poll() is None
        second = [sys.executable, "-m", "lookalike_build", "follow", "--root", str(root.path)]
        refused = subprocess.run(second, capture_output=True, text=True)
        assert refused.returncode == 1
        assert "another follower is at work" in refused.stderr
