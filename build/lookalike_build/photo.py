"""The photo: a product's picture file, as a browser would show it, at the network's size.

All functions keep no state but a cache of colour transforms and may be called from many threads.
Importing this module sets Pillow's limits, and silences its warnings, for the whole process.
"""

import errno
import io
import os
import re
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageCms, PngImagePlugin, UnidentifiedImageError

# Width and height of the network's input.
SIDE = 299

# Names what `decode_photo` does, and is recorded with the features made of its pixels. Features
# of different recipes must never meet in one index, so any change that moves pixels (size, filter,
# crop, background, colours) takes a new name.
PREPROCESSING = "stretch-299-bilinear-1"

# The same for what `to_jpeg_or_png` does.
JPEG_OR_PNG = "jpeg-or-png-1"

MAX_PHOTO_BYTES = 64 * 2**20
MAX_PIXELS = 100_000_000

# As a JPEG can have. Between the two passes that shrink a picture it is as long as it was in one
# direction: of a file of 100 KB, 1 x 100,000,000 pixels, that would be 120 GB.
MAX_SIDE = 65_535

# Each goes over all of a JPEG's pixels, in a file of 64 MiB for an hour together. Programs write a
# dozen at most.
MAX_SCANS = 100

# Pillow warns above its limit and raises above twice as much, in GIF and WebP before it allocates.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2

# By default a longer text or colour profile, unpacked, rejects the PNG: a picture generator's
# prompt, say. What all texts of a file take together stays at Pillow's limit, 64 MiB.
PngImagePlugin.MAX_TEXT_CHUNK = 16 * 2**20

# Pillow warns of faults that do not matter here (odd EXIF, a cut second frame); what does is in
# PhotoError. Once for the process, as `warnings.catch_warnings` is not safe with threads.
warnings.filterwarnings("ignore", module=r"PIL\.")

# Loaded now: without a free descriptor they could not be, and a photo would seem to be no photo.
Image.init()
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
_JPEG = b"\xff\xd8\xff"
_MAGICS = (_JPEG, b"\x89PNG\r\n\x1a\n", b"GIF8")

# Behind a scan's coded pixels, in which 0xFF is followed by 0 or a restart's number.
_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")

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


# What is wrong with the name, or with this one file, where opening it fails. Any other errno is the
# machine's: no descriptors, a failing disk, a share that is not connected.
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

# What is the machine's also where a photo comes from a server or is in memory.
_HOST_FAULTS = {
    errno.EDQUOT,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOBUFS,
    errno.ENOMEM,
    errno.ENOSPC,
}

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


class PhotoError(Exception):
    """A photo is rejected; `reason` says why in one short line and names no path."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class HostError(Exception):
    """This machine fails to read or decode a photo, which may be sound.

    Out of memory or descriptors, for example, or the disk fails. One line says what to do about it.
    """


def host_error(error: BaseException) -> HostError | None:
    """What `error`, or an error that led to it, says of this machine; None where it says nothing."""
    cause: BaseException | None = error
    while cause is not None:
        # Pillow's decoders and threads that cannot be started are known by their text alone.
        if isinstance(cause, MemoryError) or str(cause).startswith("out of memory error"):
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

    Raises PhotoError where there is no such file, it may not be read, is too large, or is no
    regular file: a pipe or a device is never opened. HostError for any other failure.
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

    JPEG, PNG, WebP or GIF; the first frame of an animation. As in a browser, the picture is turned
    as EXIF says, its ICC profile is honoured unless it is broken, and what is transparent is white.
    The whole picture is stretched to the square, as the paper's graph does, by a bilinear filter
    that spans all the pixels it stands for.

    Raises PhotoError where it is another format, has more than `MAX_PIXELS` or `MAX_SIDE`, would
    take very long, is truncated or cannot be decoded; HostError where this machine is at fault; and
    nothing else.
    """
    with _reasons(data):
        return _decode(data)


def to_jpeg_or_png(data: bytes) -> bytes:
    """Return the photo in `data` for a decoder that knows no more than these two formats.

    A JPEG is given back as it is: its EXIF turn and its colour profile are left to the decoder,
    most of which ignore both. Any other photo becomes an RGB PNG of its own size, as a browser would
    show it.

    Raises what `decode_photo` does.
    """
    with _reasons(data):
        picture = _open(data)
        if data.startswith(_JPEG):
            picture.draft(None, (1, 1))  # reads all of the file, and makes few pixels of it
            picture.load()
            return data
        whole = _to_srgb(_over_white(picture), picture.info.get("icc_profile"))
        png = io.BytesIO()
        _turn(whole, picture.info.get("exif", b"")).save(png, "PNG", compress_level=1)
        return png.getvalue()


@contextmanager
def _reasons(data: bytes) -> Iterator[None]:
    """Make a PhotoError or a HostError of whatever decoding `data` raises."""
    if not data:
        raise PhotoError("file is empty")
    try:
        yield
    except PhotoError:
        raise
    except UnidentifiedImageError as error:
        is_known = data.startswith(_MAGICS)
        reason = "broken: unreadable header" if is_known else "not a JPEG, PNG, WebP or GIF"
        raise PhotoError(reason) from error
    except Image.DecompressionBombError as error:
        raise PhotoError(f"more than {MAX_PIXELS} pixels") from error
    except Exception as error:  # on garbage, Pillow raises nearly any class
        if host := host_error(error):
            raise host from error
        raise PhotoError(f"broken: {_in_short(error)}") from error


def _in_short(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 100 else f"{text[:99]}…"


def _decode(data: bytes) -> npt.NDArray[np.uint8]:
    picture = _open(data)
    # JPEG only: decode at 1/2, 1/4 or 1/8, which costs a fraction and keeps two pixels for each
    # one that is needed. `box` leaves out what rounding up added at the right and the bottom.
    drafted = picture.draft(None, (2 * SIDE, 2 * SIDE))
    box = drafted[1] if drafted else None
    square = _over_white(picture).resize((SIDE, SIDE), Image.Resampling.BILINEAR, box)
    # Colours and turn come last, where they cost least: a square is the same stretched or turned
    # first.
    square = _to_srgb(square, picture.info.get("icc_profile"))
    return np.array(_turn(square, picture.info.get("exif", b"")), dtype=np.uint8)


def _open(data: bytes) -> Image.Image:
    """The picture in `data`, not decoded yet; PhotoError where that would take too much."""
    _check_effort(data)
    picture = Image.open(io.BytesIO(data), formats=_FORMATS)
    if max(picture.size) > MAX_SIDE:
        raise PhotoError(f"more than {MAX_SIDE} pixels wide or high")
    return picture


def _check_effort(data: bytes) -> None:
    """Raise PhotoError where Pillow would do the same work again and again."""
    if data.startswith(_JPEG) and _n_scans(data) > MAX_SCANS:
        raise PhotoError(f"more than {MAX_SCANS} scans")
    # One is allowed, which Pillow unpacks up to MAX_TEXT_CHUNK; a few may be there by chance.
    if data.startswith(_MAGICS[1]) and data.count(b"iCCP") > 9:
        raise PhotoError("many colour profiles")


def _n_scans(data: bytes) -> int:
    """How many scans a JPEG has up to its end mark."""
    n_scans, place = 0, 2
    while (marker := _MARKER.search(data, place)) and marker[1] != b"\xd9":
        n_scans += marker[1] == b"\xda"
        place = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2])
    return n_scans


def _over_white(picture: Image.Image) -> Image.Image:
    """Decode, and return L, RGB or CMYK of the same size with nothing transparent.

    Before it is resized, so that colours hidden under transparency bleed into nothing.
    """
    if picture.mode.startswith("I"):  # 16-bit grey, which Pillow's own conversion would clip
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.has_transparency_data:
        layer = picture.convert("LA" if picture.mode in ("1", "L", "LA") else "RGBA")
        canvas = Image.new(layer.mode.removesuffix("A"), picture.size, "white")
        canvas.paste(layer, mask=layer)
        return canvas
    plain = {"1": "L", "P": "RGB"}.get(picture.mode)
    return picture.convert(plain) if plain else picture


def _to_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    transform = _srgb_transform(profile) if profile else None
    if transform and picture.mode == "L" and transform.input_mode == "RGB":
        picture = picture.convert("RGB")
    if transform and transform.input_mode == picture.mode:
        return transform.apply(picture)
    return picture.convert("RGB")


# A shop's photos share a few profiles, and a transform takes longer to make than to apply. One
# transform may be applied by many threads: Little CMS only reads it.
@lru_cache(maxsize=16)
def _srgb_transform(profile: bytes) -> ImageCms.ImageCmsTransform | None:
    """Return the transform to sRGB, or None where the profile is broken or for no photo."""
    try:
        source = ImageCms.getOpenProfile(io.BytesIO(profile))
        mode = _MODE_OF_SPACE.get(source.profile.xcolor_space)
        target = ImageCms.createProfile("sRGB")
        return ImageCms.buildTransform(source, target, mode, "RGB") if mode else None
    except (ImageCms.PyCMSError, UnicodeError):  # UnicodeError: the space's name is no ASCII
        return None


def _turn(picture: Image.Image, exif: bytes) -> Image.Image:
    tags = Image.Exif()  # not `getexif`, which turns by XMP too; browsers do not
    try:
        tags.load(exif)
        turn = _TURNS.get(tags.get(ExifTags.Base.Orientation, 1))
    except Exception:  # broken EXIF is no EXIF
        turn = None
    return picture if turn is None else picture.transpose(turn)
