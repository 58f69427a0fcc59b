"""Changes of products over HTTP: who may, what is taken, and what is said of each."""

import io
import json
import logging
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from lookalike.journal import Change, Journal
from lookalike.release.attributes import Value
from lookalike.release.manifest import Manifest
from lookalike.release.root import ReleaseRoot
from lookalike.serving.source import ReleaseSource
from support import (
    TOKEN,
    Client,
    Response,
    client_of,
    files_of_at_most,
    integer_catalogue,
    publish,
)

MAX_BYTES = 2048
PHOTO = b"\xff\xd8 a photo \x00\r\n"
BEARER = {"HTTP_AUTHORIZATION": f"Bearer {TOKEN}"}


def copied(root: ReleaseRoot, folder: Path) -> ReleaseRoot:
    shutil.copytree(root.path, folder, symlinks=True)
    return ReleaseRoot(folder)


@pytest.fixture
def numbers(integer_root: ReleaseRoot, tmp_path: Path) -> ReleaseRoot:
    """A root of its own whose ids are integers."""
    return copied(integer_root, tmp_path / "copy")


@pytest.fixture
def strings(string_root: ReleaseRoot, tmp_path: Path) -> ReleaseRoot:
    """A root of its own whose ids are strings."""
    return copied(string_root, tmp_path / "copy")


@pytest.fixture
def client(numbers: ReleaseRoot) -> Client:
    return client_of(numbers, token=TOKEN, max_photo_bytes=MAX_BYTES)


@pytest.fixture
def journal(numbers: ReleaseRoot) -> Iterator[Journal]:
    with closing(Journal(numbers.journal)) as opened:
        yield opened


def put(client: Client, path: str, body: bytes = PHOTO, **headers: Any) -> Response:
    environ = {"CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body), **BEARER}
    return client.get(path, "PUT", **{**environ, **headers})


def delete(client: Client, path: str, **headers: Any) -> Response:
    return client.get(path, "DELETE", **{**BEARER, **headers})


def patch(client: Client, path: str, body: bytes, **headers: Any) -> Response:
    environ = {"CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body), **BEARER}
    return client.get(path, "PATCH", **{**environ, **headers})


def ask(client: Client, number: int) -> dict[str, Any]:
    answer = client.get(f"/changes/{number}", **BEARER)
    assert (answer.status, answer.headers["Cache-Control"]) == ("200 OK", "no-store")
    return dict(json.loads(answer.body))


def said(answer: Response) -> tuple[str, str]:
    """The short error and its detail."""
    body = json.loads(answer.body)
    assert answer.headers["Cache-Control"] == "no-store"
    return body["error"], body.get("detail", "")


def is_refused(answer: Response, root: ReleaseRoot, status: str, detail: str) -> None:
    """Refused so, and nothing journaled."""
    assert answer.status[:3] == status
    assert detail in said(answer)[1]
    if root.journal.exists():
        with closing(Journal(root.journal)) as journal:
            assert journal.status().n_pending == 0


def test_a_photo_is_on_disk_before_its_number_is_told(client: Client, journal: Journal) -> None:
    answer = put(client, "/products/1/234")
    assert answer.status == "202 Accepted"
    ((number, change),) = journal.pending(9)
    assert change == Change("put", 1, 234)
    assert journal.photo(number) == PHOTO
    assert json.loads(answer.body) == {"change": number, "state": "pending"}
    assert answer.headers["Location"] == f"/changes/{number}"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Content-Type"] == "application/json"


def test_a_removal_is_taken(client: Client, journal: Journal) -> None:
    answer = delete(client, "/products/1/234")
    assert answer.status == "202 Accepted"
    assert [change for _, change in journal.pending(9)] == [Change("delete", 1, 234)]


@pytest.fixture
def attributes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The release has a few."""
    types = {"hidden": "flag", "price": "number", "title": "text"}
    monkeypatch.setattr(Manifest, "known_attributes", types)


@pytest.mark.usefixtures("attributes")
def test_attributes_are_set(client: Client, journal: Journal) -> None:
    body: dict[str, Value | None] = {"price": 1200, "hidden": False, "title": "日本"}
    assert patch(client, "/products/1/234", json.dumps(body).encode()).status == "202 Accepted"
    answer = patch(client, "/products/1/9", b'{"price": null}')  # whether it is there, follow knows
    assert answer.headers["Location"] == "/changes/2"
    assert [change for _, change in journal.pending(9)] == [
        Change("set", 1, 234, values=body),
        Change("set", 1, 9, values={"price": None}),
    ]
    (_, first), _ = journal.pending(9)
    assert isinstance((first.values or {})["price"], float)
    assert ask(client, 1)["op"] == "set"


@pytest.mark.usefixtures("attributes")
@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "the body is empty; send a JSON object with Content-Length"),
        (b"{", "the body is not JSON in UTF-8"),
        (b'{"title": "\xff"}', "the body is not JSON in UTF-8"),
        (b'{"price": NaN}', "the body is not JSON in UTF-8"),
        (b'{"price": 1e400}', "the body is not JSON in UTF-8: Number out of range"),
        (b"[" * 30_000, "the body is not JSON in UTF-8"),
        (b"{}", "the body must be a JSON object of at least one attribute, not {}"),
        (b"null", "the body must be a JSON object of at least one attribute, not null"),
        (b'[{"price": 1}]', 'must be a JSON object of at least one attribute, not [{"price":1}]'),
        (b'{"colour": 1}', 'unknown attribute "colour"; known are hidden, price, title'),
        (b'{"price": 1, "": 1}', 'unknown attribute ""; known are hidden, price, title'),
        (b'{"op": "set"}', 'unknown attribute "op"'),
        (b'{"price": "5"}', 'price must be a finite number, not "5"; null is a missing value'),
        (b'{"price": true}', "price must be a finite number, not true"),
        (b'{"price": 1%s}' % (b"0" * 400), "price must be a finite number, not 1000"),
        (b'{"price": []}', "price must be a finite number, not []"),
        (b'{"hidden": 1}', "hidden must be true or false, not 1"),
        (b'{"hidden": "true"}', 'hidden must be true or false, not "true"'),
        (b'{"title": ""}', 'title must be text of 1 to 1000 bytes of UTF-8, not ""'),
        (b'{"title": "%s"}' % (b"x" * 1001), "title must be text of 1 to 1000 bytes"),
        (b'{"title": 5}', "title must be text of 1 to 1000 bytes of UTF-8, not 5"),
    ],
)
def test_attributes_and_values_are_checked(
    client: Client, numbers: ReleaseRoot, body: bytes, detail: str
) -> None:
    is_refused(patch(client, "/products/1/234", body), numbers, "400", detail)


def test_a_set_is_checked_as_other_changes(client: Client, numbers: ReleaseRoot) -> None:
    body = b'{"hidden": true}'
    for path, detail in (
        ("/products/x/1", "category_id must be a whole number"),
        ("/products/1", "the path must be /products/CATEGORY_ID/PRODUCT_ID"),
        ("/products/1/2?x=1", "takes no parameters"),
    ):
        is_refused(patch(client, path, body), numbers, "400", detail)
    path = "/products/1/2"
    for kind in ("multipart/form-data; boundary=x", "image/jpeg"):
        answer = patch(client, path, body, CONTENT_TYPE=kind)
        is_refused(answer, numbers, "400", "must be a JSON object of attributes, no form")
    large = b'{"hidden": true%s}' % (b" " * 2**15)
    is_refused(patch(client, path, large), numbers, "413", "at most 32768 are taken")
    for kind in ("application/json", "application/x-www-form-urlencoded", ""):  # curl -d
        assert patch(client, path, body, CONTENT_TYPE=kind).status == "202 Accepted"


def test_a_location_says_where_the_app_is_mounted(client: Client) -> None:
    answer = delete(
        client,
        "/products/1/234",
        SCRIPT_NAME="/shop",
        REQUEST_URI="/shop/products/1/234",
    )
    assert answer.headers["Location"] == "/shop/changes/1"


def test_a_change_is_pending_then_live(
    client: Client, journal: Journal, monkeypatch: pytest.MonkeyPatch, numbers: ReleaseRoot
) -> None:
    now = 1_800_000_000.25
    monkeypatch.setattr(time, "time", lambda: now)
    put(client, "/products/1/234")
    pending = {
        "change": 1,
        "op": "put",
        "category_id": 1,
        "product_id": 234,
        "state": "pending",
        "received_at": "2027-01-15T08:00:00.250000Z",
    }
    assert ask(client, 1) == pending
    release = str(numbers.current())
    journal.settle(1, release)
    now += 0.99
    assert ask(client, 1) == pending  # another process may not serve it yet
    now += 0.02
    assert ask(client, 1) == {**pending, "state": "live", "release": release}
    now -= 3600
    assert ask(client, 1)["state"] == "live"  # whatever becomes of the clock


def test_a_rejected_change_says_why_at_once(client: Client, journal: Journal) -> None:
    put(client, "/products/1/234")
    journal.reject({1: "cannot identify the format of the photo"})
    outcome = ask(client, 1)
    assert outcome["state"] == "rejected"
    assert outcome["reason"] == "cannot identify the format of the photo"
    assert "release" not in outcome


def test_a_change_is_not_live_before_its_release_is_served_here(
    numbers: ReleaseRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = ReleaseSource(numbers)
    source.look()
    client = client_of(numbers, token=TOKEN, source=source)
    delete(client, "/products/1/100")
    old = str(numbers.current())
    publish(numbers.path, integer_catalogue(), tmp_path / "f", neighbours=5)
    with closing(Journal(numbers.journal)) as journal:
        journal.settle(1, str(numbers.current()))
    settled = time.time()
    monkeypatch.setattr(time, "time", lambda: settled + 5)
    assert ask(client, 1)["state"] == "pending"
    source.look()
    assert ask(client, 1)["state"] == "live"
    # The release before is current again: this process has seen the newer one, others have not.
    numbers.make_current(old)
    assert ask(client, 1)["state"] == "live"
    source.look()
    assert ask(client, 1)["state"] == "live"
    fresh = client_of(numbers, token=TOKEN)
    assert ask(fresh, 1)["state"] == "live"
    assert ask(fresh, 1)["release"] > old


def test_a_change_whose_release_is_refused_here_is_not_live(
    numbers: ReleaseRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = ReleaseSource(numbers)
    source.look()
    client = client_of(numbers, token=TOKEN, source=source)
    delete(client, "/products/1/100")
    publish(numbers.path, integer_catalogue(), tmp_path / "f", neighbours=5)
    (numbers.folder(str(numbers.current())) / "manifest.json").write_text("{}")
    with closing(Journal(numbers.journal)) as journal:
        journal.settle(1, str(numbers.current()))
    source.look()
    later = time.time() + 5
    monkeypatch.setattr(time, "time", lambda: later)
    assert ask(client, 1)["state"] == "pending"


def test_where_nothing_is_served_nothing_is_live(
    client: Client, journal: Journal, numbers: ReleaseRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    delete(client, "/products/1/100")
    journal.settle(1, str(numbers.current()))
    (numbers.path / "current").unlink()
    later = time.time() + 5
    monkeypatch.setattr(time, "time", lambda: later)
    assert ask(client_of(numbers, token=TOKEN), 1)["state"] == "pending"


@pytest.mark.parametrize(
    "number", ["2", "0", "01", "-1", "1.0", "1/", "", "x", "١", "9" * 18, "9" * 19, "9" * 5000]
)
def test_an_unknown_number_is_404(client: Client, number: str) -> None:
    delete(client, "/products/1/100")
    path = f"/changes/{number}".encode().decode("latin-1")
    answer = client.get(path, **BEARER)
    assert answer.status == "404 Not Found"
    assert said(answer) == ("not_found", "")


def test_head_is_answered_without_a_body(client: Client) -> None:
    delete(client, "/products/1/100")
    answer = client.get("/changes/1", "HEAD", **BEARER)
    assert (answer.status, answer.body) == ("200 OK", b"")
    assert int(answer.headers["Content-Length"]) == len(client.get("/changes/1", **BEARER).body)


@pytest.mark.parametrize("path", ["/products/1/100", "/products/", "/products/x", "/changes/1"])
@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "GET", "POST"])
@pytest.mark.parametrize(
    "given",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN.upper()}",
        f"Bearer {TOKEN}, Bearer {TOKEN}",
        f"Basic {TOKEN}",
        f"Bearer{TOKEN}",
        TOKEN,
        "Bearer \xff\xe9",
    ],
)
def test_without_the_token_it_is_401_whatever_is_asked(
    client: Client, numbers: ReleaseRoot, path: str, method: str, given: str | None
) -> None:
    headers = {} if given is None else {"HTTP_AUTHORIZATION": given}
    answer = client.get(f"{path}?x=1", method, CONTENT_LENGTH="9" * 9, **headers)
    assert answer.status == "401 Unauthorized"
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert said(answer)[0] == "unauthorized"
    assert TOKEN not in str(answer)
    assert not numbers.journal.parent.exists()


@pytest.mark.parametrize("given", [f"bearer {TOKEN}", f"BEARER  {TOKEN} "])
def test_the_scheme_is_taken_in_any_case(client: Client, given: str) -> None:
    answer = delete(client, "/products/1/100", HTTP_AUTHORIZATION=given)
    assert answer.status == "202 Accepted"


@pytest.mark.parametrize("path", ["/products/1/100", "/changes/1", "/products/", "/changes/"])
@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "GET"])
def test_without_a_token_configured_there_is_no_such_path(
    numbers: ReleaseRoot, path: str, method: str
) -> None:
    client = client_of(numbers)
    unknown = client.get("/unknown", method)
    for headers in ({}, BEARER, {"HTTP_AUTHORIZATION": "Bearer "}):
        assert client.get(path, method, **headers) == unknown
    assert unknown.status == "404 Not Found"
    assert not numbers.journal.parent.exists()


@pytest.mark.parametrize("path", ["/products", "/changes", "/productsx/1/2", "/PRODUCTS/1/2"])
def test_other_paths_stay_unknown(client: Client, path: str) -> None:
    assert client.get(path, "PUT", **BEARER).status == "404 Not Found"


@pytest.mark.parametrize(
    ("path", "method", "allow"),
    [
        ("/products/1/100", "GET", "PUT, PATCH, DELETE"),
        ("/products/1/100", "HEAD", "PUT, PATCH, DELETE"),
        ("/products/1/100", "POST", "PUT, PATCH, DELETE"),
        ("/changes/1", "PUT", "GET, HEAD"),
        ("/changes/1", "DELETE", "GET, HEAD"),
    ],
)
def test_another_method_is_405(client: Client, path: str, method: str, allow: str) -> None:
    answer = client.get(path, method, **BEARER)
    assert answer.status == "405 Method Not Allowed"
    assert answer.headers["Allow"] == allow


def test_the_largest_photo_is_taken_and_one_byte_more_is_not_read(
    client: Client, journal: Journal, numbers: ReleaseRoot
) -> None:
    class Unread(io.BytesIO):
        def read(self, *_: object) -> bytes:
            raise AssertionError

    more = str(MAX_BYTES + 1)
    unread: dict[str, Any] = {"CONTENT_LENGTH": more, "wsgi.input": Unread(b"x" * 4096)}
    answer = put(client, "/products/1/100", **unread)
    is_refused(answer, numbers, "413", f"{MAX_BYTES + 1} bytes; at most {MAX_BYTES} are taken")
    is_refused(put(client, "/products/1/100", CONTENT_LENGTH="9" * 4000), numbers, "413", "9999")
    photo = b"x" * MAX_BYTES
    assert put(client, "/products/1/100", photo).status == "202 Accepted"
    assert journal.photo(1) == photo


@pytest.mark.parametrize("length", ["0", "", None])
def test_an_empty_body_is_400(client: Client, numbers: ReleaseRoot, length: str | None) -> None:
    environ: dict[str, Any] = {} if length is None else {"CONTENT_LENGTH": length}
    answer = client.get("/products/1/100", "PUT", **BEARER, **environ)
    is_refused(answer, numbers, "400", "the body is empty; send the photo with Content-Length")


def test_a_body_that_ends_early_is_not_taken(client: Client, numbers: ReleaseRoot) -> None:
    answer = put(client, "/products/1/100", b"abc", CONTENT_LENGTH="10")
    is_refused(answer, numbers, "400", "the body ended after 3 of 10 bytes")


@pytest.mark.parametrize("kind", ["multipart/form-data; boundary=x", "application/JSON"])
def test_a_form_is_no_photo(client: Client, numbers: ReleaseRoot, kind: str) -> None:
    answer = put(client, "/products/1/100", CONTENT_TYPE=kind)
    is_refused(answer, numbers, "400", "must be the bytes of the photo file")


@pytest.mark.parametrize(
    "kind", ["image/jpeg", "application/octet-stream", "application/x-www-form-urlencoded", ""]
)
def test_what_programs_call_a_photo_by_default_is_taken(client: Client, kind: str) -> None:
    answer = put(client, "/products/1/100", CONTENT_TYPE=kind)
    assert answer.status == "202 Accepted"


def test_a_removal_with_a_body_is_400(client: Client, numbers: ReleaseRoot) -> None:
    answer = delete(
        client, "/products/1/1", CONTENT_LENGTH="2", **{"wsgi.input": io.BytesIO(b"{}")}
    )
    is_refused(answer, numbers, "400", "DELETE takes no body")


@pytest.mark.parametrize("path", ["/products/1/100", "/changes/1"])
def test_a_query_is_400(client: Client, numbers: ReleaseRoot, path: str) -> None:
    method = "DELETE" if path.startswith("/products") else "GET"
    answer = client.get(f"{path}?wait=1", method, **BEARER)
    is_refused(answer, numbers, "400", "takes no parameters")


def test_without_a_release_it_is_503(tmp_path: Path) -> None:
    root = ReleaseRoot(tmp_path / "root")
    root.create()
    client = client_of(root, token=TOKEN)
    path = "/products/1/2"
    for answer in (put(client, path), patch(client, path, b"{}"), delete(client, path)):
        assert answer.status == "503 Service Unavailable"
        assert said(answer)[0] == "not_ready"
    assert not root.journal.exists()


@pytest.mark.parametrize(
    ("path", "detail"),
    [
        ("/products/a/2", 'category_id must be a whole number from 0 to 9223372036854775807, not "'),
        ("/products/1/photo.jpg", 'product_id must be a whole number from 0 to 9223372036854775807'),
        ("/products/1/9223372036854775808", "product_id must be a whole number"),
        ("/products/1/-1", "product_id must be a whole number"),
        ("/products/1/ 1", "product_id must be a whole number"),
        ("/products/1/1_0", "product_id must be a whole number"),
        ("/products/1/\xd9\xa1", "product_id must be a whole number"),
        ("/products/1/", "product_id must be a whole number"),
        ("/products//1", "category_id must be a whole number"),
        ("/products/", "the path must be /products/CATEGORY_ID/PRODUCT_ID"),
        ("/products/1", "the path must be /products/CATEGORY_ID/PRODUCT_ID"),
        ("/products/1/2/", "the path must be /products/CATEGORY_ID/PRODUCT_ID"),
        ("/products/1/2/3", "write %2F"),
        ("/products/1/\xff", "the path is not UTF-8"),
    ],
)  # fmt: skip
def test_ids_are_checked_as_in_a_query(
    client: Client, numbers: ReleaseRoot, path: str, detail: str
) -> None:
    is_refused(put(client, path), numbers, "400", detail)
    sent = quote(path.encode("latin-1"))
    is_refused(delete(client, path, REQUEST_URI=sent), numbers, "400", detail)


@pytest.mark.parametrize("path", ["/products/001/0234", "/products/1/234"])
def test_leading_zeros_of_a_number_mean_nothing(
    client: Client, journal: Journal, path: str
) -> None:
    delete(client, path)
    assert journal.pending(1)[0][1] == Change("delete", 1, 234)


STRINGS = [
    "A-1",
    "b 2",
    "ü",
    "100",
    "007",
    "a&b=c",
    "%41",
    "日本",
    "+",
    "z" * 64,
    "a?b#c",
    ";",
    "\\",
]
SLASHED = ["ü/3", "../x", "/", "a//b", ".", "..", "%2F", "a/", "http://x/y?z"]


@pytest.mark.parametrize("product_id", [*STRINGS, *SLASHED])
def test_every_string_id_can_be_told_where_the_server_gives_the_path_as_sent(
    strings: ReleaseRoot, product_id: str
) -> None:
    """As Unit does: REQUEST_URI as sent, PATH_INFO decoded, with dots and double slashes resolved."""
    client = client_of(strings, token=TOKEN)
    sent = f"/products/{quote('../hats & caps', safe='')}/{quote(product_id, safe='')}"
    answer = put(client, "/products/whatever", REQUEST_URI=sent)
    assert answer.status == "202 Accepted"
    assert put(client, "/products/x", SCRIPT_NAME="/a", REQUEST_URI=f"/a{sent}").status[:3] == "202"
    with closing(Journal(strings.journal)) as journal:
        changes = [change for _, change in journal.pending(9)]
        assert changes == [Change("put", "../hats & caps", product_id)] * 2
    outcome = ask(client, 1)
    assert (outcome["category_id"], outcome["product_id"]) == ("../hats & caps", product_id)


@pytest.mark.parametrize("product_id", STRINGS)
def test_without_the_path_as_sent_every_id_without_a_slash_can_be_told(
    strings: ReleaseRoot, product_id: str
) -> None:
    client = client_of(strings, token=TOKEN)
    decoded = f"/products/shoes/{product_id}".encode().decode("latin-1")
    assert delete(client, "/x", PATH_INFO=decoded).status == "202 Accepted"
    with closing(Journal(strings.journal)) as journal:
        assert journal.pending(1)[0][1] == Change("delete", "shoes", product_id)


@pytest.mark.parametrize(
    ("path", "detail"),
    [
        ("/products/shoes/a/b", "write %2F"),
        ("/products/shoes/", "product_id must be 1 to 64 bytes of UTF-8, not 0"),
        ("/products/shoes/" + "z" * 65, "product_id must be 1 to 64 bytes of UTF-8, not 65"),
        ("/products/shoes/a\r\nX: 1", "product_id must not hold control characters"),
        ("/products/a\x00b/c", "category_id must not hold control characters"),
        ("/products/shoes/\xff", "the path is not UTF-8"),
    ],
)
def test_unfit_string_ids_are_400(strings: ReleaseRoot, path: str, detail: str) -> None:
    client = client_of(strings, token=TOKEN)
    is_refused(put(client, path), strings, "400", detail)
    sent = quote(path.encode("latin-1"))
    is_refused(put(client, path, REQUEST_URI=sent), strings, "400", detail)


@pytest.mark.parametrize("sent", ["/products/shoes/%", "/products/shoes/%zz", "/products/%4/x"])
def test_a_broken_percent_is_400(strings: ReleaseRoot, sent: str) -> None:
    client = client_of(strings, token=TOKEN)
    answer = put(client, "/products/shoes/x", REQUEST_URI=sent)
    is_refused(answer, strings, "400", 'the path has a "%" that two hexadecimal digits')


def test_a_path_that_the_server_resolved_to_ours_is_taken_as_resolved(
    client: Client, journal: Journal
) -> None:
    delete(client, "/products/1/2", REQUEST_URI="/old/../products/1/2")
    assert journal.pending(1)[0][1] == Change("delete", 1, 2)


def test_a_journal_that_cannot_be_written_costs_changes_and_nothing_else(
    numbers: ReleaseRoot, caplog: pytest.LogCaptureFixture
) -> None:
    client = client_of(numbers, token=TOKEN)
    numbers.journal.parent.write_text("in the way")
    for _ in range(3):
        for answer in (put(client, "/products/1/2"), client.get("/changes/1", **BEARER)):
            assert answer.status == "503 Service Unavailable"
            assert answer.headers["Retry-After"] == "10"
            assert said(answer)[0] == "unavailable"
        assert client.get("/nns?category_id=1&product_id=100").status == "200 OK"
    logged = [record.getMessage() for record in caplog.records]
    taken, read = logged
    assert taken.startswith(f"changes of products are not taken: {numbers.journal}: ")
    assert read.startswith(f"what became of changes cannot be read: {numbers.journal}: ")
    assert "lookalike_changes_pending" not in client.get("/metrics").body.decode()
    numbers.journal.parent.unlink()
    assert put(client, "/products/1/2").status == "202 Accepted"
    assert ask(client, 1)["state"] == "pending"


def test_a_full_disk_is_survived(
    numbers: ReleaseRoot, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    connect = sqlite3.connect

    def full(*arguments: Any, **options: Any) -> sqlite3.Connection:
        database: sqlite3.Connection = connect(*arguments, **options)
        database.execute("PRAGMA max_page_count = 30")
        return database

    client = client_of(numbers, token=TOKEN)
    monkeypatch.setattr(sqlite3, "connect", full)
    assert put(client, "/products/1/2").status == "202 Accepted"
    assert put(client, "/products/1/3", b"x" * 2**20).status == "503 Service Unavailable"
    assert "is full; make room" in caplog.text
    monkeypatch.undo()
    assert put(client, "/products/1/3", b"x" * 2**20).status == "202 Accepted"
    assert [ask(client, number)["product_id"] for number in (1, 2)] == [2, 3]


@pytest.mark.parametrize("is_open", [False, True])
def test_what_became_of_a_change_is_told_on_a_full_disk(
    client: Client, numbers: ReleaseRoot, is_open: bool
) -> None:
    with closing(Journal(numbers.journal)) as journal:
        journal.add([Change("delete", 1, 2)] * 2)
        journal.reject({1: "no photo"})
        if not is_open:
            journal.close()
        with files_of_at_most(0):
            assert delete(client, "/products/1/2").status == "503 Service Unavailable"
            assert [ask(client, number)["state"] for number in (1, 2)] == ["rejected", "pending"]
            assert metrics(client)["changes_pending"] == 1
    assert delete(client, "/products/1/2").status == "202 Accepted"


def test_where_no_change_ever_came_there_is_none_and_no_journal(
    client: Client, numbers: ReleaseRoot
) -> None:
    assert client.get("/changes/1", **BEARER).status == "404 Not Found"
    assert not numbers.journal.parent.exists()


def test_photos_wait_up_to_a_bound_and_removals_always(
    numbers: ReleaseRoot, caplog: pytest.LogCaptureFixture
) -> None:
    client = client_of(numbers, token=TOKEN, max_pending_bytes=2500)
    assert put(client, "/products/1/1", b"x" * 1000).status == "202 Accepted"
    assert put(client, "/products/1/2", b"x" * 1500).status == "202 Accepted"
    for size in (1, 500):
        answer = put(client, "/products/1/3", b"x" * size)
        assert (answer.status, answer.headers["Retry-After"]) == ("503 Service Unavailable", "10")
        assert said(answer) == (
            "unavailable",
            "the photos that wait may take 2500 bytes together, and this one would be more; send it "
            "again when some of them are live",
        )
    assert delete(client, "/products/1/3").status == "202 Accepted"
    (record,) = caplog.records
    assert "would take 2501 bytes, more than 2500" in record.getMessage()
    assert metrics(client)["changes_pending_bytes"] == 2500
    with closing(Journal(numbers.journal)) as journal:
        assert [change.product_id for _, change in journal.pending(9)] == [1, 2, 3]
        journal.reject({1: "no photo"})
    assert put(client, "/products/1/4", b"x" * 1000).status == "202 Accepted"
    with closing(Journal(numbers.journal)) as journal:
        journal.settle(9, "r")
        assert journal.status().pending_bytes == 0
    assert put(client, "/products/1/5", b"x" * 2000).status == "202 Accepted"


def test_a_journal_that_was_removed_is_begun_anew(client: Client, numbers: ReleaseRoot) -> None:
    put(client, "/products/1/2")
    shutil.rmtree(numbers.journal.parent)
    assert put(client, "/products/1/3").status == "503 Service Unavailable"
    assert put(client, "/products/1/3").status == "202 Accepted"
    with closing(Journal(numbers.journal)) as journal:
        assert [change.product_id for _, change in journal.pending(9)] == [3]


def test_the_token_is_nowhere(
    client: Client, numbers: ReleaseRoot, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    numbers.journal.parent.write_text("in the way")
    answers = [
        put(client, "/products/1/2"),
        delete(client, "/products/1/2", HTTP_AUTHORIZATION=f"Basic {TOKEN}"),
        client.get("/metrics"),
        client.get("/release"),
    ]
    assert TOKEN not in caplog.text + str(answers)
    assert caplog.text


def test_a_defect_is_answered_without_a_traceback(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Journal, "add", broken)
    answer = put(client, "/products/1/2")
    assert answer.status == "503 Service Unavailable"
    assert said(answer)[0] == "unavailable"
    assert TOKEN not in caplog.text


def metrics(client: Client) -> dict[str, float]:
    lines = client.get("/metrics").body.decode().splitlines()
    samples = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name.removeprefix("lookalike_"): float(value) for name, _, value in samples}


def test_metrics_say_where_the_journal_stands(client: Client, numbers: ReleaseRoot) -> None:
    began = time.time()
    empty = metrics(client)
    assert empty["changes_pending"] == empty["oldest_pending_change_seconds"] == 0
    assert not numbers.journal.exists()
    for product_id in range(4):
        delete(client, f"/products/1/{product_id}")
    with closing(Journal(numbers.journal)) as journal:
        journal.reject({1: "no photo"})
        journal.settle(3, "r")
        journal.batch_done(3, 0.25)
        journal.batch_done(1, 0.5)
    found = metrics(client)
    assert found["changes_pending"] == 1
    assert 0 < found["oldest_pending_change_seconds"] <= time.time() - began
    assert found['changes_total{state="live"}'] == 2
    assert found['changes_total{state="rejected"}'] == 1
    assert (found["follow_batch_seconds_count"], found["follow_batch_seconds_sum"]) == (2, 0.75)
    assert (found["follow_last_batch_seconds"], found["follow_last_batch_changes"]) == (0.5, 1)
    assert began <= found["follow_last_batch_timestamp_seconds"] <= time.time()
    assert found['requests_total{route="DELETE /products",status="202"}'] == 4


def test_metrics_of_the_journal_are_there_where_it_is_and_no_token(numbers: ReleaseRoot) -> None:
    client = client_of(numbers)
    assert "changes_pending" not in metrics(client)
    with closing(Journal(numbers.journal)) as journal:
        journal.add([Change("delete", 1, 2)])
        assert metrics(client)["changes_pending"] == 1


def test_a_journal_that_cannot_be_read_does_not_break_metrics(
    client: Client, numbers: ReleaseRoot, caplog: pytest.LogCaptureFixture
) -> None:
    numbers.journal.parent.mkdir()
    numbers.journal.write_bytes(b"x" * 5000)
    for _ in range(3):
        assert metrics(client)["ready"] == 1
    assert caplog.text.count("not a database") == 1


def test_requests_are_counted_by_route_without_their_ids(client: Client) -> None:
    put(client, "/products/1/2")
    put(client, "/products/1/2", b"")
    put(client, "/products/1/2", HTTP_AUTHORIZATION="")
    delete(client, "/products/x/2")
    client.get("/changes/1", **BEARER)
    client.get("/changes/1")
    client.get("/products/1/2", **BEARER)
    requests = {name: n for name, n in metrics(client).items() if name.startswith("requests_total")}
    assert requests == {
        'requests_total{route="PUT /products",status="202"}': 1,
        'requests_total{route="PUT /products",status="400"}': 1,
        'requests_total{route="PUT /products",status="401"}': 1,
        'requests_total{route="DELETE /products",status="400"}': 1,
        'requests_total{route="/changes",status="200"}': 1,
        'requests_total{route="/changes",status="401"}': 1,
        'requests_total{route="other",status="405"}': 1,
    }


def test_no_request_waits_long_for_who_keeps_the_journal_locked(
    client: Client, journal: Journal, numbers: ReleaseRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    (number,) = journal.add([Change("delete", 1, 100)])
    patience, connect = [], sqlite3.connect

    def note(path: Any, timeout: float, **options: Any) -> sqlite3.Connection:
        patience.append(timeout)
        opened: sqlite3.Connection = connect(path, timeout, **options)
        return opened

    monkeypatch.setattr(sqlite3, "connect", note)
    assert put(client, "/products/1/100").status == "202 Accepted"
    with closing(connect(numbers.journal, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for answer in (put(client, "/products/1/100"), delete(client, "/products/1/100")):
            assert said(answer)[0] == "unavailable"
            assert answer.headers["Retry-After"] == "10"
        # Readers do not wait for a writer.
        assert ask(client, number)["state"] == "pending"
        assert b"lookalike_changes_pending 2\n" in client.get("/metrics").body
    assert max(patience) <= 0.25
    assert put(client, "/products/1/100").status == "202 Accepted"


def test_where_even_readers_must_wait_metrics_go_on_without_the_journal(
    numbers: ReleaseRoot, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(Journal(numbers.journal)) as journal:
        journal.add([Change("delete", 1, 100)])
    client = client_of(numbers, token=TOKEN)
    with closing(sqlite3.connect(numbers.journal, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("CREATE TABLE other (number INTEGER)")
        answer = client.get("/metrics")
        assert answer.status == "200 OK"
        assert b"lookalike_changes_pending" not in answer.body
        assert "the journal's metrics are missing" in caplog.text
        assert client.get("/changes/1", **BEARER).headers["Retry-After"] == "10"
    assert b"lookalike_changes_pending 1\n" in client.get("/metrics").body
