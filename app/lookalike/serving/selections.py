"""The selections of requests: those that a setting gives to all, and those that were parsed lately."""

import hashlib
import logging
from contextlib import suppress
from functools import lru_cache

from lookalike.release.attributes import AttributeTypes
from lookalike.release.category import Category
from lookalike.release.conditions import SELECTING
from lookalike.release.manifest import Manifest
from lookalike.release.selection import EVERYTHING, Selection
from lookalike.serving.errors import BadRequest, HttpError
from lookalike.serving.query import split_query, typed_selection
from lookalike.serving.settings import DEFAULTS

logger = logging.getLogger(__name__)

_MOST_PARSED = 1024


class Selections:
    """The selections for the release served; `defaults` is the query string of the setting, its `text`.

    `problem` says why the defaults do not apply to that release, if they do not: it may lack one of the
    attributes. Answers are then as without them.
    """

    def __init__(self, defaults: str = "") -> None:
        self.text = defaults
        self._parsed = _Parsed("", {})

    def defaults(self, manifest: Manifest) -> Selection:
        """What every request gets unless it says otherwise."""
        return self._of(manifest).defaults

    def problem(self, manifest: Manifest) -> str | None:
        """Why the defaults do not apply."""
        return self._of(manifest).problem

    def of(self, manifest: Manifest, text: str | None) -> Selection | None:
        """The selection of a query string that has nothing else; None if it has, or is invalid."""
        parsed = self._of(manifest)
        if text is None:
            return parsed.defaults
        try:
            return parsed.selections[text]
        except KeyError:
            return parsed.parse(text)

    def _of(self, manifest: Manifest) -> "_Parsed":
        parsed = self._parsed
        if parsed.manifest is not manifest:
            attributes = manifest.known_attributes
            if parsed.manifest is None or parsed.attributes != attributes:
                parsed = _Parsed(self.text, attributes)
            parsed.manifest = manifest
            self._parsed = parsed
        return parsed


class _Parsed:
    """What has been parsed for releases with these attributes."""

    def __init__(self, defaults: str, attributes: AttributeTypes) -> None:
        self.manifest: Manifest | None = None
        self.attributes = attributes
        self.defaults = EVERYTHING
        self.problem: str | None = None
        self.selections: dict[str, Selection | None] = {}
        try:
            self.defaults = self._selection(defaults, SELECTING[:-1])
        except BadRequest as error:
            self.problem = f"{DEFAULTS.name} does not apply to this release: {error.detail}"
            logger.error("%s", self.problem)

    def parse(self, text: str) -> Selection | None:
        """The selection of a query string, None if it is invalid; the next time it is known."""
        selection = None
        with suppress(HttpError):
            selection = self._selection(text, SELECTING)
        if len(self.selections) >= _MOST_PARSED:
            self.selections.clear()
        self.selections[text] = selection
        return selection

    def _selection(self, text: str, known: tuple[str, ...]) -> Selection:
        values = split_query(text, known, attributes=self.attributes)
        selection = typed_selection(values, self.attributes, self.defaults)
        return EVERYTHING if selection == EVERYTHING else selection


def etag_of(category: Category, selection: Selection) -> str:
    """The ETag of a category's answers by a selection."""
    return category.etag if selection == EVERYTHING else category.etag_of(_digest(selection))


@lru_cache(_MOST_PARSED)
def _digest(selection: Selection) -> str:
    return hashlib.sha256(repr(selection).encode()).hexdigest()[:8]
