"""``make bench-change``: every answer checked while releases change, processes die, Unit restarts them.

First steadily, then with a new current release every other second, a process killed and Unit's restart
endpoint called in between. Then 200 changes in a row, and what they left behind.
"""

import argparse
import os
import re
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path

from load.checking_client import Seen, check_answers
from load.made_release import make_release
from load.serving import Served, Verdict, serving
from lookalike.operate.unit.config import APPLICATION
from lookalike.release.root import ReleaseRoot
from lookalike.serving.settings import MAX_AGE_S
from servers import nginx_before
from support import etag_of
from waiting import wait_until

N_ITEMS, N_DIMS, K = 31_667, 64, 100
STEPS = (1, 2, 3)
CONNECTIONS = 16
PERIOD_S = 1.0


def main() -> None:
    """Run the phases and say what holds."""
    parser = argparse.ArgumentParser(prog="make bench-change", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(".bench"))
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--swaps", type=int, default=200)
    options = parser.parse_args()
    root = ReleaseRoot(options.folder / "change")
    releases = changing_releases(root)
    # Nothing is to be kept, so that nginx asks Unit each time.
    settings = {MAX_AGE_S.name: "0"}
    with serving(root, settings) as served, ProcessPoolExecutor(1, get_context("spawn")) as pool:
        wait_until_ready(served)
        verdicts = change_under_load(served, root, releases, options.seconds, pool)
        print("", *verdicts, sep="\n")
        swap_many(served, root, releases, options.swaps)


def changing_releases(root: ReleaseRoot) -> dict[str, int]:
    """Three releases of the same products with other neighbours: their names and steps."""
    if len(root.names()) != len(STEPS):
        for step in STEPS:
            make_release(root, [N_ITEMS], K, N_DIMS, step)
    return dict(zip(root.names(), STEPS, strict=True))


def change_under_load(
    served: Served,
    root: ReleaseRoot,
    releases: dict[str, int],
    seconds: float,
    pool: ProcessPoolExecutor,
) -> list[Verdict]:
    """A steady phase, a changing one, a steady one, straight and through nginx."""
    print(f"GET /nns, {N_ITEMS} products, {CONNECTIONS} connections, every answer checked\n")
    head = ("answers", "p50 ms", "p99 ms", "max ms", "failed", "wrong", "changes")
    print(f"{'':34}{''.join(f'{name:>9}' for name in head)}", flush=True)
    verdicts = []
    host, _, port = served.app.partition(":")
    app = (host, int(port))
    steps = {etag_of(root, 1, name): step for name, step in releases.items()}
    with nginx_before(app) as front:
        for way, where in (("straight to Unit", app), ("through nginx", front.address)):
            rows = {}
            for phase in ("steady", "changing", "steady again"):
                client = pool.submit(check_answers, where, N_ITEMS, steps, seconds, CONNECTIONS)
                changes = change(served, root, releases, seconds) if phase == "changing" else ""
                rows[phase] = client.result()
                print_seen(f"{way}, {phase}", rows[phase], changes)
            p99 = [seen.quantile(99) for seen in rows.values()]
            verdicts.append(
                Verdict(
                    f"p99, changing / steady, {way}",
                    [2 * p99[1] / (p99[0] + p99[2])],
                    lambda ratio: ratio <= 2,
                    "2 or less",
                )
            )
    bad = float(sum(seen.failed + seen.wrong for seen in rows.values()))
    what = "failed or wrong answers, through nginx"
    return [*verdicts, Verdict(what, [bad], lambda n: n == 0, "0")]


def print_seen(name: str, seen: Seen, changes: str) -> None:
    """One row, and the first things that went wrong."""
    print(
        f"{name:34}{len(seen.latencies):9}{seen.quantile(50):9.2f}{seen.quantile(99):9.2f}"
        f"{max(seen.latencies):9.1f}{seen.failed:9}{seen.wrong:9}  {changes}",
        flush=True,
    )
    for problem in seen.problems:
        print(f"  {problem}")


def change(served: Served, root: ReleaseRoot, releases: dict[str, int], seconds: float) -> str:
    """Change something each period until the time is up; what was done."""
    names, done = list(releases), {"switched": 0, "killed": 0, "restarted": 0}
    until, number = time.monotonic() + seconds - PERIOD_S, 0
    while time.monotonic() < until:
        number += 1
        if number % 2:
            root.switch(names[number // 2 % len(names)])
            done["switched"] += 1
        elif number % 4 == 0:
            with suppress(ProcessLookupError):
                os.kill(served.pids(APPLICATION)[-1], signal.SIGKILL)
                done["killed"] += 1
        else:
            served.unit.control.ask("GET", f"/control/applications/{APPLICATION}/restart")
            done["restarted"] += 1
        time.sleep(PERIOD_S)
    return ", ".join(f"{what} {times}" for what, times in done.items())


def swap_many(served: Served, root: ReleaseRoot, releases: dict[str, int], swaps: int) -> None:
    """Swap that often, each taken up by all processes; judge what is left of the old ones."""
    names = list(releases)
    swap(served, root, names[0])
    before = leftovers(served, names[0])
    for number in range(swaps):
        swap(served, root, names[(number + 1) % len(names)])
    swap(served, root, names[0])
    after = leftovers(served, names[0])
    print(f"\nbefore and after {swaps} swaps, over all processes:")
    for what in before:
        print(f"  {what}: {before[what]:.1f}, {after[what]:.1f}")
    print()
    grown = after["memory MB"] - before["memory MB"]
    print(Verdict("memory grown, MB", [grown], lambda mb: mb <= 5, "5 or less"))
    kept = after["mapped or open files of other releases"]
    print(Verdict("old releases' files mapped or open", [kept], lambda n: n == 0, "0"))
    print(
        Verdict(
            "descriptors more",
            [after["descriptors"] - before["descriptors"]],
            lambda n: n <= 0,
            "0",
        )
    )


def swap(served: Served, root: ReleaseRoot, name: str) -> None:
    """Make a release current and wait until every process has taken it up."""
    root.make_current(name)
    wait_until(lambda: all(name in _mapped(pid) for pid in served.pids(APPLICATION)))
    time.sleep(0.1)


def leftovers(served: Served, current: str) -> dict[str, float]:
    """Memory, descriptors, and files of other releases than `current` in use, of all processes."""
    pids = served.pids(APPLICATION)
    descriptors = 0
    old = 0
    for pid in pids:
        links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
        descriptors += len(links)
        paths = [*_mapped_paths(pid), *(link for link in links if "/releases/" in link)]
        used = re.findall(r"/releases/([^/]+)/", " ".join(paths))
        old += sum(name != current for name in used)
    return {
        "processes": len(pids),
        "memory MB": served.memory_mb(APPLICATION),
        "descriptors": descriptors,
        "mapped or open files of other releases": old,
    }


def wait_until_ready(served: Served) -> None:
    """Until both processes serve."""
    wait_until(lambda: len([pid for pid in served.pids(APPLICATION) if _mapped(pid)]) == 2)


def _mapped_paths(pid: int) -> list[str]:
    return re.findall(r"(/\S*/releases/\S+)", Path(f"/proc/{pid}/maps").read_text())


def _mapped(pid: int) -> set[str]:
    """The releases that a process has mapped."""
    return {path.split("/releases/")[1].split("/")[0] for path in _mapped_paths(pid)}


if __name__ == "__main__":
    main()
