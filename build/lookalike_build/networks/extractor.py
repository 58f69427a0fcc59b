"""What turns photos into features, and the settings that one is made of."""

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
    """The network's weights cannot be had; the text says what to do."""


class Extractor(Protocol):
    """Turns photos into features: `prepare` each, `stage` some together, take their `features`.

    `model` identifies it: features of two models must never be compared, and so never meet in a
    release. `n_dims` is the width of its features, `batch` how many photos it takes at once.
    """

    model: Model
    n_dims: int
    batch: int

    def prepare(self, data: bytes) -> Any:
        """What the extractor takes of one photo's bytes. Called from many threads.

        PhotoError where the photo is to be rejected, HostError where this machine fails.
        """
        ...

    def stage(self, prepared: Sequence[Any]) -> Any:
        """Put 1 to `batch` of them where the work is done; may run beside `features`."""
        ...

    def features(self, staged: Any) -> npt.NDArray[np.float32]:
        """The features (n, n_dims) of what was staged together, in its order.

        What stands beside a photo may move its features by rounding, and by no more.
        """
        ...
