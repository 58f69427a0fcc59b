"""The page in a real browser: by mouse, by keyboard, on a phone, without its script."""

import shutil
from collections.abc import Iterator

import pytest
from PIL import Image
from playwright.sync_api import Browser, FloatRect, Locator, Page, ViewportSize, sync_playwright

from lookalike.release.root import ReleaseRoot
from servers import Server, embedded
from support import integer_catalogue, publish, random_features

pytestmark = pytest.mark.chromium

WITHOUT_PHOTO = 101
DESKTOP = ViewportSize(width=1280, height=900)
PHONE = ViewportSize(width=390, height=844)


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> tuple[ReleaseRoot, str, str]:
    """A root with two releases, which differ in the features of category 1."""
    folder = tmp_path_factory.mktemp("browse")
    catalogue = dict(integer_catalogue())
    root = publish(folder / "root", catalogue, folder / "one")
    first = str(root.current())
    catalogue[1] = (catalogue[1][0], random_features(60, 9))
    publish(folder / "root", catalogue, folder / "two")
    return root, first, str(root.current())


@pytest.fixture(scope="module")
def server(
    releases: tuple[ReleaseRoot, str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    photos = tmp_path_factory.mktemp("photos")
    for product_id in range(100, 160):
        if product_id != WITHOUT_PHOTO:
            Image.new("RGB", (8, 8), (product_id, 0, 0)).save(photos / f"{product_id}.png")
    settings = {"LOOKALIKE_BROWSE": "true", "LOOKALIKE_IMAGE_URL": "/photos/{product_id}.png"}
    with embedded(releases[0], ["--photos", str(photos)], **settings) as running:
        yield running


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("Chromium is not installed: sudo apt install chromium")
    # As root it has no sandbox; the rest keeps it from asking hosts of its own.
    quiet = "no-sandbox disable-gpu disable-quic disable-background-networking disable-sync"
    arguments = [f"--{name}" for name in [*quiet.split(), "disable-component-update"]]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Browser, server: Server) -> Iterator[Page]:
    """A page at ``/browse``; nothing that its script or its policy forbids has happened to it."""
    yield from _page(chromium, server, DESKTOP)


@pytest.fixture
def phone(chromium: Browser, server: Server) -> Iterator[Page]:
    yield from _page(chromium, server, PHONE)


def _page(chromium: Browser, server: Server, size: ViewportSize) -> Iterator[Page]:
    page = chromium.new_page(viewport=size, base_url="http://{}:{}".format(*server.address))
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text))
    page.goto("/browse")
    yield page
    page.close()
    asked_for = ("status of 400", "status of 404")  # of a wrong condition, of a missing photo
    assert [error for error in errors if not any(each in error for each in asked_for)] == []


def cards(page: Page) -> Locator:
    return page.locator(".cards a")


def box(of: Locator) -> FloatRect:
    """Where it is on the screen."""
    found = of.bounding_box()
    assert found
    return found


def product(page: Page) -> str:
    """The product that has the focus."""
    return str(page.evaluate("document.activeElement.querySelector('.id')?.textContent"))


def test_from_the_categories_to_a_neighbour_of_a_neighbour(page: Page) -> None:
    page.get_by_role("link", name="1", exact=True).click()
    assert cards(page).count() == 60
    for _ in range(3):
        to = cards(page).nth(2).locator(".id").inner_text()
        cards(page).nth(2).click()
        assert page.get_by_role("heading", level=1).inner_text() == f"Product {to}"
        assert cards(page).count() == 12
        assert to not in cards(page).locator(".id").all_inner_texts()


def test_photos_are_shown_and_a_missing_one_is_said_to_be(page: Page) -> None:
    page.goto("/browse?category_id=1")
    last = cards(page).last.locator("img")
    last.scroll_into_view_if_needed()
    page.wait_for_function(
        "[...document.images].every(image => image.complete && image.naturalWidth === 8)"
    )
    assert page.locator("img").count() == 59
    missing = cards(page).filter(has_text="no photo")
    assert missing.locator(".id").all_inner_texts() == [str(WITHOUT_PHOTO)]


def test_a_keyboard_is_enough(page: Page) -> None:
    page.goto("/browse?category_id=1")
    page.keyboard.press("/")
    page.keyboard.type("123")
    page.keyboard.press("Enter")
    page.wait_for_url("**product_id=123**")
    ids = cards(page).locator(".id").all_inner_texts()
    cards(page).first.focus()
    page.keyboard.press("ArrowRight")
    assert product(page) == ids[1]
    page.keyboard.press("ArrowDown")
    below = ids.index(product(page))
    assert below > 1
    assert box(cards(page).nth(below))["x"] == box(cards(page).nth(1))["x"]
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")  # there is none further left
    assert product(page) == ids[0]
    page.keyboard.press("Enter")
    page.wait_for_url(f"**product_id={ids[0]}**")


def test_arrows_in_a_field_stay_there(page: Page) -> None:
    page.goto("/browse?category_id=1&product_id=123")
    field = page.get_by_label("product")
    field.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.type("/")
    assert field.input_value() == "1/23"


def test_conditions_are_tried_and_a_wrong_one_is_corrected_in_place(page: Page) -> None:
    page.goto("/browse?category_id=1&product_id=123")
    field = page.get_by_label("conditions")
    field.fill("max_distance=3")
    field.press("Enter")
    assert "must be a number from 0 to 2" in page.get_by_role("alert").inner_text()
    assert cards(page).count() == 0
    assert page.get_by_label("conditions").input_value() == "max_distance=3"
    page.get_by_label("conditions").fill("max_distance=0.9")
    page.get_by_role("button", name="Show").click()
    distances = page.locator(".distance").all_inner_texts()
    assert distances
    assert all(float(distance) <= 0.9 for distance in distances)
    cards(page).first.click()
    assert page.get_by_label("conditions").input_value() == "max_distance=0.9"


def test_two_releases_are_compared_side_by_side(
    page: Page, releases: tuple[ReleaseRoot, str, str]
) -> None:
    _, first, second = releases
    page.goto("/browse?category_id=1&product_id=123")
    page.get_by_label("compare with").select_option(first)
    page.get_by_role("button", name="Show").click()
    headings = page.get_by_role("heading", level=2)
    assert headings.all_inner_texts() == [f"Release {second}, served now", f"Release {first}"]
    left, right = box(headings.nth(0)), box(headings.nth(1))
    assert left["y"] == right["y"]
    assert left["x"] + left["width"] <= right["x"]
    lists = [
        set(section.locator(".id").all_inner_texts()) for section in page.locator("section").all()
    ]
    marked = page.locator(".cards a", has_text="only here").locator(".id").all_inner_texts()
    assert sorted(marked) == sorted(lists[0] ^ lists[1])


@pytest.mark.parametrize(
    "target", ["/browse", "/browse?category_id=1", "/browse?category_id=1&product_id=123"]
)
def test_on_a_phone_nothing_is_wider_than_the_screen(phone: Page, target: str) -> None:
    phone.goto(target)
    assert phone.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_two_releases_fit_on_a_phone(phone: Page, releases: tuple[ReleaseRoot, str, str]) -> None:
    phone.goto(f"/browse?category_id=1&product_id=123&compare={releases[1]}")
    assert phone.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert all(box(card)["width"] > 80 for card in cards(phone).all())


def test_without_the_script_it_does_its_work(chromium: Browser, server: Server) -> None:
    page = chromium.new_page(
        java_script_enabled=False, base_url="http://{}:{}".format(*server.address)
    )
    page.goto("/browse?category_id=1")
    page.get_by_label("product").fill("150")
    page.get_by_role("button", name="Show").click()
    assert page.get_by_role("heading", level=1).inner_text() == "Product 150"
    assert cards(page).count() == 12
    page.close()
