"""Vector queries beside plain Annoy over all dimensions, both tuned to one recall, in one process."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from load.serving import Verdict
from lookalike.release.arrays import Features, Items
from lookalike_build.indexing.category import (
    RECALL_SAMPLE,
    IndexSettings,
    build_annoy,
    halved,
    tune,
    vector_index,
)
from lookalike_build.indexing.projection import project
from support import recall_at_k

Vector = npt.NDArray[np.float64]
Ask = Callable[[Vector], npt.ArrayLike]


@dataclass
class Seen:
    """What one way of asking took and found: milliseconds and recall of each query."""

    times: list[float] = field(default_factory=list)
    recalls: list[float] = field(default_factory=list)


def vectors_beside_annoy(features: Features, queries: Features, k: int) -> Verdict:
    """Ask for the k nearest of each query both ways in turn; print both, judge the ratio."""
    settings = IndexSettings()
    n_items = len(features)
    sample = np.unique(np.linspace(0, n_items - 1, RECALL_SAMPLE, dtype=np.intp))
    neighbours = np.zeros((n_items, k), np.uint32)  # only the sample's are looked at
    neighbours[sample] = nearest(features, features[sample], k + 1)[:, 1:]
    distances = np.full((n_items, k), 2, np.float32)
    distances[sample, -1] = apart(features, sample, neighbours[sample, -1])
    projected = project(features)
    annoy = build_annoy(projected.items, settings)
    hidden = np.zeros(n_items, np.bool_)
    tuned = tune(features, projected, annoy, (neighbours, distances), settings, hidden)
    ours = vector_index(features, projected, annoy, tuned.candidates, tuned.search_k, k)
    plain = build_annoy(features, settings)

    def plain_recall(search_k: int) -> float:
        found = (plain.get_nns_by_item(int(item), k + 1, search_k=search_k) for item in sample)
        pairs = zip(neighbours[sample], found, strict=True)
        return float(np.mean([recall_at_k(exact, items) for exact, items in pairs]))

    search_k = least_search_k(plain_recall, settings.n_trees * (k + 1), settings.recall)
    ways: dict[str, Ask] = {
        f"Annoy over all dimensions, search_k {search_k}": lambda vector: plain.get_nns_by_vector(
            vector.tolist(), k, search_k=search_k
        ),
        f"ours, candidates {tuned.candidates}, search_k {tuned.search_k}": lambda vector: (
            ours.search(vector, k)[0]
        ),
    }
    seen = in_turn(ways, queries, nearest(features, queries, k))
    print(f"\nthe {k} nearest to a vector that is not in the index, of {n_items}:")
    for name, way in seen.items():
        print(f"  {np.median(way.times):.2f} ms, recall {np.mean(way.recalls):.3f}: {name}")
    medians = [float(np.median(way.times)) for way in seen.values()]
    ratio = medians[0] / medians[1]
    return Verdict("vectors, times as fast as Annoy", [ratio], lambda r: r >= 3, "3 or more")


def in_turn(ways: dict[str, Ask], queries: Features, exact: Items) -> dict[str, Seen]:
    """Ask each query each way."""
    seen = {name: Seen() for name in ways}
    for query, items in zip(queries, exact, strict=True):
        vector = query.astype(np.float64)
        vector /= np.linalg.norm(vector)
        for name, ask in ways.items():
            started = time.perf_counter()
            found = ask(vector)
            seen[name].times.append(1e3 * (time.perf_counter() - started))
            seen[name].recalls.append(recall_at_k(items, found))
    return seen


def nearest(features: Features, queries: Features, k: int) -> Items:
    """The exact k nearest of each query, nearest first, by brute force."""
    lengths = np.linalg.norm(features, axis=1)
    scores = queries @ features.T / lengths
    return np.argsort(-scores, axis=1, kind="stable")[:, :k].astype(np.uint32)


def apart(features: Features, some: npt.NDArray[np.intp], others: Items) -> Features:
    """The angular distances of some items to as many others."""
    one, other = (
        features[items] / np.linalg.norm(features[items], axis=1)[:, None]
        for items in (some, others)
    )
    return np.asarray(np.linalg.norm(one - other, axis=1), np.float32)


def least_search_k(recall: Callable[[int], float], least: int, goal: float) -> int:
    """The least search_k found that reaches the goal, from Annoy's default on."""
    search_k, too_low = least, 0
    while recall(search_k) < goal:
        search_k, too_low = 2 * search_k, search_k
    return halved(lambda less: recall(less) >= goal, too_low, search_k) if too_low else search_k
