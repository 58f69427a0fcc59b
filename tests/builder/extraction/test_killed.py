"""kill -9 of an extraction at random moments: it goes on where it was, and the store is the same."""

import hashlib
import multiprocessing
import random
import time
from pathlib import Path

import pytest
from PIL import Image

from extraction import BATCH, Journal, Row, extract_in_process, paint, write_catalogue

pytestmark = pytest.mark.slow

N_PHOTOS = 120 * BATCH
KILLS = 20


def _contents(store: Path) -> dict[str, str]:
    return {
        str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in store.rglob("*")
        if path.is_file()
    }


def test_an_extraction_killed_twenty_times_gives_the_same_store(tmp_path: Path) -> None:
    colours = [(i % 256, i // 256, 7) for i in range(N_PHOTOS)]
    rows: list[Row] = [
        (i, i % 5, paint(tmp_path, f"{i}.png", colour)) for i, colour in enumerate(colours)
    ]
    rows.append((N_PHOTOS, 1, "missing.png"))
    rows.append((N_PHOTOS + 1, 1, "0.png"))
    Image.effect_noise((64, 64), 50).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:-500])
    rows.append((N_PHOTOS + 2, 4, "cut.jpg"))
    write_catalogue(tmp_path, rows)
    # Processes forked of one that has imported what takes long to import.
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["extraction"])
    undisturbed = processes.Process(target=extract_in_process, args=(tmp_path, "undisturbed"))
    undisturbed.start()
    undisturbed.join()
    assert undisturbed.exitcode == 0
    assert Journal.photos(tmp_path / "undisturbed.journal") == N_PHOTOS

    seed = random.randrange(2**32)
    print(f"seed {seed}")
    moments = random.Random(seed)
    journal = tmp_path / "killed.journal"
    killed = 0
    while killed < KILLS:
        process = processes.Process(target=extract_in_process, args=(tmp_path, "killed"))
        # Not by the time alone: on a slow machine none would come to its first photo.
        before = Journal.photos(journal)
        most = max(1, min(N_PHOTOS // KILLS, N_PHOTOS - before))
        enough = before + moments.randrange(most)
        process.start()
        while process.is_alive() and Journal.photos(journal) < enough:
            time.sleep(0.005)
        process.join(moments.uniform(0, 0.05))
        killed += process.is_alive()
        process.kill()
        process.join()
    assert Journal.photos(journal) > 0
    last = processes.Process(target=extract_in_process, args=(tmp_path, "killed"))
    last.start()
    last.join()
    assert last.exitcode == 0
    assert _contents(tmp_path / "killed") == _contents(tmp_path / "undisturbed")
    # A killed run loses no more than the batch that was in the network.
    extracted = Journal.photos(journal)
    assert N_PHOTOS <= extracted <= N_PHOTOS + KILLS * BATCH
