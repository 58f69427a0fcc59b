"""Inception-v3 as a feature extractor: a feature is the 2048 numbers of its global average pooling.

That layer is called pool_3 in the graph that Miyake et al. (2017) used, `avg_pool` in Keras.

The network is frozen: once its variables are constants, TensorFlow fuses convolution, normalisation and
ReLU. If the CPU multiplies bfloat16 itself, convolutions use it, which takes half the time and moves a
feature by a cosine of about 0.00001. A GPU uses float16.

The last bits of a photo's features may depend on the other photos of its batch, because sums of
rounded numbers depend on their order. With oneDNN (TensorFlow's kernels for x86, switched on here) the
bits were the same in every batch. With TensorFlow's other kernels and AVX2, features moved by up to
1.1e-7 of their length between a photo alone and batches of 2 to 40 photos. Padding batches to one size
does not help: the last photo of a batch still differs. So compare features of two runs by direction,
not by bits.
"""

import hashlib
import socket
from collections.abc import Sequence
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


class Network:
    """An `Extractor`: Inception-v3 with `weights`: `imagenet`, `untrained` or a Keras weights file.

    The same weights from two sources are the same model. `precision` is float32, or mixed with 16-bit
    floats; auto is mixed if the hardware computes with them. Raises WeightsError.
    """

    n_dims = N_DIMS
    prepare = staticmethod(decode_photo)

    def __init__(self, weights: str, precision: Precision = "auto") -> None:
        self._precision = precision
        self._keras_model = _load(weights)
        self.batch = _GPU_BATCH if has_gpu() else _CPU_BATCH
        trained = "" if weights != UNTRAINED else f"-{UNTRAINED}"
        name = f"inception_v3{trained}/pool_3/{PREPROCESSING}"
        self.model = Model(name, _digest(self._keras_model.get_weights()))
        self._infer: Any = None
        self._options: dict[str, bool] = {}

    def stage(self, photos: Sequence[npt.NDArray[np.uint8]]) -> tuple[Any, int]:
        """Copy at most `batch` photos (299, 299, 3), RGB 0 to 255, to the device; count them.

        A GPU can work on one batch while the next is copied to it.
        """
        import tensorflow as tf

        # A GPU is set up again for each new shape. A CPU takes any, and a smaller one in less time.
        full = np.zeros((self.batch if has_gpu() else len(photos), SIDE, SIDE, 3), np.uint8)
        full[: len(photos)] = photos
        return tf.constant(full), len(photos)

    def features(self, staged: tuple[Any, int]) -> Features:
        """Features (n, 2048), 0 or more; except for rounding, the batch does not matter."""
        import tensorflow as tf

        photos, n = staged
        if self._infer is None:
            with quiet():
                self._infer = _frozen(self._keras_model)
                self._options = optimizer_options(self._precision)
        # The options belong to the process, and TensorFlow compiles with those set at a call.
        if not self._options.items() <= tf.config.optimizer.get_experimental_options().items():
            tf.config.optimizer.set_experimental_options(self._options)
        return np.asarray(self._infer(photos)[0])[:n]


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
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT_S)  # of each wait; Keras sets none
    try:
        return _inception(IMAGENET)
    except Exception as error:  # Keras raises bare Exception for a failed download
        reason = str(error).splitlines()[0]
        raise WeightsError(
            f"the ImageNet weights could not be downloaded ({reason}); fetch {_FILE} on another"
            f" machine and give --weights {_FILE}, or go without training: --weights {UNTRAINED}"
        ) from error
    finally:
        socket.setdefaulttimeout(before)


def _from_file(path: Path) -> Any:
    """Load weights saved with or without the classification layers, and drop these."""
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
    """The model, taking uint8 photos, as one function whose variables are constants."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    @tf.function  # type: ignore[untyped-decorator]
    def infer(photos: Any) -> Any:
        # Keras's Inception-v3 takes -1 to 1.
        return keras_model(tf.cast(photos, tf.float32) / 127.5 - 1.0, training=False)

    photos = tf.TensorSpec((None, SIDE, SIDE, 3), tf.uint8)
    return convert_variables_to_constants_v2(infer.get_concrete_function(photos))


def _digest(weights: list[npt.NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for array in weights:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array.tobytes())
    return f"sha256:{digest.hexdigest()}"
