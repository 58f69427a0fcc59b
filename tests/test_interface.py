"""The Python interface of both packages: what their docstrings show is what happens."""

import doctest
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import lookalike
import lookalike_build

PROGRAM = """
import sys
import {package}
loaded = {{name for name in sys.modules if name.startswith("{package}.")}}
assert not loaded, loaded
assert not {{"annoy", "numpy", "orjson", "pyarrow", "tensorflow"}} & set(sys.modules)
"""


@pytest.mark.parametrize("package", [lookalike_build, lookalike], ids=lambda one: one.__name__)
def test_the_docstring_shows_what_happens(package: ModuleType, tmp_path: Path) -> None:
    root = tmp_path / "root"
    if package is lookalike:
        builder = doctest.DocTestFinder().find(lookalike_build, globs={"root": root})[0]
        doctest.DocTestRunner().run(builder)
    tests = [
        one for one in doctest.DocTestFinder().find(package, globs={"root": root}) if one.examples
    ]
    assert [one.name for one in tests] == [package.__name__]
    outcome = doctest.DocTestRunner().run(tests[0])
    assert outcome.attempted > 0
    assert outcome.failed == 0


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
