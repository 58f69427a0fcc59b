"""``/browse``, asked as a browser would: what it shows, where it leads, what it refuses."""

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

import pytest

from lookalike.release.attributes import AttributeTypes, Values
from lookalike.release.category import Category
from lookalike.release.files import NEIGHBOURS
from lookalike.release.ids import Id
from lookalike.release.root import ReleaseRoot
from lookalike.release.rules import Rule
from lookalike.serving.application import AnswerLimits, Application
from lookalike.serving.searches import Searches
from lookalike.serving.selections import Selections
from lookalike.serving.source import ReleaseSource
from support import (
    Catalogue,
    Client,
    Features,
    change,
    client_of,
    give,
    make_slim,
    publish,
    random_features,
    ruled,
)

PHOTOS = "https://cdn.example.com/{category_id}/{product_id}.jpg?w=300"


class Page(HTMLParser):
    """What an answer's HTML holds: its text, links, photos, options and headings."""

    def __init__(self, client: Client, target: str) -> None:
        super().__init__()
        self.answer = client.get(target)
        assert self.answer.headers["Content-Type"] == "text/html; charset=utf-8"
        self.text: list[str] = []
        self.links: list[str] = []
        self.photos: list[str] = []
        self.named: dict[str, str] = {}
        self.fields: dict[str, str] = {}
        self._open: list[str] = []
        self.feed(self.answer.body.decode())
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        at = {name: value or "" for name, value in attrs}
        if tag not in ("meta", "link", "img", "input"):
            self._open.append(tag)
        if tag == "a":
            self.links.append(urljoin("/browse", at["href"]))
        elif tag == "img":
            self.photos.append(at["src"])
        elif tag == "input":
            self.fields[at["name"]] = at["value"]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if self._open and self._open[-1] == "a":
            self.named[data] = self.links[-1]


def browse(client: Client, **parameters: object) -> Page:
    return Page(client, "/browse?" + urlencode(parameters))


def related(client: Client, **parameters: object) -> dict[str, list[object]]:
    target = "/nns?distances=true&exclude_self=true&" + urlencode(parameters)
    return dict(json.loads(client.get(target).body))


@pytest.fixture(scope="module")
def client(integer_root: ReleaseRoot) -> Client:
    return client_of(integer_root, image_url=PHOTOS)


def test_it_begins_with_all_categories(client: Client) -> None:
    page = browse(client)
    assert page.answer.status == "200 OK"
    assert [urlsplit(link).query for link in page.links] == [
        f"category_id={category_id}&limit=12" for category_id in (1, 2, 3, 40)
    ]
    assert "4 categories" in page.text


def test_a_category_shows_its_products_page_by_page(client: Client) -> None:
    found = []
    target = "/browse?category_id=40"
    for number in range(1, 6):
        page = Page(client, target)
        assert page.answer.status == "200 OK"
        assert f"page {number} of 5" in "".join(page.text)
        found += [photo.rpartition("/")[2] for photo in page.photos]
        following = [link for link in page.links if f"page={number + 1}" in link]
        assert bool(following) == (number < 5)
        target = following[0] if following else ""
    assert found == [f"{product_id}.jpg?w=300" for product_id in range(5000, 8000, 10)]


def test_any_product_leads_to_one_of_the_category(client: Client) -> None:
    for _ in range(5):
        link = browse(client, category_id=2).named["any product"]
        assert link.startswith("/browse?category_id=2&product_id=")
        assert Page(client, link).answer.status == "200 OK"


def test_a_product_shows_its_neighbours_as_nns_has_them(client: Client) -> None:
    page = browse(client, category_id=1, product_id=100)
    expected = related(client, category_id=1, product_id=100, limit=12)
    assert page.photos == [
        PHOTOS.format(category_id=1, product_id=product_id)
        for product_id in (100, *expected["product_ids"])
    ]
    shown = [text for text in page.text if text.startswith(("0.", "1."))]
    assert shown == [f"{distance:.4f}" for distance in expected["distances"]]
    assert "Product 100" in "".join(page.text)
    assert [link for link in page.links if "product_id" in link] == [
        f"/browse?category_id=1&product_id={product_id}&limit=12"
        for product_id in expected["product_ids"]
    ]


def test_every_neighbour_leads_on(client: Client) -> None:
    for link in browse(client, category_id=2, product_id=5, limit=3).links:
        page = Page(client, link)
        assert page.answer.status == "200 OK"
        assert all("limit=3" in further for further in page.links)


def test_a_lone_product_says_so(client: Client) -> None:
    assert (
        "It is the only product of its category."
        in browse(client, category_id=3, product_id=77).text
    )


def test_the_form_holds_what_was_asked_for_and_may_be_half_empty(client: Client) -> None:
    page = browse(client, category_id=1, product_id=100, limit=5, release="", compare="", page="")
    fields = {"category_id": "1", "product_id": "100", "limit": "5", "conditions": ""}
    assert page.fields == fields
    assert browse(client, category_id=1, product_id="").text == browse(client, category_id=1).text


ATTRIBUTES: AttributeTypes = {
    "brand": "text",
    "price": "number",
    "in_stock": "flag",
    "title": "text",
    "weight": "number",
}
SCRIPT = "<script>alert(1)</script>"


def with_attributes(
    root: ReleaseRoot, defaults: str = "", searches: Searches | None = None
) -> Client:
    """A client of a release in which products 100 to 159 of category 1 have values, 100 of all
    attributes, 101 is hidden and the others cost 2, 3, …; no other category has columns."""
    values: dict[Id, Values] = {100 + each: {"price": float(each)} for each in range(2, 60)}
    values[100] = {
        "title": SCRIPT,
        "price": 1200.5,
        "brand": "A & B",
        "in_stock": False,
        "weight": 3.0,
    }
    values[101] = {"hidden": True, "title": "\u202ekcab"}
    give(root, {1: values}, {"hidden": "flag", **ATTRIBUTES})
    return client_of(root, searches=searches, selections=Selections(defaults))


def test_products_are_shown_with_title_and_price_and_then_what_else_they_have(
    root: ReleaseRoot,
) -> None:
    client = with_attributes(root)
    for page in (
        browse(client, category_id=1),
        browse(client, category_id=1, product_id=100),
        browse(client, category_id=1, product_id=103, limit=100),
    ):
        text = "".join(page.text)
        assert text.index(SCRIPT) < text.index("1200.5") < text.index("brand A & B")
        assert "brand A & B, in_stock false, weight 3" in text
        assert "<bdi>&lt;script&gt;alert(1)" in page.answer.body.decode()
    page = browse(client, category_id=1)
    assert page.text.count("hidden") == 1
    assert "<bdi>\u202ekcab</bdi>" in page.answer.body.decode()
    assert "hidden" in browse(client, category_id=1, product_id=101).text
    assert "hidden" not in browse(client, category_id=2).text


def test_conditions_are_those_of_requests_and_go_along_from_product_to_product(
    root: ReleaseRoot,
) -> None:
    client = with_attributes(root)
    conditions = "price__lte=9&closer_than=100"
    handed_on = urlencode({"conditions": conditions})
    page = browse(client, category_id=1, product_id=120, conditions=conditions)
    target = f"/nns?category_id=1&product_id=120&exclude_self=true&{conditions}"
    expected = json.loads(client.get(target).body)
    assert sorted(expected) == list(range(102, 110))
    listed = [link for link in page.links if "product_id" in link]
    assert listed == [
        f"/browse?category_id=1&product_id={product_id}&limit=12&{handed_on}"
        for product_id in expected
    ]
    assert page.fields["conditions"] == conditions
    assert Page(client, page.links[1]).fields["conditions"] == conditions
    known = "closer_than, distinct, defaults, and conditions on hidden, brand, price"
    assert known in "".join(page.text)
    nothing = browse(client, category_id=1, product_id=120, conditions="price__lt=0")
    assert "No other product that may be shown meets the conditions." in nothing.text


@pytest.mark.parametrize(
    "conditions",
    [
        "price__lte=x",
        "colour=red",
        "limit=5",
        "distinct=colour",
        "price__lte",
        "brand=%ff",
        "日本=1",
    ],
)
def test_wrong_conditions_are_said_on_the_page_as_in_json(
    root: ReleaseRoot, conditions: str
) -> None:
    client = with_attributes(root)
    page = browse(client, category_id=1, product_id=120, conditions=conditions)
    assert page.answer.status == "400 Bad Request"
    assert page.fields["conditions"] == conditions
    encoded = conditions.encode().decode("latin-1")
    said = json.loads(client.get(f"/related?category_id=1&product_id=120&{encoded}").body)
    if conditions != "limit=5":  # which is no condition here
        # What is known differs: `limit` is a field of its own.
        first = said["detail"].partition("; known are")[0]
        assert first in "".join(page.text)
    assert page.answer.body.decode().count('role="alert"') == 1


def test_defaults_apply_and_are_said(root: ReleaseRoot) -> None:
    client = with_attributes(root, "price__lte=9")
    page = browse(client, category_id=1, product_id=120, limit=100)
    assert len([link for link in page.links if "product_id" in link]) == 8
    assert "price__lte=9" in page.text
    declined = browse(client, category_id=1, product_id=120, limit=100, conditions="defaults=false")
    assert len([link for link in declined.links if "product_id" in link]) == 58


def test_searches_of_the_page_are_bounded_as_others_are(root: ReleaseRoot) -> None:
    searches = Searches(percent=1, clock=lambda: 0.0)
    searches._saved_s = 0.0
    client = with_attributes(root, searches=searches)
    page = browse(client, category_id=40, product_id=5000, conditions="price__missing=false")
    assert page.answer.status == "429 Too Many Requests"
    assert page.answer.headers["Retry-After"]
    assert "searches (a vector, or" in "".join(page.text)


def test_what_is_pinned_is_marked_and_what_is_banned_is_listed(root: ReleaseRoot) -> None:
    near = related(client_of(root), category_id=1, product_id=100, limit=3)["product_ids"]
    nearest = int(str(near[0]))
    ruled(root, {1: [Rule(100, "pin", 155), Rule(None, "ban", nearest)]})
    client = client_of(root)
    page = browse(client, category_id=1, product_id=100, limit=3)
    listed = [link for link in page.links if "product_id" in link]
    assert [link.partition("product_id=")[2] for link in listed] == [
        f"{one}&limit=3" for one in (155, near[1], near[2], near[0])
    ]
    assert page.text.count("pinned") == 1
    assert "1 banned from these answers:" in "".join(page.text)
    assert "pinned" not in browse(client, category_id=1, product_id=101).text


def test_without_a_url_there_are_no_photos(integer_root: ReleaseRoot) -> None:
    page = browse(client_of(integer_root), category_id=2, product_id=900)
    assert page.photos == []
    assert "img-src 'self'" in page.answer.headers["Content-Security-Policy"]
    assert "Product 900" in "".join(page.text)


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ("category_id=x", 400, "category_id must be a whole number from 0 to 9223372036854775807"),
        ("category_id=1&product_id=-1", 400, "product_id must be a whole number"),
        ("product_id=1", 400, "category_id is missing"),
        ("category_id=1&category_id=1", 400, "category_id is given more than once"),
        ("limit=101", 400, "limit must be a whole number from 1 to 100"),
        ("category_id=40&page=6", 400, 'page must be a whole number from 1 to 5, not "6"'),
        ("page=1", 400, "page goes with category_id"),
        (
            "category_id=1&product_id=100&page=0",
            400,
            "page goes with category_id and no product_id",
        ),
        ("category_id=40&page=0", 400, 'page must be a whole number from 1 to 5, not "0"'),
        ("category_id=40&page=²", 400, "page must be a whole number from 1 to 5"),
        ("x=1", 400, 'unknown parameter "x"'),
        ("category_id=%ff", 400, "category_id is not UTF-8"),
        ("category_id=99", 404, "no category 99"),
        ("category_id=1&product_id=99", 404, "category 1 has no product 99"),
        ("category_id=99&product_id=99", 404, "category 99 has no product 99"),
        ("release=../1", 404, "no release '../1' under"),
        ("compare=none", 404, "no release 'none' under"),
    ],
)
def test_what_cannot_be_shown_is_said_on_a_page(
    client: Client, query: str, status: int, said: str
) -> None:
    page = Page(client, "/browse?" + query.encode().decode("latin-1"))
    assert page.answer.status.startswith(str(status))
    assert said in "".join(page.text)
    assert Page(client, page.links[0]).answer.status == "200 OK"


def test_markup_in_ids_and_in_questions_stays_text(tmp_path: Path) -> None:
    ids = ["<script>alert(1)</script>", '"><img src=x>', "a&amp;b", "{category_id}", "日本/%"]
    catalogue: Catalogue = {"<b>shoes": (ids, random_features(len(ids), 1))}
    client = client_of(publish(tmp_path / "root", catalogue, tmp_path / "f"), image_url=PHOTOS)
    page = browse(client, category_id="<b>shoes")
    assert set(ids) < set(page.text)
    assert len(page.photos) == len(ids)
    for link in page.links[3:]:
        assert Page(client, link).answer.status == "200 OK"
    shown = browse(client, category_id="<b>shoes", product_id="{category_id}")
    assert shown.photos[0] == "https://cdn.example.com/%3Cb%3Eshoes/%7Bcategory_id%7D.jpg?w=300"
    for text in ids:
        wrong = browse(client, category_id="<b>shoes", product_id=f"{text}<i>")
        assert f"no product {text}<i>" in "".join(wrong.text)
    assert '"<i>"' in "".join(browse(client, **{"<i>": "1"}).text)


def test_an_id_changes_the_direction_of_nothing_around_it(tmp_path: Path) -> None:
    turned = "\u202eexe.b"
    root = publish(tmp_path / "r", {turned: ([turned], random_features(1, 1))}, tmp_path / "f")
    client = client_of(root)
    page = browse(client, category_id=turned, product_id=turned).answer.body.decode()
    asked = page.count(f'value="{turned}"')
    # In the form it is what was asked for; in the title it is escaped.
    assert (asked, page.count(f"<bdi>{turned}</bdi>")) == (2, page.count(turned) - asked)
    assert r"<title>\u202eexe.b in category \u202eexe.b" in page
    said = browse(client, category_id=turned, product_id="\u202ex").answer.body.decode()
    assert '<p role="alert">' in said
    assert "\u202e" not in said.partition("<main>")[2]


def test_the_page_may_load_its_own_files_and_the_photos_alone(client: Client) -> None:
    headers = browse(client).answer.headers
    assert headers["Content-Security-Policy"] == (
        "default-src 'none'; img-src https://cdn.example.com; style-src 'self'; "
        "script-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    for name, kind in (("style.css", "text/css"), ("script.js", "text/javascript")):
        assert f'"browse/{name}"' in browse(client).answer.body.decode()
        file = client.get(f"/browse/{name}")
        assert file.headers["Content-Type"] == f"{kind}; charset=utf-8"
        assert file.body
        assert client.get(f"/browse/{name}", "HEAD").body == b""
    assert client.get("/browse", "POST").status == "405 Method Not Allowed"
    assert client.get("/browse/").status == client.get("/browse/x").status == "404 Not Found"


def test_it_is_not_there_unless_wanted(integer_root: ReleaseRoot) -> None:
    source = ReleaseSource(integer_root)
    source.look()
    client = Client(Application(source, AnswerLimits(max_limit=10)))
    for path in ("/browse", "/browse/style.css"):
        assert client.get(path).status == "404 Not Found"


def test_without_a_release_the_page_says_why(tmp_path: Path) -> None:
    page = browse(client_of(ReleaseRoot(tmp_path)))
    assert page.answer.status == "503 Service Unavailable"
    assert "no release in" in "".join(page.text)


def two_releases(tmp_path: Path, before: Features, after: Features) -> tuple[Client, str, str]:
    ids = list(range(len(before)))
    root = publish(tmp_path / "root", {1: (ids, before)}, tmp_path / "one")
    first = str(root.current())
    publish(tmp_path / "root", {1: ([*ids, 99], after), 2: ([5], after[:1])}, tmp_path / "two")
    return client_of(root), first, str(root.current())


def mapped(root: ReleaseRoot, name: str) -> int:
    """How many files of a release this process has mapped."""
    return Path("/proc/self/maps").read_text().count(f"{root.folder(name)}/")


def test_a_release_looked_at_is_let_go_of_once_it_is_pruned(root: ReleaseRoot) -> None:
    first = str(root.current())
    change(root, {1: {100: None}})
    source = ReleaseSource(root)
    source.look()
    client = client_of(root, source=source)
    before = mapped(root, first)
    page = browse(client, category_id=1, product_id=101, compare=first)
    assert page.answer.status == "200 OK"
    source.look()
    assert mapped(root, first) > before
    folder = root.folder(first)
    shutil.rmtree(folder)
    source.look()
    assert f"{folder}/" not in Path("/proc/self/maps").read_text()


def test_a_category_that_is_the_same_in_the_release_served_is_not_opened_again(
    root: ReleaseRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = str(root.current())
    change(root, {1: {100: None}})
    client = client_of(root)
    opened: list[Path] = []

    def open_category(folder: Path, *how: Any, **more: Any) -> Category:
        opened.append(folder)
        return Category(folder, *how, **more)

    monkeypatch.setattr("lookalike.serving.browse.handler.Category", open_category)
    for category_id in (2, 1, 1, 2):
        assert browse(client, category_id=category_id, release=first).answer.status == "200 OK"
    assert opened == [root.folder(first) / "1"]


def test_two_releases_stand_side_by_side(tmp_path: Path) -> None:
    before = random_features(30, 1)
    client, first, second = two_releases(tmp_path, before, random_features(31, 2))
    page = browse(client, category_id=1, product_id=7, compare=first)
    text = "".join(page.text)
    assert text.index(f"Release {second}, served now") < text.index(f"Release {first}")
    ours = related(client, category_id=1, product_id=7, limit=12)["product_ids"]
    theirs = related(client_of_release(tmp_path, first), category_id=1, product_id=7, limit=12)[
        "product_ids"
    ]
    listed = [link for link in page.links if "product_id" in link]
    assert listed == [
        f"/browse?category_id=1&product_id={product_id}&limit=12&compare={first}"
        for product_id in [*ours, *theirs]
    ]
    same = set(ours) & set(theirs)
    places = sum(a == b for a, b in zip(ours, theirs, strict=True))
    assert f"{len(same)} of 12 neighbours are in both, {places} at the same place." in text
    assert page.text.count("only here") == 24 - 2 * len(same)


def client_of_release(tmp_path: Path, name: str) -> Client:
    """A client of the same root with another release current, as if it were another root."""
    other = tmp_path / "other"
    other.mkdir(exist_ok=True)
    (other / "releases").symlink_to(tmp_path / "root/releases")
    (other / "current").symlink_to(f"releases/{name}")
    return client_of(ReleaseRoot(other))


def test_another_release_than_the_one_served_can_be_shown(tmp_path: Path) -> None:
    client, first, second = two_releases(tmp_path, random_features(30, 1), random_features(31, 2))
    assert "1 categories" in browse(client, release=first).text
    assert "2 categories" in browse(client, release=second).text
    assert browse(client, category_id=2, release=first).answer.status == "404 Not Found"
    page = browse(client, category_id=1, product_id=7, release=first, compare=second)
    text = "".join(page.text)
    assert text.index(f"Release {first}") < text.index(f"Release {second}, served now")
    assert all(f"release={first}&compare={second}" in link for link in page.links)


def test_a_product_that_only_one_release_has_is_shown_with_that(tmp_path: Path) -> None:
    client, first, _ = two_releases(tmp_path, random_features(30, 1), random_features(31, 2))
    page = browse(client, category_id=1, product_id=99, compare=first)
    assert page.answer.status == "200 OK"
    assert "This release does not have the product." in page.text
    page = browse(client, category_id=2, product_id=5, compare=first)
    assert "This release does not have the product." in page.text


def test_releases_with_other_ids_are_not_compared(tmp_path: Path) -> None:
    root = publish(tmp_path / "root", {1: ([1, 2], random_features(2, 1))}, tmp_path / "one")
    first = str(root.current())
    publish(tmp_path / "root", {1: (["1", "2"], random_features(2, 1))}, tmp_path / "two")
    page = browse(client_of(root), category_id=1, product_id="1", compare=first)
    assert page.answer.status == "400 Bad Request"
    assert "the ids of the two releases are of different types" in "".join(page.text)


def test_a_slim_copy_is_shown_and_an_unsound_one_named(tmp_path: Path) -> None:
    client, first, second = two_releases(tmp_path, random_features(30, 1), random_features(31, 2))
    root = ReleaseRoot(tmp_path / "root")
    root.make_current(first)
    make_slim(root)
    root.make_current(second)
    assert browse(client, category_id=1, product_id=7, compare=first).answer.status == "200 OK"
    for path in root.folder(first).glob(f"*/{NEIGHBOURS}"):
        path.write_bytes(path.read_bytes()[:-1])
    page = browse(client_of(root), category_id=1, product_id=7, compare=first)
    assert page.answer.status == "404 Not Found"
    assert f"release {first}: 1/{NEIGHBOURS}" in "".join(page.text)
