"""The seal on where a change feed's photos are, so that the follower opens nothing that others name.

The journal is also written by the app's user. What `image` of a change names is opened by the builder's
user, with its files, its credentials and the hosts that it reaches. So the follower seals each image
that it takes from its feed (HMAC-SHA256), and opens no other. Changes over HTTP bring the photo itself.
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
    """Seals with the key in the file at `path`, which is made if it is not there.

    A key that others than its owner may read is replaced: what it sealed is not opened any more. One
    process at a time may make one. Raises OSError.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists() or path.stat().st_mode & _OTHERS:
            with whole_file(path) as part:
                part.touch(0o600)
                part.write_bytes(secrets.token_bytes(_KEY_BYTES))
        with named(path):
            self._key = path.read_bytes()

    def seal(self, image: str) -> str:
        """An image, a path or a URL, with the seal before it."""
        return f"{self._mac(image)} {image}"

    def opened(self, sealed: str) -> str:
        """The image; PhotoError unless it was sealed with the same key."""
        mac, _, image = sealed.partition(" ")
        if not hmac.compare_digest(mac.encode(), self._mac(image).encode()):
            raise PhotoError(NOT_OF_THE_FEED)
        return image

    def _mac(self, image: str) -> str:
        return hmac.digest(self._key, image.encode(), "sha256").hex()
