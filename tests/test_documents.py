"""The README files: what they link to and name exists, and they list the source as it is laid out."""

import re
import tomllib
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


@pytest.mark.parametrize(
    ("folder", "package"), [("app", "lookalike"), ("build", "lookalike_build")]
)
def test_the_source_is_listed_as_imports_go_down(folder: str, package: str) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    contracts = project["tool"]["importlinter"]["contracts"]
    (layers,) = [each["layers"] for each in contracts if each.get("containers") == [package]]
    source = (REPOSITORY / folder / "README.md").read_text().partition("\n## Source\n")[2]
    listed = re.findall(r"^\| `(\w+)(?:\.py|/)` \|", source, re.MULTILINE)
    for layer in layers:
        modules = set(layer.split(" | ")) - {"__main__"}
        assert set(listed[: len(modules)]) == modules
        del listed[: len(modules)]
    assert not listed
