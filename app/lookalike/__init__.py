"""Lookalike's app: related products, looked up in what the builder has published.

The Python interface is what `__all__` lists; all else is private. Ask a release root for products that
are like another one, or like a feature of the release's model:

>>> import lookalike
>>> release = lookalike.open_release(root)
>>> release.neighbours(category_id=1, product_id=234, limit=2).product_ids
[1871, 5]
>>> release.search(category_id=1, vector=[0.0, 3.0, 4.0], limit=1)
Neighbours(product_ids=[5], distances=[0.0])

Or serve it, in any WSGI server:

>>> application = lookalike.make_application(lookalike.Settings(root, max_limit=100))

Needs annoy, msgspec and numpy, jinja2 for ``/browse`` and click for the command. Nothing is imported
before it is asked for: where one of these is missing or broken, NGINX Unit must still be able to load
`lookalike.wsgi`, which says so.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lookalike.release.files import ReleaseError
    from lookalike.release.opened import Neighbours, Release
    from lookalike.release.root import RootError, open_release
    from lookalike.serving.assembly import make_application
    from lookalike.serving.settings import SettingError, Settings

__version__ = "0.1.0"
__all__ = [
    "Neighbours",
    "Release",
    "ReleaseError",
    "RootError",
    "SettingError",
    "Settings",
    "make_application",
    "open_release",
]

_MODULES = {
    "Neighbours": "release.opened",
    "Release": "release.opened",
    "ReleaseError": "release.files",
    "RootError": "release.root",
    "SettingError": "serving.settings",
    "Settings": "serving.settings",
    "make_application": "serving.assembly",
    "open_release": "release.root",
}


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return getattr(import_module(f"lookalike.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
