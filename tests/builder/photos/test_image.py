"""What an image that cannot be read holds, and what to write instead."""

import time

import pytest

from lookalike_build.photos.image import oddity

A, B = "https://cdn.example.com/a.jpg", "https://cdn.example.com/b.jpg"
ODD = {
    "names no photo": ["null", "None", "N/A", "#N/A", "no_selection", "-"],
    "holds HTML; write the address alone": [f'<img src="{A}">', "<a href='a.jpg'>a</a>"],
    "holds Markdown; write the address alone": [f"![a]({A})", f"[a]({A})"],
    "holds a JSON array; write one address": [f'["{A}"]', f'[{{"src": "{A}"}}]', "['a.jpg']", "[]"],
    "holds a JSON object; write the address alone": [f'{{"src": "{A}"}}'],
    "holds the photo itself; write where it is": [
        "data:image/png;base64,iVBORw0K",
        "/9j/4AAQSkZJRg",
    ],
    "holds a formula; write the address alone": [f'=IMAGE("{A}")'],
    "holds several URLs; write one, or give --from": [
        *(f"{A}{between}{B}" for between in (", ", ",", "|", " | ", ";", " ", "\n")),
        "//cdn.example.com/a.jpg,//cdn.example.com/b.jpg",
    ],
    "holds several images; write one": [
        "a.jpg,b.jpg",
        "a.PNG; b.png",
        "a.webp|b.webp",
        f"{A},b.jpg",
    ],
    "has no scheme; write https: before it": ["//cdn.example.com/a.jpg", "//localhost/a.jpg"],
    "has no scheme; write https:// before it": ["www.example.com/a.jpg", "cdn.example.co.jp/a.jpg"],
    "has quotes around it; write it without": [f'"{A}"', "'a.jpg'", "“a.jpg”"],
    "has no :// after its scheme": ["https:/cdn/a.jpg", "https//cdn/a.jpg", "http:a.jpg"],
    "has backslashes before its slashes; write it without": [A.replace("/", r"\/")],
    "is percent-encoded; write it decoded": ["https%3A%2F%2Fcdn.example.com%2Fa.jpg"],
    "holds HTML's &amp;; write & instead": [f"{A}?w=1&amp;h=2", f"{A}?w=1&#38;h=2&#038;x"],
    "is a path of Windows; write it with / as this machine has it": [
        r"C:\photos\a.jpg",
        "d:/photos/a.jpg",
        r"photos\a.jpg",
        r"\\server\photos\a.jpg",
    ],
    "holds more than an address; write it alone": [f"url({A})", f"photo: {A}", f"\u200b{A}"],
    "is a path on this machine; give --image-base if it is one of the shop's site": [
        "/media/a.jpg"
    ],
}


@pytest.mark.parametrize(("said", "image"), [(said, one) for said in ODD for one in ODD[said]])
def test_what_an_image_holds_is_said(said: str, image: str) -> None:
    assert oddity(image) == said


@pytest.mark.parametrize(
    "image",
    [
        A,
        "HTTP://a/b.png",
        "s3://bucket/a b.jpg",
        "photos/1.jpg",
        "a, b.jpg",
        "null.jpg",
        "-1.jpg",
        "https-banner.jpg",
        "https://images.example.com/fetch/w_300/https://cdn.example.com/a.jpg",
        "https://images.example.com/?url=https://cdn.example.com/a.jpg&w=300",
    ],
)
def test_what_a_shop_may_well_write_is_not_odd(image: str) -> None:
    assert oddity(image) is None


@pytest.mark.parametrize("image", ["http://" + " " * 200_000, "a.jpg" * 50_000, "/" * 200_000])
def test_a_cell_of_any_length_is_looked_at_in_time(image: str) -> None:
    started = time.process_time()
    oddity(image)
    assert time.process_time() - started < 1
