"""Attributes in bulk: the current release with whole columns replaced, and everything else linked."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import pyarrow as pa

from lookalike.errors import LookalikeError
from lookalike.release.attributes import AttributeTypes
from lookalike.release.ids import Id
from lookalike.release.root import ReleaseRoot
from lookalike_build.publishing.staging import Published


class AttributesError(LookalikeError):
    """The current release cannot be given the attributes; the text says what to do."""


class ProductValues(NamedTuple):
    """Values of products of one category.

    `product_ids` (n,) are integers or text as in the release, each once, in any order. `columns` has
    by attribute an array (n,) of bool, float64 or string, null where the value is missing.
    """

    product_ids: pa.Array
    columns: Mapping[str, pa.Array]


class PublishedAttributes(NamedTuple):
    """The release, and how many of the given products are in no category of it."""

    published: Published
    n_unknown: int


def publish_attributes(
    root: ReleaseRoot,
    types: AttributeTypes,
    values: Mapping[Id, ProductValues],
    dropped: Collection[str] = (),
    as_of: float | None = None,
) -> PublishedAttributes:
    """Publish the current release with the attributes of `types` replaced and those `dropped` removed.

    `values` has, by category id, the products' values of all attributes of `types`. A product without
    values has none of these attributes any more; other attributes stay. What was set live at `as_of`
    (Unix time, seconds), when the values were read from the shop, or later stays too. Where nothing
    differs the current release stays. Raises AttributesError, JournalError, ReleaseError, RootError,
    OSError; the current release then stays.
    """
    raise NotImplementedError
