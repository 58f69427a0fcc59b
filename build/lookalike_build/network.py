"""Inception-v3 as a feature extractor: photos to the 2048 numbers of its global average pooling.

That layer is pool_3 of the graph that Miyake et al. (2017) used, `avg_pool` in Keras.
"""

import hashlib
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.manifest import Model
from lookalike_build.photo import PREPROCESSING, SIDE

N_DIMS = 2048
IMAGENET = "imagenet"
UNTRAINED = "untrained"
_SEED = 0
_DOWNLOAD_TIMEOUT_S = 30.0
_FILE = "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5"

Photos = npt.NDArray[np.uint8]
Features = npt.NDArray[np.float32]


class WeightsError(Exception):
    """The network's weights cannot be had; the text says what to do."""


class Network:
    """Inception-v3 with the weights asked for: `imagenet`, `untrained` or a Keras weights file.

    `model` identifies it: features of two models must never be compared, and so never meet in a
    release. Two sources of the same weights are the same model. Raises WeightsError.
    """

    def __init__(self, weights: str, batch: int) -> None:
        self._batch = batch
        self._keras_model = _load(weights)
        trained = "" if weights != UNTRAINED else f"-{UNTRAINED}"
        name = f"inception_v3{trained}/pool_3/{PREPROCESSING}"
        self.model = Model(name, _digest(self._keras_model.get_weights()))
        self._infer = _compiled(self._keras_model)

    def features(self, photos: Photos) -> Features:
        """Features (n, 2048), 0 or more, of photos (n, 299, 299, 3), RGB 0 to 255; n <= batch."""
        full = np.zeros((self._batch, SIDE, SIDE, 3), np.uint8)
        full[: len(photos)] = photos  # one shape, so that the network is compiled once
        features: Features = self._infer(full).numpy()[: len(photos)]
        return features


def _load(weights: str) -> Any:
    with _quiet():
        import keras

    if weights == UNTRAINED:
        keras.utils.set_random_seed(_SEED)
        return _inception(None)
    if weights == IMAGENET:
        return _downloaded()
    path = Path(weights)
    if not path.is_file():
        raise WeightsError(
            f"no weights file {weights}; give a Keras weights file, {IMAGENET} or {UNTRAINED}"
        )
    return _from_file(path)


def _inception(weights: str | None, *, top: bool = False) -> Any:
    import keras

    pooling = None if top else "avg"
    return keras.applications.InceptionV3(include_top=top, weights=weights, pooling=pooling)


def _downloaded() -> Any:
    try:
        with _socket_timeout(_DOWNLOAD_TIMEOUT_S):
            return _inception(IMAGENET)
    except Exception as error:  # Keras raises bare Exception for a failed download
        reason = str(error).splitlines()[0]
        raise WeightsError(
            f"the ImageNet weights could not be downloaded ({reason}); fetch {_FILE} on another"
            f" machine and give --weights {_FILE}, or go without training: --weights {UNTRAINED}"
        ) from error


def _from_file(path: Path) -> Any:
    """Load weights saved with or without the classification layers, which are left off."""
    import keras

    problems = []
    for top in (False, True):
        model = _inception(None, top=top)
        try:
            model.load_weights(path)
        except Exception as error:  # Keras raises many kinds for a file that does not fit
            problems.append(f"{error}".splitlines()[0] if str(error) else repr(error))
            continue
        pooled = model.get_layer("avg_pool").output if top else model.output
        return keras.Model(model.input, pooled)
    raise WeightsError(f"{path} does not hold the weights of Keras's InceptionV3: {problems[0]}")


def _compiled(keras_model: Any) -> Any:
    import tensorflow as tf

    @tf.function  # type: ignore[untyped-decorator]
    def infer(photos: Any) -> Any:
        # Keras's Inception-v3 wants -1 to 1.
        return keras_model(tf.cast(photos, tf.float32) / 127.5 - 1.0, training=False)

    return infer


def _digest(weights: list[npt.NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for array in weights:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array.tobytes())
    return f"sha256:{digest.hexdigest()}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep TensorFlow's start-up lines, printed by its C++ side at import, off standard error."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Bound each wait of the download, which Keras leaves unbounded."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
