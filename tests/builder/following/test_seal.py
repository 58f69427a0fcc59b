"""Only what was sealed with the follower's own key is opened."""

from pathlib import Path

import pytest

from lookalike_build.following.seal import FeedSeal
from lookalike_build.photos.decoding import PhotoError

IMAGE = "https://shop.example/a b/é.jpg"


def test_what_was_sealed_is_opened_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "key"
    sealed = FeedSeal(path).seal(IMAGE)
    assert FeedSeal(path).opened(sealed) == IMAGE
    assert path.stat().st_mode & 0o777 == 0o600


def test_nothing_else_is_opened(tmp_path: Path) -> None:
    seal = FeedSeal(tmp_path / "key")
    sealed = seal.seal(IMAGE)
    others = FeedSeal(tmp_path / "other").seal(IMAGE)
    for forged in (IMAGE, "", " ", others, sealed.replace("shop", "internal"), sealed.upper()):
        with pytest.raises(PhotoError, match="not from this follower's feed"):
            seal.opened(forged)


def test_a_key_that_others_may_read_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "key"
    sealed = FeedSeal(path).seal(IMAGE)
    path.chmod(0o640)
    seal = FeedSeal(path)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(PhotoError, match="not from this follower's feed"):
        seal.opened(sealed)
