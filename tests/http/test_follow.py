"""The whole way, as a shop goes it: a photo sent to the server, `follow`, the answer."""

import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection

import pytest
from PIL import Image

import servers
from lookalike.release.root import ReleaseRoot
from lookalike_build.commands.cli import main
from lookalike_build.networks.extractor import UNTRAINED
from servers import Serve, Server
from support import TOKEN
from waiting import HUNG_S, wait_until

pytestmark = pytest.mark.tensorflow

CATEGORIES: dict[Serve, int] = {servers.embedded: 1, servers.unit: 2}
"""One for each server, so that one follower, which is slow to start, does for both."""
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
        rows += [f"{100 * one + number},{one},{colour}.png" for one in CATEGORIES.values()]
    (folder / "catalogue.csv").write_text("\n".join(rows))
    features, root = str(folder / "features"), str(folder / "root")
    catalogue = str(folder / "catalogue.csv")
    assert main(["extract", catalogue, "--features", features, "--weights", UNTRAINED]) == 0
    assert main(["index", "--features", features, "--root", root]) == 0
    return ReleaseRoot(folder / "root")


@pytest.fixture(scope="module")
def following(root: ReleaseRoot) -> Iterator[subprocess.Popen[bytes]]:
    log, changes = root.path.with_name("log"), root.path.with_name("changes.jsonl")
    changes.touch()
    command = [sys.executable, "-m", "lookalike_build", "follow", "--root", str(root.path)]
    command += ["--weights", UNTRAINED, "--changes", str(changes)]
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
    serve: Serve, root: ReleaseRoot, following: subprocess.Popen[bytes]
) -> None:
    category, shop, log = CATEGORIES[serve], root.path.parent, root.path.with_name("log")
    red, green, black, new, bad = (100 * category + number for number in (0, 3, 5, 70, 71))
    with serve(root, LOOKALIKE_TOKEN=TOKEN) as server:

        def state(location: str) -> str:
            _, _, body = server.get(location, Authorization=f"Bearer {TOKEN}")
            return str(json.loads(body)["state"])

        def answer(product_id: int) -> list[int] | None:
            target = f"/nns?category_id={category}&product_id={product_id}&limit=7"
            status, _, body = server.get(target)
            return json.loads(body) if status == 200 else None

        put = send(server, "PUT", f"/products/{category}/{new}", photo("red"))
        rejected = send(server, "PUT", f"/products/{category}/{bad}", b"no photo")
        gone = send(server, "DELETE", f"/products/{category}/{black}")
        wait_until(lambda: state(gone) == "live", following, log)
        assert [state(put), state(rejected)] == ["live", "rejected"]
        assert answer(new)[:2] == [new, red]  # type: ignore[index]  # the other red one
        assert answer(red)[:2] == [red, new]  # type: ignore[index]
        assert answer(bad) is answer(black) is None

        product = {"op": "put", "category_id": category}
        changes = [
            {**product, "product_id": new, "image": str(shop / "green.png")},
            {**product, "product_id": black, "image": "missing.png"},
        ]
        with (shop / "changes.jsonl").open("a") as feed:
            feed.writelines(json.dumps(change) + "\n" for change in changes)
        wait_until(lambda: (answer(new) or [0, 0])[1] == green, following, log)
        _, _, metrics = server.get("/metrics")
        assert b'lookalike_changes_total{state="rejected"}' in metrics
        assert following.poll() is None
        second = [sys.executable, "-m", "lookalike_build", "follow", "--root", str(root.path)]
        refused = subprocess.run(second, capture_output=True, text=True)
        assert refused.returncode == 1
        assert "another follower is at work" in refused.stderr
