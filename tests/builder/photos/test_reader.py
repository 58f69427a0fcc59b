"""The photo reader: paths and URLs, servers that misbehave, and the cache."""

import asyncio
import errno
import gzip
import io
import pickle
import resource
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.asyn import AsyncFileSystem
from fsspec.registry import known_implementations
from fsspec.spec import AbstractFileSystem
from PIL import Image

from lookalike_build.photos import public_address
from lookalike_build.photos import reader as photo_reader
from lookalike_build.photos.cache import CachedPhoto, PhotoCache
from lookalike_build.photos.deadline import DeadlineThreads
from lookalike_build.photos.decoding import HostError, PhotoError
from lookalike_build.photos.reader import (
    MAX_REDIRECTS,
    MAX_WAIT_S,
    SCHEMES,
    WEB_SCHEMES,
    PhotoReader,
    StandIn,
)
from waiting import HUNG_S

MAX_BYTES = 100_000
TIMEOUT_S = 0.25  # where it is to pass


def photo(colour: str) -> bytes:
    """A sound photo of 1,000 bytes."""
    file = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(file, "PNG")
    return (file.getvalue() + b"any bytes " * 100)[:1000]


PHOTO = photo("red")

Answer = bytes | Callable[[], Iterable[bytes]]


def answer(status: str = "200 OK", body: bytes = b"", **headers: str | int) -> bytes:
    """An answer over HTTP; its headers with _ for -."""
    given = {"Content_Length": len(body), **headers}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in given.items()]
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "Connection: close", "", ""]).encode() + body


GOOD = answer(body=PHOTO)


class Shop(socketserver.ThreadingTCPServer):
    """A web server that gives its answers in turn, the last of them again and again."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Visit)
        self.answers: list[Answer] = []
        self.requests: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/photo.png"

    def next_answer(self, request: str) -> Answer:
        self.requests.append(request)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


class Visit(socketserver.StreamRequestHandler):
    server: Shop

    def handle(self) -> None:
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            request += self.rfile.readline()
        given = self.server.next_answer(request.decode())
        try:
            for part in [given] if isinstance(given, bytes) else given():
                self.wfile.write(part)
        except OSError:  # the reader has had enough
            self.close_connection = True


@pytest.fixture
def shop() -> Iterator[Shop]:
    with Shop() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that would have been waited before further attempts."""
    waited: list[float] = []
    monkeypatch.setattr(photo_reader, "time", SimpleNamespace(sleep=waited.append))
    monkeypatch.setattr(photo_reader, "MAX_PHOTO_BYTES", MAX_BYTES)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return waited


# With the stores that the tests make up.
ALLOWED = SCHEMES | {"memory", "depot", "drip", "gopher", "other"}


@pytest.fixture
def reader(tmp_path: Path) -> PhotoReader:
    return PhotoReader(tmp_path, retries=2, schemes=ALLOWED)


@pytest.fixture
def caching(tmp_path: Path) -> PhotoReader:
    return PhotoReader(tmp_path, retries=1, cache=PhotoCache(tmp_path / "cache"), schemes=ALLOWED)


def reason(reader: PhotoReader, image: str) -> str:
    with pytest.raises(PhotoError) as caught:
        reader.read(image)
    assert len(caught.value.reason) < 120
    assert caught.value.reason.isprintable()
    return caught.value.reason


# Files


@pytest.mark.parametrize(
    "image",
    [
        "a photo.png",
        "./a photo.png",
        "{folder}/a photo.png",
        "file://{folder}/a photo.png",
        "file://{folder}/a%20photo.png",
        "FILE://localhost{folder}/a%20photo.png",
        "local://{folder}/a photo.png",
    ],
)
def test_file_is_read_by_path_or_url(image: str, reader: PhotoReader, tmp_path: Path) -> None:
    (tmp_path / "a photo.png").write_bytes(PHOTO)
    assert reader.read(image.format(folder=tmp_path)) == PHOTO


@pytest.mark.parametrize("image", ["none.png", "file:///none.png", "a\0b", "file:///%00"])
def test_missing_file_is_rejected(image: str, reader: PhotoReader) -> None:
    assert reason(reader, image) == "no such file"


@pytest.mark.parametrize("image", ["file://photos/1.png", "file://1.png", "file://"])
def test_file_url_with_a_host_is_rejected(image: str, reader: PhotoReader) -> None:
    assert reason(reader, image) == "a file:// URL must have three slashes: file:///…"


# The web


@pytest.mark.parametrize(
    "given",
    [
        GOOD,
        answer(body=PHOTO, Content_Type="text/html"),
        b"HTTP/1.0 200 OK\r\n\r\n" + PHOTO,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n" + PHOTO + b"\r\n0\r\n\r\n",
        answer(body=gzip.compress(PHOTO), Content_Encoding="gzip"),
        answer(body=bytes(MAX_BYTES)),
        answer(),
        answer(body=PHOTO, Content_Security_Policy="x" * 9_000),
        answer(body=PHOTO, Link="x" * 90_000),
        answer(f"200 {'OK' * 9_000}", PHOTO),
        answer(body=PHOTO, **{f"Set-Cookie_{i}": "x" * 500 for i in range(30)}),
    ],
)
def test_photo_is_downloaded(given: bytes, shop: Shop, reader: PhotoReader) -> None:
    shop.answers = [given]
    body = bytes(MAX_BYTES) if len(given) > MAX_BYTES else PHOTO
    assert reader.read(shop.url) == (b"" if given == answer() else body)


@pytest.mark.parametrize(
    ("rest", "target"),
    [
        ("/a%2fb%7E.png?sig=a%2Bb%2C&x", "/a%2fb%7E.png?sig=a%2Bb%2C&x"),
        ("/a b/ü.png", "/a%20b/%C3%BC.png"),
        ("/a.png#part", "/a.png"),
        ("", "/"),
    ],
)
def test_url_is_asked_for_as_it_is(rest: str, target: str, shop: Shop, reader: PhotoReader) -> None:
    shop.answers = [GOOD]
    assert reader.read("HTTP" + shop.url[4:].removesuffix("/photo.png") + rest) == PHOTO
    assert shop.requests[0].startswith(f"GET {target} HTTP/1.1\r\n")


def test_password_in_a_url_is_used_and_never_told(shop: Shop, reader: PhotoReader) -> None:
    shop.answers = [GOOD, answer("403 Forbidden")]
    url = shop.url.replace("//", "//user:s3cret@") + "?signature=s3cret"
    assert reader.read(url) == PHOTO
    assert "\r\nAuthorization: Basic dXNlcjpzM2NyZXQ=\r\n" in shop.requests[0]
    assert reason(reader, url) == "the server says 403 Forbidden"


SEVERAL = "image holds several URLs; write one, or give --from"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (answer("404 Not Found"), "the server says 404 Not Found"),
        (answer("503 Busy"), "the server says 503 Service Unavailable"),
        (answer(body=b"<html>Not here</html>"), "an HTML page, not a photo"),
        (answer(), "file is empty"),
    ],
)
def test_what_is_odd_about_an_image_that_cannot_be_read_is_said(
    given: bytes, said: str, shop: Shop, reader: PhotoReader
) -> None:
    shop.answers = [given]
    url = shop.url.replace("//", "//user:s3cret@")
    assert reason(reader, f"{url}, {url}") == f"{SEVERAL} ({said})"
    assert reason(reader, f"{url}?a=1&amp;b=s3cret") == (
        f"image holds HTML's &amp;; write & instead ({said})"
    )


def test_odd_paths_are_named_unless_there_is_a_file(reader: PhotoReader, tmp_path: Path) -> None:
    assert reason(reader, "a.png, b.png") == "image holds several images; write one (no such file)"
    assert reason(reader, '["a.png"]').startswith("image holds a JSON array; write one address (")
    (tmp_path / "a.png, b.png").write_bytes(PHOTO)
    assert reader.read("a.png, b.png") == PHOTO
    assert reader.read(str(tmp_path / "a.png, b.png")) == PHOTO


def test_odd_url_of_a_photo_is_read(shop: Shop, reader: PhotoReader) -> None:
    shop.answers = [GOOD]
    assert reader.read(f"{shop.url}?a=1&amp;b=2") == PHOTO


def test_product_without_a_photo_is_rejected(reader: PhotoReader, public: PhotoReader) -> None:
    assert reason(reader, "") == reason(public, "") == "the catalogue names no photo"


def redirect(location: str) -> bytes:
    return answer("302 Found", Location=location)


def test_redirects_are_followed_up_to_a_limit(shop: Shop, reader: PhotoReader) -> None:
    shop.answers = [*[redirect("/other.png")] * MAX_REDIRECTS, GOOD]
    assert reader.read(shop.url) == PHOTO
    assert shop.requests[-1].startswith("GET /other.png ")


def endless() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\n\r\n"
    yield from repeat(bytes(10_000))


def endless_chunks() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    yield from repeat(b"2710\r\n" + bytes(10_000) + b"\r\n")


TOO_LARGE = f"more than {MAX_BYTES} bytes"
BOMB = answer(body=gzip.compress(bytes(10**8)), Content_Encoding="gzip")

FINAL: dict[str, tuple[Answer, str]] = {
    "not found": (answer("404 Not Found"), "the server says 404 Not Found"),
    "gone": (answer("410 Gone"), "the server says 410 Gone"),
    "forbidden": (answer("403 Forbidden"), "the server says 403 Forbidden"),
    "unknown status": (answer("499 <script>"), "the server says 499"),
    "in its own words": (answer("404 Lost\tit " + "x" * 500), "the server says 404 Not Found"),
    "part of it": (answer("206 Partial Content", PHOTO), "the server says 206 Partial Content"),
    "no content": (answer("204 No Content"), "the server says 204 No Content"),
    "unasked 304": (answer("304 Not Modified"), "the server says 304 Not Modified"),
    "redirect nowhere": (answer("302 Found"), "the server says 302 Found"),
    "redirect to a file": (redirect("file:///etc/passwd"), "a redirect to what is no http or"),
    "redirect to a store": (redirect("s3://bucket/a.png"), "a redirect to what is no http or"),
    "redirect to no host": (redirect("http://"), "a redirect to what is no http or https URL"),
    "too long by its length": (
        answer(Content_Length=MAX_BYTES + 1),
        f"{MAX_BYTES + 1} bytes, more than {MAX_BYTES}",
    ),
    "too long by a byte": (b"HTTP/1.0 200 OK\r\n\r\n" + bytes(MAX_BYTES + 1), TOO_LARGE),
    "endless": (endless, TOO_LARGE),
    "endless chunks": (endless_chunks, TOO_LARGE),
    "compression bomb": (BOMB, TOO_LARGE),
}


@pytest.mark.parametrize("name", FINAL)
def test_photo_is_rejected_at_once(name: str, shop: Shop, reader: PhotoReader) -> None:
    shop.answers, expected = [FINAL[name][0]], FINAL[name][1]
    assert reason(reader, shop.url).startswith(expected)
    assert len(shop.requests) == 1


def test_redirect_loop_is_rejected(shop: Shop, reader: PhotoReader) -> None:
    shop.answers = [redirect("/photo.png")]
    assert reason(reader, shop.url) == f"more than {MAX_REDIRECTS} redirects"
    assert len(shop.requests) == MAX_REDIRECTS + 1


def trickle(*parts: bytes) -> Callable[[], Iterator[bytes]]:
    """Send a part now and then."""

    def send() -> Iterator[bytes]:
        for part in parts:
            yield part
            threading.Event().wait(TIMEOUT_S / 10)

    return send


BROKEN = "the server's answer is cut or broken"
CLOSED = "the server closed the connection"
LATE = "not read in time"

PASSING: dict[str, tuple[Answer, str]] = {
    "timeout": (answer("408 Request Timeout"), "the server says 408 Request Timeout"),
    "too many": (answer("429 Too Many Requests"), "the server says 429 Too Many Requests"),
    "error": (answer("500 Oh No"), "the server says 500 Internal Server Error"),
    "unavailable": (answer("503 Oh No"), "the server says 503 Service Unavailable"),
    "origin is down": (answer("522"), "the server says 522"),
    "cut": (GOOD[:-1], BROKEN),
    "cut chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n" + PHOTO, BROKEN),
    "cut headers": (GOOD[:30], CLOSED),
    "no answer": (b"", CLOSED),
    "no gzip": (answer(body=PHOTO, Content_Encoding="gzip"), BROKEN),
    "no HTTP": (b"220 ftp.example.com ready\r\n", "the server's answer is not HTTP"),
    "endless header": (b"HTTP/1.1 200 " + b"x" * 200_000, "the server's answer is not HTTP"),
    "trickling body": (trickle(GOOD[:-99], *repeat(b"x", 99)), LATE),
    "trickling headers": (trickle(b"HTTP/1.1 200 OK\r\n", *repeat(b"A: b\r\n", 99)), LATE),
    "silence": (trickle(*repeat(b"", 99)), LATE),
}


@pytest.mark.parametrize("name", PASSING)
def test_what_may_pass_is_tried_again(
    name: str, shop: Shop, tmp_path: Path, waits: list[float]
) -> None:
    given, expected = PASSING[name]
    timeout_s = TIMEOUT_S if expected == LATE else HUNG_S
    shop.answers = [given]
    assert reason(PhotoReader(tmp_path, timeout_s, retries=1), shop.url) == expected
    assert len(waits) == 1
    shop.answers = [given, GOOD]
    assert PhotoReader(tmp_path, timeout_s, retries=99).read(shop.url) == PHOTO


def test_the_time_is_for_all_redirects_together(shop: Shop, tmp_path: Path) -> None:
    shop.answers = [trickle(*repeat(b"", 4), redirect("/photo.png"))]
    assert reason(PhotoReader(tmp_path, TIMEOUT_S, retries=0), shop.url) == LATE


def test_attempts_are_further_and_further_apart(
    shop: Shop, tmp_path: Path, waits: list[float]
) -> None:
    shop.answers = [answer("503")]
    reason(PhotoReader(tmp_path, retries=9), shop.url)
    assert len(shop.requests) == 10
    for attempt, waited in enumerate(waits):
        longest = 0.5 * 2**attempt
        assert min(MAX_WAIT_S, longest / 2) <= waited <= min(MAX_WAIT_S, longest)


@pytest.mark.parametrize(
    ("retry_after", "least", "most"),
    [
        ("7", 7, 7),
        ("86400", MAX_WAIT_S, MAX_WAIT_S),
        (timedelta(seconds=20), 5, 20),
        (timedelta(days=1), MAX_WAIT_S, MAX_WAIT_S),
        (timedelta(days=-1), 0, 0.5),
        ("0", 0, 0.5),
        ("-7", 0, 0.5),
        ("soon", 0, 0.5),
        ("9" * 500, 0, 0.5),
        ("Mon, 01 Jan 2035 00:00:00 -0000", 0, 0.5),
    ],
)
def test_server_may_ask_for_a_longer_wait(
    retry_after: str | timedelta,
    least: float,
    most: float,
    shop: Shop,
    reader: PhotoReader,
    waits: list[float],
) -> None:
    if isinstance(retry_after, timedelta):
        retry_after = format_datetime(datetime.now(UTC) + retry_after, usegmt=True)
    shop.answers = [answer("503 Busy", Retry_After=retry_after), GOOD]
    assert reader.read(shop.url) == PHOTO
    assert len(waits) == 1
    assert least <= waits[0] <= most


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http:///a.png",
        "https://:80/",
        "http://a:b/",
        "http://[::1/",
        "http://\udcff/",
        "http://" + "a" * 70 + ".example/",
    ],
)
def test_odd_url_is_rejected(url: str, reader: PhotoReader) -> None:
    assert reason(reader, url) == "not a valid URL"


def test_unreachable_server_is_tried_again(reader: PhotoReader, waits: list[float]) -> None:
    assert reason(reader, f"http://127.0.0.1:{free_port()}/") == "connection refused"
    assert len(waits) == 2


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_without_a_free_descriptor_no_photo_is_rejected(
    host: str, reader: PhotoReader, waits: list[float]
) -> None:
    url = f"http://{host}:{free_port()}/"
    reason(reader, url)  # has what all downloads share
    waits.clear()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(HostError, match="too many open files; allow more open files"):
            reader.read(url)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(waits) == reader.retries


def test_proxy_of_the_environment_is_asked(
    shop: Shop, reader: PhotoReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", shop.url)
    monkeypatch.setenv("https_proxy", shop.url)
    shop.answers = [GOOD, answer("407 Proxy Authentication Required")]
    assert reader.read("http://photos.example/1.png") == PHOTO
    assert shop.requests[0].startswith("GET http://photos.example/1.png ")
    assert reason(reader, "https://photos.example/1.png") == "the proxy refuses"


def free_port() -> int:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port: int = closed.getsockname()[1]
    return port


def test_threads_download_at_once(shop: Shop, reader: PhotoReader) -> None:
    together = threading.Barrier(32, timeout=HUNG_S)

    def when_all_have_asked() -> Iterator[bytes]:
        together.wait()
        yield GOOD

    shop.answers = [when_all_have_asked]
    with ThreadPoolExecutor(32) as pool:
        assert list(pool.map(reader.read, [shop.url] * 64)) == [PHOTO] * 64


@pytest.mark.slow
def test_reader_works_in_another_process_and_leaves_quietly(
    shop: Shop, caching: PhotoReader
) -> None:
    shop.answers = [GOOD]
    assert caching.read(shop.url) == PHOTO
    program = (
        "import pickle, sys; given = pickle.load(sys.stdin.buffer);"
        "sys.stdout.buffer.write(given[0].read(given[1]))"
    )
    run = subprocess.run(
        [sys.executable, "-W", "default", "-c", program],
        input=pickle.dumps((caching, shop.url)),
        capture_output=True,
        check=True,
    )
    assert run.stdout == PHOTO
    assert run.stderr == b""


# Object stores


@pytest.fixture
def memory() -> Iterator[Any]:
    store = fsspec.filesystem("memory")
    yield store
    store.store.clear()
    store.pseudo_dirs[:] = [""]


@pytest.mark.parametrize("data", [PHOTO, b"", bytes(MAX_BYTES)])
def test_object_is_read(data: bytes, memory: Any, reader: PhotoReader) -> None:
    memory.pipe_file("/bucket/a photo.png", data)
    assert reader.read("memory://bucket/a photo.png") == data
    assert reader.read("MEMORY://bucket/a photo.png") == data


def test_unfit_object_is_rejected(memory: Any, reader: PhotoReader, waits: list[float]) -> None:
    memory.pipe_file("/bucket/large.png", bytes(MAX_BYTES + 1))
    assert (
        reason(reader, "memory://bucket/large.png")
        == f"{MAX_BYTES + 1} bytes, more than {MAX_BYTES}"
    )
    assert reason(reader, "memory://bucket") == "not a regular file"
    assert reason(reader, "memory://bucket/none.png") == "no such file"
    assert not waits


def test_unknown_scheme_is_rejected_with_what_is_missing(
    reader: PhotoReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (
        reason(reader, "gopher://a/1.png")
        == "cannot read gopher:// URLs: Protocol not known: gopher"
    )
    known = {"class": "not_installed.FileSystem", "err": "Please install gcsfs"}
    monkeypatch.setitem(known_implementations, "other", known)
    assert reason(reader, "other://a/1.png") == "cannot read other:// URLs: Please install gcsfs"


class Depot(AsyncFileSystem):  # type: ignore[misc]
    """A store that does in turn what it is told: raises, never answers, or gives its photo."""

    protocol = "depot"
    cachable = False
    told: ClassVar[list[Exception | str]] = []
    version = 1
    size: int | None = None
    n_read = 0

    async def _info(self, path: str, **_: Any) -> dict[str, Any]:
        told = self.told.pop(0) if self.told else "answer"
        if isinstance(told, Exception):
            raise told
        if told == "wait":
            await asyncio.sleep(60)
        return {"name": path, "size": self.size, "type": "file", "version": self.version}

    async def _cat_file(self, path: str, start: int = 0, end: int = 0, **_: Any) -> bytes:
        type(self).n_read += 1
        return (PHOTO * 1000)[start:end] if "endless" in path else PHOTO


@pytest.fixture
def depot(monkeypatch: pytest.MonkeyPatch) -> type[Depot]:
    fsspec.register_implementation("depot", Depot, clobber=True)
    monkeypatch.setattr(Depot, "n_read", 0)
    monkeypatch.setattr(Depot, "version", 1)
    monkeypatch.setattr(Depot, "told", [])
    return Depot


URL = "depot://user:s3cret@bucket/photo.png"


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("wait", LATE),
        (ConnectionResetError(104, "s3cret"), "connection reset by peer"),
        (OSError(16, "s3cret"), "device or resource busy"),
        (OSError("s3cret"), "cannot be read: OSError"),
        (RuntimeError("s3cret"), "cannot be read: RuntimeError"),
    ],
)
def test_failing_store_is_tried_again(
    told: Exception | str, expected: str, depot: type[Depot], tmp_path: Path
) -> None:
    timeout_s = TIMEOUT_S if expected == LATE else HUNG_S
    depot.told = [told]
    assert PhotoReader(tmp_path, timeout_s, 99, schemes=ALLOWED).read(URL) == PHOTO
    depot.told = [told]
    assert reason(PhotoReader(tmp_path, timeout_s, 0, schemes=ALLOWED), URL) == expected


@pytest.mark.parametrize(
    "error", [MemoryError(), OSError(errno.EMFILE, "s3cret"), OSError(errno.ENOSPC, "s3cret")]
)
def test_a_store_that_this_machine_fails_is_not_to_blame(
    error: Exception, depot: type[Depot], tmp_path: Path
) -> None:
    wrapped = RuntimeError("s3cret")
    wrapped.__cause__ = error
    depot.told = [wrapped]
    assert PhotoReader(tmp_path, retries=1, schemes=ALLOWED).read(URL) == PHOTO
    depot.told = [wrapped]
    with pytest.raises(HostError) as caught:
        PhotoReader(tmp_path, retries=0, schemes=ALLOWED).read(URL)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (PermissionError("s3cret"), "permission denied"),
        (FileNotFoundError("s3cret"), "no such file"),
        (IsADirectoryError("s3cret"), "not a regular file"),
    ],
)
def test_what_a_store_refuses_is_rejected_at_once(
    error: Exception, expected: str, depot: type[Depot], caching: PhotoReader
) -> None:
    caching.read(URL)
    depot.told = [error]
    assert reason(caching, URL) == expected


def test_object_of_unknown_size_is_read_up_to_the_limit(
    depot: type[Depot], reader: PhotoReader
) -> None:
    assert reason(reader, "depot://endless") == f"{MAX_BYTES + 1} bytes, more than {MAX_BYTES}"


def test_object_is_read_again_when_it_has_changed(depot: type[Depot], caching: PhotoReader) -> None:
    assert [caching.read(URL), caching.read(URL), depot.n_read] == [PHOTO, PHOTO, 1]
    depot.version = 2
    assert [caching.read(URL), caching.read(URL), depot.n_read] == [PHOTO, PHOTO, 2]


def test_cached_object_is_used_while_its_store_fails(
    depot: type[Depot], caching: PhotoReader
) -> None:
    caching.read(URL)
    depot.told = [TimeoutError(), OSError(16, "busy")]
    assert caching.read(URL) == PHOTO
    assert not depot.told


class Drip(AbstractFileSystem):  # type: ignore[misc]
    """A store that cannot be stopped, and never ends to answer, as an FTP server can."""

    protocol = "drip"
    cachable = False
    enough = threading.Event()

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        return {"name": path, "size": 9, "type": "file"}

    def cat_file(self, path: str, *_: Any, **__: Any) -> bytes:
        assert self.enough.wait(HUNG_S)
        return PHOTO


@pytest.mark.slow
def test_a_store_that_cannot_be_stopped_is_given_up_on_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsspec.register_implementation("drip", Drip, clobber=True)
    monkeypatch.setattr(Drip, "enough", threading.Event())
    monkeypatch.setattr(photo_reader, "_STORE_THREADS", DeadlineThreads(2))
    reader = PhotoReader(tmp_path, TIMEOUT_S, 1, schemes=ALLOWED)
    before = threading.active_count()
    for _ in range(3):
        assert reason(reader, "drip://host/photo.png") == LATE
    assert threading.active_count() <= before + 2
    Drip.enough.set()
    assert PhotoReader(tmp_path, 30, schemes=ALLOWED).read("drip://host/photo.png") == PHOTO


# What URLs may reach


@pytest.mark.parametrize(
    "image",
    [
        "reference://",
        "reference://a?fo=/etc/passwd",
        "ftp://127.0.0.1/photo.png",
        "simplecache://a",
        "SimpleCache://a",
        "memory://bucket/photo.png",
        "data://,abc",
        "adl://a/b",
    ],
)
def test_schemes_that_were_not_allowed_are_rejected(
    image: str, tmp_path: Path, waits: list[float]
) -> None:
    scheme = image.partition(":")[0].lower()
    expected = f"{scheme}:// URLs are not taken; --allow-scheme {scheme} takes them"
    assert reason(PhotoReader(tmp_path), image) == expected
    assert not waits


@pytest.mark.parametrize(
    "image",
    [
        "s3://a::file:///etc/passwd",
        "s3://a/b%3A%3afile:///etc/passwd",
        "s3://a/b:%3afile:///etc/passwd",
        "memory://a.zip::memory://b",
        "http://a/::b",
        "s3://[::]/a",
        "file:///a::b",
    ],
)
def test_chains_of_urls_are_rejected(image: str, reader: PhotoReader) -> None:
    assert reason(reader, image) == "URLs with :: are not taken"


def test_a_server_may_have_an_ipv6_address(reader: PhotoReader) -> None:
    assert reason(reader, "http://user:password@[::1]:9/a.png") != "URLs with :: are not taken"


@pytest.fixture
def public(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PhotoReader:
    """To whom the test's own server is public, and all else is as it is."""
    is_public = public_address.is_public
    monkeypatch.setattr(public_address, "is_public", lambda ip: ip == "127.0.0.1" or is_public(ip))
    return PhotoReader(tmp_path, retries=2, schemes=WEB_SCHEMES, public_only=True)


PRIVATE = "its server has no public address (--public-addresses-only)"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.2:{port}/photo.png",
        "http://[::ffff:127.0.0.1]:{port}/photo.png",
        "http://0.0.0.0:{port}/photo.png",
        "http://10.0.0.1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[fe80::1%25lo]/",
        "http://name.example/",
    ],
)
def test_what_is_private_is_not_connected_to(
    url: str, shop: Shop, public: PhotoReader, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *args, **kw: resolve(
            "192.168.0.1" if host == "name.example" else host, *args, **kw
        ),
    )
    shop.answers = [GOOD]
    port = shop.server_address[1]
    assert reason(public, url.format(port=port)) == PRIVATE
    assert not shop.requests
    shop.answers = [redirect(url.format(port=port)), GOOD]
    assert reason(public, shop.url) == PRIVATE
    assert len(shop.requests) == 1
    assert not waits


def test_what_is_public_is_read_by_no_proxy(
    shop: Shop, public: PhotoReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("no_proxy")
    shop.answers = [redirect("/other.png"), GOOD]
    assert public.read(shop.url) == PHOTO


def test_paths_are_not_read_where_only_public_servers_are(public: PhotoReader) -> None:
    assert reason(public, "photo.png") == (
        "a path, where only URLs are taken (--public-addresses-only)"
    )
    assert reason(public, "file:///etc/passwd").startswith("file:// URLs are not taken")


# The cache

NEW = photo("blue")
MODIFIED = "Mon, 05 Oct 2015 07:28:00 GMT"
UNCHANGED = b"HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ({"ETag": '"1"'}, 'If-None-Match: "1"'),
        ({"ETag": 'W/"1"'}, 'If-None-Match: W/"1"'),
        ({"Last_Modified": MODIFIED}, f"If-Modified-Since: {MODIFIED}"),
    ],
)
def test_unchanged_photo_is_not_downloaded_again(
    given: dict[str, str], asked: str, shop: Shop, caching: PhotoReader
) -> None:
    shop.answers = [answer(body=PHOTO, **given), UNCHANGED, answer(body=NEW), answer(body=PHOTO)]
    assert [caching.read(shop.url) for _ in range(4)] == [PHOTO, PHOTO, NEW, PHOTO]
    assert [f"\r\n{asked}\r\n" in request for request in shop.requests] == [
        False,
        True,
        True,
        False,
    ]


def test_photo_that_may_be_cut_is_downloaded_again(shop: Shop, caching: PhotoReader) -> None:
    shop.answers = [b'HTTP/1.1 200 OK\r\nETag: "1"\r\n\r\n' + PHOTO[:-5], GOOD]
    assert [caching.read(shop.url), caching.read(shop.url)] == [PHOTO[:-5], PHOTO]
    assert "If-None-Match" not in shop.requests[1]


@pytest.mark.parametrize(
    "given",
    [answer("500"), answer("503"), answer("429"), GOOD[:-1], b""],
)
def test_cached_photo_is_used_while_its_server_fails(
    given: Answer, shop: Shop, caching: PhotoReader
) -> None:
    shop.answers = [GOOD, given]
    assert [caching.read(shop.url), caching.read(shop.url)] == [PHOTO, PHOTO]
    assert len(shop.requests) >= 3  # aiohttp asks again by itself where it gets no answer at all


NO_PHOTOS = {
    "HTML": b"<!DOCTYPE html>\n<title>We are moving</title>",
    "HTML without a type": b"\xef\xbb\xbf\n<h1>Not here</h1>",
    "JSON": b'{"error": "not found"}',
    "XML": b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
    "text": b"Hotlinking denied",
    "nothing": b"",
    "a cut photo": PHOTO[:45],
    "noise": bytes(range(256)),
    "a format that is not read": b"BM" + bytes(98),
}


@pytest.mark.parametrize("name", NO_PHOTOS)
def test_cached_photo_is_used_and_kept_while_its_server_sends_no_photo(
    name: str, shop: Shop, caching: PhotoReader
) -> None:
    no_photo = answer(body=NO_PHOTOS[name], ETag="2")
    shop.answers = [answer(body=PHOTO, ETag="1"), no_photo, UNCHANGED]
    read = [caching.read(shop.url) for _ in range(3)]
    assert read == [PHOTO] * 3
    assert [isinstance(one, StandIn) for one in read] == [False, True, False]
    assert all("If-None-Match: 1" in request for request in shop.requests[1:])


def test_what_is_no_photo_is_not_cached(shop: Shop, caching: PhotoReader, tmp_path: Path) -> None:
    shop.answers = [answer(body=NO_PHOTOS["HTML"], ETag="1"), answer("503")]
    assert caching.read(shop.url) == NO_PHOTOS["HTML"]
    assert not entries(tmp_path)
    assert reason(caching, shop.url) == "the server says 503 Service Unavailable"


def test_cached_photo_is_used_when_its_server_is_gone(caching: PhotoReader) -> None:
    with Shop() as shop:
        shop.answers = [GOOD]
        threading.Thread(target=shop.handle_request, daemon=True).start()
        assert caching.read(shop.url) == PHOTO
    assert caching.read(shop.url) == PHOTO


@pytest.mark.parametrize("name", ["not found", "gone", "forbidden", "endless"])
def test_photo_that_is_gone_is_rejected_though_cached(
    name: str, shop: Shop, caching: PhotoReader
) -> None:
    shop.answers = [GOOD, FINAL[name][0]]
    caching.read(shop.url)
    assert reason(caching, shop.url) == FINAL[name][1]


def entries(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "damage",
    [
        lambda stored: b"",
        lambda stored: stored[:30],
        lambda stored: stored[:-1],
        lambda stored: stored + b"x",
        lambda stored: stored.replace(b"any", b"ann", 1),
        lambda stored: stored.replace(b"None", b"Nine", 1),
        lambda stored: bytes(len(stored)),
    ],
)
def test_damaged_entry_is_downloaded_again(
    damage: Callable[[bytes], bytes], shop: Shop, caching: PhotoReader, tmp_path: Path
) -> None:
    shop.answers = [answer(body=PHOTO, ETag="1"), answer(body=NEW, ETag="2"), UNCHANGED]
    caching.read(shop.url)
    (entry,) = entries(tmp_path)
    entry.write_bytes(damage(entry.read_bytes()))
    assert [caching.read(shop.url), caching.read(shop.url)] == [NEW, NEW]
    assert "If-None-Match" not in shop.requests[1]
    assert entries(tmp_path) == [entry]


def test_no_url_is_on_the_disk(shop: Shop, caching: PhotoReader, tmp_path: Path) -> None:
    shop.answers = [GOOD]
    caching.read(shop.url + "?signature=s3cret")
    (entry,) = entries(tmp_path)
    assert "s3cret" not in str(entry)
    assert b"s3cret" not in entry.read_bytes()


def test_photo_is_read_though_it_cannot_be_cached(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(b"a file, no folder")
    shop.answers = [GOOD]
    cache = PhotoCache(tmp_path / "cache")
    assert PhotoReader(tmp_path, cache=cache).read(shop.url) == PHOTO
    assert entries(tmp_path) == [tmp_path / "cache"]


def test_entry_written_by_many_is_always_whole(tmp_path: Path) -> None:
    cache = PhotoCache(tmp_path)
    photos = [CachedPhoto(bytes([i]) * 10_000 * i, {"number": str(i)}) for i in range(8)]
    cache.put("u", photos[0])

    def rewrite(photo: CachedPhoto) -> bool:
        cache.put("u", photo)
        return cache.get("u") in photos

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(rewrite, photos * 25))
    assert len(entries(tmp_path)) == 1


def test_prune_keeps_what_is_used_and_what_is_not_its_own(tmp_path: Path) -> None:
    cache = PhotoCache(tmp_path)
    photo = CachedPhoto(PHOTO, {})
    urls = [f"http://example.com/{i}.png" for i in range(50)]
    for url in urls:
        cache.put(url, photo)
    foreign = [tmp_path / "mine.photo", entries(tmp_path)[0].with_name("mine.part")]
    for path in foreign:
        path.touch()
    entries(tmp_path)[0].with_name("0" * 32 + ".part").touch()
    assert cache.prune(iter([*urls[:20], "photos/1.png"])) == 30
    assert [cache.get(url) for url in urls] == [photo] * 20 + [None] * 30
    assert len(entries(tmp_path)) == 22
    assert cache.prune([]) == 20
    assert sorted(entries(tmp_path)) == sorted(foreign)
    assert PhotoCache(tmp_path / "none").prune(urls) == 0
