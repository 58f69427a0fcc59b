"""deploy/push with real rsync between roots of this machine, which a stand-in for ssh calls hosts."""

import os
import re
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lookalike.release.files import (
    BEHAVIOUR,
    BEHAVIOUR_FILES,
    FILES,
    INDEX,
    RULES,
    lists_file,
    texts_file,
)
from lookalike.release.opened import is_slim
from lookalike.release.root import ReleaseRoot
from lookalike.release.rules import Rule
from servers import embedded
from support import (
    REPOSITORY,
    Catalogue,
    change,
    give,
    integer_catalogue,
    publish,
    random_features,
    rate,
    ruled,
    updates_beside,
)

PUSH = REPOSITORY / "deploy/push"
UNCHANGED = ("1", "3", "40")
"""Categories of `integer_catalogue` that `newer` leaves as they are."""
REMOTE_SHELL = """#!/bin/sh
# Runs a command on this machine as ssh would on HOST, whose app is at the port in HOST.port.
[ "$1" != -l ] || shift 2
host=$1; shift
case $host in
gone) echo "cannot reach $host" >&2; exit 255 ;;
small) ulimit -f 8 ;;
esac
port=$(cat "{folder}/$host.port" 2>/dev/null || echo 1)
exec sh -c "$(printf '%s' "$*" | sed "s/:8080/:$port/")"
"""


class Hosts:
    """Hosts whose roots are folders here; `push` calls deploy/push."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._shell = self._program("shell", REMOTE_SHELL.format(folder=folder))
        python = f'#!/bin/sh\nexec "{sys.executable}" -m lookalike "$@"\n'
        self._lookalike = self._program("lookalike", python)

    def _program(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def root(self, host: str) -> ReleaseRoot:
        """A host's root, made if it is not there."""
        root = ReleaseRoot(self.folder / f"{host}'s root")
        root.create()
        return root

    def listens(self, host: str, port: int) -> None:
        (self.folder / f"{host}.port").write_text(str(port))

    def push(
        self, root: ReleaseRoot, *hosts: str, options: tuple[str, ...] = ("--wait", "0")
    ) -> subprocess.CompletedProcess[str]:
        """Push to hosts, each ``web1`` or, with another's root, ``small:web1``."""
        pairs = (host.partition(":")[::2] for host in hosts)
        targets = [f"{host}:{self.root(of or host).path}" for host, of in pairs]
        return self.call("--lookalike", str(self._lookalike), *options, str(root.path), *targets)

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "RSYNC_RSH": str(self._shell)}
        return subprocess.run(
            [PUSH, *arguments], env=environment, capture_output=True, text=True, check=False
        )


@pytest.fixture
def hosts(tmp_path: Path) -> Hosts:
    for program in ("rsync", "curl", "flock"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: sudo apt install rsync curl util-linux")
    folder = tmp_path / "hosts"
    folder.mkdir()
    return Hosts(folder)


def newer(root: ReleaseRoot, folder: Path, seed: int = 5) -> str:
    """Publish a release in which category 2 has other features; its name."""
    catalogue: Catalogue = {**integer_catalogue(), 2: (list(range(7)), random_features(7, seed))}
    publish(root.path, catalogue, folder / f"features-{seed}")
    return current(root)


def current(root: ReleaseRoot) -> str:
    return str(root.current())


def contents(root: ReleaseRoot) -> set[str]:
    """All that is in a root's releases/, also what is no release."""
    return {path.name for path in root.releases.iterdir()}


def inode(path: Path) -> int:
    return path.stat().st_ino


def flip(path: Path) -> None:
    """Damage a file so that neither its size nor its times tell."""
    times = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.fixture
def steady() -> Iterator[None]:
    """The umask of a usual login."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_unchanged_categories_are_the_files_that_the_host_has(
    root: ReleaseRoot, hosts: Hosts, tmp_path: Path
) -> None:
    old, web = current(root), hosts.root("web1")
    pushed = hosts.push(root, "web1")
    assert pushed.returncode == 0, pushed.stderr
    assert pushed.stdout.splitlines()[-1] == f"web1:{web.path}: {old} is current"
    before = web.open(old)
    new = newer(root, tmp_path)
    assert hosts.push(root, "web1").returncode == 0
    assert web.current() == new
    assert contents(web) == {old, new}
    for category in ("1", "2", "3", "40"):
        for file in FILES:
            theirs, ours = web.folder(new) / category / file, root.folder(new) / category / file
            assert theirs.stat().st_mtime_ns == ours.stat().st_mtime_ns
            linked = inode(root.folder(old) / category / file) == inode(ours)
            assert linked or category not in UNCHANGED
            assert (inode(web.folder(old) / category / file) == inode(theirs)) == linked
            assert theirs.stat().st_nlink == 1 + linked
    # So the app keeps them open.
    after = web.open(new, before)
    same = {str(id_) for id_ in after.categories if after.categories[id_] is before.categories[id_]}
    assert same == set(UNCHANGED)


def test_each_host_serves_the_release_before_the_next_is_touched(
    root: ReleaseRoot, hosts: Hosts, tmp_path: Path
) -> None:
    old = current(root)
    assert hosts.push(root, "web1", "web2").returncode == 0
    new = newer(root, tmp_path)
    with embedded(hosts.root("web1")) as server:
        hosts.listens("web1", server.address[1])
        assert hosts.push(root, "web1").returncode == 0  # in as long as its app needs
        # Nothing serves on web2.
        pushed = hosts.push(root, "web1", "web2", "web3", options=("--wait", "1"))
        assert pushed.returncode == 1
        assert new in server.get("/readyz")[2].decode()
    paths = {host: hosts.root(host).path for host in ("web1", "web2", "web3")}
    assert f"not ready with {new} within 1 s" in pushed.stderr
    assert pushed.stderr.splitlines()[-3:] == [
        f"done: web1:{paths['web1']}",
        f"failed: web2:{paths['web2']}",
        f"not touched: web3:{paths['web3']}",
    ]
    assert contents(hosts.root("web3")) == set()
    # And an app that goes on with the old one is not ready.
    root.make_current(old)
    with embedded(root) as server:
        hosts.listens("web2", server.address[1])
        pushed = hosts.push(root, "web2", options=("--wait", "1", "--release", new))
    assert pushed.returncode == 1
    assert f'"release":"{old}"' in pushed.stderr
    assert hosts.root("web2").current() == new


def test_a_host_that_cannot_be_reached_stops_it(root: ReleaseRoot, hosts: Hosts) -> None:
    pushed = hosts.push(root, "gone", "web1")
    assert pushed.returncode == 1
    assert "done: none" in pushed.stderr
    assert "cannot reach gone" in pushed.stderr
    assert contents(hosts.root("web1")) == set()


def test_a_release_that_is_there_already_is_left_as_it_is(root: ReleaseRoot, hosts: Hosts) -> None:
    web = hosts.root("web1")
    assert hosts.push(root, "web1").returncode == 0
    link, folder = (web.path / "current").lstat().st_ino, inode(web.folder(current(root)))
    again = hosts.push(root, "web1")
    assert (again.returncode, again.stderr) == (0, "")
    assert (web.path / "current").lstat().st_ino == link
    assert inode(web.folder(current(root))) == folder


def test_a_release_that_is_there_but_not_current_is_made_so(
    root: ReleaseRoot, hosts: Hosts, tmp_path: Path
) -> None:
    old, web = current(root), hosts.root("web1")
    assert hosts.push(root, "web1").returncode == 0
    newer(root, tmp_path)
    assert hosts.push(root, "web1").returncode == 0
    options = ("--wait", "0", "--release", old)
    assert hosts.push(root, "web1", options=options).returncode == 0
    assert web.current() == old


def test_a_damaged_release_is_refused_and_the_old_one_stays(
    root: ReleaseRoot, hosts: Hosts, tmp_path: Path
) -> None:
    old, web = current(root), hosts.root("web1")
    assert hosts.push(root, "web1").returncode == 0
    new = newer(root, tmp_path)
    flip(root.folder(new) / "2" / "distances.npy")
    with embedded(web) as server:
        pushed = hosts.push(root, "web1")
        assert old in server.get("/readyz")[2].decode()
    assert pushed.returncode == 1
    assert "2/distances.npy: is not the file the manifest describes" in pushed.stderr
    assert web.names() == [old]
    assert web.current() == old


def test_a_file_damaged_on_the_host_is_mended_when_asked_to(
    root: ReleaseRoot, hosts: Hosts, tmp_path: Path
) -> None:
    old, web = current(root), hosts.root("web1")
    assert hosts.push(root, "web1").returncode == 0
    flip(web.folder(old) / "1" / "features.npy")
    new = newer(root, tmp_path)
    assert hosts.push(root, "web1").returncode == 1
    assert web.current() == old
    pushed = hosts.push(root, "web1", options=("--wait", "0", "--checksum"))
    assert pushed.returncode == 0, pushed.stderr
    assert web.current() == new


def test_a_slim_copy_stays_where_the_full_one_is_refused(root: ReleaseRoot, hosts: Hosts) -> None:
    web, name = hosts.root("web1"), current(root)
    assert hosts.push(root, "web1", options=("--slim", "--wait", "0")).returncode == 0
    index = root.folder(name) / "40" / INDEX
    sound = index.read_bytes()
    flip(index)
    assert hosts.push(root, "web1").returncode == 1
    assert is_slim(web.folder(name), web.manifest(name))
    assert contents(web) == {name, f".pushed-{name}"}
    # As after a connection that broke before the check.
    web.folder(name).rename(web.releases / f".replaced-{name}")
    web.releases.joinpath(f".pushed-{name}").rename(web.releases / name)
    index.write_bytes(sound)
    assert hosts.push(root, "web1").returncode == 0
    assert not is_slim(web.folder(name), web.manifest(name))
    assert contents(web) == {name}


def test_files_of_one_size_made_in_one_second_are_told_apart(
    root: ReleaseRoot, hosts: Hosts, tmp_path: Path
) -> None:
    old = current(root)
    new = newer(root, tmp_path, 5)
    newest = newer(root, tmp_path, 6)
    for n, name in enumerate((old, new, newest)):
        for path in root.folder(name).glob("2/*"):
            os.utime(path, ns=(10**18 + n, 10**18 + n))
    assert hosts.push(root, "web1", options=("--wait", "0", "--release", new)).returncode == 0
    pushed = hosts.push(root, "web1")
    assert pushed.returncode == 0, pushed.stderr
    assert hosts.root("web1").current() == newest


def test_of_a_copy_that_broke_off_nothing_is_seen_and_the_next_goes_on(
    root: ReleaseRoot, hosts: Hosts, tmp_path: Path
) -> None:
    web = hosts.root("web1")
    assert hosts.push(root, "web1").returncode == 0
    old, new = current(root), newer(root, tmp_path)
    web.releases.joinpath(".pushed-another", "1").mkdir(parents=True)
    pushed = hosts.push(root, "small:web1")
    assert pushed.returncode == 1
    assert "the copy broke off" in pushed.stderr
    assert web.names() == [old]
    assert web.current() == old
    assert contents(web) == {old, f".pushed-{new}"}
    assert hosts.push(root, "web1").returncode == 0
    assert contents(web) == {old, new}
    assert web.current() == new


def test_a_slim_copy_has_what_it_needs_alone_and_becomes_a_full_one(
    root: ReleaseRoot, hosts: Hosts
) -> None:
    rate(root, [("user", product_id, 1_700_000_000) for product_id in range(100, 120)])
    with updates_beside():
        change(root, {40: {5000: None, 1: integer_catalogue()[40][1][7]}})
    give(root, {40: {1: {"title": "new"}}})
    ruled(root, {1: [Rule(100, "pin", 155)]})
    web, name = hosts.root("web1"), current(root)
    assert hosts.push(root, "web1", options=("--slim", "--wait", "0")).returncode == 0
    copied = {path.relative_to(web.folder(name)) for path in web.folder(name).glob("*/*")}
    entries = root.manifest(name).categories
    slim = {
        Path(str(entry.category_id), file)
        for entry in entries
        for file in entry.file_names(slim=True)
    }
    assert {Path("40", file) for file in (lists_file(1), texts_file(0))} < slim
    assert Path("1", RULES) in slim
    assert copied == slim | {Path(BEHAVIOUR, file) for file in BEHAVIOUR_FILES}
    behaviour = web.open(name).behaviour
    assert behaviour
    assert behaviour.related(100, 2) == [101, 102]
    hot = web.folder(name) / "40" / "neighbours.npy"
    number = inode(hot)
    with embedded(web) as server:
        hosts.listens("web1", server.address[1])
        failed: list[bytes] = []
        done = threading.Event()

        def ask() -> None:
            while not done.is_set():
                status, _, body = server.get("/nns?category_id=1&product_id=100")
                if status != 200:
                    failed.append(body)

        asking = threading.Thread(target=ask)
        asking.start()
        pushed = hosts.push(root, "web1", options=("--wait", "10"))
        assert pushed.returncode == 0, pushed.stderr
        server.wait_until(lambda: b'"slim":false' in server.get("/release")[2])
        done.set()
        asking.join()
    assert not failed
    assert inode(hot) == number
    assert (web.folder(name) / "40" / INDEX).exists()
    assert contents(web) == {name}
    # Slim is no less than what a host has.
    assert hosts.push(root, "web1", options=("--slim", "--wait", "0")).returncode == 0
    assert (web.folder(name) / "40" / INDEX).exists()


def test_older_releases_are_removed_when_asked_to(
    root: ReleaseRoot, hosts: Hosts, tmp_path: Path
) -> None:
    web = hosts.root("web1")
    assert hosts.push(root, "web1").returncode == 0
    for seed in (5, 6):
        newer(root, tmp_path, seed)
        assert hosts.push(root, "web1").returncode == 0
    assert web.names() == root.names()
    assert hosts.push(root, "web1", options=("--wait", "0", "--keep", "2")).returncode == 0
    assert web.names() == root.names()[-2:]


@pytest.mark.usefixtures("steady")
def test_the_group_of_the_hosts_root_may_read_what_is_pushed(
    root: ReleaseRoot, hosts: Hosts
) -> None:
    for path in root.folder(current(root)).rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    root.folder(current(root)).chmod(0o700)
    web = hosts.root("web1")
    web.releases.rmdir()
    web.path.chmod(0o2750)
    assert hosts.push(root, "web1").returncode == 0
    for path in [web.folder(current(root)), *web.folder(current(root)).rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o2750 if path.is_dir() else 0o640)


def test_another_writer_is_waited_for(root: ReleaseRoot, hosts: Hosts) -> None:
    web = hosts.root("web1")
    pushing: list[subprocess.CompletedProcess[str]] = []
    thread = threading.Thread(target=lambda: pushing.append(hosts.push(root, "web1")))
    with web.lock():
        thread.start()
        thread.join(1)
        assert contents(web) == set()
    thread.join()
    assert pushing[0].returncode == 0
    assert web.names() == [current(root)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give a ROOT and at least one HOST:ROOT"),
        (("{root}",), "give a ROOT and at least one HOST:ROOT"),
        (("{root}", "web1"), '"web1" is not HOST:ROOT with a ROOT that begins with /'),
        (("{root}", "web1:root"), '"web1:root" is not HOST:ROOT with a ROOT that begins with /'),
        (("{root}", "web1:/r", "-oProxyCommand=x:/r"), '"-oProxyCommand=x:/r" is not HOST:ROOT'),
        (("{root}/none", "web1:/r"), "there is no release root {root}/none"),
        (("{root}/releases", "web1:/r"), "{root}/releases has no current release"),
        (("--release", "none", "{root}", "web1:/r"), "{root} has no release none"),
        (("--release", "../x", "{root}", "web1:/r"), '"../x" is no name of a release'),
        (("--keep", "0", "{root}", "web1:/r"), '--keep must be a whole number from 1 on, not "0"'),
        (("--wait", "soon", "{root}", "web1:/r"), "--wait must be a whole number of seconds"),
        (("--keep",), "--keep needs a value"),
        (("--fast", "{root}", "web1:/r"), "there is no option --fast"),
    ],
)
def test_a_wrong_call_is_2_and_says_why(
    root: ReleaseRoot, hosts: Hosts, arguments: tuple[str, ...], said: str
) -> None:
    place = str(root.path)
    called = hosts.call(*(argument.format(root=place) for argument in arguments))
    assert called.returncode == 2
    (line,) = [line for line in called.stderr.splitlines() if line.startswith("push: ")]
    assert said.format(root=place) in line


def test_help_names_every_option(hosts: Hosts) -> None:
    called = hosts.call("--help")
    assert called.returncode == 0
    taken = set(re.findall(r"--[a-z]+(?=\))|(?<=\| )--[a-z]+", PUSH.read_text()))
    assert {"--slim", "--keep", "--release", "--ready", "--checksum"} < taken
    assert taken <= set(re.findall(r"--[a-z]+", called.stdout)) | {"--help"}


def test_shellcheck_finds_no_fault() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed: sudo apt install shellcheck")
    done = subprocess.run(["shellcheck", PUSH], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
