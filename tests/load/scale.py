"""``make bench-scale``: the paper's full size, 3.8 million products in 120 categories, under Unit.

The release is made once: 3.3 GB on disk. Features have 16 numbers in place of 2048, which opening and
look-ups by product do not read; `features.npy` would take 31 GB of disk, and no memory, otherwise.
"""

import argparse
import shutil
import sys
import time
from functools import partial
from http.client import HTTPConnection
from pathlib import Path

from load.change import N_ITEMS as MEAN_ITEMS
from load.change import changing_releases
from load.made_release import make_release
from load.serving import CEILING, Served, Verdict, in_turn, print_rows, serving, total_bytes, wrk
from lookalike.operate.unit.config import APPLICATION
from lookalike.release.files import HOT_FILES
from lookalike.release.root import ReleaseRoot
from support import forget

N_ITEMS, N_CATEGORIES, K, N_DIMS = 3_800_000, 120, 100, 16
DISK_BYTES = 8e9
MEAN = "mean-category"


def sizes() -> list[int]:
    """Uneven, as categories are: the largest has some 440,000 products, the smallest 9,600."""
    shares = [rank**-0.8 for rank in range(1, N_CATEGORIES + 1)]
    found = [int(N_ITEMS * share / sum(shares)) for share in shares]
    found[0] += N_ITEMS - sum(found)
    return found


def main() -> None:
    """Make the release if need be, open it cold and warm, measure, print the table."""
    parser = argparse.ArgumentParser(prog="make bench-scale", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(".bench"))
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--seconds", type=int, default=2)
    options = parser.parse_args()
    root = ReleaseRoot(options.folder / "scale")
    if root.current() is None:
        options.folder.mkdir(exist_ok=True)
        free = shutil.disk_usage(options.folder).free
        if free < DISK_BYTES:
            sys.exit(
                f"{options.folder} has {free / 1e9:.1f} GB free, {DISK_BYTES / 1e9:.0f} are needed"
            )
        started = time.monotonic()
        print(f"making {N_ITEMS} products in {N_CATEGORIES} categories ...", flush=True)
        make_release(root, sizes(), K, N_DIMS)
        print(f"made in {time.monotonic() - started:.0f} s")
    folder = root.folder(str(root.current())).resolve()
    for path in folder.glob("*/*"):
        forget(path)  # as after a boot
    with serving(root) as served:
        from_disk_s = opening_s(served)
    arguments = ["&limit=12", *map(str, sizes())]
    mean = ReleaseRoot(options.folder / "change")
    changing_releases(mean)
    with serving(root, None, 1, **{MEAN: mean}) as served:
        from_cache_s = opening_s(served)
        runs = {
            name: partial(wrk, address, options.seconds, "random_ids.lua", *each)
            for name, address, each in (
                (CEILING, served.ceiling, arguments),
                (APPLICATION, served.app, arguments),
                (MEAN, served.others[MEAN], ["&limit=12", str(MEAN_ITEMS)]),
            )
        }
        seen = in_turn(runs, options.rounds)
        memory = {name: served.memory_mb(name) for name in runs}
        processes, files = total_bytes(served, folder)
    hot = sum(path.stat().st_size for name in HOT_FILES for path in folder.glob(f"*/{name}"))
    print(f"\nGET /nns, {N_ITEMS} products in {N_CATEGORIES} categories, k {K}, limit 12\n")
    print_rows(seen, memory)
    print(f"opened in {from_cache_s:.2f} s, with the files not in memory in {from_disk_s:.2f} s")
    print(
        f"memory: processes {processes / 1e6:.0f} MB, files in the page cache {files / 1e6:.0f} MB"
    )
    print(f"of those files, what look-ups touch: {hot / 1e6:.0f} MB\n")
    for other in (MEAN, CEILING):
        pairs = zip(seen[APPLICATION], seen[other], strict=True)
        ratios = [one.requests_s / two.requests_s for one, two in pairs]
        what = f"requests/s, {APPLICATION} / {other}"
        print(Verdict(what, ratios, lambda ratio: ratio >= 0.95, "0.95 or more"))
    print(Verdict("opening, s", [from_cache_s], lambda s: s <= 2, "2 or less"))
    print(Verdict("memory, GB", [(processes + files) / 1e9], lambda gb: gb <= 2, "2 or less"))


def opening_s(served: Served) -> float:
    """The longest that a process took to open the release, as its log says, once it is ready."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        connection = HTTPConnection(served.app, timeout=120)
        connection.request("GET", "/readyz")
        if connection.getresponse().status == 200:
            break
        time.sleep(0.1)
    lines = [line for line in served.unit.log.read_text().splitlines() if "opened in" in line]
    return max(float(line.split("opened in ")[1].split()[0]) for line in lines)


if __name__ == "__main__":
    main()
