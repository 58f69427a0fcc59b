"""A frozen TensorFlow graph as a feature extractor: the paper's, or one like it.

Miyake et al. (2017) fed JPEG files to the tensor `DecodeJpeg/contents:0` of the graph
inception-2015-12-05 (classify_image_graph_def.pb) and read its `pool_3:0`. Such a graph decodes,
resizes and scales by itself, one photo at a time. It runs here unchanged, so its features can be mixed
with those that it gave elsewhere.

It runs in a TensorFlow 1 session, because functions of TensorFlow 2 refuse operations of 2015, such as
BatchNormWithGlobalNormalization.
"""

import hashlib
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from lookalike.release.arrays import Features
from lookalike.release.manifest import Model
from lookalike_build.networks.extractor import Precision, WeightsError
from lookalike_build.networks.runtime import optimizer_options, quiet
from lookalike_build.photos.decoding import (
    JPEG_OR_PNG,
    SIDE,
    check_memory,
    memory_to_decode,
    to_jpeg_or_png,
)

INPUT = "DecodeJpeg/contents:0"
OUTPUT = "pool_3:0"
_MAX_NAMED = 3
_MAX_REASON = 200
# Bytes that a pixel takes in such a graph, for each channel: decoded, as float32 until it is resized,
# and the coefficients of a progressive JPEG.
_PIXEL_BYTES = 3 * (1 + 4 + 2)


class FrozenGraph:
    """An `Extractor` of the graph in the file at `path` (a binary GraphDef), from `INPUT` to `OUTPUT`.

    `model` holds the digest of the file; `n_dims` is the size of `OUTPUT` for one photo. `precision` is
    as for `Network`. Raises WeightsError.
    """

    batch = 32

    def __init__(self, path: Path, precision: Precision = "auto") -> None:
        data = _read(path)
        self.model = Model(
            f"graphdef/{OUTPUT.partition(':')[0]}/{JPEG_OR_PNG}",
            f"sha256:{hashlib.sha256(data).hexdigest()}",
        )
        with quiet():
            self._run = _runner(_graph(path, data), precision)
            self.n_dims = _n_dims(path, self._run)

    @staticmethod
    def prepare(data: bytes) -> bytes:
        """Return a JPEG unchanged and any other photo as PNG; PhotoError if it is invalid."""
        photo = to_jpeg_or_png(data)
        check_memory(_size(photo), _PIXEL_BYTES)
        return photo

    def stage(self, inputs: Sequence[bytes]) -> Sequence[bytes]:
        """Return the inputs: the graph takes them one by one."""
        return inputs

    def features(self, staged: Sequence[bytes]) -> Features:
        """Features (n, n_dims) of n photos; a row of NaN for a photo that the graph refuses."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            rows = list(pool.map(self._features_of_one, staged))
        return np.array(rows, np.float32).reshape(-1, self.n_dims)

    def _features_of_one(self, photo: bytes) -> npt.NDArray[Any]:
        import tensorflow as tf

        try:
            with memory_to_decode(_size(photo), _PIXEL_BYTES):
                features: npt.NDArray[Any] = self._run(photo).reshape(self.n_dims)
        except (UnidentifiedImageError, tf.errors.InvalidArgumentError):
            return np.full(self.n_dims, np.nan)  # TensorFlow decodes fewer JPEGs than Pillow
        return features


def _size(photo: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(photo)) as picture:
        return picture.size


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise WeightsError(f"no graph file {path}; give a frozen graph (.pb)") from error
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}") from error


def _graph(path: Path, data: bytes) -> Any:
    """Return the tf.Graph in `data`, which has `INPUT` and `OUTPUT`."""
    import tensorflow as tf
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        definition = tf.compat.v1.GraphDef.FromString(data)
    except DecodeError as error:
        raise WeightsError(f"{path} is not a frozen graph (a binary GraphDef, .pb)") from error
    _check_nodes(path, definition)
    graph = tf.Graph()
    try:
        with graph.as_default():
            tf.import_graph_def(definition, name="")
        source, target = (graph.get_tensor_by_name(name) for name in (INPUT, OUTPUT))
    except (ValueError, KeyError, tf.errors.OpError) as error:
        raise _not_runnable(path, error) from error
    if source.dtype != tf.string or not target.dtype.is_floating:
        raise WeightsError(
            f"{path}: {INPUT} must be string and {OUTPUT} float, not {source.dtype.name} and"
            f" {target.dtype.name}"
        )
    return graph


def _check_nodes(path: Path, definition: Any) -> None:
    names = [node.name for node in definition.node]
    for tensor in (INPUT, OUTPUT):
        if tensor.partition(":")[0] not in names:
            inputs = [node.name for node in definition.node if node.op == "Placeholder"]
            raise WeightsError(
                f"{path} has no tensor {tensor}; its placeholders are {_listed(inputs[:_MAX_NAMED])},"
                f" its last nodes {_listed(names[-_MAX_NAMED:])}; give classify_image_graph_def.pb of"
                " inception-2015-12-05 or a graph with the same names"
            )


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "none"


def _runner(graph: Any, precision: Precision) -> Any:
    """Return a function from one photo's bytes to the numbers of `OUTPUT`, callable from any thread."""
    import tensorflow as tf
    from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig

    config = tf.compat.v1.ConfigProto()
    for name, on in optimizer_options(precision).items():
        toggle = RewriterConfig.ON if on else RewriterConfig.OFF
        setattr(config.graph_options.rewrite_options, name, toggle)
    session = tf.compat.v1.Session(graph=graph, config=config)
    return session.make_callable(OUTPUT, [INPUT])


def _n_dims(path: Path, run: Any) -> int:
    """Return how many numbers `run` returns; WeightsError if that depends on the photo's size."""
    import tensorflow as tf

    try:
        sizes = {run(_plain_jpeg(side)).size for side in (SIDE, 2 * SIDE)}
    except (ValueError, tf.errors.OpError) as error:
        raise _not_runnable(path, error) from error
    if len(sizes) > 1:
        raise WeightsError(
            f"{path}: the size of {OUTPUT} depends on the photo's; resize in the graph"
        )
    return int(sizes.pop())


def _plain_jpeg(side: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side), "grey").save(file, "JPEG")
    return file.getvalue()


def _not_runnable(path: Path, error: Exception) -> WeightsError:
    reason = shorten(getattr(error, "message", str(error)), _MAX_REASON, placeholder=" …")
    return WeightsError(f"{path} does not run in this TensorFlow: {reason}")
