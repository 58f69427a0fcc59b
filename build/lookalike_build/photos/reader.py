"""The photo reader: a photo's bytes from a file, a web server or an object store.

A server's fault becomes a PhotoError. Its reason never names the URL, which may hold a password or a
signature.
"""

import hashlib
import http.client
import os
import random
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import aiohttp
import fsspec
from fsspec.asyn import sync
from yarl import URL

from lookalike_build.photos.cache import CachedPhoto, PhotoCache
from lookalike_build.photos.deadline import DeadlineThreads
from lookalike_build.photos.decoding import (
    MAX_PHOTO_BYTES,
    HostError,
    PhotoError,
    check_photo,
    host_error,
    read_photo,
)
from lookalike_build.photos.format import is_picture
from lookalike_build.photos.image import SCHEME, is_url, oddity
from lookalike_build.photos.public_address import PrivateAddressError, public_socket

# Within this time, in seconds, a connection must be made.
CONNECT_S = 10.0

# Seconds before the second attempt; twice as long before the third, and so on.
BACKOFF_S = 0.5

# The longest wait between attempts, in seconds, whatever `Retry-After` says.
MAX_WAIT_S = 30.0

MAX_REDIRECTS = 5

# Of one line of an answer's head, as curl has it; aiohttp's own limit is 8 KB.
MAX_HEADER_BYTES = 100 * 1024

# The schemes that are always allowed, with their other names.
SCHEMES = frozenset(
    ("file", "local", "http", "https", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss")
)
WEB_SCHEMES = frozenset(("http", "https"))

# Bounds the threads that stores (other than web servers) take if they never answer.
_STORE_THREADS = DeadlineThreads(256)

# fsspec chains URLs with this: zip://a.png::https://example.com/a.zip
_CHAIN = re.compile("(:|%3a){2}", re.IGNORECASE)
_IPV6_HOST = re.compile(r"^https?://([^/?#@]*@)?\[[^]/?#]*", re.IGNORECASE)

# Statuses below 500 that another attempt may change.
_PASSING_STATUSES = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)

# Parts of a stored file's description that change when it is read.
_VOLATILE = ("accessTime", "time")


class PassingError(PhotoError):
    """A photo that could not be read now; another attempt may succeed, after `wait_s` seconds."""

    def __init__(self, reason: str, wait_s: float = 0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class StandIn(bytes):
    """A cached photo, read in place of one that its origin does not give now."""


@dataclass(frozen=True)
class PhotoReader:
    """Reads photos; callable from many threads, and picklable.

    An image is a path, relative to `folder` or absolute, or a URL with one of `schemes`: ``file://``,
    ``http://``, ``https://``, or an object store (``s3://``, ``gs://``, ``az://``, …). fsspec opens the
    stores, with credentials from environment variables and configuration files. It knows other schemes,
    some of which read local files and the environment for whoever wrote the URL.

    With `public_only`, paths are rejected, and connections go only to public addresses and through no
    proxy. The caller must then also leave ``file://`` and the object stores out of `schemes`.

    An attempt to read a URL takes at most `timeout_s` seconds. Up to `retries` more follow where they
    may help. Photos are kept in `cache`, if given, and downloaded again only if they have changed at
    their origin. While the origin cannot be reached, fails or gives what is no sound photo, such as an
    HTML page, the cached photo is read, as a `StandIn`.
    """

    folder: Path
    timeout_s: float = 30
    retries: int = 2
    cache: PhotoCache | None = None
    schemes: frozenset[str] = SCHEMES
    public_only: bool = False

    def read(self, image: str) -> bytes:
        """Return the bytes of the photo `image`, at most `MAX_PHOTO_BYTES`.

        Raises PhotoError if the photo cannot be read, HostError if this machine fails. The reason says
        also what is odd about the image's text; what is odd and can be read is read.
        """
        if not image:
            raise PhotoError("the catalogue names no photo")
        try:
            data = self._read(image)
            if is_url(image) and oddity(image) and not is_picture(data):
                check_photo(data)
        except PhotoError as error:
            if odd := oddity(image):
                raise PhotoError(f"image {odd} ({error.reason})") from error
            raise
        return data

    def _read(self, image: str) -> bytes:
        given = re.match(SCHEME, image)
        if given is None:
            if self.public_only:
                raise PhotoError("a path, where only URLs are taken (--public-addresses-only)")
            return read_photo(self.folder / image)
        scheme = given[1].lower()
        if scheme not in self.schemes:
            raise PhotoError(f"{scheme}:// URLs are not taken; --allow-scheme {scheme} takes them")
        if re.search(_CHAIN, re.sub(_IPV6_HOST, "", image)):
            raise PhotoError("URLs with :: are not taken")
        if scheme in ("file", "local"):
            return read_photo(_path(image))
        return self._read_url(scheme + image[len(scheme) :])

    def _read_url(self, url: str) -> bytes:
        cached = self.cache.get(url) if self.cache else None
        try:
            photo = self._fetch(url, cached)
        except PassingError:
            if cached is None:
                raise
            return StandIn(cached.data)
        if cached and photo.data != cached.data and not _is_sound(photo.data):
            return StandIn(cached.data)
        if self.cache and photo is not cached and is_picture(photo.data):
            self.cache.put(url, photo)
        return photo.data

    def _fetch(self, url: str, cached: CachedPhoto | None) -> CachedPhoto:
        for attempt in range(self.retries):
            try:
                return self._attempt(url, cached)
            except (PassingError, HostError) as error:
                asked = error.wait_s if isinstance(error, PassingError) else 0
                # At random, so that threads refused together do not come back together.
                backoff = BACKOFF_S * 2**attempt * random.uniform(0.5, 1)  # noqa: S311
                time.sleep(min(MAX_WAIT_S, max(asked, backoff)))
        return self._attempt(url, cached)

    def _attempt(self, url: str, cached: CachedPhoto | None) -> CachedPhoto:
        """The photo at `url`: `cached` itself if that is still current."""
        try:
            if url.startswith(("http:", "https:")):
                web = fsspec.filesystem(
                    "http", get_client=_session, client_kwargs={"public_only": self.public_only}
                )
                photo: CachedPhoto = sync(
                    web.loop, _download, web, url, cached, timeout=self.timeout_s
                )
                return photo
            return _STORE_THREADS.call(
                lambda: self._copy(*_filesystem(url), cached), self.timeout_s
            )
        except PhotoError:
            raise
        except Exception as error:  # libraries for object stores raise nearly any class
            raise host_error(error) or _photo_error(error) from error

    def _copy(self, store: Any, path: str, cached: CachedPhoto | None) -> CachedPhoto:
        status = self._call(store, "info", path)
        if status["type"] == "directory":
            raise PhotoError("not a regular file")
        described = {key: value for key, value in status.items() if key not in _VOLATILE}
        validator = {"info": hashlib.sha256(str(described).encode()).hexdigest()}
        if cached and cached.validator == validator:
            return cached
        _check_size(status.get("size") or 0)
        if status.get("size") == 0:  # stores return no range of an empty file
            return CachedPhoto(b"", validator)
        data = self._call(store, "cat_file", path, start=0, end=MAX_PHOTO_BYTES + 1)
        _check_size(len(data))
        return CachedPhoto(data, validator)

    def _call(self, store: Any, name: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of a filesystem; an asynchronous one is stopped at the timeout."""
        if store.async_impl:
            function = getattr(store, f"_{name}")
            return sync(store.loop, function, *args, **kwargs, timeout=self.timeout_s)
        return getattr(store, name)(*args, **kwargs)


def _is_sound(data: bytes) -> bool:
    try:
        check_photo(data)
    except PhotoError:
        return False
    return True


# Errors that another attempt would not change, and their reasons. The order matters, here and below:
# some classes inherit from a class further down.
_FINAL_ERRORS: dict[type[Exception], str] = {
    FileNotFoundError: "no such file",
    IsADirectoryError: "not a regular file",
    PermissionError: "permission denied",
    aiohttp.ClientConnectorCertificateError: "the server's certificate is not valid",
    aiohttp.TooManyRedirects: f"more than {MAX_REDIRECTS} redirects",
    aiohttp.RedirectClientError: "a redirect to what is no http or https URL",
    PrivateAddressError: "its server has no public address (--public-addresses-only)",
    ValueError: "not a valid URL",
}

_PASSING_ERRORS: dict[type[Exception], str] = {
    aiohttp.ConnectionTimeoutError: f"no connection within {CONNECT_S:g} s",
    TimeoutError: "not read in time",
    aiohttp.ClientConnectorDNSError: "the server's name is unknown",
    aiohttp.ClientHttpProxyError: "the proxy refuses",
    aiohttp.ClientResponseError: "the server's answer is not HTTP",
    aiohttp.ClientPayloadError: "the server's answer is cut or broken",
    aiohttp.ServerDisconnectedError: "the server closed the connection",
}


def _photo_error(error: Exception) -> PhotoError:
    if isinstance(error, aiohttp.ClientConnectorError):
        private = isinstance(error.os_error, PrivateAddressError)
        error = error.os_error if private else error
    for kind, reason in (_FINAL_ERRORS | _PASSING_ERRORS).items():
        if isinstance(error, kind):
            return PhotoError(reason) if kind in _FINAL_ERRORS else PassingError(reason)
    if isinstance(error, OSError) and error.errno:
        return PassingError(os.strerror(error.errno).lower())
    return PassingError(f"cannot be read: {type(error).__name__}")


def _path(url: str) -> Path:
    """The path of a ``file://`` URL."""
    host, slash, path = url.partition("://")[2].partition("/")
    if host not in ("", "localhost") or not slash:
        raise PhotoError("a file:// URL must have three slashes: file:///…")
    return Path("/" + unquote(path))


def _filesystem(url: str) -> tuple[Any, str]:
    scheme = url.partition("://")[0]
    try:
        fsspec.get_filesystem_class(scheme)
    except (ImportError, ValueError) as error:  # its text names the package to install
        rejected = PhotoError(f"cannot read {scheme}:// URLs: {error}")
        raise host_error(error) or rejected from error
    store, path = fsspec.core.url_to_fs(url)
    return store, path


async def _session(public_only: bool, **_: Any) -> aiohttp.ClientSession:
    """A session for all threads of the process, whose number limits its connections.

    With `public_only` there is no proxy, which would resolve names itself.
    """
    factory = public_socket if public_only else None
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, socket_factory=factory),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_S),
        max_line_size=MAX_HEADER_BYTES,
        max_field_size=MAX_HEADER_BYTES,
        # Photos are compressed already.
        headers={"Accept-Encoding": "identity", "User-Agent": "lookalike-build"},
        trust_env=not public_only,
    )


async def _download(web: Any, url: str, cached: CachedPhoto | None) -> CachedPhoto:
    session = await web.set_session()
    # Unchanged if possible: any rewriting can invalidate a signature.
    target = URL(url, encoded=re.fullmatch("[!-~]*", url) is not None)
    headers = cached.validator if cached else {}
    # aiohttp raises at the last allowed redirect, not after it.
    async with session.get(target, headers=headers, max_redirects=MAX_REDIRECTS + 1) as answer:
        if cached and answer.status == HTTPStatus.NOT_MODIFIED:
            return cached
        if answer.status != HTTPStatus.OK:
            raise _status_error(answer)
        _check_size(answer.content_length or 0)
        data = bytearray()
        async for chunk in answer.content.iter_any():
            data += chunk
            if len(data) > MAX_PHOTO_BYTES:
                raise PhotoError(f"more than {MAX_PHOTO_BYTES} bytes")
        return CachedPhoto(bytes(data), _validator(answer))


def _validator(answer: aiohttp.ClientResponse) -> dict[str, str]:
    """The request headers that ask, next time, whether the photo is still the same."""
    if answer.content_length is None and not answer.headers.get("Transfer-Encoding"):
        return {}  # the body ended with the connection and may be incomplete
    pairs = {"If-None-Match": "ETag", "If-Modified-Since": "Last-Modified"}
    return {ask: answer.headers[given] for ask, given in pairs.items() if given in answer.headers}


def _status_error(answer: aiohttp.ClientResponse) -> PhotoError:
    status = answer.status
    # Not the server's own reason phrase, which may say anything.
    reason = f"the server says {status} {http.client.responses.get(status, '')}".rstrip()
    if status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in _PASSING_STATUSES:
        return PhotoError(reason)
    return PassingError(reason, _wait_s(answer.headers.get("Retry-After", "")))


def _wait_s(retry_after: str) -> float:
    """The seconds that a `Retry-After` header asks for, in either of its forms; 0 if invalid."""
    if re.fullmatch("[0-9]{1,9}", retry_after):
        return int(retry_after)
    try:
        until = parsedate_to_datetime(retry_after)
        return (until - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):  # TypeError: it has no time zone
        return 0


def _check_size(n_bytes: int) -> None:
    if n_bytes > MAX_PHOTO_BYTES:
        raise PhotoError(f"{n_bytes} bytes, more than {MAX_PHOTO_BYTES}")
