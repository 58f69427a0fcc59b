"""The Python interface of both packages: what docstrings and documents show is what happens."""

import doctest
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import lookalike
import lookalike_build
from support import REPOSITORY

PROGRAM = """
import sys
import {package}
loaded = {{name for name in sys.modules if name.startswith("{package}.")}}
assert not loaded, loaded
assert not {{"annoy", "msgspec", "numpy", "pyarrow", "tensorflow"}} & set(sys.modules)
"""


def run(text: str, root: Path) -> None:
    """Do what a text shows, which has some examples, with `root` as its release root."""
    shown = doctest.DocTestParser().get_doctest(text, {"root": root}, "shown", None, 0)
    assert shown.examples
    assert doctest.DocTestRunner().run(shown).failed == 0


def test_the_documents_show_what_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("build", "app"):
        run((REPOSITORY / folder / "README.md").read_text(), tmp_path)


def test_the_docstrings_show_what_happens(tmp_path: Path) -> None:
    for package in (lookalike_build, lookalike):
        run(str(package.__doc__), tmp_path)


@pytest.mark.parametrize("package", [lookalike_build, lookalike], ids=lambda one: one.__name__)
def test_every_public_name_is_there_and_documented(package: ModuleType) -> None:
    for name in package.__all__:
        public = getattr(package, name)
        assert public.__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        package.nothing  # noqa: B018
    assert Path(str(package.__file__)).with_name("py.typed").exists()


@pytest.mark.parametrize("package", ["lookalike", "lookalike_build"])
def test_an_import_loads_nothing_before_it_is_asked_for(package: str) -> None:
    subprocess.run([sys.executable, "-c", PROGRAM.format(package=package)], check=True)
