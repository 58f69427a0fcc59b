"""The seal on the photo paths and URLs of a change feed: the follower opens only what it sealed.

The app's user also writes the journal, but the builder's user opens the `image` of a change, with its
own files, credentials and reachable hosts. So the follower seals (HMAC-SHA256) each image that it takes
from its feed, and opens no other. Changes over HTTP bring the photo itself.
"""

import hmac
import secrets
from pathlib import Path
from typing import Final

from lookalike.release.root import named
from lookalike_build.files.whole import whole_file
from lookalike_build.photos.decoding import PhotoError

NOT_OF_THE_FEED: Final = (
    "its image is not from this follower's feed, and is not opened; send the change again"
)
_KEY_BYTES = 32
_OTHERS = 0o077


class FeedSeal:
    """Seals with the key in the file at `path`, which is made if missing.

    A key that anyone but its owner may read is replaced; images that it sealed are no longer opened.
    Only one process at a time may construct one. Raises OSError.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists() or path.stat().st_mode & _OTHERS:
            with whole_file(path) as part:
                part.touch(0o600)
                part.write_bytes(secrets.token_bytes(_KEY_BYTES))
        with named(path):
            self._key = path.read_bytes()

    def seal(self, image: str) -> str:
        """The image (a path or a URL) with the seal before it."""
        return f"{self._mac(image)} {image}"

    def opened(self, sealed: str) -> str:
        """The image without its seal; PhotoError unless this key sealed it."""
        mac, _, image = sealed.partition(" ")
        if not hmac.compare_digest(mac.encode(), self._mac(image).encode()):
            raise PhotoError(NOT_OF_THE_FEED)
        return image

    def _mac(self, image: str) -> str:
        return hmac.digest(self._key, image.encode(), "sha256").hex()
