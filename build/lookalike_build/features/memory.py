"""Features in memory, from which a release can be made."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.release.arrays import Features
from lookalike.release.ids import Id, IdType, id_problem
from lookalike.release.manifest import MAX_DIMS, Model
from lookalike_build.features.store import Contents, FeatureError, FeatureSource, sort_key

ProductFeatures = tuple[Sequence[Id] | npt.NDArray[Any], npt.ArrayLike]
"""Product ids (n,), in any order, and the feature (n, n_dims) of each."""


@dataclass(frozen=True)
class MemoryFeatures(FeatureSource):
    """Products in memory, by category id, as they were given."""

    products: Mapping[Id, tuple[Sequence[Id], Features]]

    @classmethod
    def of(
        cls, given: Mapping[Id, ProductFeatures], model: Model, as_of: float | None = None
    ) -> "MemoryFeatures":
        """Check ids and shapes; FeatureError names an invalid category or product.

        `as_of` is when the products were read from the shop (Unix time, seconds), see
        `catalogue.moment`; it is needed only if products change live.
        """
        products = {
            _plain(category_id): ([_plain(one) for one in ids], np.asarray(features, np.float32))
            for category_id, (ids, features) in given.items()
        }
        id_types = (
            _type_of(products, "category ids"),
            _type_of((one for ids, _ in products.values() for one in ids), "product ids"),
        )
        n_dims = 0
        for category_id, (ids, features) in products.items():
            n_dims = n_dims or (features.shape[1] if features.ndim == 2 else 0)
            if features.shape != (len(ids), n_dims) or not 1 <= n_dims <= MAX_DIMS:
                raise FeatureError(
                    f"category {category_id}: features have the shape {features.shape}, expected "
                    f"({len(ids)}, {n_dims or 'n_dims'}), with at most {MAX_DIMS} dimensions"
                )
        folder = Path("features in memory")
        categories = {one: len(products[one][0]) for one in sorted(products, key=sort_key)}
        return cls(folder, model, n_dims, id_types, as_of, categories, products)

    def _open(self, category_id: Id) -> AbstractContextManager[Contents]:
        ids, features = self.products[category_id]
        return nullcontext((Path(f"category {category_id}"), ids, [features]))


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
