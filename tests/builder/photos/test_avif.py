"""How many pixels the pictures of an AVIF are coded with."""

import io
import struct
import time
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lookalike_build.photos.avif import coded_pixels


def avif(mode: str, *more_frames: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    picture = Image.new(mode, (70, 50), "red" if mode != "L" else 9)
    picture.save(file, "AVIF", save_all=bool(more_frames), append_images=more_frames, **options)
    return file.getvalue()


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_a_still_picture_has_the_size_that_it_states(mode: str) -> None:
    assert coded_pixels(avif(mode)) == 70 * 50
    assert coded_pixels(avif(mode).replace(struct.pack(">II", 70, 50), bytes(8))) == 70 * 50


def test_a_frame_of_a_sequence_may_be_as_large_as_its_numbers_of_bits_allow() -> None:
    assert coded_pixels(avif("RGB", Image.new("RGB", (70, 50)))) == 128 * 64


def test_anything_is_gone_through_in_time() -> None:
    data = avif("RGBA", Image.new("RGBA", (70, 50)))
    random = np.random.default_rng(3)
    for n_bytes in range(len(data)):
        coded_pixels(data[:n_bytes])
    for position in random.integers(len(data), size=500):
        broken = bytearray(data)
        broken[position] ^= int(random.integers(1, 256))
        with suppress(ValueError):
            assert coded_pixels(bytes(broken)) >= 0


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


def located(n_items: int, n_parts: int, start: int | None = None) -> bytes:
    """A file's head: items whose parts are all of the file, or all from `start` on."""
    item = struct.pack(">HHH", 1, 0, n_parts) + (struct.pack(">I", start) if start else b"")
    sizes = b"\x40\0" if start else b"\0\0"
    items = box(b"iloc", bytes(4) + sizes + struct.pack(">H", n_items) + item * n_items)
    return box(b"meta", bytes(4) + items)


@pytest.mark.parametrize(
    "data",
    [
        box(b"free", b"") * 200_000,
        located(65_535, 65_535) + bytes(10**6),
        located(65_535, 1) + bytes(10**6),
        located(1, 1, start=38) + b"\x12\0" * 200_000,
    ],
)
def test_a_file_of_endless_parts_is_refused_soon(data: bytes) -> None:
    started = time.process_time()
    with pytest.raises(ValueError, match="too many parts"):
        coded_pixels(data)
    assert time.process_time() - started < 2
