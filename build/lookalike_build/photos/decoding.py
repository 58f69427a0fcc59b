"""Decoding: a photo's pixels as a browser would show them, at the network's size.

All functions may be called from many threads; the only state is a cache of colour transforms.
Importing this module sets Pillow's limits and silences its warnings for the whole process.
"""

import errno
import io
import os
import re
import stat
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import (
    AvifImagePlugin,
    ExifTags,
    Image,
    ImageCms,
    ImageFile,
    PngImagePlugin,
    UnidentifiedImageError,
)

from lookalike.errors import LookalikeError
from lookalike_build.photos.avif import coded_pixels
from lookalike_build.photos.format import format_of, is_picture
from lookalike_build.photos.memory_budget import DECODING

# Width and height of the network's input.
SIDE = 299

# The name of what `decode_photo` does, recorded with the features. Features of different preprocessing
# must never meet in one index, so any change that alters pixels (size, filter, crop, background,
# colours) needs a new name.
PREPROCESSING = "stretch-299-bilinear-1"

# The same for `to_jpeg_or_png`.
JPEG_OR_PNG = "jpeg-or-png-1"

MAX_PHOTO_BYTES = 64 * 2**20
MAX_PIXELS = 100_000_000

# The limit of JPEG. A picture is shrunk in two passes, and after the first it still has its full
# length in one direction: for 1 x 100,000,000 pixels, a file of 100 KB, that would take 120 GB.
MAX_SIDE = 65_535

# Each scan goes over all of a JPEG's pixels: in a file of 64 MiB, they could take an hour. Programs
# write a dozen at most.
MAX_SCANS = 100

# The most memory that a pixel takes, in bytes, measured with 100 megapixels of each kind: decoded and,
# at 4 bytes, as RGB. WebP's decoder holds two more copies. An AVIF of 12 bits with alpha and film grain
# takes 26, a HEIC of 10 bits with alpha 21 (both measured with 5 megapixels).
_PIXEL_BYTES = {"JPEG": 5, "PNG": 8, "GIF": 5, "WEBP": 16, "AVIF": 26, "HEIF": 22}
# A JPEG in more than one scan also keeps each channel's coefficients.
_COEFFICIENT_BYTES = 2
# A picture at its own size also takes: its colours converted, it turned, and its PNG file.
_WHOLE_BYTES = 8 + 4
# Pixels to make opaque at a time.
_STRIP_PIXELS = 2**18

# The C library returns freed blocks above 32 MiB to the system, but keeps Pillow's default of 16 MiB.
Image.core.set_block_size(64 * 2**20)  # type: ignore[attr-defined]

# Pillow warns above its limit and raises above twice that, for GIF and WebP before it allocates.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2

# Above its default, Pillow rejects a PNG for a long text or colour profile, such as the prompt of a
# picture generator. All texts of a file together stay within Pillow's limit of 64 MiB.
PngImagePlugin.MAX_TEXT_CHUNK = 16 * 2**20

# Pillow warns of harmless faults (odd EXIF, a cut second frame); others raise PhotoError. Set for the
# whole process, as `warnings.catch_warnings` is not thread-safe.
warnings.filterwarnings("ignore", module=r"PIL\.")

# Load the formats now: without a free descriptor that would fail, and photos would be rejected.
Image.init()
_FORMATS = {"JPEG": "JPEG", "PNG": "PNG", "WebP": "WEBP", "GIF": "GIF"}
"""The formats that are read, and what Pillow calls them."""
_LIBRARIES = {"AVIF": "pip install --upgrade pillow", "HEIC": "pip install pillow-heif"}
"""What makes Pillow read the others."""
if AvifImagePlugin.SUPPORTED:
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # photos are decoded in parallel already
    _FORMATS["AVIF"] = "AVIF"
with suppress(ImportError):
    import pillow_heif

    # No thumbnail in a photo's place.
    pillow_heif.register_heif_opener(thumbnails=False, decode_threads=1)
    _FORMATS["HEIC"] = "HEIF"
_OTHER = "not a JPEG, PNG, WebP, GIF or AVIF"
_JPEG = b"\xff\xd8\xff"
_PNG = b"\x89PNG\r\n\x1a\n"

# Not to be found in a scan's coded pixels: there, 0xFF is followed by 0 or a restart's number.
_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")

_TOO_MANY_PIXELS = f"more than {MAX_PIXELS} pixels"

_MODE_OF_SPACE = {"GRAY": "L", "RGB ": "RGB", "CMYK": "CMYK"}

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


# Opening a file fails with these if its name or the file itself is at fault. Any other errno blames the
# machine: no descriptors, a failing disk, a network share that is not connected.
_PHOTO_FAULTS = {
    errno.EACCES,
    errno.EILSEQ,
    errno.EINVAL,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.ENXIO,
    errno.EPERM,
}

# These blame the machine even if the photo comes from a server or is in memory.
_HOST_FAULTS = {
    errno.EDQUOT,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOBUFS,
    errno.ENOMEM,
    errno.ENOSPC,
}

_OUT_OF_MEMORY = "out of memory error|Failed to decode frame 0: Out of memory"
_MORE_FILES = "; allow more open files (ulimit -n, LimitNOFILE=) or fewer --connections"
_MORE_MEMORY = "; give it more memory or fewer CPUs"
_NO_MEMORY = f"out of memory{_MORE_MEMORY}"
_NO_THREADS = "too many threads; allow more tasks (ulimit -u, TasksMax=) or fewer --connections"
_WAYS_OUT = {
    errno.EIO: "; check the disk (dmesg)",
    errno.EMFILE: _MORE_FILES,
    errno.ENFILE: _MORE_FILES,
    errno.ENOMEM: _MORE_MEMORY,
}

Size = tuple[int, int]
Box = tuple[float, float, float, float]


class PhotoError(Exception):
    """A photo is rejected; `reason` is one short line that names no path."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class HostError(LookalikeError):
    """This machine fails to read or decode a photo, which may be valid.

    It is out of memory or descriptors, for example, or the disk fails. One line says what to do.
    """


def host_error(error: BaseException) -> HostError | None:
    """The HostError for `error` or for an error that led to it; None if neither blames this machine."""
    cause: BaseException | None = error
    while cause is not None:
        # Errors of Pillow's decoders and of starting threads are recognised by their text alone.
        if isinstance(cause, MemoryError) or re.match(_OUT_OF_MEMORY, str(cause)):
            return HostError(_NO_MEMORY)
        if isinstance(cause, OSError) and cause.errno in _HOST_FAULTS:
            return _host_error(cause)
        if isinstance(cause, RuntimeError) and str(cause) == "can't start new thread":
            return HostError(_NO_THREADS)
        cause = cause.__cause__ or cause.__context__
    return None


def _host_error(error: OSError) -> HostError:
    return HostError(f"{_strerror(error)}{_WAYS_OUT.get(error.errno or 0, '')}")


def _strerror(error: OSError) -> str:
    return (os.strerror(error.errno) if error.errno else type(error).__name__).lower()


def read_photo(path: Path) -> bytes:
    """Return the bytes of the photo file at `path`, at most `MAX_PHOTO_BYTES`.

    Raises PhotoError if the file is missing, unreadable, too large or not regular (a pipe or a device
    is never opened), HostError for any other failure.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise PhotoError("not a regular file")
        if status.st_size > MAX_PHOTO_BYTES:
            raise PhotoError(f"{status.st_size} bytes, more than {MAX_PHOTO_BYTES}")
        return path.read_bytes()
    except (FileNotFoundError, ValueError) as error:  # ValueError: a NUL in the name, for example
        raise PhotoError("no such file") from error
    except OSError as error:
        if error.errno in _PHOTO_FAULTS:
            raise PhotoError(_strerror(error)) from error
        raise HostError(f"{path}: {_host_error(error)}") from error
    except MemoryError as error:
        raise HostError(_NO_MEMORY) from error


def decode_photo(data: bytes) -> npt.NDArray[np.uint8]:
    """Return the photo in `data` as uint8 (299, 299, 3): sRGB, 0 to 255.

    It is JPEG, PNG, WebP, GIF, AVIF or, where pillow-heif is installed, HEIC; of an animation the first
    frame is taken. As in a browser, the picture is turned as EXIF (in AVIF and HEIC, the file's
    properties) says, its ICC profile is applied unless broken, and transparent pixels become white. As
    in the paper's graph, the whole picture is stretched to the square. The bilinear filter averages all
    pixels that a new one covers.

    Raises PhotoError if the photo has another format, exceeds `MAX_PIXELS` or `MAX_SIDE`, would take
    very long, is truncated or cannot be decoded; HostError if this machine is at fault; nothing else.
    """
    with _reasons(data):
        return _decode(data)


def to_jpeg_or_png(data: bytes) -> bytes:
    """Return the photo in `data` for a decoder that knows only these two formats.

    A JPEG is returned unchanged. Its EXIF turn and colour profile are left to the decoder; most ignore
    both. Any other photo becomes an RGB PNG of its own size, as a browser would show it.

    Raises what `decode_photo` does.
    """
    with _reasons(data):
        if data.startswith(_JPEG):
            _check(data)
            return data
        with _decoded(data, more_bytes=_WHOLE_BYTES) as (picture, _):
            whole = _to_srgb(_over_white(picture), picture.info.get("icc_profile"))
            whole = _turn(whole, picture.info.get("exif", b""))
            del picture
            png = io.BytesIO()
            whole.save(png, "PNG", compress_level=1)
            del whole
        return png.getvalue()


def check_photo(data: bytes) -> None:
    """Raise what `decode_photo` raises; for most photos it costs less."""
    with _reasons(data):
        _check(data)


def _check(data: bytes) -> None:
    with _decoded(data, (1, 1)):  # of a JPEG, as few pixels as possible
        pass


@contextmanager
def _reasons(data: bytes) -> Iterator[None]:
    """Turn whatever decoding `data` raises into a PhotoError or a HostError."""
    if not data:
        raise PhotoError("file is empty")
    try:
        yield
    except PhotoError:
        raise
    except UnidentifiedImageError as error:
        raise PhotoError(_unread(data)) from error
    except Image.DecompressionBombError as error:
        raise PhotoError(_TOO_MANY_PIXELS) from error
    except Exception as error:  # on garbage, Pillow raises nearly any class
        if host := host_error(error):
            raise host from error
        raise PhotoError(f"broken: {_shortened(error)}") from error


def _unread(data: bytes) -> str:
    """Why a file that no decoder knows is rejected."""
    found = format_of(data)
    if found in _FORMATS:
        return "broken: unreadable header"
    if found in _LIBRARIES:
        return f"{found}; {_LIBRARIES[found]}, or convert it to JPEG"
    if is_picture(data):
        return f"{found}; convert it to JPEG or PNG"
    return f"{found}, not a photo" if found else _OTHER


def _shortened(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 100 else f"{text[:99]}…"


def _decode(data: bytes) -> npt.NDArray[np.uint8]:
    # Only a JPEG is decoded smaller, at 1/2, 1/4 or 1/8: this costs a fraction and keeps two pixels for
    # each one needed. `box` leaves out what rounding up added at the right and the bottom.
    with _decoded(data, (2 * SIDE, 2 * SIDE)) as (picture, box):
        square = _over_white(picture).resize((SIDE, SIDE), Image.Resampling.BILINEAR, box)
        profile, exif = picture.info.get("icc_profile"), picture.info.get("exif", b"")
        del picture
    # Colours and turn come last, where they cost least: stretching and turning a square commute.
    return np.array(_turn(_to_srgb(square, profile), exif), dtype=np.uint8)


@contextmanager
def _decoded(
    data: bytes, least: Size | None = None, more_bytes: int = 0
) -> Iterator[tuple[ImageFile.ImageFile, Box | None]]:
    """Decode the picture in `data` and hold the memory for it within the block.

    A JPEG is decoded as small as possible, but no smaller than `least`; the box is the part of it that
    is the picture. The block takes `more_bytes` more for each pixel. PhotoError if decoding would take
    too much memory.
    """
    is_jpeg, webp_size = data.startswith(_JPEG), _webp_size(data)
    scans = _scans(data) if is_jpeg else []
    _check_effort(data, len(scans))
    with ExitStack() as memory:
        if webp_size:  # Pillow's WebP decoder allocates as it opens
            memory.enter_context(memory_to_decode(webp_size, _PIXEL_BYTES["WEBP"] + more_bytes))
        picture = Image.open(io.BytesIO(data), formats=list(_FORMATS.values()))
        if max(picture.size) > MAX_SIDE:
            raise PhotoError(f"more than {MAX_SIDE} pixels wide or high")
        size, n_channels = picture.size, len(picture.getbands())
        _, box = (picture.draft(None, least) if least else None) or (None, None)
        if is_jpeg:
            is_one_scan = scans == [n_channels] and "progressive" not in picture.info
            kept_bytes = 0 if is_one_scan else _COEFFICIENT_BYTES * n_channels
            shrunk = picture.width * picture.height / (size[0] * size[1])
            memory.enter_context(memory_to_decode(size, kept_bytes + _PIXEL_BYTES["JPEG"] * shrunk))
        elif not webp_size:
            n_bytes: float = _PIXEL_BYTES[str(picture.format)]
            if picture.format == "AVIF":
                n_bytes *= max(1, coded_pixels(data) / (size[0] * size[1]))
            n_bytes += more_bytes
            memory.enter_context(memory_to_decode(size, n_bytes))
        try:
            picture.load()
            picture.fp = None  # for a WebP, it holds another copy of all pixels
            yield picture, box
        finally:
            picture.close()
            del picture  # frees what its decoder holds


@contextmanager
def memory_to_decode(size: Size, pixel_bytes: float) -> Iterator[None]:
    """Wait for the memory that `check_memory` says or refuses, and hold it within the block."""
    with DECODING.take(check_memory(size, pixel_bytes)):
        yield


def check_memory(size: Size, pixel_bytes: float) -> int:
    """The bytes that decoding takes; PhotoError if the budget can never hold them."""
    width, height = size
    if width * height > MAX_PIXELS:
        raise PhotoError(_TOO_MANY_PIXELS)
    # Plus the picture between the two passes that shrink it.
    n_bytes = int(width * height * pixel_bytes) + SIDE * height * 4
    if n_bytes > DECODING.n_bytes:
        needed, available = n_bytes // 10**6, DECODING.n_bytes // 10**6
        raise PhotoError(
            f"{width} x {height} pixels take {needed} MB to decode, over the {available} MB there are; "
            "shrink it or add memory"
        )
    return n_bytes


def _webp_size(data: bytes) -> Size | None:
    """Width and height in the header of a WebP; None if it is no WebP or broken."""
    if not (data.startswith(b"RIFF") and data[8:12] == b"WEBP" and len(data) >= 30):
        return None
    match data[12:16]:
        case b"VP8X":
            width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
        case b"VP8L":
            bits = int.from_bytes(data[21:25], "little")
            width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8 ":
            width, height = (
                int.from_bytes(data[at : at + 2], "little") & 0x3FFF for at in (26, 28)
            )
        case _:
            return None
    return width, height


def _check_effort(data: bytes, n_scans: int) -> None:
    """Raise PhotoError if Pillow would repeat the same work many times."""
    if n_scans > MAX_SCANS:
        raise PhotoError(f"more than {MAX_SCANS} scans")
    # A PNG has one, which Pillow unpacks up to MAX_TEXT_CHUNK. Pixels may contain a few by chance.
    if data.startswith(_PNG) and data.count(b"iCCP") > 9:
        raise PhotoError("many colour profiles")


def _scans(data: bytes) -> list[int]:
    """The number of channels of each scan of a JPEG, up to its end marker."""
    scans: list[int] = []
    start = 2
    while (marker := _MARKER.search(data, start)) and marker[1] != b"\xd9":
        start = marker.end()
        if marker[1] == b"\xda":
            scans += data[start + 2 : start + 3]
        start += int.from_bytes(data[start : start + 2])
    return scans


def _over_white(picture: Image.Image) -> Image.Image:
    """Return L, RGB or CMYK of the same size with nothing transparent.

    Call it before resizing, so that colours hidden under transparency do not bleed into others.
    """
    if picture.mode.startswith("I"):  # 16-bit grey, which Pillow's own conversion would clip
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.has_transparency_data:
        return _opaque(picture)
    plain = {"1": "L", "P": "RGB"}.get(picture.mode)
    return picture.convert(plain) if plain else picture


def _opaque(picture: Image.Image) -> Image.Image:
    """The picture over white: L or RGB."""
    mode = "L" if picture.mode in ("1", "L", "LA") else "RGB"
    canvas = Image.new(mode, picture.size, "white")
    # In strips, because the layer takes four bytes a pixel.
    n_rows = max(1, _STRIP_PIXELS // picture.width)
    for top in range(0, picture.height, n_rows):
        strip = (0, top, picture.width, min(top + n_rows, picture.height))
        layer = picture.crop(strip).convert(f"{mode}A")
        canvas.paste(layer, strip, layer)
    return canvas


def _to_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    transform = _srgb_transform(profile) if profile else None
    if transform and picture.mode == "L" and transform.input_mode == "RGB":
        picture = picture.convert("RGB")
    if transform and transform.input_mode == picture.mode:
        return transform.apply(picture)
    return picture.convert("RGB")


# A shop's photos share a few profiles, and a transform takes longer to make than to apply. Many
# threads may apply one transform: Little CMS only reads it.
@lru_cache(maxsize=16)
def _srgb_transform(profile: bytes) -> ImageCms.ImageCmsTransform | None:
    """Return the transform to sRGB; None if the profile is broken or not one for photos."""
    try:
        source = ImageCms.getOpenProfile(io.BytesIO(profile))
        mode = _MODE_OF_SPACE.get(source.profile.xcolor_space)
        target = ImageCms.createProfile("sRGB")
        return ImageCms.buildTransform(source, target, mode, "RGB") if mode else None
    except (ImageCms.PyCMSError, UnicodeError):  # UnicodeError: the space's name is not ASCII
        return None


def _turn(picture: Image.Image, exif: bytes) -> Image.Image:
    tags = Image.Exif()  # not `getexif`, which reads XMP too; browsers do not
    try:
        tags.load(exif)
        turn = _TURNS.get(tags.get(ExifTags.Base.Orientation, 1))
    except Exception:  # broken EXIF counts as none
        turn = None
    return picture if turn is None else picture.transpose(turn)
