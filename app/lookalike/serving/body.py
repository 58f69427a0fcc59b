"""The body of ``POST /nns``: a JSON object, checked and typed."""

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from lookalike.release.arrays import Float64
from lookalike.release.attributes import AttributeTypes
from lookalike.release.conditions import (
    SELECTING,
    ConditionError,
    is_condition,
    names_of,
    parse_selection,
)
from lookalike.release.ids import Id, IdType, json_id_problem, shown
from lookalike.release.manifest import Manifest
from lookalike.release.selection import EVERYTHING, Selection
from lookalike.release.vectors import unit_vector
from lookalike.serving.errors import BadRequest, TooLarge
from lookalike.serving.query import DEFAULT_LIMIT

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

_FIELDS = (
    *("category_id", "product_ids", "vector", "limit", "exclude_self", "distances"),
    *SELECTING,
)
MAX_BYTES = 2**21
"""The largest body taken: a vector of the most dimensions that a release may have fits in."""


class Body(NamedTuple):
    """What a body asks for: the neighbours of each of `product_ids`, or of `vector`.

    The other of the two is None. `vector` is float64 (n_dims,), scaled to length 1.
    """

    category_id: Id
    product_ids: list[Id] | None
    vector: Float64 | None
    limit: int
    exclude_self: bool
    distances: bool
    selection: Selection


def read_body(environ: "WSGIEnvironment", most: int) -> bytes:
    """The body of a request, empty where no Content-Length announces one.

    Raises TooLarge for more than `most` bytes, unread, and BadRequest for fewer than announced.
    """
    length = environ.get("CONTENT_LENGTH") or "0"
    if not (length.isascii() and length.isdigit()):
        return b""
    if len(length) > 18 or int(length) > most:
        raise TooLarge(f"the body has {length:.18} bytes; at most {most} are taken")
    n_bytes = int(length)
    body: bytes = environ["wsgi.input"].read(n_bytes) if n_bytes else b""
    # The embedded server hands over what there is of a body when the client is gone.
    if len(body) < n_bytes:
        raise BadRequest(f"the body ended after {len(body)} of {n_bytes} bytes")
    return body


def parse_body(
    text: bytes,
    max_limit: int,
    max_product_ids: int,
    manifest: Manifest,
    defaults: Selection = EVERYTHING,
) -> Body:
    """Parse a body for the release of `manifest`; BadRequest names the first field that is invalid."""
    attributes = manifest.known_attributes
    values = _object(text, attributes)
    if ("product_ids" in values) == ("vector" in values):
        raise BadRequest("give one of product_ids and vector")
    if "vector" in values and "exclude_self" in values:
        raise BadRequest("exclude_self goes with product_ids; a vector is no product")
    category_id = _id(values.get("category_id"), "category_id", manifest.category_id_type)
    product_ids = vector = None
    if "vector" in values:
        vector = _vector(values["vector"], manifest.n_dims)
    else:
        product_ids = _product_ids(values["product_ids"], max_product_ids, manifest.product_id_type)
    limit = values.get("limit", min(DEFAULT_LIMIT, max_limit))
    if type(limit) is not int or not 1 <= limit <= max_limit:
        raise BadRequest(f"limit must be a whole number from 1 to {max_limit}, not {shown(limit)}")
    exclude_self, distances = _boolean(values, "exclude_self"), _boolean(values, "distances")
    try:
        selection = parse_selection(values, attributes, is_text=False)
    except ConditionError as error:
        raise BadRequest(str(error)) from None
    if _boolean(values, "defaults", True):
        selection = selection.over(defaults)
    if vector is not None:
        _refuse_same(selection)
    return Body(category_id, product_ids, vector, limit, exclude_self, distances, selection)


def _refuse_same(selection: Selection) -> None:
    for condition in selection.conditions:
        if condition.op == "same":
            name = f"{condition.attribute}__same"
            raise BadRequest(f"{name} goes with product_ids; a vector is no product")


def _object(text: bytes, attributes: AttributeTypes) -> dict[str, Any]:
    if not text:
        raise BadRequest("the body is empty; send a JSON object with Content-Length")
    try:
        values = msgspec.json.decode(text)
    except (ValueError, RecursionError):
        raise BadRequest("the body is not JSON in UTF-8") from None
    if not isinstance(values, dict):
        raise BadRequest("the body is not a JSON object")
    for name in values:
        if name not in _FIELDS and not is_condition(name, attributes):
            names = names_of(_FIELDS, attributes)
            raise BadRequest(f"unknown field {shown(name)}; known are {names}")
    return values


def _id(value: Id | None, name: str, id_type: IdType) -> Id:
    if value is None:
        raise BadRequest(f"{name} is missing")
    if problem := json_id_problem(value, id_type):
        raise BadRequest(f"{name} {problem}")
    return value


def _product_ids(values: object, most: int, id_type: IdType) -> list[Id]:
    if not isinstance(values, list) or not 1 <= len(values) <= most:
        size = f"{len(values)} of them" if isinstance(values, list) else shown(values)
        raise BadRequest(f"product_ids must be an array of 1 to {most} product ids, not {size}")
    return [_id(value, f"product_ids[{i}]", id_type) for i, value in enumerate(values)]


def _vector(values: object, n_dims: int) -> Float64:
    """`values` as a vector of length 1, whatever their scale."""
    if not isinstance(values, list) or len(values) != n_dims:
        size = f"{len(values)} of them" if isinstance(values, list) else shown(values)
        raise BadRequest(f"vector must be an array of {n_dims} numbers, not {size}")
    if not set(map(type, values)) <= {int, float}:
        place = next(i for i, value in enumerate(values) if type(value) not in (int, float))
        raise BadRequest(f"vector[{place}] must be a number, not {shown(values[place])}")
    try:
        return unit_vector(np.array(values, np.float64))
    except OverflowError:
        raise BadRequest("vector has a number beyond what a float64 holds") from None
    except ValueError as error:
        raise BadRequest(f"vector {error}") from None


def _boolean(values: dict[str, Any], name: str, default: bool = False) -> bool:
    value = values.get(name, default)
    if not isinstance(value, bool):
        raise BadRequest(f"{name} must be true or false, not {shown(value)}")
    return value
