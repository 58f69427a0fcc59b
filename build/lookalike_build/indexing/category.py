"""The index of one category: its exact table, and Annoy tuned to find a vector's neighbours."""

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
from annoy import AnnoyIndex

from lookalike.release.arrays import Distances, Features, Flags, Items, Positions
from lookalike.release.columns import Columns
from lookalike.release.files import MANIFEST, ReleaseError
from lookalike.release.manifest import METRIC
from lookalike.release.vectors import Changed, VectorIndex
from lookalike_build.indexing.neighbours import exact_neighbours
from lookalike_build.indexing.projection import project
from lookalike_build.indexing.random_pairs import median_of, random_distances, rounded
from lookalike_build.indexing.table import widths
from lookalike_build.publishing.category import CategoryWriter, Projected, Tuned, Written
from lookalike_build.publishing.columns import is_hidden, no_columns

METHOD = 5
"""Raised when the same features and settings come to make other files."""
RECALL_SAMPLE = 100
_TREES_COST = 10
_ROUNDING = 1e-6
_FEATURES = "features"


@dataclass(frozen=True)
class IndexSettings:
    """How to index: Annoy's trees and seed, the recall of vectors, how many neighbours are kept.

    Products show the same photo if they are no further apart than the share `same_photo` of the median
    distance of random pairs.
    """

    n_trees: int = 10
    neighbours: int = 100
    seed: int = 1
    recall: float = 0.95
    same_photo: float = 0.1

    @property
    def made_with(self) -> str:
        """What the manifest says of how a category was made; see `CategoryEntry`."""
        settings = (f"{name} {value}" for name, value in asdict(self).items())
        return ", ".join([f"method {METHOD}", *settings])

    def made_of(self, digest: str | None) -> str:
        """`made_with`, with the word that stands for the features, if there is one."""
        return f"{self.made_with}, {_FEATURES} {digest}" if digest else self.made_with

    @classmethod
    def of(cls, made_with: str) -> "IndexSettings":
        """The settings in `made_with`; ReleaseError if it names another method."""
        method, *settings = made_with.split(", ")
        if method != f"method {METHOD}":
            raise ReleaseError(
                MANIFEST, f'made with "{made_with}", not with method {METHOD}; index again'
            )
        texts = dict(setting.split(" ") for setting in settings)
        texts.pop(_FEATURES, None)
        usual = asdict(cls())
        return cls(**{name: type(usual[name])(text) for name, text in texts.items()})


Done = Callable[[int], object]


def index_features(
    features: Features,
    settings: IndexSettings,
    writer: CategoryWriter,
    done: Done = lambda _: None,
    table: tuple[Items, Distances] | None = None,
    columns: Columns | None = None,
) -> Written:
    """Index the features that the writer has begun with; `table` is their exact table if known.

    Items that `columns` hide are in no list and not found by a vector.
    """
    columns = columns or no_columns(len(features))
    hidden = is_hidden(columns)
    k, width = widths(int(np.count_nonzero(~hidden)), settings.neighbours)
    if table is None:
        table = exact_neighbours(features, k, done, writer.folder, width - k, hidden)
    projected = project(features)
    annoy = build_annoy(projected.items, settings)
    served = table[0][:, :k], table[1][:, :k]
    tuned = tune(features, projected, annoy, served, settings, hidden)
    random = random_distances(features, settings.seed)
    made_with, same_photo = settings.made_with, rounded(settings.same_photo * median_of(random))
    return writer.add_index(
        table, k, projected, annoy, tuned, made_with, columns, same_photo, random
    )


def build_annoy(vectors: Features, settings: IndexSettings) -> AnnoyIndex:
    """The Annoy index of vectors (n_items, n_dims), built, not saved; by seed the same bytes."""
    annoy = AnnoyIndex(vectors.shape[1], METRIC)
    annoy.set_seed(settings.seed)
    for item, vector in enumerate(vectors):
        annoy.add_item(item, vector.tolist())
    # Only one job gives the same bytes twice (github.com/spotify/annoy issue 603).
    annoy.build(settings.n_trees, n_jobs=1)
    return annoy


def tune(
    features: Features,
    projected: Projected,
    annoy: AnnoyIndex,
    table: tuple[Items, Distances],
    settings: IndexSettings,
    hidden: Flags,
) -> Tuned:
    """How many candidates and how far a search takes for the recall asked for, from a sample of items.

    Visible items are sampled, and `hidden` ones (n_items,) are not to be found. Half of the misses
    allowed are left to photos that are not in the index, which find a little less. Annoy is asked where
    that is faster than comparing all projections.
    """
    neighbours, distances = table
    n_items, k = neighbours.shape
    if k == 0:
        return Tuned(settings.n_trees, 1, n_items, None, 0)
    visible = np.flatnonzero(~hidden)
    sample = visible[np.unique(np.linspace(0, visible.size - 1, RECALL_SAMPLE, dtype=np.intp))]
    rows = np.arange(n_items, dtype=np.uint32)
    changed = Changed.of(rows, rows[hidden], n_items) if hidden.any() else None
    # Of copies the table holds the first and a search finds any: what is as near is as good.
    furthest = distances[sample, -1] + _ROUNDING
    misses = (1 - settings.recall) / 2
    candidates = _candidates(projected.items, hidden, sample, neighbours[sample], misses / 2)

    def recall(search_k: int) -> float:
        """Mean recall of the sampled items, asked by vector."""
        # The item itself is one more to find.
        vectors = vector_index(features, projected, annoy, candidates, search_k, k + 1, changed)
        right = 0
        for item, bound in zip(sample, furthest, strict=True):
            items, found = vectors.search(vectors.unit_vector(item), k + 1)
            right += min(k, int(np.sum((items != item) & (found <= bound))))
        return float(right / (k * len(sample)))

    search_k = _search_k(recall, settings.n_trees * candidates, n_items, 1 - misses)
    if search_k == n_items:
        candidates = _candidates(projected.items, hidden, sample, neighbours[sample], misses)
    return Tuned(settings.n_trees, candidates, search_k, recall(search_k), len(sample))


def vector_index(
    features: Features,
    projected: Projected,
    annoy: AnnoyIndex,
    candidates: int,
    search_k: int,
    k: int,
    changed: Changed | None = None,
) -> VectorIndex:
    """The index that a release has of features (n_items, n_dims): Annoy, or all projections."""
    projection, items, lengths = projected
    by_axis = np.ascontiguousarray(items.T)
    index = annoy if search_k < len(features) else by_axis
    return VectorIndex(
        features, lengths, projection, index, candidates, search_k, k, changed, by_axis
    )


def _candidates(
    items: Features, hidden: Flags, sample: Positions, exact: Items, misses: float
) -> int:
    """How many of the visible items with the best projections hold all but that share of the exact."""
    positions = []
    for item, nearest in zip(sample, exact, strict=True):
        scores = items @ items[item]
        scores[hidden] = -np.inf
        positions.append((scores > scores[nearest][:, None]).sum(axis=1))
    return int(np.quantile(np.concatenate(positions), 1 - misses, method="higher")) + 1


def _search_k(recall: Callable[[int], float], least: int, n_items: int, goal: float) -> int:
    """The least search_k found with which recall reaches the goal; n_items where trees do not pay.

    Annoy takes some ten times as long for an item as comparing all projections axis by axis.
    """
    search_k, too_low = least, 0
    while _TREES_COST * search_k < n_items:
        if recall(search_k) >= goal:
            break
        search_k, too_low = 2 * search_k, search_k
    else:
        return n_items
    return halved(lambda less: recall(less) >= goal, too_low, search_k) if too_low else search_k


def halved(enough: Callable[[int], bool], too_low: int, most: int) -> int:
    """What is still enough after three halvings of the way from too_low to most."""
    for _ in range(3):
        middle = (too_low + most) // 2
        if enough(middle):
            most = middle
        else:
            too_low = middle
    return most
