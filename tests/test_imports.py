"""The wings of the two packages: an import goes down or stays in its wing, and none goes in a circle.

The rules stand in pyproject.toml, under `tool.importlinter`.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support import REPOSITORY


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """What import-linter says of the sources in a folder laid out as the repository is."""
    # A process of its own: it puts its folder on the path, and imports nothing of what it reads.
    program = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports())"
    sources = [str(folder / "app"), str(folder / "build")]
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {sources}; {program}"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the sources and the rules, for a test to break."""
    for folder in ("app", "build"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / folder, tmp_path / folder, ignore=ignored)
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_imports_of_both_packages_keep_the_rules() -> None:
    run = lint(REPOSITORY)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize(
    ("module", "line", "broken"),
    [
        (
            "app/lookalike/release/root.py",
            "import lookalike.serving.settings",
            "The app: an import goes down",
        ),
        (
            "build/lookalike_build/publishing/files.py",
            "import lookalike_build.indexing.table",
            "The builder: an import goes down",
        ),
        (
            "build/lookalike_build/networks/extractor.py",
            "import lookalike_build.networks.settings",
            "No circles inside a wing",
        ),
        (
            "app/lookalike/serving/query.py",
            "import lookalike_build.photos",
            "The app knows nothing of the builder",
        ),
        ("app/lookalike/wsgi.py", "import tensorflow", "The app knows nothing of the builder"),
        (
            "build/lookalike_build/following/feed.py",
            "import lookalike.serving.body",
            "The builder knows the app's files on disk",
        ),
        (
            "app/lookalike/serving/query.py",
            "def lazily():\n    import lookalike.operate.cli",
            "The app: an import goes down",
        ),
    ],
)
@pytest.mark.slow
def test_an_import_that_breaks_a_rule_is_found(
    copy: Path, module: str, line: str, broken: str
) -> None:
    with (copy / module).open("a") as file:
        file.write(f"\n{line}\n")
    run = lint(copy)
    assert run.returncode == 1
    assert any(broken in row and "BROKEN" in row for row in run.stdout.splitlines())
    assert module.split("/")[1] in run.stdout


@pytest.mark.slow
def test_a_module_in_no_wing_is_found(copy: Path) -> None:
    (copy / "build/lookalike_build/stray.py").write_text('"""A module in no wing."""\n')
    run = lint(copy)
    assert run.returncode == 1
    assert "stray" in run.stdout
