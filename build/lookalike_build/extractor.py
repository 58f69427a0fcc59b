"""What turns photos into features, and the settings that one is made of."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from lookalike.manifest import Model

INCEPTION_V3 = "inception_v3"
GRAPHDEF = "graphdef:"
IMAGENET = "imagenet"
UNTRAINED = "untrained"

Precision = Literal["auto", "float32", "mixed"]


class WeightsError(Exception):
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


@dataclass(frozen=True)
class ExtractorSettings:
    """Which extractor to make; small, so that it can be sent to where it is to be made.

    `model` is `inception_v3`, which has `weights`, or ``graphdef:`` and the path of a frozen graph.
    """

    model: str = INCEPTION_V3
    weights: str = IMAGENET
    precision: Precision = "auto"

    def make(self) -> Extractor:
        """Load the network; WeightsError."""
        # Imported only now, as TensorFlow takes seconds.
        if self.model.startswith(GRAPHDEF):
            from lookalike_build.frozen_graph import FrozenGraph

            return FrozenGraph(Path(self.model.removeprefix(GRAPHDEF)), self.precision)
        from lookalike_build.network import Network

        return Network(self.weights, precision=self.precision)

    def make_off_gpu(self) -> Extractor:
        """Load the network and leave this machine's GPUs, if any, to other processes."""
        from lookalike_build.network import quiet

        with quiet():
            import tensorflow as tf

            tf.config.set_visible_devices([], "GPU")
        return self.make()


def warm_up(extractor: Extractor) -> None:
    """Have the network set up for photos, which takes seconds, before the first one comes."""
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    extractor.features(extractor.stage([extractor.prepare(picture.getvalue())]))
