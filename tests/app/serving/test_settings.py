"""Settings are one table, app/README.md lists that table, and a wrong one never raises at import."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lookalike.serving.settings import SETTINGS, SettingError, Settings
from support import REPOSITORY

README = (REPOSITORY / "app" / "README.md").read_text()


def test_the_readme_lists_the_settings_as_they_are() -> None:
    rows = re.findall(r"^\| `(LOOKALIKE_\w+)` \|(.*)\|(.*)\|$", README, re.MULTILINE)
    listed = [(name, default.strip(), text.strip()) for name, default, text in rows]
    assert listed == [(setting.name, setting.default_text, setting.help) for setting in SETTINGS]


def test_defaults() -> None:
    defaults = Settings(
        Path("/r"), 1000, 100, 4, 50, 10, False, None, 8388608, 2**32, False, None, b"lookalike", 50
    )
    assert Settings.read({"LOOKALIKE_ROOT": "/r"}) == defaults
    assert Settings.read({"LOOKALIKE_ROOT": "/r", "LOOKALIKE_TOKEN": ""}) == defaults


@pytest.mark.parametrize(
    "token", ["0123456789abcde", " " * 16, "0123456789 abcdef", "0123456789abcdef\n", "é" * 16]
)
def test_an_unfit_token_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(SettingError) as raised:
        Settings.read({"LOOKALIKE_ROOT": "/r", "LOOKALIKE_TOKEN": token})
    assert str(raised.value).startswith(
        "LOOKALIKE_TOKEN must be at least 16 printable ASCII characters without spaces; "
    )
    assert token not in str(raised.value)


def test_a_token_is_taken_as_it_is_and_never_shown() -> None:
    token = '!"#$%&~,Bearer=+/'
    settings = Settings.read({"LOOKALIKE_ROOT": "/r", "LOOKALIKE_TOKEN": token})
    assert settings.token == token
    assert token not in repr(settings)


def test_the_token_may_be_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    environ = {"LOOKALIKE_ROOT": "/r", "LOOKALIKE_TOKEN_FILE": str(file)}
    with pytest.raises(SettingError, match=r"_FILE: cannot read .*/token: No such file"):
        Settings.read(environ)
    file.write_text("0123456789abcdef\n")
    assert Settings.read(environ).token == "0123456789abcdef"
    for unfit in (b"short-and-secret\x00", b"", b"0123456789 abcdef", b"\xff" * 16):
        file.write_bytes(unfit)
        with pytest.raises(SettingError) as raised:
            Settings.read(environ)
        said = f"what LOOKALIKE_TOKEN_FILE names, {file}, must be at least 16 printable"
        assert str(raised.value).startswith(said)
        assert "secret" not in str(raised.value)


def test_two_tokens_are_refused() -> None:
    environ = {"LOOKALIKE_ROOT": "/r", "LOOKALIKE_TOKEN_FILE": "/t", "LOOKALIKE_TOKEN": "0" * 16}
    with pytest.raises(SettingError, match="are both set; leave one out"):
        Settings.read(environ)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("LOOKALIKE_ROOT", "", "LOOKALIKE_ROOT is not set"),
        ("LOOKALIKE_MAX_LIMIT", "0", 'from 1 to 100000, not "0"'),
        ("LOOKALIKE_MAX_LIMIT", "100001", 'from 1 to 100000, not "100001"'),
        ("LOOKALIKE_MAX_LIMIT", "ten", 'from 1 to 100000, not "ten"'),
        ("LOOKALIKE_MAX_AGE_S", "-1", 'from 0 to 31536000, not "-1"'),
        ("LOOKALIKE_MAX_AGE_S", "1" * 5000, "from 0 to 31536000"),
        ("LOOKALIKE_LOCK_MEMORY", "yes", 'must be true or false, not "yes"'),
        ("LOOKALIKE_B_PERCENT", "101", 'from 0 to 100, not "101"'),
        ("LOOKALIKE_HOLDOUT_PERCENT", "101", 'from 0 to 100, not "101"'),
        ("LOOKALIKE_HOLDOUT_PERCENT", "a few", 'from 0 to 100, not "a few"'),
        ("LOOKALIKE_EXPERIMENT_KEY", 33 * "é", "must have at most 64 bytes, not 66"),
        ("LOOKALIKE_BROWSE", "1", 'must be true or false, not "1"'),
        ("LOOKALIKE_IMAGE_URL", "/photos/1.jpg", 'no other braces, not "/photos/1.jpg"'),
        ("LOOKALIKE_IMAGE_URL", "/{product_id}/{size}", "no other braces"),
        ("LOOKALIKE_IMAGE_URL", "/{product_id}}", "no other braces"),
        ("LOOKALIKE_IMAGE_URL", "//cdn/{product_id}", "a URL or a path from / on"),
        ("LOOKALIKE_IMAGE_URL", "photos/{product_id}", "a URL or a path from / on"),
        ("LOOKALIKE_IMAGE_URL", "javascript:{product_id}", "a URL or a path from / on"),
        ("LOOKALIKE_IMAGE_URL", "https://a;b/{product_id}", "a URL or a path from / on"),
        ("LOOKALIKE_IMAGE_URL", "/a b/{product_id}", "a URL or a path from / on"),
        ("LOOKALIKE_MAX_PHOTO_BYTES", "1023", 'from 1024 to 67108864, not "1023"'),
        ("LOOKALIKE_MAX_PHOTO_BYTES", "67108865", "from 1024 to 67108864"),
        ("LOOKALIKE_MAX_PHOTO_BYTES", "8M", 'from 1024 to 67108864, not "8M"'),
    ],
)
def test_an_unfit_setting_is_named(name: str, value: str, said: str) -> None:
    with pytest.raises(SettingError, match=re.escape(said)):
        Settings.read({"LOOKALIKE_ROOT": "/r", name: value})


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({}, "LOOKALIKE_ROOT is not set"),
        ({"LOOKALIKE_ROOT": "/nowhere"}, "no release in /nowhere yet"),
        ({"LOOKALIKE_ROOT": "/r", "LOOKALIKE_MAX_LIMIT": "x"}, "LOOKALIKE_MAX_LIMIT must be"),
        ({"LOOKALIKE_ROOT": "a\nb"}, "no release in a"),
        ({"LOOKALIKE_ROOT": "/r", "LOOKALIKE_TOKEN": "short"}, "LOOKALIKE_TOKEN must be"),
        ({"LOOKALIKE_ROOT": "/nowhere", "LOOKALIKE_TOKEN": "x" * 16}, "no release in /nowhere"),
    ],
)
def test_the_module_unit_loads_never_raises(environ: dict[str, str], said: str) -> None:
    program = """
import json
from lookalike.wsgi import application
for path in ("/readyz", "/nns", "/healthz"):
    environ = {"PATH_INFO": path, "REQUEST_METHOD": "GET", "QUERY_STRING": ""}
    print(b"".join(application(environ, lambda status, headers: print(status))).decode())
"""
    run = subprocess.run(
        [sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True
    )
    ready, problem, nns, _, alive, _ = run.stdout.splitlines()
    assert (ready, nns, alive) == (
        "503 Service Unavailable",
        "503 Service Unavailable",
        "200 OK",
    )
    assert said in problem.replace("\\n", "\n")
    assert said.split("\n")[0] in run.stderr


@pytest.mark.parametrize(
    "url",
    [
        "/{product_id}",
        "https://cdn.example.com/{category_id}/{product_id}.jpg?w=300",
        "http://127.0.0.1:9000/{product_id}{product_id}",
    ],
)
def test_an_image_url_is_taken_as_it_is(url: str) -> None:
    settings = Settings.read({"LOOKALIKE_ROOT": "/r", "LOOKALIKE_IMAGE_URL": url})
    assert settings.image_url == url
