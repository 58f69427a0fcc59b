"""The memory budget: never more than there is, and each in its turn."""

import resource
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lookalike_build.photos import memory_budget
from lookalike_build.photos.memory_budget import MemoryBudget, memory_limit
from waiting import HUNG_S


def test_a_large_one_comes_to_its_turn_among_small_ones() -> None:
    budget = MemoryBudget(10)
    order: list[str] = []
    waiting = threading.Semaphore(0)

    def take(name: str, n_bytes: int) -> None:
        waiting.release()
        with budget.take(n_bytes):
            order.append(name)

    with ThreadPoolExecutor(3) as pool:
        with budget.take(4):
            done = [pool.submit(take, "large", 10)]
            while not budget._waiting:
                waiting.acquire(timeout=0.01)
            done += [pool.submit(take, "small", 1) for _ in range(2)]  # for which there is room
            while len(budget._waiting) < 3:
                waiting.acquire(timeout=0.01)
            assert order == []
        for future in done:
            future.result(30)
    assert order == ["large", "small", "small"]


def test_what_fits_is_taken_side_by_side() -> None:
    budget, together = MemoryBudget(10), threading.Barrier(3, timeout=HUNG_S)

    def take(n_bytes: int) -> None:
        with budget.take(n_bytes):
            together.wait()

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(take, [5, 4, 1])) == [None] * 3


def test_all_is_given_back_after_an_error() -> None:
    budget = MemoryBudget(10)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), budget.take(10):
            1 / 0  # noqa: B018


def test_processes_share_it() -> None:
    budget = MemoryBudget(10)
    budget.divide(3)
    assert budget.n_bytes == 3
    with budget.take(3):
        pass


def test_the_least_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_budget, "_CGROUPS", tmp_path)
    monkeypatch.setattr(memory_budget, "_own_group", lambda: "a/b")
    total = memory_limit()
    assert total > 2**28
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "memory.max").write_text("max\n")
    assert memory_limit() == total
    (tmp_path / "a" / "b" / "memory.max").write_text(f"{2**28}\n")
    assert memory_limit() == 2**28
    (tmp_path / "a" / "memory.max").write_text(f"{2**27}\n")
    assert memory_limit() == 2**27


def test_ulimit_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (2**27, resource.RLIM_INFINITY))
    assert memory_limit() == 2**27
