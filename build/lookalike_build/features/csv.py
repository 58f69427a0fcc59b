"""A category's features as text: a line for each product with its id and its numbers, comma-separated.

They are written as by the paper's system: `product_id` unchanged, each number as ``'%.18e'`` (which is
exact), no header. More is accepted: an id in that form too, as `numpy.savetxt` writes a whole matrix;
tabs or single spaces as separators; any form of number; a header that starts with ``product_id``; empty
lines.
"""

import csv
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv

from lookalike.release.arrays import Features
from lookalike.release.ids import id_problem
from lookalike.release.root import named
from lookalike_build.catalogue.ids import typed_ids
from lookalike_build.features.store import CategoryFeatures, FeatureError
from lookalike_build.files.whole import whole_file

_HEADER = "product_id"
_EXPONENTIAL = re.compile(r"-?\d\.\d+e[+-]\d+")
_EXACT = 2**53
_TO_QUOTE = re.compile(r'[",\s]')
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BLOCK_BYTES = 2**24


@dataclass(frozen=True)
class FeatureCsv:
    """A file whose product ids and first line are valid; its numbers are checked by `blocks`.

    `product_ids` are int64 or string, in the file's order.
    """

    path: Path
    n_dims: int
    delimiter: str
    has_header: bool
    product_ids: pa.Array

    @classmethod
    def open(cls, path: Path, n_dims: int) -> "FeatureCsv":
        """Read the product ids; FeatureError names the first invalid line."""
        first = next((line for _, line in _lines(path, has_header=False)), None)
        if first is None:
            raise FeatureError(f"{path}: is empty")
        delimiter = next((mark for mark in (",", "\t") if mark.encode() in first), " ")
        heading, *others = _fields(first, delimiter)
        if len(others) != n_dims:
            raise FeatureError(f"{path}: line 1: {_other_width(len(others), n_dims)} (--dims)")
        has_header = heading == _HEADER
        lines = _lines(path, has_header)
        texts = ((number, _first_field(line, delimiter)) for number, line in lines)
        return cls(path, n_dims, delimiter, has_header, checked_ids(path, texts))

    def blocks(self) -> Iterator[Features]:
        """The features of the products in the file's order, in blocks (n, n_dims) of float32."""
        numbers = [str(dimension) for dimension in range(self.n_dims)]
        try:
            with (
                named(self.path),
                pa_csv.open_csv(
                    self.path,
                    pa_csv.ReadOptions(
                        use_threads=False,  # threads are no faster
                        block_size=_BLOCK_BYTES,
                        column_names=[_HEADER, *numbers],
                        skip_rows=int(self.has_header),
                    ),
                    pa_csv.ParseOptions(delimiter=self.delimiter),
                    pa_csv.ConvertOptions(
                        column_types=dict.fromkeys(numbers, pa.float32()),
                        include_columns=numbers,
                        null_values=[],
                    ),
                ) as batches,
            ):
                for batch in batches:
                    yield batch.to_tensor().to_numpy()
        except pa.ArrowInvalid as error:
            problem = self._problem() or f"cannot be read: {error}".splitlines()[0]
            raise FeatureError(f"{self.path}: {problem}") from None

    def _problem(self) -> str | None:
        """The first invalid line and its fault; None if there is none."""
        for number, line in _lines(self.path, self.has_header):
            _, *texts = _fields(line, self.delimiter)
            if len(texts) != self.n_dims:
                return f"line {number}: {_other_width(len(texts), self.n_dims)}"
            for field, text in enumerate(texts, 2):
                if not _is_number(text):
                    return f'line {number}: field {field} must be a number, not "{text:.40}"'
        return None


def checked_ids(path: Path, texts: Iterable[tuple[int, str]]) -> pa.Array:
    """Product ids, int64 or string, from (line number, text); FeatureError names an invalid line."""
    ids = []
    for number, text in texts:
        try:
            ids.append(_id_text(text))
        except ValueError as error:
            raise FeatureError(f"{path}: line {number}: product_id {error}") from None
    if not ids:
        raise FeatureError(f"{path}: holds no products")
    return typed_ids(pa.array(ids, pa.string()))


def write_feature_csv(path: Path, category: CategoryFeatures) -> None:
    """Write the file of a category, whole or not at all."""
    numbers = ",%.18e" * category.features.shape[1] + "\n"
    with whole_file(path) as part, part.open("wb") as file:
        for product_id, features in zip(category.product_ids, category.features, strict=True):
            line = _quoted(str(product_id)) + numbers % tuple(features.tolist())
            file.write(line.encode())


def _lines(path: Path, has_header: bool) -> Iterator[tuple[int, bytes]]:
    """The lines of products, each with its number, counted from 1."""
    with named(path), path.open("rb") as file:
        for number, line in enumerate(file, 1):
            text = line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line
            if text in (b"\n", b"\r\n"):
                continue
            if has_header:
                has_header = False
                continue
            yield number, text


def _first_field(line: bytes, delimiter: str) -> str:
    if line.startswith(b'"'):
        return _fields(line, delimiter)[0]
    return line.split(delimiter.encode(), 1)[0].decode(errors="surrogateescape").strip()


def _fields(line: bytes, delimiter: str) -> list[str]:
    text = line.decode(errors="surrogateescape").strip()
    with suppress(csv.Error):  # a field of over 128 KiB
        return next(csv.reader([text], delimiter=delimiter), [""])
    return [text]


def _id_text(text: str) -> str:
    if _EXPONENTIAL.fullmatch(text):
        value = Decimal(text)
        if value > _EXACT:
            raise ValueError(f"must be exact, and beyond 2^53 a number such as {text} is not")
        if value < 0 or value % 1:
            raise ValueError(f"must be a whole number from 0, not {text}")
        return str(int(value))
    problem = id_problem(text)
    if problem:
        raise ValueError(problem)
    return text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _other_width(found: int, expected: int) -> str:
    return f"has {found} features, expected {expected}"


def _quoted(product_id: str) -> str:
    if _TO_QUOTE.search(product_id):
        return '"' + product_id.replace('"', '""') + '"'
    return product_id
