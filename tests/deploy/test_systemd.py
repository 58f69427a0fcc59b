"""deploy/systemd: what systemd itself says of the files, and that they agree with each other and us."""

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from lookalike.operate.cli import COMMANDS as SERVING_COMMANDS
from lookalike_build.commands.cli import COMMANDS as BUILDING_COMMANDS
from support import REPOSITORY

SHIPPED = REPOSITORY / "deploy/systemd"
INSTALLED = Path("/opt/lookalike")
SERVICES = sorted(path.stem for path in SHIPPED.glob("*.service"))
BUILDING = ["lookalike-follow", "lookalike-nightly"]
SAFE = 20
"""The exposure, in tenths, that is let pass: below 2 is the lowest of systemd's three levels."""
PACKAGED_UNIT = """
[Service]
Type=forking
PIDFile=/run/unit.pid
ExecStart=/bin/true
"""

Options = dict[str, list[str]]


def options_of(file: str) -> Options:
    """What a unit file sets, over all its sections, each value in its order."""
    found: Options = defaultdict(list)
    for line in (SHIPPED / file).read_text().replace("\\\n", "").splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found[name].append(value)
    return found


def records(file: str) -> list[list[str]]:
    """The lines of a sysusers.d or tmpfiles.d file, as words."""
    lines = (SHIPPED / file).read_text().splitlines()
    return [shlex.split(line) for line in lines if line and not line.startswith("#")]


def build_env() -> dict[str, str]:
    lines = (SHIPPED / "build.env").read_text().splitlines()
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name: value for name, _, value in pairs}


def folders() -> dict[str, list[str]]:
    """The folders that systemd-tmpfiles makes: mode, owner and group by path."""
    records_ = records("tmpfiles.d/lookalike.conf")
    return {record[1]: record[2:5] for record in records_ if record[0] == "d"}


def need(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: sudo apt install systemd")


def run(*command: str | Path) -> str:
    """What a program says; AssertionError unless it succeeds."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_systemd_finds_no_fault(tmp_path: Path) -> None:
    need("systemd-analyze")
    program = tmp_path / "program"
    program.touch(0o755)
    units = []
    for path in [*SHIPPED.glob("*.service"), *SHIPPED.glob("*.timer")]:
        # It looks for the programs and the documentation.
        text = re.sub(rf"{INSTALLED}/\.venv\S*", str(program), path.read_text())
        units.append(tmp_path / path.name)
        units[-1].write_text(text.replace(str(INSTALLED), str(REPOSITORY)))
    units.append(tmp_path / "unit.service")
    units[-1].write_text(PACKAGED_UNIT)
    shutil.copytree(SHIPPED / "unit.service.d", tmp_path / "unit.service.d")
    said = run("systemd-analyze", "verify", "--recursive-errors=no", "--man=no", *units)
    assert said == ""


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_little_exposed(service: str) -> None:
    need("systemd-analyze")
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager"]
    run(*command, f"--threshold={SAFE}", SHIPPED / f"{service}.service")


@pytest.mark.parametrize("service", SERVICES)
def test_no_service_removes_what_the_app_counts(service: str) -> None:
    """With RemoveIPC=yes one that stops removes from /dev/shm all that its user or group owns."""
    assert options_of(f"{service}.service").get("RemoveIPC", ["no"]) == ["no"]


@pytest.fixture
def machine() -> Iterator[Path]:
    """The root of a machine on which systemd has made the users and folders."""
    need("systemd-sysusers", "systemd-tmpfiles")
    if os.getuid() != 0:
        pytest.skip("only root may make users and give folders away")
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are for one user
        root = Path(folder)
        root.chmod(0o755)
        clone = root / INSTALLED.relative_to("/")
        shutil.copytree(SHIPPED, clone / "deploy/systemd")
        (root / "etc").mkdir()
        (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
        (root / "etc/group").write_text("root:x:0:\n")
        (root / "etc/shadow").touch()
        make_users_and_folders(root)
        yield root


def make_users_and_folders(root: Path) -> None:
    for program, *options in (("sysusers",), ("tmpfiles", "--create")):
        file = SHIPPED / f"{program}.d/lookalike.conf"
        run(f"systemd-{program}", f"--root={root}", *options, file)


def users_of(root: Path) -> dict[str, tuple[int, int]]:
    """The ids of each user and of its group."""
    fields = [line.split(":") for line in _lines(root / "etc/passwd")]
    return {name: (int(uid), int(gid)) for name, _, uid, gid, *_ in fields}


def reads(ids: tuple[int, int], path: Path) -> bool:
    """Whether the kernel lets a user read a file, or look into a folder."""
    uid, gid = ids
    os.setgroups([])
    os.setegid(gid)
    os.seteuid(uid)
    try:
        return os.access(path, os.R_OK, effective_ids=True)
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups([0])


def test_systemd_makes_the_users_and_folders(machine: Path) -> None:
    make_users_and_folders(machine)  # again does no harm
    users = {line.split(":")[0]: line.split(":")[2:] for line in _lines(machine / "etc/passwd")}
    groups = {line.split(":")[0]: line.split(":")[2] for line in _lines(machine / "etc/group")}
    assert users["lookalike"][1] == users["lookalike-build"][1] == groups["lookalike"]
    assert users["lookalike"][0] != users["lookalike-build"][0]
    for path, (mode, owner, group) in folders().items():
        at = (machine / path.lstrip("/")).stat()
        assert at.st_mode & 0o7777 == int(mode, 8), path
        assert (at.st_uid, at.st_gid) == (int(users[owner][0]), int(groups[group])), path
    made = machine / "etc/lookalike/build.env"
    assert made.read_text() == (SHIPPED / "build.env").read_text()
    assert made.stat().st_mode & 0o7777 == 0o600


def test_each_user_reads_what_it_needs_and_no_secret_of_the_other(machine: Path) -> None:
    home, etc = machine / "var/lib/lookalike-build", machine / "etc/lookalike"
    users = users_of(machine)
    token, serve, build = etc / "token", etc / "serve.env", etc / "build.env"
    release = machine / "var/lib/lookalike/manifest.json"
    photo = home / "photo"
    for path in (token, serve, release, photo):
        path.touch(0o640)
    for path in (release, photo):
        os.chown(path, *users["lookalike-build"])
    build.chmod(0o640)  # as an earlier version made it
    os.chown(build, 0, users["lookalike"][1])
    os.chown(home, *users["lookalike-build"])
    home.chmod(0o750)
    make_users_and_folders(machine)
    seen = {
        name: {path.name for path in (token, serve, build, release, photo) if reads(ids, path)}
        for name, ids in users.items()
    }
    assert seen == {
        "root": {"token", "serve.env", "build.env", "manifest.json", "photo"},
        "lookalike": {"token", "manifest.json"},
        "lookalike-build": {"manifest.json", "photo"},
    }


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_the_app_reads_the_root_and_both_write_the_journal() -> None:
    made = folders()
    assert made["/var/lib/lookalike"] == ["2750", "lookalike-build", "lookalike"]
    assert made["/var/lib/lookalike/journal"] == ["2770", "lookalike-build", "lookalike"]
    # What the builder makes must stay readable for the group.
    for service in BUILDING:
        (umask,) = options_of(f"{service}.service")["UMask"]
        assert int(umask, 8) & 0o050 == 0


@pytest.mark.parametrize("service", SERVICES)
def test_users_and_paths_of_a_service_are_made(service: str) -> None:
    options = options_of(f"{service}.service")
    users = {record[1]: record[2:] for record in records("sysusers.d/lookalike.conf")}
    made = folders()
    (user,), (group,) = options["User"], options["Group"]
    assert users[user][0] == f"-:{group}"
    assert group in users
    for text in options["ExecStart"] + options["ReadWritePaths"] + options["WorkingDirectory"]:
        for path in re.findall(r"/var/lib/\S+", text):
            assert any(f"{path}/".startswith(f"{folder}/") for folder in made), path
    for path in re.findall(r"/var/lib/\S+", " ".join(options["ReadWritePaths"])):
        mode, owner, owning_group = made[path]
        assert owner == user or (owning_group == group and int(mode, 8) & 0o020), path
    copied = {
        record[1]: record[-1] for record in records("tmpfiles.d/lookalike.conf") if record[0] == "C"
    }
    for path in options["EnvironmentFile"]:
        if not path.startswith("-"):
            source = Path(copied[path]).relative_to(INSTALLED)
            assert (REPOSITORY / source).is_file()


def test_weights_and_credentials_are_where_the_builder_may_write() -> None:
    users = {record[1]: record[2:] for record in records("sysusers.d/lookalike.conf")}
    home = users["lookalike-build"][-1]
    assert folders()[home][1] == "lookalike-build"
    for service in BUILDING:
        options = options_of(f"{service}.service")
        assert home in options["ReadWritePaths"][0].split()
        assert options["WorkingDirectory"] == [home]


@pytest.mark.parametrize("service", SERVICES)
def test_a_command_is_one_that_the_program_takes(service: str, tmp_path: Path) -> None:
    catalogue = tmp_path / "catalogue.csv"
    catalogue.touch()
    values = build_env() | {"CATALOGUE": str(catalogue)}
    values |= {
        line.partition("=")[0]: "" for line in options_of(f"{service}.service")["Environment"]
    }
    lines = options_of(f"{service}.service")["ExecStart"]
    assert lines
    for line in lines:
        given = re.sub(r"\$\{?([A-Z_]+)\}?", lambda found: values[found[1]], line)
        program, *words = given.replace("/var/lib", str(tmp_path)).split()
        venv, _, name = program.removeprefix(f"{INSTALLED}/").partition("/bin/")
        assert venv == {"lookalike": ".venv", "lookalike-build": ".venv-build"}[name]
        for word in words:
            if word.startswith(str(tmp_path)) and word != str(catalogue):
                Path(word).mkdir(parents=True, exist_ok=True)
        commands = SERVING_COMMANDS if name == "lookalike" else BUILDING_COMMANDS
        assert commands.commands[words[0]].make_context(words[0], words[1:])


def test_options_that_build_env_names_exist() -> None:
    commands = {
        "NETWORK_OPTIONS": ("extract", "follow"),
        "EXTRACT_OPTIONS": ("extract",),
        "INDEX_OPTIONS": ("index",),
        "FOLLOW_OPTIONS": ("follow",),
    }
    named: list[str] = []
    checked = set()
    for line in _lines(SHIPPED / "build.env"):
        if line.startswith("#"):
            named += re.findall(r"--[a-z-]+", line)
        elif name := line.partition("=")[0]:
            for command in commands.get(name, ()):
                assert set(named) <= _options_of(command), name
                checked.add(name)
            named = []
    assert checked == set(commands)


def _options_of(command: str) -> set[str]:
    context = BUILDING_COMMANDS.commands[command].make_context(command, [], resilient_parsing=True)
    return {name for option in context.command.params for name in option.opts}


def test_extract_and_follow_are_given_the_same_network() -> None:
    extract, index = options_of("lookalike-nightly.service")["ExecStart"]
    (follow,) = options_of("lookalike-follow.service")["ExecStart"]
    assert "$NETWORK_OPTIONS" in extract
    assert "$NETWORK_OPTIONS" in follow
    assert "$NETWORK_OPTIONS" not in index


@pytest.mark.parametrize(
    ("file", "kill_signal"),
    [
        # Unit cuts requests off on SIGTERM.
        ("unit.service.d/lookalike.conf", "SIGQUIT"),
        ("lookalike.service", "SIGTERM"),
        ("lookalike-follow.service", "SIGTERM"),
    ],
)
def test_the_first_process_alone_is_told_to_stop(file: str, kill_signal: str) -> None:
    options = options_of(file)
    assert options["KillSignal"] == [kill_signal]
    assert options["KillMode"] == ["mixed"]
    assert options["TimeoutStopSec"]


def test_a_failed_follower_is_started_again_for_as_long_as_it_takes() -> None:
    options = options_of("lookalike-follow.service")
    assert options["Restart"] == ["on-failure"]
    assert options["StartLimitIntervalSec"] == ["0"]
    assert options["RestartPreventExitStatus"] == ["2"]


def test_a_missed_night_is_made_up_for() -> None:
    options = options_of("lookalike-nightly.timer")
    assert options["Persistent"] == ["true"]
    assert options["RandomizedDelaySec"]


def test_systemd_knows_when_the_night_is() -> None:
    need("systemd-analyze")
    (when,) = options_of("lookalike-nightly.timer")["OnCalendar"]
    assert "Next elapse" in run("systemd-analyze", "calendar", when)
