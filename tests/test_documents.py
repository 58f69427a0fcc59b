"""The README files: what they link to and the files they name exist."""

import re
from pathlib import Path

import pytest

from support import REPOSITORY

DOCUMENTS = [
    REPOSITORY / folder / "README.md" for folder in (".", "app", "build", "deploy", "tests")
]
LINK = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)")
SOURCE = re.compile(r"`((?:app|build|deploy|tests)/[^` ]+)`")


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.parent.name)
def test_every_link_leads_somewhere(document: Path) -> None:
    links = LINK.findall(document.read_text())
    assert links
    for target, anchor in links:
        path = document.parent / target if target else document
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), f"{target}#{anchor}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.parent.name)
def test_every_file_named_exists(document: Path) -> None:
    for name in SOURCE.findall(document.read_text()):
        assert (REPOSITORY / name).exists(), name
