"""The settings that choose a network and make it where it is needed."""

import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from lookalike_build.networks.extractor import (
    GRAPHDEF,
    IMAGENET,
    INCEPTION_V3,
    Extractor,
    Precision,
)


@dataclass(frozen=True)
class ExtractorSettings:
    """Which extractor to make; small enough to send to other processes.

    `model` is `inception_v3`, with `weights`, or ``graphdef:`` and the path of a frozen graph.
    """

    model: str = INCEPTION_V3
    weights: str = IMAGENET
    precision: Precision = "auto"

    def make(self) -> Extractor:
        """Load the network; raises WeightsError."""
        # Imported only now, because TensorFlow takes seconds.
        if self.model.startswith(GRAPHDEF):
            from lookalike_build.networks.frozen_graph import FrozenGraph

            return FrozenGraph(Path(self.model.removeprefix(GRAPHDEF)), self.precision)
        from lookalike_build.networks.inception import Network

        return Network(self.weights, self.precision)

    def make_off_gpu(self) -> Extractor:
        """Load the network but leave this machine's GPUs to other processes."""
        from lookalike_build.networks.runtime import quiet

        with quiet():
            import tensorflow as tf

            tf.config.set_visible_devices([], "GPU")
        return self.make()


def warm_up(extractor: Extractor) -> None:
    """Set the network up, which takes seconds, before the first photo comes."""
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    extractor.features(extractor.stage([extractor.prepare(picture.getvalue())]))
