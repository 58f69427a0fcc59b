"""The interface of networks that turn photos into features."""

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from lookalike.errors import LookalikeError
from lookalike.release.manifest import Model

INCEPTION_V3 = "inception_v3"
GRAPHDEF = "graphdef:"
IMAGENET = "imagenet"
UNTRAINED = "untrained"

Precision = Literal["auto", "float32", "mixed"]


class WeightsError(LookalikeError):
    """The network's weights are missing or unusable; the text says what to do."""


class Extractor(Protocol):
    """Turns photos into features: `prepare` each, `stage` a batch, then compute its `features`.

    `model` identifies the network; features of two models must never meet in a release. `n_dims` is the
    width of its features, `batch` the number of photos that it takes at once.
    """

    model: Model
    n_dims: int
    batch: int

    def prepare(self, data: bytes) -> Any:
        """Turn one photo's bytes into the network's input. Called from many threads.

        Raises PhotoError to reject the photo, HostError if this machine fails.
        """

    def stage(self, prepared: Sequence[Any]) -> Any:
        """Move 1 to `batch` inputs to the device; may run at the same time as `features`."""

    def features(self, staged: Any) -> npt.NDArray[np.float32]:
        """The features (n, n_dims) of a staged batch, in its order.

        The other photos of the batch change a photo's features only by rounding.
        """
