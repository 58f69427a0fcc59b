"""Which network extracts the features: its settings, from which it is made where it is needed."""

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
            from lookalike_build.networks.frozen_graph import FrozenGraph

            return FrozenGraph(Path(self.model.removeprefix(GRAPHDEF)), self.precision)
        from lookalike_build.networks.inception import Network

        return Network(self.weights, precision=self.precision)

    def make_off_gpu(self) -> Extractor:
        """Load the network and leave this machine's GPUs, if any, to other processes."""
        from lookalike_build.networks.runtime import quiet

        with quiet():
            import tensorflow as tf

            tf.config.set_visible_devices([], "GPU")
        return self.make()


def warm_up(extractor: Extractor) -> None:
    """Have the network set up for photos, which takes seconds, before the first one comes."""
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    extractor.features(extractor.stage([extractor.prepare(picture.getvalue())]))
