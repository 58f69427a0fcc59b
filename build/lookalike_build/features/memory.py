"""Features in memory, from which a release can be made."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.release.arrays import Features
from lookalike.release.ids import Id, IdType, id_problem
from lookalike.release.manifest import MAX_DIMS, Model
from lookalike_build.features.store import (
    CategoryFeatures,
    FeatureError,
    ascending,
    refuse_invalid,
    sort_key,
)

ProductFeatures = tuple[Sequence[Id] | npt.NDArray[Any], npt.ArrayLike]
"""Product ids (n,), in any order, and the feature (n, n_dims) of each."""


class MemoryFeatures:
    """A `FeatureSource` of products by category id; `model` made their features.

    `as_of` is when the products were read from the shop (Unix time, seconds), see `catalogue.moment`;
    it is needed only if products change live. FeatureError names an invalid category or product.
    """

    folder = Path("features in memory")

    def __init__(
        self, categories: Mapping[Id, ProductFeatures], model: Model, as_of: float | None = None
    ) -> None:
        self.model = model
        self.as_of = as_of
        ids = {
            _plain(category_id): [_plain(one) for one in product_ids]
            for category_id, (product_ids, _) in categories.items()
        }
        self.id_types = (
            _type_of(ids, "category ids"),
            _type_of((one for some in ids.values() for one in some), "product ids"),
        )
        self._ids = {category_id: ids[category_id] for category_id in sorted(ids, key=sort_key)}
        self._features = {
            _plain(category_id): np.asarray(features, np.float32)
            for category_id, (_, features) in categories.items()
        }
        self.categories = {category_id: len(ids) for category_id, ids in self._ids.items()}
        self.n_dims = self._check_shapes()

    def read(self, category_id: Id, into: Features | None = None) -> CategoryFeatures:
        """As `FeatureStore.read`."""
        name = Path(f"category {category_id}")
        ids = self._ids[category_id]
        product_ids, item_of_row = ascending(name, ids, self.id_types[1])
        refuse_invalid(name, ids, self._features[category_id])
        features = np.empty((len(ids), self.n_dims), np.float32) if into is None else into
        features[item_of_row] = self._features[category_id]
        return CategoryFeatures(category_id, product_ids, features)

    def _check_shapes(self) -> int:
        n_dims = 0
        for category_id, features in self._features.items():
            n_products = self.categories[category_id]
            width = features.shape[1] if features.ndim == 2 else 0
            n_dims = n_dims or width
            if features.shape != (n_products, n_dims) or not 1 <= n_dims <= MAX_DIMS:
                raise FeatureError(
                    f"category {category_id}: features have the shape {features.shape}, expected "
                    f"({n_products}, {n_dims or 'n_dims'}), with at most {MAX_DIMS} dimensions"
                )
        return n_dims


def _plain(value: Any) -> Id:
    """An id, also one of NumPy's, as a Python int or str."""
    plain = value.item() if isinstance(value, np.generic) else value
    if isinstance(plain, bool) or not isinstance(plain, int | str):
        raise FeatureError(f"an id must be an integer or a string, not {value!r:.40}")
    if problem := id_problem(plain):
        raise FeatureError(f"id {plain!r:.80} {problem}")
    return plain


def _type_of(ids: Iterable[Id], what: str) -> IdType:
    types = {type(one) for one in ids}
    if len(types) > 1:
        raise FeatureError(f"{what} must be all integers or all strings")
    return "string" if types == {str} else "integer"
