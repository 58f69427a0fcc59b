"""What is missing is installed from where Lookalike came."""

import json
from importlib.metadata import PackageNotFoundError
from unittest.mock import Mock

import pytest

from lookalike.terminal.install import install

DISTRIBUTION = "lookalike.terminal.install.distribution"
ELSEWHERE = "install lookalike[serve] from where this lookalike was installed"


@pytest.mark.parametrize(
    ("origin", "way_out"),
    [
        (
            {"url": "file:///opt/look%20alike", "dir_info": {}},
            "run: pip install '/opt/look alike[serve]'",
        ),
        (
            {"url": "file:///src", "dir_info": {"editable": True}},
            "run: pip install --editable '/src[serve]'",
        ),
        (
            {"url": "https://example.com/lookalike-1-py3-none-any.whl", "archive_info": {}},
            "run: pip install 'lookalike[serve] @ https://example.com/lookalike-1-py3-none-any.whl'",
        ),
        (
            {
                "url": "https://example.com/lookalike.git",
                "vcs_info": {"vcs": "git", "requested_revision": "main", "commit_id": "c0ffee"},
            },
            "run: pip install 'lookalike[serve] @ git+https://example.com/lookalike.git@c0ffee'",
        ),
        (None, ELSEWHERE),
    ],
)
def test_the_way_out_names_where_lookalike_came_from(
    origin: object, way_out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = None if origin is None else json.dumps(origin)
    monkeypatch.setattr(DISTRIBUTION, Mock(return_value=Mock(read_text=lambda _: text)))
    assert install("serve") == way_out


def test_a_copy_that_was_never_installed_says_no_more_than_it_knows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(DISTRIBUTION, Mock(side_effect=PackageNotFoundError("lookalike")))
    assert install("serve") == ELSEWHERE
