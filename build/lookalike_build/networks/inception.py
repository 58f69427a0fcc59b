"""Inception-v3 as a feature extractor: photos to the 2048 numbers of its global average pooling.

That layer is pool_3 of the graph that Miyake et al. (2017) used, `avg_pool` in Keras.

The network is frozen: with its variables made constants, convolution, normalisation and ReLU become one
step. Where the CPU multiplies bfloat16 itself, TensorFlow does the convolutions in it, which takes half
the time and moves a feature vector by a cosine of about 0.00001; a GPU does them in float16.

A photo's features may depend in their last bits on the other photos of its batch, since sums of
rounded numbers depend on their order. With oneDNN, TensorFlow's kernels for x86 that are switched
on here, they were the same bits in every batch. With TensorFlow's other kernels and AVX2, they
moved by up to 1.1e-7 of a feature's length between a photo alone and batches of 2 to 40 photos.
Filling up each batch to one size does not prevent that: the last photo of a batch still differs. So
features of two runs are to be compared by their direction, not by their bits.
"""

import hashlib
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.release.arrays import Features
from lookalike.release.manifest import Model
from lookalike_build.networks.extractor import IMAGENET, UNTRAINED, Precision, WeightsError
from lookalike_build.networks.runtime import has_gpu, optimizer_options, quiet
from lookalike_build.photos.decoding import PREPROCESSING, SIDE, decode_photo

N_DIMS = 2048
_CPU_BATCH = 32
_GPU_BATCH = 128
_SEED = 0
_DOWNLOAD_TIMEOUT_S = 30.0
_FILE = "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5"


Photos = npt.NDArray[np.uint8]


class Network:
    """Inception-v3 with the weights asked for: `imagenet`, `untrained` or a Keras weights file.

    An `Extractor`. Two sources of the same weights are the same model. Raises WeightsError.

    `precision` is float32, or mixed for what the hardware has besides; auto is mixed if it has.
    """

    n_dims = N_DIMS
    prepare = staticmethod(decode_photo)

    def __init__(
        self, weights: str, batch: int | None = None, precision: Precision = "auto"
    ) -> None:
        self._precision = precision
        self._keras_model = _load(weights)
        self.batch = batch or (_GPU_BATCH if has_gpu() else _CPU_BATCH)
        trained = "" if weights != UNTRAINED else f"-{UNTRAINED}"
        name = f"inception_v3{trained}/pool_3/{PREPROCESSING}"
        self.model = Model(name, _digest(self._keras_model.get_weights()))
        self._infer: Any = None
        self._options: dict[str, bool] = {}

    def stage(self, photos: Sequence[Photos]) -> tuple[Any, int]:
        """Photos (299, 299, 3), RGB 0 to 255, on the device, and how many; at most `batch`.

        On a GPU the next photos are copied there while it works on those before.
        """
        import tensorflow as tf

        # A GPU is set up for each shape anew; a CPU takes any, in as much less time.
        full = np.zeros((self.batch if has_gpu() else len(photos), SIDE, SIDE, 3), np.uint8)
        full[: len(photos)] = photos
        return tf.constant(full), len(photos)

    def features(self, staged: tuple[Any, int]) -> Features:
        """Features (n, 2048), 0 or more; of a photo the same in any batch, but for rounding."""
        photos, n = staged
        features: Features = self._run(photos)[:n]
        return features

    def _run(self, photos: Any) -> Features:
        import tensorflow as tf

        if self._infer is None:
            with quiet():
                self._infer = _frozen(self._keras_model)
                self._options = optimizer_options(self._precision)
        # TensorFlow compiles by the options there are at a call, and they are the whole process's.
        if not self._options.items() <= tf.config.optimizer.get_experimental_options().items():
            tf.config.optimizer.set_experimental_options(self._options)
        return np.asarray(self._infer(photos)[0])


def _load(weights: str) -> Any:
    with quiet():
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


def _frozen(keras_model: Any) -> Any:
    """The model from uint8 photos on, as one function of constants."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    @tf.function  # type: ignore[untyped-decorator]
    def infer(photos: Any) -> Any:
        # Keras's Inception-v3 wants -1 to 1.
        return keras_model(tf.cast(photos, tf.float32) / 127.5 - 1.0, training=False)

    photos = tf.TensorSpec((None, SIDE, SIDE, 3), tf.uint8)
    return convert_variables_to_constants_v2(infer.get_concrete_function(photos))


def _digest(weights: list[npt.NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for array in weights:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array.tobytes())
    return f"sha256:{digest.hexdigest()}"


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Bound each wait of the download, which Keras leaves unbounded."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
