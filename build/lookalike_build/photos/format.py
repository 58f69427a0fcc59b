"""Formats: what a file is, by its first bytes."""

import re
from typing import Final

_FIRST: Final = 1024
"""Bytes to look at."""

_BRANDS: Final = rb".{4}ftyp(?:.{8}(?:.{4}){,12}?)?"
"""A file of boxes names its kinds in the first: the main one, a version, and those it is fit for."""
_TEXT: Final = rb"(?i:(?:\xef\xbb\xbf)?\s*"

# The first that matches counts.
_PICTURES: Final = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "GIF": rb"GIF8",
    "WebP": rb"RIFF.{4}WEBP",
    "AVIF": _BRANDS + rb"avi[fs]",
    "HEIC": _BRANDS + rb"he[iv][cxms]",
    "BMP": rb"BM.{4}\0{4}",
    "TIFF": rb"II[*+]\0|MM\0[*+]",
    "ICO": rb"\0\0[\x01\x02]\0",
    "JPEG XL": rb"\xff\x0a|\0\0\0\x0cJXL ",
    "JPEG 2000": rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  ",
    "PSD": rb"8BPS",
    "SVG": _TEXT + rb"<(?:svg\b|[?!](?:(?!html).)*?<svg\b))",
}
_OTHERS: Final = {
    "an HTML page": _TEXT
    + rb"(?:<\?xml.*?\?>\s*)?<(?:!|(?:html|head|body|title|meta|script|style|center|div|p|h\d)\b))",
    "XML": _TEXT + rb"<[?a-z])",
    "JSON": _TEXT + rb"[\[{]\s*[\[{\]}\"])",
    "a PDF": rb"%PDF-",
    "a video": rb".{4}ftyp|\x1a\x45\xdf\xa3",
    "a ZIP archive": rb"PK\x03\x04",
    "gzip": rb"\x1f\x8b",
    "text": rb"[^\0-\x08\x0e-\x1f\x7f]+\Z",
}
_SIGNS: Final = {name: re.compile(sign, re.DOTALL) for name, sign in (_PICTURES | _OTHERS).items()}


def format_of(data: bytes) -> str | None:
    """What `data` begins as: a format's name, such as "WebP" or "an HTML page"; None if unknown."""
    first = data[:_FIRST]
    return next((name for name, sign in _SIGNS.items() if sign.match(first)), None)


def is_picture(data: bytes) -> bool:
    """Whether `data` begins as a picture does, in a format that is read or not."""
    return format_of(data) in _PICTURES
