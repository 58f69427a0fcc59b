"""Lookalike's builder: product photos to features, features to releases.

The Python interface is what `__all__` lists; all else is private. Build a release of products whose
features are in memory, whichever network made them:

>>> import lookalike_build
>>> name = lookalike_build.build_release(
...     root,
...     {1: ([234, 1871, 5], [[1.0, 0.0, 0.0], [0.9, 0.1, 0.0], [0.0, 0.6, 0.8]])},
...     model="my-network",
... )

`lookalike.open_release(root)` then answers from it, as does a server that follows the root.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lookalike_build.features.store import FeatureError
    from lookalike_build.indexing.build import build_release
    from lookalike_build.indexing.category import IndexSettings

__all__ = ["FeatureError", "IndexSettings", "build_release"]

_MODULES = {
    "FeatureError": "features.store",
    "IndexSettings": "indexing.category",
    "build_release": "indexing.build",
}


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return getattr(import_module(f"lookalike_build.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
