"""What several tests need: small feature stores, releases made of them, and the app called directly."""

import hashlib
import io
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast
from unittest import mock
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import lookalike_build.indexing.live
from lookalike.experiment import Experiment
from lookalike.release.attributes import AttributeTypes, Values
from lookalike.release.files import INDEX
from lookalike.release.ids import Id, IdType
from lookalike.release.manifest import Applied, Model
from lookalike.release.opened import Release
from lookalike.release.root import ReleaseRoot
from lookalike.release.rules import Rule
from lookalike.serving.application import AnswerLimits, Application
from lookalike.serving.browse.handler import Browse
from lookalike.serving.changes import ChangeHandler
from lookalike.serving.searches import Searches
from lookalike.serving.selections import Selections
from lookalike.serving.source import ReleaseSource
from lookalike_build.behaviour.build import Made, Progress, add_behaviour
from lookalike_build.behaviour.files import RATING_COLUMNS, Take
from lookalike_build.behaviour.ratings import RatingSettings
from lookalike_build.features.store import FeatureStore, FeatureWriter
from lookalike_build.following.update import Updater
from lookalike_build.indexing.attributes import (
    ProductValues,
    PublishedAttributes,
    publish_attributes,
)
from lookalike_build.indexing.build import IndexSettings, index
from lookalike_build.indexing.live import CategoryChanges, FeatureChanges, ValueChanges
from lookalike_build.publishing.columns import ARROW_TYPES
from lookalike_build.publishing.removal import ANY
from lookalike_build.rules.build import Made as MadeRules
from lookalike_build.rules.build import set_rules

MODEL = Model("test", "sha256:0")
TOKEN = "0123456789abcdef-_.~"
N_DIMS = 16
REPOSITORY = Path(__file__).parents[1]
RANDOM_CASES = int(os.environ.get("RANDOM_CASES", "1"))
"""How many times as many random cases as usual; where others are tried at each run, it finds more."""

ATTRIBUTES: AttributeTypes = {"price": "number", "in_stock": "flag", "title": "text"}
Rating = tuple[str, Id, int]
"""Of a user, of a product, when (Unix time, seconds)."""
Features = npt.NDArray[np.float32]
Catalogue = Mapping[Id, tuple[list[Any], Features]]


def random_features(n: int, seed: int, n_dims: int = N_DIMS) -> Features:
    """Features (n, n_dims) as the pooling layer gives them: none below zero."""
    return np.abs(np.random.default_rng(seed).normal(size=(n, n_dims))).astype(np.float32)


def integer_catalogue() -> Catalogue:
    """Categories 1 (60 products, 100 to 159), 2 (7, smaller than the default limit), 3 (one) and
    40 (300, more than its table holds at the default k of 100)."""
    return {
        1: (list(range(100, 160)), random_features(60, 1)),
        2: ([5, 3, 900, 12, 7, 2**53 + 1, 0], random_features(7, 2)),
        3: ([77], random_features(1, 3)),
        40: (list(range(5000, 8000, 10)), random_features(300, 4)),
    }


def string_catalogue() -> Catalogue:
    """Categories and products with ids that are text, some awkward in a URL or a file name."""
    shoes = ["A-1", "b 2", "ü/3", "100", "007", "a&b=c", "%41", "../x", "日本", "+", "z" * 64]
    return {
        "shoes": (shoes, random_features(len(shoes), 5)),
        "../hats & caps": (["only", "two"], random_features(2, 6)),
    }


def write_store(folder: Path, catalogue: Catalogue, model: Model = MODEL) -> FeatureStore:
    """A complete feature store of the catalogue."""
    category_ids = list(catalogue)
    types = (_arrow_type(catalogue[category_ids[0]][0][0]), _arrow_type(category_ids[0]))
    n_dims = catalogue[category_ids[0]][1].shape[1]
    writer = FeatureWriter(folder, model, n_dims, types, as_of=0)
    for category_id, (product_ids, features) in catalogue.items():
        photos = [hashlib.sha256(feature).hexdigest() for feature in features]
        writer.add_category(category_id, product_ids, photos, [features])
    writer.finish()
    return FeatureStore.open(folder)


def publish(root: Path, catalogue: Catalogue, features: Path, **settings: Any) -> ReleaseRoot:
    """Publish a release of the catalogue under `root`, through a store in `features`."""
    release_root = ReleaseRoot(root)
    store = write_store(features, catalogue)
    index(store, release_root, IndexSettings(**settings), allowed=ANY)
    return release_root


class Never:
    """A `Background` that does not come to do its jobs: worn indexes stay."""

    def __call__(self, job: Callable[[], Any]) -> Future[Any]:
        """What never is done."""
        return Future()


def change(
    root: ReleaseRoot,
    features: Mapping[Id, FeatureChanges],
    applied: Applied | None = None,
    values: Mapping[Id, ValueChanges] = MappingProxyType({}),
) -> str:
    """Publish the current release with changes by category, as a follower does; its name."""
    manifest = root.manifest(str(root.current()))
    changes = {
        one: CategoryChanges(features.get(one, {}), values.get(one, {}))
        for one in [*features, *values]
    }
    with root.lock():
        return Updater(root, Never()).publish(manifest, changes, applied)


def give(
    root: ReleaseRoot,
    values: Mapping[Id, Mapping[Id, Values]],
    types: AttributeTypes = ATTRIBUTES,
    **more: Any,
) -> PublishedAttributes:
    """Publish the current release with these attributes in bulk, by category and product."""
    given = {}
    for category_id, each in values.items():
        columns = {
            name: pa.array([one.get(name) for one in each.values()], ARROW_TYPES[type_])
            for name, type_ in types.items()
        }
        given[category_id] = ProductValues(pa.array([*each]), columns)
    return publish_attributes(root, types, given, **more)


@contextmanager
def updates_beside(**more: Any) -> Iterator[None]:
    """Have updates be written beside the table, however small it is and however much they change."""
    live = lookalike_build.indexing.live
    with mock.patch.multiple(live, _WHOLE_SHARE=9.0, _WHOLE_SIZE=0, **more):
        yield


def rate(root: ReleaseRoot, ratings: Iterable[Rating], **settings: Any) -> Made:
    """Publish the current release with behaviour made of ratings."""
    users, products, times = zip(*ratings, strict=True)

    def read(id_type: IdType, take: Take) -> None:
        seconds = pa.array(times, pa.int64())
        columns = [pa.array(users), pa.array(products), pc.multiply(seconds, 1_000_000)]
        take(pa.table(columns, names=list(RATING_COLUMNS)))

    done: Progress = lambda _: nullcontext(lambda _: None)  # noqa: E731
    return add_behaviour(root, read, RatingSettings(**settings), 2**29, done)


def brute_force(
    features: Features, item: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """All other items from the nearest on, and their angular distances, straight from the formula."""
    unit = features.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1)[:, None]
    distances = np.linalg.norm(unit - unit[item], axis=1)
    order = np.argsort(distances, kind="stable")
    order = order[order != item]
    return order, distances[order]


def recall_at_k(exact: npt.ArrayLike, found: npt.ArrayLike) -> float:
    """The share of the items in `exact` that are in `found` too; both one query's items."""
    return float(np.isin(np.asarray(exact), found).mean())


@contextmanager
def files_of_at_most(n_bytes: int) -> Iterator[None]:
    """Stands in for a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def no_more_files() -> Iterator[None]:
    """No further file can be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def readable_by_all(folder: Path) -> None:
    """Let everybody read what is in a folder of the test's, and nobody write there."""
    for above in folder.parents:  # pytest's own are closed to others
        if above.stat().st_uid == os.getuid() and above.stat().st_mode & 0o005 != 0o005:
            above.chmod(0o755)
    for file in folder.iterdir():
        file.chmod(0o444)
    folder.chmod(0o555)


def as_nobody(imports: str, program: str, *arguments: object) -> str:
    """What a Python program prints that runs, once it has imported, as a user without rights."""
    drop = (
        "import os, sys\n"
        "if os.getuid() == 0:\n"
        "    try: os.setgroups([]), os.setgid(65534), os.setuid(65534)\n"
        "    except OSError as error: sys.exit(f'cannot drop privileges: {error}')\n"
    )
    command = [sys.executable, "-c", f"{imports}\n{drop}{program}", *map(str, arguments)]
    path = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, env=os.environ | path
    )
    if done.stderr.startswith("cannot drop privileges"):
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    return done.stdout


def _arrow_type(value: Id) -> pa.DataType:
    return pa.int64() if isinstance(value, int) else pa.string()


@dataclass(frozen=True)
class Response:
    """An answer of the app: status line, headers, body."""

    status: str
    headers: dict[str, str]
    body: bytes


class Client:
    """Calls the WSGI app under wsgiref's validator, which holds both sides to PEP 3333."""

    def __init__(self, application: Application) -> None:
        self._application = validator(application)

    def get(self, target: str, method: str = "GET", **headers: Any) -> Response:
        """Ask for a path with its query; headers as WSGI names them, such as HTTP_IF_NONE_MATCH."""
        path, _, query = target.partition("?")
        environ: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "PATH_INFO": path,
            "SCRIPT_NAME": "",
            "QUERY_STRING": query,
            "wsgi.input": io.BytesIO(),
            **headers,
        }
        setup_testing_defaults(environ)
        answered: list[tuple[str, list[tuple[str, str]]]] = []

        def start_response(status: str, given: list[tuple[str, str]], _: Any = None) -> Any:
            answered.append((status, given))

        chunks = self._application(environ, start_response)
        body = list(chunks)
        cast(Any, chunks).close()
        assert len(body) <= 1
        ((status, given),) = answered
        assert len(dict(given)) == len(given)
        return Response(status, dict(given), b"".join(body))


def post(client: Client, document: object, **headers: Any) -> Response:
    """Ask `POST /nns` with a document as JSON."""
    body = json.dumps(document).encode()
    given = {"CONTENT_LENGTH": str(len(body)), "CONTENT_TYPE": "application/json", **headers}
    return client.get("/nns", "POST", **given, **{"wsgi.input": io.BytesIO(body)})


def make_slim(root: ReleaseRoot) -> None:
    """Make the current release of a root a slim copy, as rsync --exclude would."""
    for path in root.folder(str(root.current())).glob(f"*/{INDEX}"):
        path.unlink()


def etag_of(root: ReleaseRoot, category_id: Id, release: str | None = None) -> str:
    """The ETag of a category's answers, in the current release if none is given."""
    manifest = root.manifest(root.chosen(release))
    (entry,) = (each for each in manifest.categories if each.category_id == category_id)
    return f'"{entry.digest}"'


def forget(path: Path) -> None:
    """Drop a file's pages from the page cache, if nothing has it mapped."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def client_of(
    root: ReleaseRoot,
    max_limit: int = 1000,
    token: str | None = None,
    max_photo_bytes: int = 2**23,
    max_pending_bytes: int = 2**32,
    source: ReleaseSource | None = None,
    image_url: str | None = None,
    b_percent: int = 50,
    searches: Searches | None = None,
    selections: Selections | None = None,
) -> Client:
    """A client of the app serving `root`, with no thread behind it; of `source`'s look if given."""
    if source is None:
        source = ReleaseSource(root)
        source.look()
    changes = ChangeHandler(root, source, token, max_photo_bytes, max_pending_bytes)
    browse = Browse(root, source, image_url, searches, selections)
    experiment = Experiment(b_percent=b_percent)
    return Client(
        Application(
            source,
            AnswerLimits(max_limit),
            changes=changes,
            browse=browse,
            experiment=experiment,
            searches=searches,
            selections=selections,
        )
    )


def ruled(root: ReleaseRoot, rules: Mapping[Id, Sequence[Rule]]) -> MadeRules:
    """Publish the current release with these rules by category."""
    return set_rules(root, lambda _: rules)


def values_in(release: Release) -> dict[Id, dict[Id, Values]]:
    """By category and product, the values that products of a release have."""
    found: dict[Id, dict[Id, Values]] = {}
    for category_id, category in release.categories.items():
        items = category.items()
        ids = category.ids(items)
        found[category_id] = {
            one: {name: value for name, value in values.items() if value is not None}
            for one, values in zip(ids, map(category.columns.values, items.tolist()), strict=True)
        }
    return found
