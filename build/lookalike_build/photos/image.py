"""Images as catalogues name them: what one holds that is neither a path nor a URL."""

import re
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

SCHEME: Final = "^([A-Za-z][A-Za-z0-9+.-]{0,31})://"
"""A regular expression that a URL matches and a path does not."""
_URL: Final = "(?:https?:)?//"
_FILE: Final = r"[^,;|]+\.(?:jpe?g|png|webp|gif|avif|heic)"
_FIRST: Final = 1000
"""Characters to look at: matching takes the square of their number."""
# The first that matches counts.
_ODD: Final = {
    r"(?:null|none|nan|n/?a|#n/a|undefined|no_selection|-)$": "names no photo",
    r"<[a-z!/]": "holds HTML; write the address alone",
    r"!?\[.*\]\(": "holds Markdown; write the address alone",
    r"\[": "holds a JSON array; write one address",
    r"\{": "holds a JSON object; write the address alone",
    r"data:(?!//)|/9j/|iVBORw0KGgo|R0lGOD|UklGR": "holds the photo itself; write where it is",
    r"=": "holds a formula; write the address alone",
    rf"{_URL}.*?[,;|\s]\s*{_URL}": "holds several URLs; write one, or give --from",
    r"//": "has no scheme; write https: before it",
    r"www\.|[a-z0-9-]+(?:\.[a-z0-9-]+)*\.(?:com|net|org|shop|store|io|co|jp|de|fr|uk)/": (
        "has no scheme; write https:// before it"
    ),
    r"['\"“”‘’„«]": "has quotes around it; write it without",
    r"https?%3a": "is percent-encoded; write it decoded",
    r".*\\/": "has backslashes before its slashes; write it without",
    r"(?!https?://)https?(?:[:;]|[\\/]{2})": "has no :// after its scheme",
    r".*&(?:amp|#0*38|#x0*26);": "holds HTML's &amp;; write & instead",
    r"[a-z]:[\\/]|.*\\": "is a path of Windows; write it with / as this machine has it",
    rf"{_FILE}[,;|\s]+\S": "holds several images; write one",
    r"(?!https?://).*https?://": "holds more than an address; write it alone",
    r"/": "is a path on this machine; give --image-base if it is one of the shop's site",
}


def is_url(image: str) -> bool:
    """Whether an image is a URL and not a path."""
    return re.match(SCHEME, image) is not None


def has_urls(images: pa.ChunkedArray) -> bool:
    """Whether any of a catalogue's images (strings) is a URL."""
    return bool(pc.any(pc.match_substring_regex(images, SCHEME)).as_py())


def oddity(image: str) -> str | None:
    """What an image that cannot be read holds, and what to write; None if nothing is odd.

    It names nothing of the image, which may hold a password.
    """
    first = image[:_FIRST]
    return next((text for sign, text in _ODD.items() if re.match(sign, first, re.IGNORECASE)), None)
