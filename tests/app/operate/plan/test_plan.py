"""lookalike plan: sizes are those of real releases, times follow the work, and the table says so."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lookalike.operate.cli import main
from lookalike.operate.plan import machine as machine_module
from lookalike.operate.plan import measured, size, times
from lookalike.operate.plan.machine import Machine, has_bfloat16, seconds_of
from lookalike.operate.plan.needs import Catalogue, PlanError, plan
from lookalike.operate.plan.size import Shape
from lookalike.release.files import ADDED, INDEX, MANIFEST, SLIM_FILES
from lookalike.release.ids import category_folder
from lookalike.release.root import ReleaseRoot
from lookalike.serving.settings import ROOT
from lookalike_build.indexing import neighbours, projection, table
from lookalike_build.indexing.category import IndexSettings
from support import REPOSITORY, make_slim, publish, random_features
from support import Catalogue as Products

REFERENCE = Machine.reference()
README = REPOSITORY / "app" / "README.md"


def sizes_on_disk(root: ReleaseRoot) -> dict[str, dict[str, int]]:
    """By category's folder and file name, what the current release's files take."""
    folder = root.folder(str(root.current()))
    categories = [path for path in folder.iterdir() if path.name != MANIFEST]
    return {
        category.name: {path.name: path.stat().st_size for path in category.iterdir()}
        for category in categories
    }


def check_sizes(root: ReleaseRoot, shape: Shape, id_bytes: dict[str, int | None]) -> None:
    """All files equal the plan's; the index too where a tree is one leaf, else nearly (by chance)."""
    found = sizes_on_disk(root)
    for entry in root.manifest(str(root.current())).categories:
        folder = category_folder(entry.category_id)
        own = Shape(shape.neighbours, shape.n_dims, id_bytes[folder], shape.n_trees)
        planned = size.category_sizes(entry.n_items, own)
        assert set(planned) == set(found[folder])
        trees = entry.n_items > entry.n_index_dims + 2
        assert planned.pop(INDEX) == pytest.approx(found[folder].pop(INDEX), rel=0.25 * trees)
        assert planned == found[folder]


def test_sizes_are_those_of_a_release_with_integer_ids(integer_root: ReleaseRoot) -> None:
    folders = dict.fromkeys(sizes_on_disk(integer_root))
    check_sizes(integer_root, Shape(n_dims=16), folders)


def test_sizes_are_those_of_a_release_with_string_ids(string_root: ReleaseRoot) -> None:
    longest = {"shoes": 64, category_folder("../hats & caps"): 4}
    check_sizes(string_root, Shape(n_dims=16), dict(longest))


@pytest.mark.slow
def test_sizes_follow_neighbours_dimensions_and_trees(tmp_path: Path) -> None:
    products: Products = {
        1: (list(range(1200)), random_features(1200, 1, n_dims=140)),
        2: (list(range(131)), random_features(131, 2, n_dims=140)),
        3: (list(range(130)), random_features(130, 3, n_dims=140)),
        4: ([1], random_features(1, 4, n_dims=140)),
    }
    settings = {"neighbours": 30, "n_trees": 4}
    root = publish(tmp_path / "r", products, tmp_path / "f", **settings)
    check_sizes(root, Shape(30, 140, n_trees=4), {str(i): None for i in range(1, 5)})


def test_a_whole_release_is_planned_within_a_few_percent_full_and_slim(root: ReleaseRoot) -> None:
    planned = size.release_sizes([60, 7, 1, 300], Shape(n_dims=16))

    def on_disk(names: tuple[str, ...] | None = None) -> int:
        return sum(
            n_bytes
            for files in sizes_on_disk(root).values()
            for name, n_bytes in files.items()
            if names is None or name in names
        )

    assert sum(planned.values()) == pytest.approx(on_disk(), rel=0.03)
    assert planned[ADDED] == 4 * 128
    make_slim(root)
    assert size.slim_bytes(planned) == on_disk(SLIM_FILES)


def test_what_the_plan_takes_for_granted_is_what_the_builder_does() -> None:
    assert table.N_SPARE == size.N_SPARE
    assert IndexSettings().n_trees == size.N_TREES
    assert IndexSettings().neighbours == Shape().neighbours
    assert projection.N_INDEX_DIMS == size.N_INDEX_DIMS
    assert neighbours._EXTRA_SCORES == times.EXTRA_SCORES


@pytest.mark.parametrize(
    ("catalogue", "sizes"),
    [
        (Catalogue(10), [10]),
        (Catalogue(10, 10), [1] * 10),
        (Catalogue(10, 3, largest=4), [4, 3, 3]),
        (Catalogue(10, 3, largest=8), [8, 1, 1]),
        (Catalogue(7, 1, largest=7), [7]),
    ],
)
def test_products_are_spread_over_categories(catalogue: Catalogue, sizes: list[int]) -> None:
    assert catalogue.sizes() == sizes


def test_without_the_largest_category_sizes_fall_off_with_the_rank() -> None:
    sizes = Catalogue(3_800_000, 120).sizes()
    assert sum(sizes) == 3_800_000
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == pytest.approx(440_000, rel=0.01)


@pytest.mark.parametrize("catalogue", [Catalogue(2, 3), Catalogue(9, 3, 2), Catalogue(9, 3, 8)])
def test_a_catalogue_that_cannot_be_is_refused(catalogue: Catalogue) -> None:
    with pytest.raises(PlanError, match="categories of"):
        catalogue.sizes()


def test_a_table_takes_the_square_of_its_products_once_it_is_large() -> None:
    small, large, twice = (times.table_s(n, Shape(), REFERENCE) for n in (100, 10**6, 2 * 10**6))
    assert twice / large == pytest.approx(4, rel=0.05)
    assert small < 1


def test_more_cores_help_until_merging_is_all_there_is_to_wait_for() -> None:
    taken = [times.table_s(10**6, Shape(), Machine.reference(cores)) for cores in (1, 2, 4, 64)]
    assert taken[0] > taken[1] >= taken[2] >= taken[3]
    merge = 1e12 * measured.MERGE * 1e-9
    assert merge < taken[3] < 1.1 * merge


def test_slower_machines_take_longer() -> None:
    for slow in (
        Machine(2, REFERENCE.gflops / 4, 1.0, True, True),
        Machine(2, REFERENCE.gflops, 3.0, True, True),
    ):
        assert times.table_s(31_667, Shape(), slow) > 1.2 * times.table_s(
            31_667, Shape(), REFERENCE
        )


def test_photos_are_extracted_by_cores_speed_and_bfloat16(tmp_path: Path) -> None:
    assert times.photos_s(REFERENCE) == pytest.approx(34)
    assert times.photos_s(Machine(4, REFERENCE.gflops / 2, 1, False, True)) == pytest.approx(17.6)
    cpuinfo = tmp_path / "cpuinfo"
    for flags, found in (("avx512f avx512_bf16", True), ("avx512f", False)):
        cpuinfo.write_text(f"flags\t\t: fpu {flags} sse\n")
        assert has_bfloat16(cpuinfo) == found


@pytest.mark.slow
def test_this_machine_is_measured_by_a_product_and_a_partition(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds = iter([4.0, 0.25])
    done: list[Any] = []

    def timed(work: Callable[[], Any], least_s: float) -> float:
        done.append(work())
        return next(seconds)

    monkeypatch.setattr(machine_module, "seconds_of", timed)
    machine = Machine.measure(cores=64)
    product, partition = done
    assert product.shape == (4096, 4096)
    assert machine.gflops == pytest.approx(
        2 * product.size * 2048 / 4.0 / 1e9 / len(os.sched_getaffinity(0))
    )
    assert machine.slower == pytest.approx(0.25e9 / partition.size / measured.PARTITION)
    assert (machine.cores, machine.measured, machine.bfloat16) == (64, True, has_bfloat16())


def test_the_fastest_of_several_times_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    clock = iter([0, 5, 10, 13, 20, 24, 30, 37])
    monkeypatch.setattr(machine_module, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    assert seconds_of(lambda: calls.append(1), 10) == 3
    assert len(calls) == 4  # 5, 3 and 4 seconds, and one before that does not count


def test_releases_kept_take_the_disk_that_changes_ask_for() -> None:
    def disk(changed: float, keep: int = 5) -> tuple[int, int, int]:
        made = plan(Catalogue(10**6, changed=changed, keep=keep), Shape(), REFERENCE)
        scratch = 10**6 * 4 * 2048
        return made.disk_bytes - scratch, made.slim_disk_bytes, made.release_bytes

    none, slim, release = disk(0)
    assert none == release
    assert disk(1)[:2] == (6 * none, 6 * slim)
    assert disk(0.5, keep=2)[0] == pytest.approx(2 * none, rel=1e-9)


def test_rates_that_are_known_go_before_estimates() -> None:
    made = plan(Catalogue(10**6), Shape(), REFERENCE, photos_per_s=100, requests_per_s=50_000)
    assert made.extract_s == 10_000
    assert made.serving_cores == 3
    assert plan(Catalogue(10**6), Shape(), REFERENCE).serving_cores is None


def test_the_command_needs_no_root_and_prints_what_the_readme_shows(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ROOT.name, raising=False)
    call = "plan --products 3800000 --categories 120 --no-measure"
    assert main(call.split()) == 0
    printed = capsys.readouterr().out
    text = README.read_text()
    assert f"    lookalike {call}\n" in text
    for line in filter(None, printed.splitlines()):
        assert f"    {line}\n" in text, line


def test_json_holds_the_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--products", "1000", "--id-bytes", "20", "--cores", "4", "--changed", "10"]
    assert main(["plan", *arguments, "--no-measure", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["files"]["product_ids.npy"] == 20_128
    assert document["release_bytes"] == sum(document["files"].values())
    assert document["machine"]["cores"] == 4
    assert document["catalogue"]["changed"] == 0.1
    assert np.isfinite(document["index_s"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--products"),
        (["--products", "0"], "from 1 to"),
        (["--products", "5", "--changed", "200"], "from 0 to 100"),
        (["--products", "5", "--categories", "9"], "9 categories of 5 products"),
    ],
)
def test_a_wrong_call_is_status_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "--no-measure", *arguments]) == 2
    assert said in capsys.readouterr().err
