"""Options that several commands take."""

import re
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

import click

from lookalike.terminal.command import Decorator, at_most_one, flag, gathered, option, together
from lookalike.terminal.types import Number, WholeNumber
from lookalike_build.networks.extractor import (
    GRAPHDEF,
    IMAGENET,
    INCEPTION_V3,
    UNTRAINED,
    Precision,
)
from lookalike_build.networks.settings import ExtractorSettings
from lookalike_build.photos.reader import SCHEMES, WEB_SCHEMES, PhotoReader
from lookalike_build.publishing.removal import FEW, AllowedRemoval
from lookalike_build.tables.csv import Dialect

LOCAL, RAY = "local", "ray"


def columns(usual: Any, who: str) -> Decorator:
    """`--NAME-column` for each field of `usual`, a named tuple, as `columns`; `who` calls them so."""
    return gathered(
        "columns",
        type(usual),
        *(
            option(
                f"--{name.replace('_', '-')}-column COLUMN",
                str,
                default,
                f"what {who} {name}" + ("; it may be missing" if default is None else ""),
                dest=name,
            )
            for name, default in usual._asdict().items()
        ),
    )


def _encoding(text: str) -> str:
    with suppress(LookupError, UnicodeError):
        "".encode(text)
        return text
    raise click.BadParameter(f'must be an encoding such as cp1252, cp932 or utf-8, not "{text}"')


def _delimiter(text: str) -> str:
    character = {"tab": "\t", r"\t": "\t"}.get(text, text)
    if len(character) == 1 and character not in '\r\n"':
        return character
    raise click.BadParameter(f'must be one character, or tab, not "{text}"')


dialect = gathered(
    "dialect",
    Dialect,
    option(
        "--encoding NAME",
        _encoding,
        None,
        "the encoding of a CSV file, such as cp1252 or cp932 (UTF-8, or UTF-16 where it begins so, "
        "unless given)",
    ),
    option(
        "--delimiter CHARACTER",
        _delimiter,
        None,
        "what stands between the fields of a CSV file, such as ; or tab (seen from its header unless "
        "given)",
    ),
)
"""How a CSV file is written, as `dialect`."""


def _allowed(
    max_removed: float, max_removed_of_category: float, max_removed_categories: int, **others: bool
) -> AllowedRemoval:
    shares = max_removed / 100, max_removed_of_category / 100
    return AllowedRemoval(*shares, max_removed_categories, **others)


_USUAL = AllowedRemoval()


def allowed(before: str, *others: Decorator) -> Decorator:
    """How much of `before` may be taken away, as `allowed`."""
    stays = f"exit with status 1, and leave {before} as it was, where"
    return gathered(
        "allowed",
        _allowed,
        option(
            "--max-removed PERCENT",
            Number(0, 100),
            100 * _USUAL.products,
            f"{stays} more of its products would be gone",
        ),
        option(
            "--max-removed-of-category PERCENT",
            Number(0, 100),
            100 * _USUAL.of_category,
            "the same for the products of any one category",
        ),
        option(
            "--max-removed-categories",
            WholeNumber(0),
            _USUAL.categories,
            f"the same for categories of more than {FEW} products; up to {FEW} products are always "
            "removed",
        ),
        flag(
            "--allow-other-ids",
            "allow ids to become strings, or integers",
            "other_ids",
        ),
        *others,
    )


def keep(text: str) -> Decorator:
    """`--keep`; `text` says which releases."""
    return option(
        "--keep", WholeNumber(1), 5, f"{text}; older ones are removed, the current one never"
    )


def as_of(usual: str, live: str = "products changed live") -> Decorator:
    """`--as-of`; `usual` is what it is unless given, `live` what is newer than the export."""
    return option(
        "--as-of TIME",
        _past,
        None,
        f"when the export began, such as 2026-01-31T02:00+09:00: {live} since then stay as they are "
        f"({usual} unless given)",
    )


def _past(text: str) -> float:
    moment = None
    with suppress(ValueError):
        moment = datetime.fromisoformat(text)
    if moment is None or moment.tzinfo is None:
        raise click.BadParameter(
            f'must be a time with its zone such as 2026-01-31T02:00+09:00, not "{text}"'
        )
    if moment.timestamp() > time.time():
        raise click.BadParameter(f'must be a time that has passed, not "{text}"')
    return moment.timestamp()


def memory_size(text: str) -> str:
    """A type: an amount of memory as DuckDB writes it."""
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)? ?[KMGT]i?B", text):
        raise click.BadParameter(f'must be a size such as 512MB or 4GB, not "{text}"')
    return text


def _network(model: str, weights: str, precision: Precision) -> ExtractorSettings:
    at_most_one("model", "weights")
    return ExtractorSettings(model, weights, precision)


def _model(text: str) -> str:
    file = text.removeprefix(GRAPHDEF)
    if file not in ("", text):
        return f"{GRAPHDEF}{Path(file).absolute()}"
    if text == INCEPTION_V3:
        return text
    raise click.BadParameter(f'must be {INCEPTION_V3} or {GRAPHDEF}FILE, not "{text}"')


def _weights(text: str) -> str:
    # Absolute: a worker on another machine has another working folder.
    return text if text in (IMAGENET, UNTRAINED) else str(Path(text).absolute())


network = gathered(
    "network",
    _network,
    option(
        "--model MODEL",
        _model,
        INCEPTION_V3,
        f"{GRAPHDEF}FILE takes the features from the tensor pool_3:0 of a frozen TensorFlow graph "
        "that is fed JPEG bytes at DecodeJpeg/contents:0: classify_image_graph_def.pb of "
        f"inception-2015-12-05, or one like it; {INCEPTION_V3} is that of Keras",
    ),
    option(
        "--weights WEIGHTS",
        _weights,
        IMAGENET,
        f"{IMAGENET} (downloaded once), {UNTRAINED} (fixed seed: for tests and demos), or a "
        "Keras weights file of InceptionV3",
    ),
    option(
        "--precision",
        click.Choice(get_args(Precision)),
        "auto",
        "float32, or mixed: bfloat16 on a CPU, float16 on a GPU; auto is mixed where the "
        "hardware has it",
    ),
)
"""Which network takes the features, as `network`."""


def _reader(
    timeout: float, retries: int, allow_scheme: tuple[str, ...], public_addresses_only: bool
) -> PhotoReader:
    usual = WEB_SCHEMES if public_addresses_only else SCHEMES
    schemes = usual | frozenset(allow_scheme)
    return PhotoReader(Path.cwd(), timeout, retries, None, schemes, public_addresses_only)


def _scheme(text: str) -> str:
    if not re.fullmatch("[A-Za-z][A-Za-z0-9+.-]{0,31}", text):
        raise click.BadParameter(f'must be the name of a scheme such as sftp, not "{text}"')
    return text.lower()


reader = gathered(
    "reader",
    _reader,
    option(
        "--timeout SECONDS",
        Number(0.1, 3600),
        30.0,
        "what one attempt to read a photo from a URL may take",
    ),
    option(
        "--retries",
        WholeNumber(0, 100),
        2,
        "further attempts where a server is busy or cannot be reached",
    ),
    option(
        "--allow-scheme SCHEME",
        _scheme,
        None,
        "take photos also from SCHEME:// URLs, by fsspec; may be given again (http, https, file, "
        "s3, gs and az need none). Some schemes, such as reference, read local files for whoever wrote "
        "the URL",
        multiple=True,
    ),
    flag(
        "--public-addresses-only",
        "take photos only from http and https URLs whose server has a public address, redirects "
        "included, and by schemes of --allow-scheme; paths are refused and proxies not used: for "
        "catalogues in which others write URLs",
    ),
)
"""How photos are read, as `reader`: in the working folder, without a cache."""
connections = option(
    "--connections", WholeNumber(1, 1024), 32, "photos from URLs that are read at a time"
)


def only_with_ray(context: click.Context, param: click.Parameter, value: Any) -> Any:
    """A callback of options that are for the Ray engine."""
    if value is not None and context.params["engine"] != RAY:
        raise click.BadParameter(f"only with --engine {RAY}", context, param)
    return value


def engine(what: str) -> Decorator:
    """Where to do `what`, as `engine` and `ray_address`."""
    return together(
        option(
            "--engine",
            click.Choice((LOCAL, RAY)),
            LOCAL,
            f"where to {what}: on this machine, or on the machines of a Ray cluster",
            is_eager=True,  # known to `only_with_ray`, whatever the order
        ),
        option(
            "--ray-address HOST:PORT",
            str,
            None,
            "the Ray cluster (that of RAY_ADDRESS, else a Ray of this machine alone)",
            callback=only_with_ray,
        ),
    )
