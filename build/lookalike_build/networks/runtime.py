"""TensorFlow: a quiet start, and its optimizer's options for this hardware."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lookalike_build.networks.extractor import Precision

_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}


def optimizer_options(precision: Precision) -> dict[str, bool]:
    """TensorFlow's optimizer options that give a precision on this hardware."""
    mixed = precision == "mixed"
    if has_gpu():
        return {"auto_mixed_precision": mixed or precision == "auto"}
    if precision == "auto":
        with suppress(OSError):
            mixed = not _BFLOAT16_FLAGS.isdisjoint(Path("/proc/cpuinfo").read_text().split())
    return {"auto_mixed_precision_onednn_bfloat16": mixed}


def has_gpu() -> bool:
    """Whether TensorFlow sees a GPU."""
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the lines that TensorFlow's C++ code prints at import off standard error."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # By default only CPUs with AVX-512 VNNI use oneDNN. With AVX2 it takes a fifth less CPU time.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
