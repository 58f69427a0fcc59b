"""Settings: environment variables, in one table. A test compares app/README.md with it."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

_T = TypeVar("_T", bound=int | str | None)


class SettingError(Exception):
    """A setting is invalid; the text names it, its value and what it may be."""


@dataclass(frozen=True)
class Setting(Generic[_T]):
    """One environment variable. `least` and `most` bound a whole number; they are None for others."""

    name: str
    default: _T
    help: str
    least: int | None = None
    most: int | None = None

    @property
    def field(self) -> str:
        """The name of its field in `Settings`."""
        return self.name.removeprefix("LOOKALIKE_").lower()

    @property
    def default_text(self) -> str:
        """The default as an environment variable's text; empty for none."""
        return "" if self.default is None else str(self.default).lower()

    def wrong(self, value: object) -> SettingError:
        """The error to raise for a value that is not such a number, or not a boolean."""
        kind = "true or false"
        if self.most is not None:
            kind = f"a whole number from {self.least} to {self.most}"
        return SettingError(f'{self.name} must be {kind}, not "{value!s:.40}"')

    def parse(self, text: str) -> bool | int | str:
        """The value that an environment variable's text stands for, of the default's type."""
        if isinstance(self.default, bool):
            if text in ("true", "false"):
                return text == "true"
        elif not isinstance(self.default, int):
            return text
        elif text.isascii() and text.isdigit() and len(text) < 20:
            return int(text)
        raise self.wrong(text)


ROOT = Setting[str | None](
    "LOOKALIKE_ROOT", None, "The release root: the folder that `index --root` wrote."
)
MAX_LIMIT = Setting(
    "LOOKALIKE_MAX_LIMIT", 1000, "The largest `limit` that a request may ask for.", 1, 100_000
)
MAX_PRODUCT_IDS = Setting(
    "LOOKALIKE_MAX_PRODUCT_IDS",
    100,
    "The most `product_ids` that one `POST /nns` may ask for.",
    1,
    10_000,
)
MAX_SEARCHES = Setting(
    "LOOKALIKE_MAX_SEARCHES",
    4,
    "The most `product_ids` that one `POST /nns` may ask for with a `limit` beyond the table. Each "
    "takes a search of some milliseconds.",
    1,
    10_000,
)
SEARCH_PERCENT = Setting(
    "LOOKALIKE_SEARCH_PERCENT",
    50,
    "The percentage of a process's time that searches (a vector, a `limit` beyond the table) may take "
    "in the long run. Further ones are answered with 429; look-ups go on.",
    1,
    100,
)
MAX_AGE_S = Setting(
    "LOOKALIKE_MAX_AGE_S",
    10,
    "How many seconds a proxy may keep an answer before it asks again whether it still holds.",
    0,
    31_536_000,
)
LOCK_MEMORY = Setting(
    "LOOKALIKE_LOCK_MEMORY",
    False,
    "`true` locks in memory the files that every look-up reads, as far as the limit on locked memory "
    "allows.",
)
TOKEN = Setting[str | None](
    "LOOKALIKE_TOKEN",
    None,
    "The secret that allows a client to change products over HTTP, at least 16 characters. Without it, "
    "nobody can.",
)
TOKEN_FILE = Setting[str | None](
    "LOOKALIKE_TOKEN_FILE",
    None,
    "A file that holds the token, so that no configuration has to; read when a process starts.",
)
MAX_PHOTO_BYTES = Setting(
    "LOOKALIKE_MAX_PHOTO_BYTES",
    8_388_608,
    "The largest photo that `PUT /products/…` accepts. Unit's own `max_body_size` limits it too.",
    1024,
    64 * 2**20,  # the largest photo that the builder reads
)
MAX_PENDING_BYTES = Setting(
    "LOOKALIKE_MAX_PENDING_BYTES",
    4_294_967_296,
    "How much the photos of pending changes may take together. A photo beyond that is answered with "
    "503 until `lookalike-build follow` has processed some of them.",
    64 * 2**20,  # the largest photo must fit
    2**40,
)
BROWSE = Setting(
    "LOOKALIKE_BROWSE",
    False,
    "`true` serves `/browse`, a page to look at products and their neighbours. Not for the public.",
)
IMAGE_URL = Setting[str | None](
    "LOOKALIKE_IMAGE_URL",
    None,
    "Where `/browse` finds a product's photo: a URL with `{product_id}` and optionally "
    "`{category_id}`, such as `https://cdn.example.com/{category_id}/{product_id}.jpg`. Without it, no "
    "photos are shown.",
)
EXPERIMENT_KEY = Setting(
    "LOOKALIKE_EXPERIMENT_KEY",
    "lookalike",
    "The key by which `/related` assigns patterns to visitors, up to 64 bytes. Another key assigns "
    "them differently.",
)
B_PERCENT = Setting(
    "LOOKALIKE_B_PERCENT",
    50,
    "The percentage of visitors that `/related` assigns pattern B, similar images. The others get A.",
    0,
    100,
)
CHOICE = Setting[str | None](
    "LOOKALIKE_CHOICE",
    None,
    "A file of `lookalike-build report --choose`: the method by which `/related` answers in each "
    "category. It is read when a process starts. Without it, all visitors are assigned a pattern.",
)
HOLDOUT_PERCENT = Setting(
    "LOOKALIKE_HOLDOUT_PERCENT",
    10,
    "The percentage of visitors that `LOOKALIKE_CHOICE` does not apply to. They are assigned patterns "
    "as before, so that the experiment goes on.",
    0,
    100,
)

DEFAULTS = Setting(
    "LOOKALIKE_DEFAULTS",
    "",
    "What every request gets unless it says otherwise, as a query string of `max_distance`, "
    "`closer_than`, `distinct` and conditions: `distinct=photo&in_stock=true`. `/release` says if it "
    "does not apply to the release.",
)
SETTINGS = [each for each in list(globals().values()) if isinstance(each, Setting)]
"""All of the above, in that order."""

_TOKEN = re.compile(r"[!-~]{16,}")
# A path of this server, or a URL whose host can be named in Content-Security-Policy.
_IMAGE_URL = re.compile(r"(?P<origin>https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?)?/(?!/)[!-~]*")
_PLACEHOLDER = re.compile(r"\{[^{}]*\}|[{}]")
_PLACEHOLDERS = ("{product_id}", "{category_id}")


@dataclass(frozen=True)
class Settings:
    """The values of `SETTINGS`, ``LOOKALIKE_ROOT`` as `root`; SettingError names an invalid one."""

    root: str | os.PathLike[str]
    max_limit: int = MAX_LIMIT.default
    max_product_ids: int = MAX_PRODUCT_IDS.default
    max_searches: int = MAX_SEARCHES.default
    search_percent: int = SEARCH_PERCENT.default
    max_age_s: int = MAX_AGE_S.default
    lock_memory: bool = LOCK_MEMORY.default
    token: str | None = field(default=None, repr=False)
    max_photo_bytes: int = MAX_PHOTO_BYTES.default
    max_pending_bytes: int = MAX_PENDING_BYTES.default
    browse: bool = BROWSE.default
    image_url: str | None = None
    experiment_key: bytes = field(default=EXPERIMENT_KEY.default.encode(), repr=False)
    b_percent: int = B_PERCENT.default
    choice: str | os.PathLike[str] | None = None
    holdout_percent: int = HOLDOUT_PERCENT.default
    defaults: str = DEFAULTS.default

    def __post_init__(self) -> None:
        for setting in SETTINGS:
            if setting.least is not None and setting.most is not None:
                value = getattr(self, setting.field)
                if not setting.least <= value <= setting.most:
                    raise setting.wrong(value)
        _check_token(self.token, TOKEN.name)
        _check_image_url(self.image_url)
        if len(self.experiment_key) > 64:
            n_bytes = len(self.experiment_key)
            raise SettingError(f"{EXPERIMENT_KEY.name} must have at most 64 bytes, not {n_bytes}")

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> "Settings":
        """Read the settings from `environ`; SettingError names the first invalid one."""
        root = environ.get(ROOT.name, "")
        if not root:
            raise SettingError(f"{ROOT.name} is not set; {ROOT.help}")
        given: dict[str, Any] = {
            each.field: each.parse(environ[each.name])
            for each in SETTINGS
            if environ.get(each.name)
        }
        given.pop(TOKEN_FILE.field, None)
        key = os.fsencode(given.get(EXPERIMENT_KEY.field, EXPERIMENT_KEY.default))
        changed = {"root": Path(root), "token": _token(environ), "experiment_key": key}
        return cls(**given | changed)


def _token(environ: Mapping[str, str]) -> str | None:
    token = environ.get(TOKEN.name) or None
    file = environ.get(TOKEN_FILE.name) or None
    if token and file:
        raise SettingError(f"{TOKEN.name} and {TOKEN_FILE.name} are both set; leave one out")
    if file:
        try:
            token = Path(file).read_text("latin-1").strip()
        except OSError as error:
            raise SettingError(
                f"{TOKEN_FILE.name}: cannot read {file}: {error.strerror}"
            ) from error
        _check_token(token, f"what {TOKEN_FILE.name} names, {file},")
    return token


def _check_token(token: str | None, name: str) -> None:
    if token is not None and not _TOKEN.fullmatch(token):
        # The token is not shown: this goes into the log and into an answer.
        raise SettingError(
            f"{name} must be at least 16 printable ASCII characters without spaces; "
            "`openssl rand -hex 32` makes one"
        )


def _check_image_url(url: str | None) -> None:
    if url is None:
        return
    found = set(_PLACEHOLDER.findall(url))
    if not _IMAGE_URL.fullmatch(url) or not {_PLACEHOLDERS[0]} <= found <= {*_PLACEHOLDERS}:
        raise SettingError(
            f"{IMAGE_URL.name} must be a URL or a path from / on, with {{product_id}} and perhaps "
            f'{{category_id}} in it and no other braces, not "{url:.80}"'
        )
