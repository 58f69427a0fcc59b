"""The app needs annoy, click, jinja2, msgspec and numpy, and nothing of the builder."""

import subprocess
import sys
from importlib.metadata import requires
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement

import lookalike
from lookalike.release.root import ReleaseRoot


def test_the_app_answers_where_the_builder_and_tensorflow_are_not_installed(
    integer_root: ReleaseRoot, tmp_path: Path
) -> None:
    needed = [Requirement(text) for text in requires("lookalike") or []]
    for name in (each.name for each in needed if each.marker is None):
        spec = find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        _link_distribution(Path(spec.origin).parent, tmp_path)
    (tmp_path / "lookalike").symlink_to(Path(str(lookalike.__file__)).parent)
    program = """
import importlib.util, json, sys
for absent in ("lookalike_build", "tensorflow", "keras", "pyarrow", "PIL", "tqdm", "granian"):
    assert importlib.util.find_spec(absent) is None, absent
from lookalike.wsgi import application
environ = {"PATH_INFO": "/nns", "REQUEST_METHOD": "GET", "QUERY_STRING": sys.argv[1]}
print(b"".join(application(environ, lambda status, headers: print(status))).decode())
from lookalike.operate.cli import main
raise SystemExit(main(["serve"]))
"""
    run = subprocess.run(
        [sys.executable, "-S", "-c", program, "category_id=3&product_id=77"],
        env={"PYTHONPATH": str(tmp_path), "LOOKALIKE_ROOT": str(integer_root.path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout.splitlines() == ["200 OK", "[77]"]
    assert "granian is missing; install lookalike[serve] from where this" in run.stderr
    assert run.returncode == 1


def _link_distribution(package: Path, folder: Path) -> None:
    """Make a package importable from `folder`, with the compiled libraries that stand beside it."""
    for path in (package, package.with_name(f"{package.name}.libs")):
        if path.exists():
            (folder / path.name).symlink_to(path)
