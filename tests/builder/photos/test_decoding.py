"""The photo: read from a file, decoded as a browser would show it, or rejected with a reason."""

import base64
import errno
import io
import os
import pickle
import resource
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageCms

from lookalike_build.photos import decoding as photo
from lookalike_build.photos.decoding import (
    MAX_PHOTO_BYTES,
    MAX_SCANS,
    MAX_SIDE,
    SIDE,
    HostError,
    PhotoError,
    _webp_size,
    decode_photo,
    read_photo,
    to_jpeg_or_png,
)
from lookalike_build.photos.memory_budget import MemoryBudget

# For each test pytest sets its own filters in place of the one that `photo` set.
pytestmark = pytest.mark.filterwarnings(r"ignore:::PIL\.")

Pixels = npt.NDArray[np.uint8]
Colour = tuple[int, ...]

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
BLACK, WHITE, GREY, HALF_RED = (0, 0, 0), (255, 255, 255), (127, 127, 127), (255, 127, 127)

# One way to write each format: its name and Pillow's options.
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "baseline JPEG": ("JPEG", {"quality": 95, "subsampling": 0}),
    "progressive JPEG": ("JPEG", {"quality": 95, "subsampling": 0, "progressive": True}),
    "PNG": ("PNG", {}),
    "lossless WebP": ("WEBP", {"lossless": True}),
    "lossy WebP": ("WEBP", {"quality": 95}),
    "GIF": ("GIF", {}),
    "AVIF": ("AVIF", {"quality": 100, "subsampling": "4:4:4"}),
}
if find_spec("pillow_heif"):
    FORMATS["HEIC"] = ("HEIF", {"quality": -1, "chroma": 444, "matrix_coefficients": 0})

every_format = pytest.mark.parametrize("name", FORMATS)


def encoded(picture: Image.Image, format_name: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, format_name, **options)
    return file.getvalue()


def written(picture: Image.Image, name: str, **more: Any) -> bytes:
    format_name, options = FORMATS[name]
    return encoded(picture, format_name, **options, **more)


def plain(mode: str, colour: int | Colour, format_name: str = "PNG", **options: Any) -> bytes:
    return encoded(Image.new(mode, (16, 16), colour), format_name, **options)


def quarters() -> Pixels:
    """Red, green, blue and grey quarters: no two turns of it look alike."""
    pixels = np.full((48, 64, 3), 128, np.uint8)
    pixels[:24, :32], pixels[:24, 32:], pixels[24:, :32] = RED, GREEN, BLUE
    return pixels


def soft(width: int, height: int) -> Image.Image:
    """Coloured clouds, drawn from a fixed seed."""
    seeds = np.random.default_rng(7).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(seeds).resize((width, height), Image.Resampling.BICUBIC)


def difference(a: Pixels, b: npt.ArrayLike) -> int:
    return int(np.abs(a - np.asarray(b, int)).max())


def reason(given: bytes | Path) -> str:
    if isinstance(given, bytes):
        with pytest.raises(PhotoError):
            to_jpeg_or_png(given)
    with pytest.raises(PhotoError) as caught:
        decode_photo(given) if isinstance(given, bytes) else read_photo(given)
    assert str(caught.value) == caught.value.reason
    return caught.value.reason


def png(depth: int, kind: int, row: bytes, side: int = 1, **extra: bytes) -> bytes:
    """Write a PNG of one row, with extra chunks in front; `side` is what it claims."""
    header = struct.pack(">IIBBBBB", side, side, depth, kind, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n"
    chunks = {"IHDR": header, **extra, "IDAT": zlib.compress(b"\0" + row), "IEND": b""}
    for name, body in chunks.items():
        named = name.encode() + body
        data += struct.pack(">I", len(body)) + named + struct.pack(">I", zlib.crc32(named))
    return data


def with_segment(data: bytes, marker: int, payload: bytes) -> bytes:
    """Insert a segment behind a JPEG's start."""
    return data[:2] + struct.pack(">BBH", 0xFF, marker, 2 + len(payload)) + payload + data[2:]


def profile_of(space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    """Write an ICC 2.1 profile."""
    white = struct.pack(">III", 0xF6D6, 0x10000, 0xD32D)
    body, table = b"", struct.pack(">I", len(tags))
    for name, value in tags.items():
        table += struct.pack(">4sII", name, 132 + 12 * len(tags) + len(body), len(value))
        body += value + b"\0" * (-len(value) % 4)
    kind = b"prtr" if space == b"CMYK" else b"mntr"
    size = 128 + len(table) + len(body)
    head = struct.pack(">I4xI4s4s4s12x4s", size, 0x02100000, kind, space, connection, b"acsp")
    return head.ljust(68, b"\0") + white + b"\0" * 48 + table + body


def cyan_is_black_profile() -> bytes:
    """CMYK of which only cyan darkens: L* = 100 without, 0 with all of it."""
    ramp = bytes(range(256))
    lab = b"".join(bytes((0 if corner & 8 else 255, 128, 128)) for corner in range(16))
    identity = struct.pack(">9I", *(0x10000 * (i % 4 == 0) for i in range(9)))
    table = b"mft1\0\0\0\0\4\3\2\0" + identity + ramp * 4 + lab + ramp * 3
    return profile_of(b"CMYK", b"Lab ", {b"A2B0": table})


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SWAPPED = SRGB.replace(b"rXYZ", b"?XYZ").replace(b"gXYZ", b"rXYZ").replace(b"?XYZ", b"gXYZ")
LINEAR = SRGB.replace(b"para\0\0\0\0\0\3\0\0\0\2\x66\x66", b"para\0\0\0\0\0\0\0\0\0\1\0\0")
LINEAR_GREY = profile_of(b"GRAY", b"XYZ ", {b"kTRC": b"curv" + bytes(8)})
CYAN_IS_BLACK = cyan_is_black_profile()


# Pictures of one colour


def profiled(profile: bytes, mode: str = "RGB", colour: int | Colour = RED) -> bytes:
    return plain(mode, colour, "JPEG" if mode == "CMYK" else "PNG", icc_profile=profile)


def animated(format_name: str, **options: Any) -> bytes:
    blue = Image.new("RGB", (16, 16), BLUE)
    return plain("RGB", RED, format_name, save_all=True, append_images=[blue], **options)


# Pillow writes no YCCK: the values of one in a CMYK file are declared so (Adobe's transform 2).
YCCK_RED = bytearray(plain("CMYK", (76, 84, 254, 0), "JPEG", quality=95))
YCCK_RED[YCCK_RED.index(b"Adobe") + 11] = 2

# Red of 10 bits, and half red of 12, by avifenc.
AVIF_10 = base64.b64decode(
    "AAAAIGZ0eXBhdmlmAAAAAGF2aWZtaWYxbWlhZk1BMUEAAADybWV0YQAAAAAAAAAoaGRscgAAAAAAAAAAcGljdAAA"
    "AAAAAAAAAAAAAGxpYmF2aWYAAAAADnBpdG0AAAAAAAEAAAAeaWxvYwAAAABEAAABAAEAAAABAAABGgAAACMAAAAo"
    "aWluZgAAAAAAAQAAABppbmZlAgAAAAABAABhdjAxQ29sb3IAAAAAamlwcnAAAABLaXBjbwAAABRpc3BlAAAAAAAA"
    "ABAAAAAQAAAAEHBpeGkAAAAAAwoKCgAAAAxhdjFDgSBAAAAAABNjb2xybmNseAABAA0ABoAAAAAXaXBtYQAAAAAA"
    "AAABAAEEAQKDBAAAACttZGF0EgAKCDgM/9jAQ0GkMhUQAAAAFLm3ZaTU0UW8kElKjk5uiCM="
)
AVIF_12 = base64.b64decode(
    "AAAAHGZ0eXBhdmlmAAAAAGF2aWZtaWYxbWlhZgAAAY1tZXRhAAAAAAAAAChoZGxyAAAAAAAAAABwaWN0AAAAAAAA"
    "AAAAAAAAbGliYXZpZgAAAAAOcGl0bQAAAAAAAQAAACxpbG9jAAAAAEQAAAIAAQAAAAEAAAHDAAAAJgACAAAAAQAA"
    "AbEAAAASAAAAQmlpbmYAAAAAAAIAAAAaaW5mZQIAAAAAAQAAYXYwMUNvbG9yAAAAABppbmZlAgAAAAACAABhdjAx"
    "QWxwaGEAAAAAGmlyZWYAAAAAAAAADmF1eGwAAgABAAEAAADDaXBycAAAAJ1pcGNvAAAAFGlzcGUAAAAAAAAAEAAA"
    "ABAAAAAQcGl4aQAAAAADDAwMAAAADGF2MUOBQGAAAAAAE2NvbHJuY2x4AAEADQAGgAAAAA5waXhpAAAAAAEMAAAA"
    "DGF2MUOBQHwAAAAAOGF1eEMAAAAAdXJuOm1wZWc6bXBlZ0I6Y2ljcDpzeXN0ZW1zOmF1eGlsaWFyeTphbHBoYQAA"
    "AAAeaXBtYQAAAAAAAAACAAEEAQKDBAACBAEFhgcAAABAbWRhdBIACgVYDP/Y6jIHEAAAHhWjKhIACglYDP/Y0BDQ"
    "aIAyFxAAAAAUuba0IDdNFFrfQ09Kjk5arLIw"
)

PALETTE = bytes(BLUE + RED)
TWO_MB = b"name\0\0" + zlib.compress(bytes(2**21))

PLAIN: dict[str, tuple[bytes, Colour]] = {
    # Transparent, over white
    "RGBA clear": (plain("RGBA", (*RED, 0)), WHITE),
    "RGBA half": (plain("RGBA", (*RED, 128)), HALF_RED),
    "RGBA solid": (plain("RGBA", (*RED, 255)), RED),
    "LA clear": (plain("LA", (0, 0)), WHITE),
    "LA half": (plain("LA", (0, 128)), GREY),
    "LA solid": (plain("LA", (77, 255)), (77, 77, 77)),
    "WebP half": (plain("RGBA", (*RED, 128), "WEBP", lossless=True), HALF_RED),
    "AVIF half": (plain("RGBA", (*RED, 128), "AVIF", quality=100), HALF_RED),
    "AVIF half, 12 bits": (AVIF_12, HALF_RED),
    "GIF clear": (plain("L", 0, "GIF", transparency=0), WHITE),
    "palette clear": (png(8, 3, b"\1", PLTE=PALETTE, tRNS=b"\xff\0"), WHITE),
    "palette half": (png(8, 3, b"\1", PLTE=PALETTE, tRNS=b"\0\x80"), HALF_RED),
    "palette solid": (png(8, 3, b"\1", PLTE=PALETTE, tRNS=b"\0"), RED),
    "palette opaque": (png(1, 3, b"\x80", PLTE=PALETTE), RED),
    "transparent black": (png(1, 0, b"\0", tRNS=b"\0\0"), WHITE),
    "transparent grey": (png(8, 0, b"\x4d", tRNS=b"\0\x4d"), WHITE),
    "transparent colour": (png(8, 2, b"\1\2\3", tRNS=b"\0\1\0\2\0\3"), WHITE),
    "another transparent colour": (png(8, 2, bytes(RED), tRNS=b"\0\1\0\2\0\3"), RED),
    # Deep, black and white, and printed
    "16-bit grey": (png(16, 0, b"\x7f\xff"), GREY),
    "16-bit black": (png(16, 0, b"\0\xff"), BLACK),
    "16-bit RGB": (png(16, 2, b"\x10\xff\x20\xff\x30\xff"), (0x10, 0x20, 0x30)),
    "16-bit RGBA": (png(16, 6, b"\xff\xff\0\0\0\0\x80\0"), HALF_RED),
    "16-bit LA": (png(16, 4, b"\0\0\x80\0"), GREY),
    "10-bit AVIF": (AVIF_10, RED),
    "grey AVIF": (plain("L", 127, "AVIF"), GREY),
    "1-bit black": (plain("1", 0), BLACK),
    "1-bit white": (plain("1", 1), WHITE),
    "grey JPEG": (plain("L", 127, "JPEG"), GREY),
    "CMYK white": (plain("CMYK", (0, 0, 0, 0), "JPEG", quality=95), WHITE),
    "CMYK red": (plain("CMYK", (0, 255, 255, 0), "JPEG", quality=95), RED),
    "CMYK black": (plain("CMYK", (0, 0, 0, 255), "JPEG", quality=95), BLACK),
    "YCCK red": (bytes(YCCK_RED), RED),
    # Colour profiles
    "JPEG profile": (plain("RGB", RED, "JPEG", quality=95, icc_profile=SWAPPED), GREEN),
    "PNG profile": (plain("RGB", RED, icc_profile=SWAPPED), GREEN),
    "WebP profile": (plain("RGB", RED, "WEBP", lossless=True, icc_profile=SWAPPED), GREEN),
    "AVIF profile": (plain("RGB", RED, "AVIF", quality=100, icc_profile=SWAPPED), GREEN),
    "sRGB profile": (profiled(SRGB, "RGB", (20, 100, 200)), (20, 100, 200)),
    "profile of a palette": (profiled(SWAPPED, "P"), GREEN),
    "profile under transparency": (profiled(SWAPPED, "RGBA", (*RED, 0)), WHITE),
    "RGB profile of grey": (profiled(LINEAR, "L", 55), GREY),  # linear 55/255 as sRGB
    "grey profile": (profiled(LINEAR_GREY, "L", 55), GREY),
    "grey profile of LA": (profiled(LINEAR_GREY, "LA", (55, 255)), GREY),
    "CMYK profile, cyan": (profiled(CYAN_IS_BLACK, "CMYK", (255, 0, 0, 0)), BLACK),
    "CMYK profile, black": (profiled(CYAN_IS_BLACK, "CMYK", (0, 0, 0, 255)), WHITE),
    "garbage as profile": (profiled(b"garbage" * 50), RED),
    "truncated profile": (profiled(SWAPPED[:140]), RED),
    "profile without tags": (profiled(profile_of(b"RGB ", b"XYZ ", {})), RED),
    "profile of no space": (profiled(SWAPPED.replace(b"RGB ", b"\xff" * 4)), RED),
    "profile of another space": (profiled(SWAPPED.replace(b"RGB ", b"CMYK")), RED),
    "grey profile of RGB": (profiled(LINEAR_GREY), RED),
    # First frames, and metadata
    "animated GIF": (animated("GIF"), RED),
    "animated WebP": (animated("WEBP", lossless=True), RED),
    "animated AVIF": (animated("AVIF", quality=100), RED),
    "animated PNG": (animated("PNG"), RED),
    "MPO": (animated("MPO", quality=95), RED),
    "much text": (png(8, 2, bytes(RED), zTXt=TWO_MB), RED),
    "much profile": (png(8, 2, bytes(RED), iCCP=TWO_MB), RED),
    "broken animation": (png(8, 2, bytes(RED), acTL=bytes(8)), RED),
    "broken MPO": (with_segment(plain("L", 127, "JPEG"), 0xE2, b"MPF\0garbage"), GREY),
}


@pytest.mark.parametrize("name", PLAIN)
def test_picture_of_one_colour_is_decoded_to_it(name: str) -> None:
    data, colour = PLAIN[name]
    pixels = decode_photo(data)
    assert pixels.shape == (SIDE, SIDE, 3)
    assert difference(pixels, np.broadcast_to(np.asarray(colour), pixels.shape)) <= 4


# Pictures with something in them


@every_format
def test_decodes_each_format_to_299_rgb(name: str) -> None:
    pixels = decode_photo(written(Image.fromarray(quarters()), name))
    assert pixels.shape == (SIDE, SIDE, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.writeable
    corners = {(40, 40): RED, (40, 260): GREEN, (260, 40): BLUE, (260, 260): GREY}
    for (row, column), colour in corners.items():
        assert difference(pixels[row, column], colour) <= 4


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (900, 2), (299, 299), (300, 298), (400, 533)])
def test_the_whole_picture_is_stretched_as_pillow_does(size: tuple[int, int]) -> None:
    picture = soft(*size)
    expected = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    assert difference(decode_photo(encoded(picture)), expected) == 0


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA"])
def test_shrinking_averages_all_pixels(mode: str) -> None:
    chess = (np.indices((4 * SIDE, 4 * SIDE)).sum(axis=0) % 2 * 255).astype(np.uint8)
    pixels = decode_photo(encoded(Image.fromarray(chess).convert(mode)))
    assert difference(pixels, np.full((SIDE, SIDE, 3), GREY)) <= 2


@pytest.mark.parametrize("size", [(1201, 1399), (2600, 1800)])
def test_scaled_jpeg_decoding_looks_like_the_full_one(size: tuple[int, int]) -> None:
    picture = soft(*size)
    picture.paste("black", (size[0] // 16 * 16 - 32, 0, *size))  # an edge that must not move
    data = encoded(picture, "JPEG", quality=90, exif=exif_of(3))
    with Image.open(io.BytesIO(data)) as opened:
        full = np.asarray(opened.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    assert difference(decode_photo(data), full[::-1, ::-1]) <= 10


def test_hidden_colours_do_not_bleed() -> None:
    pixels = np.zeros((200, 700, 4), np.uint8)
    pixels[:, ::2], pixels[:, 1::2] = (*BLUE, 255), (*RED, 0)
    square = decode_photo(encoded(Image.fromarray(pixels)))
    assert difference(square[..., 0], square[..., 1]) == 0


@pytest.mark.slow
def test_threads_get_what_one_thread_gets() -> None:
    photos = [written(soft(200 + 10 * i, 300), name) for i, name in enumerate(FORMATS)]
    photos += [encoded(soft(300, 200), icc_profile=SWAPPED) for _ in range(4)]
    alone = [decode_photo(data) for data in photos]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(decode_photo, photos * 2))
    for a, b in zip(alone * 2, together, strict=True):
        assert np.array_equal(a, b)


# Turned by EXIF

STORED: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a),
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: np.rot90(a, -1),
}


def exif_of(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize(
    "name",
    [name for name in FORMATS if name in ("baseline JPEG", "PNG", "lossless WebP", "AVIF", "HEIC")],
)
def test_all_orientations_give_the_same_picture(name: str, orientation: int) -> None:
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](quarters())))
    upright = decode_photo(written(Image.fromarray(quarters()), name))
    assert difference(decode_photo(written(stored, name, exif=exif_of(orientation))), upright) <= 3


@pytest.mark.parametrize(
    "exif",
    [
        exif_of(0),
        exif_of(9),
        exif_of(6)[:-8],
        b"Exif\0\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0" + b"garbage" * 9,
        b'http://ns.adobe.com/xap/1.0/\0tiff:Orientation="6"',  # XMP, which browsers pass over
    ],
)
def test_broken_exif_is_ignored(exif: bytes) -> None:
    data = encoded(Image.fromarray(quarters()), "JPEG")
    assert np.array_equal(decode_photo(with_segment(data, 0xE1, exif)), decode_photo(data))


def test_broken_exif_is_not_warned_of() -> None:
    """In another process, as pytest has filters of its own."""
    data = with_segment(plain("RGB", RED, "JPEG"), 0xE1, exif_of(6)[:-8])
    program = (
        "import sys, lookalike_build.photos.decoding as p; p.decode_photo(sys.stdin.buffer.read())"
    )
    command = [sys.executable, "-W", "always", "-c", program]
    assert b"PIL" not in subprocess.run(command, input=data, capture_output=True, check=True).stderr


# Left at their own size


@pytest.mark.parametrize("name", PLAIN)
def test_photo_for_another_decoder_is_its_jpeg_or_a_png_as_shown(name: str) -> None:
    data, colour = PLAIN[name]
    given = to_jpeg_or_png(data)
    if data.startswith(b"\xff\xd8\xff"):
        assert given == data
        return
    with Image.open(io.BytesIO(given)) as picture, Image.open(io.BytesIO(data)) as original:
        assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", original.size)
        assert (
            difference(np.asarray(picture), np.broadcast_to(colour, (*picture.size[::-1], 3))) <= 4
        )


def test_photo_for_another_decoder_is_turned_unless_it_is_a_jpeg() -> None:
    photos = {name: encoded(soft(40, 30), name, exif=exif_of(6)) for name in ("PNG", "JPEG")}
    with Image.open(io.BytesIO(to_jpeg_or_png(photos["PNG"]))) as picture:
        assert difference(np.asarray(picture), np.rot90(np.asarray(soft(40, 30)), -1)) == 0
    assert to_jpeg_or_png(photos["JPEG"]) == photos["JPEG"]


# What is rejected

GOOD_PNG = plain("RGB", RED)

SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
XML = b'\xef\xbb\xbf<?xml version="1.0" encoding="UTF-8"?>\n'
OTHERS = [
    (b"RIFF\x24\0\0\0WAVEfmt ", "not a JPEG, PNG, WebP, GIF or AVIF"),
    (bytes(99), "not a JPEG, PNG, WebP, GIF or AVIF"),
    (plain("L", 0, "BMP"), "BMP; convert it to JPEG or PNG"),
    (plain("L", 0, "TIFF"), "TIFF; convert it to JPEG or PNG"),
    (plain("L", 0, "ICO"), "ICO; convert it to JPEG or PNG"),
    (plain("L", 0, "JPEG2000"), "JPEG 2000; convert it to JPEG or PNG"),
    (b"\xff\x0a\xfa\x1f\1\x90\x12", "JPEG XL; convert it to JPEG or PNG"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL; convert it to JPEG or PNG"),
    (SVG, "SVG; convert it to JPEG or PNG"),
    (XML + b"<!-- drawn -->\n" + SVG, "SVG; convert it to JPEG or PNG"),
    (b"\n <!DOCTYPE html><title>s3cret</title>", "an HTML page, not a photo"),
    (XML + b"<html><svg/></html>", "an HTML page, not a photo"),
    (b"<h1>s3cret</h1>", "an HTML page, not a photo"),
    (XML + b"<Error><Code>s3cret</Code></Error>", "XML, not a photo"),
    (b'{"error": "s3cret"}', "JSON, not a photo"),
    (b' [\n{"error": "s3cret"}]', "JSON, not a photo"),
    (b"Hotlinking denied: s3cret", "text, not a photo"),
    ("Zugriff verweigert für s3cret".encode("latin-1"), "text, not a photo"),
    (b"x", "text, not a photo"),
    (b"%PDF-1.7\n", "a PDF, not a photo"),
    (b"\0\0\0\x18ftypmp42\0\0\0\0isommp42", "a video, not a photo"),
    (b"PK\3\4\x14\0", "a ZIP archive, not a photo"),
]


@pytest.mark.parametrize(("data", "expected"), OTHERS)
def test_other_formats_are_rejected_by_name(data: bytes, expected: str) -> None:
    assert reason(data) == expected


@pytest.mark.parametrize(
    ("brands", "name", "expected"),
    [
        (b"avif", "AVIF", "AVIF; pip install --upgrade pillow, or convert it to JPEG"),
        (b"mif1\0\0\0\0mif1avif", "AVIF", "AVIF; pip install --upgrade pillow, or convert"),
        (b"heic\0\0\0\0mif1heic", "HEIC", "HEIC; pip install pillow-heif, or convert it to JPEG"),
        (b"mif1\0\0\0\0mif1miafheix", "HEIC", "HEIC; pip install pillow-heif, or convert it"),
        (b"msf1\0\0\0\0hevc", "HEIC", "HEIC; pip install pillow-heif, or convert it to JPEG"),
    ],
)
def test_formats_whose_library_is_missing_are_rejected_with_its_name(
    brands: bytes, name: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(photo._FORMATS, name, raising=False)
    assert reason(struct.pack(">I", 8 + len(brands)) + b"ftyp" + brands).startswith(expected)


def test_reason_says_what_is_broken() -> None:
    assert reason(b"") == "file is empty"
    assert reason(plain("RGB", RED, "GIF")[:12]) == "broken: unreadable header"
    assert reason(plain("RGB", RED, "JPEG")[:-9]).startswith("broken: image file is truncated")


@every_format
def test_file_without_all_of_its_pixels_is_rejected(name: str) -> None:
    data = written(soft(24, 18), name)
    # Behind the last pixel: a PNG's checksums and IEND, the marks that end a GIF.
    n_bytes_behind = {"PNG": 22, "GIF": 2}.get(name, 0)
    for n_bytes in range(len(data) - n_bytes_behind):
        reason(data[:n_bytes])


@every_format
def test_any_corrupted_byte_gives_a_picture_or_a_reason(name: str) -> None:
    data = written(soft(24, 18), name)
    random = np.random.default_rng(20)
    for position in random.integers(len(data), size=200):
        broken = bytearray(data)
        broken[position] ^= int(random.integers(1, 256))
        try:
            outcome: Pixels | str = decode_photo(bytes(broken))
        except PhotoError as error:
            outcome = error.reason
        assert len(outcome) == SIDE if isinstance(outcome, np.ndarray) else outcome.isprintable()


@pytest.mark.parametrize("error", [OSError("many\nwords " * 99), RecursionError()])
def test_any_error_is_a_short_reason(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photo, "_decode", Mock(side_effect=error))
    assert reason(b"x").startswith(("broken: many words", "broken: RecursionError"))
    assert len(reason(b"x")) < 120


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "out of memory; give it more memory"),
        (OSError("out of memory error when reading image file"), "out of memory; give it more"),
        (OSError(errno.EMFILE, ""), "too many open files; allow more open files"),
        (OSError(errno.EIO, ""), "input/output error; check the disk"),
        (RuntimeError("can't start new thread"), "too many threads; allow more tasks"),
    ],
)
@pytest.mark.parametrize("decode", [decode_photo, to_jpeg_or_png])
def test_what_this_machine_lacks_is_no_fault_of_the_photo(
    decode: Callable[[bytes], object],
    error: Exception,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Image, "open", Mock(side_effect=error))
    with pytest.raises(HostError, match=said):
        decode(GOOD_PNG)


def test_a_photo_is_decoded_without_a_free_descriptor() -> None:
    """The first of a process, for which Pillow would load the format's module."""
    program = """
import sys, lookalike_build.photos.decoding as photo, resource
data = sys.stdin.buffer.read()
resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
photo.decode_photo(data)
"""
    webp = plain("RGB", RED, "WEBP")
    subprocess.run([sys.executable, "-c", program], input=webp, check=True)


GIF = b"GIF89a%s\0\0\0!\xf9\4\x08\0\0\0\0,\0\0\0\0%s\0\2\2L\1\0;"  # to be cleared after display

# Small files that claim 50,000 pixels a side, or as many as the format can.
BOMBS = {
    "PNG": png(8, 0, b"", side=50_000),
    "JPEG": plain("L", 0, "JPEG").replace(b"\x08\0\x10\0\x10", b"\x08\xc3\x50\xc3\x50"),
    "GIF screen": GIF % (b"\x50\xc3" * 2, b"\1\0\1\0"),
    "GIF frame": GIF % (b"\1\0\1\0", b"\x50\xc3" * 2),
    "WebP": b"RIFF\x16\0\0\0WEBPVP8L\x0a\0\0\0/\xfe\xbf\xff\x0f" + b"\0" * 6,
}


def animated_webp(width: int, height: int) -> bytes:
    """An animation on a canvas of that size, of which its frame is one pixel."""
    frame = encoded(Image.new("RGB", (1, 1)), "WEBP", lossless=True)[12:]
    canvas = b"\2\0\0\0" + b"".join((side - 1).to_bytes(3, "little") for side in (width, height))
    file = b"WEBP"
    for name, body in (b"VP8X", canvas), (b"ANIM", bytes(6)), (b"ANMF", bytes(16) + frame):
        file += name + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", len(file)) + file


def stating(data: bytes, width: int, height: int) -> bytes:
    """An AVIF whose pictures state another size than they have."""
    parts = data.split(b"ispe\0\0\0\0")
    size = struct.pack(">II", width, height)
    return b"".join([parts[0], *(b"ispe\0\0\0\0" + size + part[8:] for part in parts[1:])])


BOMBS["AVIF"] = stating(plain("L", 0, "AVIF"), 16_384, 16_384)
BOMBS["WebP canvas"] = animated_webp(16_384, 16_384)
BOMBS["long WebP canvas"] = animated_webp(2**24, 255)


@pytest.mark.parametrize("name", BOMBS)
def test_bomb_is_rejected_by_its_header(name: str) -> None:
    assert reason(BOMBS[name]) == "more than 100000000 pixels"


@every_format
def test_as_many_pixels_as_allowed_are_decoded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = written(soft(30, 20), name)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)  # Pillow rejects above twice as many
    decode_photo(data)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 299)
    assert "more than" in reason(data)


@pytest.mark.parametrize("turned", [False, True])
def test_very_long_picture_is_rejected(turned: bool) -> None:
    for length, is_fit in (MAX_SIDE, True), (MAX_SIDE + 1, False):
        picture = Image.new("1", (1, length) if turned else (length, 1))
        if is_fit:
            decode_photo(encoded(picture))
        else:
            assert reason(encoded(picture)) == "more than 65535 pixels wide or high"
    assert reason(animated_webp(2**24, 5)) == "more than 65535 pixels wide or high"


def blank_webp(width: int, height: int) -> bytes:
    """A lossless WebP of one colour: 44 bytes."""
    return encoded(Image.new("RGBA", (width, height), (1, 2, 3, 4)), "WEBP", lossless=True)


@every_format
def test_size_is_known_before_webp_is_opened(name: str) -> None:
    data = written(soft(300, 20), name)
    assert _webp_size(data) == ((300, 20) if "WebP" in name else None)
    assert _webp_size(animated_webp(300, 20)) == (300, 20)
    assert _webp_size(data[:29]) is None


@pytest.mark.parametrize("decode", [decode_photo, to_jpeg_or_png])
def test_picture_that_never_fits_into_memory_is_rejected_with_what_it_takes(
    decode: Callable[[bytes], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photo, "DECODING", MemoryBudget(10**6))
    decode(blank_webp(100, 100))
    for large in (
        blank_webp(300, 300),
        png(8, 6, b"", side=1024),
        encoded(soft(300, 300), "AVIF"),
        stating(encoded(soft(300, 300), "AVIF"), 16, 16),
    ):
        with pytest.raises(
            PhotoError, match=r"^\d+ x \d+ pixels take \d+ MB to decode, over the 1 MB"
        ):
            decode(large)


@pytest.mark.parametrize("name", FORMATS)
def test_no_more_is_decoded_at_a_time_than_memory_allows(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of the largest fit side by side, and nothing is left taken, not by a broken one either."""
    data = written(soft(400, 300), name)
    taken: list[int] = []
    at_a_time: list[int] = []

    class Counted(MemoryBudget):
        @contextmanager
        def take(self, n_bytes: int) -> Iterator[None]:
            with super().take(n_bytes):
                taken.append(n_bytes)
                at_a_time.append(sum(taken))
                yield
                taken.remove(n_bytes)

    budget = Counted(2 * max(photo._PIXEL_BYTES.values()) * 400 * 300)
    monkeypatch.setattr(photo, "DECODING", budget)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(decode_photo, [data] * 40))
    assert len(at_a_time) == 40
    assert max(at_a_time) <= budget.n_bytes
    reason(data[: len(data) // 2])
    with budget.take(budget.n_bytes):
        pass


# Of each kind that takes most: 8 to 16 bytes a pixel.
COSTLY: dict[str, tuple[str, str, dict[str, Any]]] = {
    "RGBA WebP": ("RGBA", "WEBP", {"lossless": True}),
    "RGBA PNG": ("RGBA", "PNG", {}),
    "transparent colour": ("RGB", "PNG", {"transparency": (0, 0, 0)}),
    "16-bit grey": ("I;16", "PNG", {}),
    "RGBA AVIF": ("RGBA", "AVIF", {"subsampling": "4:4:4", "speed": 10}),
    "GIF": ("L", "GIF", {"transparency": 0}),
    "progressive JPEG": ("CMYK", "JPEG", {"progressive": True}),
}


@pytest.mark.parametrize("name", COSTLY)
@pytest.mark.parametrize("decode", ["decode_photo", "to_jpeg_or_png"])
def test_decoding_takes_no_more_memory_than_it_asks_for(name: str, decode: str) -> None:
    program = f"""
import pickle, sys, lookalike_build.photos.decoding as photo
from pathlib import Path

def most():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024

asked = []
check = photo.check_memory
photo.check_memory = lambda *args: asked.append(check(*args)) or asked[-1]
small, data = pickle.load(sys.stdin.buffer)
photo.{decode}(small)  # has loaded what any picture needs
asked.clear()
Path("/proc/self/clear_refs").write_text("5")
before = most()
photo.{decode}(data)
print(most() - before, *asked)
"""
    mode, format_name, options = COSTLY[name]
    small, data = (
        encoded(Image.new(mode, size), format_name, **options) for size in ((9, 9), (2500, 2000))
    )
    given = pickle.dumps((small, data))
    run = subprocess.run([sys.executable, "-c", program], input=given, stdout=-1, check=True)
    took, asked = map(int, run.stdout.split())
    assert took < asked + 8 * 2**20  # what Python and zlib take in passing
    assert asked < 3 * took + 8 * 2**20


def zeros(n_megabytes: int) -> bytes:
    """That many MiB of zeros, in zlib's form but for their checksum."""
    packer = zlib.compressobj()
    head = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return head + block * (n_megabytes - 1)


def test_only_what_a_picture_needs_is_unpacked() -> None:
    bomb = png(8, 0, b"\0").replace(zlib.compress(b"\0\0"), zeros(512))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    decode_photo(bomb.replace(b"\0\0\0\x0aIDAT", struct.pack(">I4s", len(zeros(512)), b"IDAT")))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


@pytest.mark.parametrize(
    ("chunk", "head"),
    [("zTXt", b"name\0\0"), ("iTXt", b"name\0\1\0\0\0"), ("iCCP", b"name\0\0")],
)
def test_bomb_beside_the_picture_is_rejected(chunk: str, head: bytes) -> None:
    assert reason(png(8, 0, b"\0", 1, **{chunk: head + zeros(512)})).startswith(
        "broken: Decompressed data too large"
    )


def test_profiles_without_number_are_rejected() -> None:
    data = profiled(SWAPPED)
    end = data.index(b"IDAT") - 4
    start = data.index(b"iCCP") - 4
    assert difference(decode_photo(data[:start] + data[start:end] * 9 + data[end:]), GREEN) <= 4
    assert reason(data[:start] + data[start:end] * 200 + data[end:]) == "many colour profiles"


def with_scans(data: bytes, n_more: int) -> bytes:
    """Repeat a JPEG's last scan."""
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * n_more + data[-2:]


def test_scans_without_number_are_rejected() -> None:
    data = encoded(soft(40, 30), "JPEG", progressive=True)
    n_scans = data.count(b"\xff\xda")
    decode_photo(with_scans(data, MAX_SCANS - n_scans))
    assert reason(with_scans(data, MAX_SCANS + 1 - n_scans)) == "more than 100 scans"


def test_only_a_pictures_own_scans_count() -> None:
    """A thumbnail may be in front of it, a video behind."""
    data = encoded(soft(40, 30), "JPEG", progressive=True)
    many = with_scans(data, 200)
    assert np.array_equal(decode_photo(with_segment(data, 0xE1, many[:60_000])), decode_photo(data))
    assert np.array_equal(decode_photo(data + many), decode_photo(data))


# Reading


def test_file_is_read_whole_also_by_a_link(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"anything" * 1000)
    (tmp_path / "link.png").symlink_to("photo.png")
    assert read_photo(tmp_path / "photo.png") == b"anything" * 1000
    assert read_photo(tmp_path / "link.png") == b"anything" * 1000


def test_what_is_no_file_is_rejected_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path(os.devnull)):
        assert reason(path) == "not a regular file"
    for path in (tmp_path / "photo.png", Path("a\0b")):
        assert reason(path) == "no such file"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "photo.png").touch(mode=0)
    assert reason(tmp_path / "photo.png") == "permission denied"


def test_a_file_that_this_machine_fails_to_read_is_not_rejected(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(GOOD_PNG)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(HostError, match=r"photo\.png: too many open files; allow more open"):
            read_photo(tmp_path / "photo.png")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with pytest.raises(HostError, match=r"^/proc/self/mem: input/output error; check the disk"):
        read_photo(Path("/proc/self/mem"))  # at its first byte nothing is mapped


@pytest.mark.parametrize("name", ["a" * 300, "loop", "file/photo.png", "a\0b"])
def test_a_name_of_no_file_is_the_photos_own_fault(name: str, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    assert reason(tmp_path / name)


def test_oversized_file_is_rejected_unread(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    with path.open("wb") as file:
        file.truncate(MAX_PHOTO_BYTES)  # a hole: it takes no space
        assert len(read_photo(path)) == MAX_PHOTO_BYTES
        file.truncate(MAX_PHOTO_BYTES + 1)
    assert reason(path) == "67108865 bytes, more than 67108864"
