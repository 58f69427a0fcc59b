"""Real servers of a release root, started as a user would, for the tests that speak HTTP."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pytest

from bad_requests import Address
from lookalike.operate.unit.config import APPLICATION, configuration
from lookalike.operate.unit.control import UnitError
from lookalike.operate.unit.private import PrivateUnit, find_unitd
from lookalike.release.root import ReleaseRoot
from support import REPOSITORY
from waiting import HUNG_S, wait_until

SHIPPED = REPOSITORY / "unit-config.json"
NGINX = REPOSITORY / "deploy/nginx"


@dataclass
class Server:
    """A running server: where it listens, its log, its first process, the processes that tests
    killed, and what else of the bad they cause to be in the log.
    """

    address: Address
    log: Path
    process: subprocess.Popen[bytes] | None = None
    killed: list[int] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)

    def get(self, target: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers with lower-case names and body of a GET on a connection of its own."""
        connection = HTTPConnection(*self.address, timeout=HUNG_S)
        try:
            connection.request("GET", target, headers=headers)
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def workers(self) -> set[int]:
        """The app's living processes: those that logged an opened release."""
        logged = re.findall(r"lookalike\[(\d+)\] INFO serving", self.log.read_text())
        return {pid for pid in map(int, logged) if _runs(pid)}

    def wait_until(self, held: Callable[[], object]) -> None:
        """Return once it holds; AssertionError if the server ends before."""
        wait_until(held, self.process, self.log)

    def kill(self, pid: int) -> None:
        """End a worker as the kernel would."""
        self.killed.append(pid)
        os.kill(pid, signal.SIGKILL)


Serve = Callable[..., AbstractContextManager[Server]]


@contextmanager
def embedded(root: ReleaseRoot, arguments: Sequence[str] = (), **settings: str) -> Iterator[Server]:
    """`lookalike serve` with two workers, with more arguments, and with settings by name."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(("127.0.0.1", free_port()), Path(folder) / "log")
        command = [sys.executable, "-m", "lookalike", "serve", "--root", str(root.path)]
        command += ["--port", str(server.address[1]), "--workers", "2", *arguments]
        with server.log.open("wb") as output:
            server.process = process = subprocess.Popen(
                command,
                env={**os.environ, **settings},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            server.wait_until(lambda: _is_ready(server, root))
            yield server
            assert process.poll() is None, server.log.read_text()
        except BaseException:
            print(server.log.read_text())
            raise
        finally:
            process.terminate()
            _wait_for_the_end(process, server.log)
        _check_no_traceback(server.log.read_text(), server.expected)


@contextmanager
def unit(root: ReleaseRoot, address: Address | None = None, **settings: str) -> Iterator[Server]:
    """NGINX Unit with the shipped configuration, its paths and address replaced, `settings` added."""
    server = Server(address or ("127.0.0.1", free_port()), Path())
    listen = ["{}:{}".format(*server.address)]
    config = configuration(SHIPPED, Path(sys.prefix), root.path, listen)
    config["applications"][APPLICATION]["environment"].update(settings)
    with private_unit(server.killed, server.expected) as private:
        server.log, server.process = private.log, private.process
        try:
            private.control.check_python(config["applications"][APPLICATION])
        except UnitError as error:
            pytest.skip(str(error))
        private.control.configure(config)
        server.wait_until(lambda: _is_ready(server, root))
        yield server


@contextmanager
def private_unit(killed: Sequence[int] = (), alerts: Sequence[str] = ()) -> Iterator[PrivateUnit]:
    """NGINX Unit without a configuration; its log is looked through at the end.

    `killed` are the processes that the test killed until then, `alerts` what else it causes.
    """
    unitd = find_unitd()
    if unitd is None:
        pytest.skip("NGINX Unit is not installed: no unitd on PATH")
    with tempfile.TemporaryDirectory() as folder, PrivateUnit(unitd, Path(folder)) as private:
        try:
            yield private
            served = private.log.read_text()
            private.stop()
            _wait_for_the_end(private.process, private.log)
        except BaseException:
            print(private.log.read_text())
            raise
        deaths = [f"process {pid} exited on signal 9" for pid in killed]
        _check_unit_log(private.log.read_text(), served, [*deaths, *alerts])


@dataclass
class Front(Server):
    """nginx before the app: `log` is its access log, `pages` where a shop's pages are."""

    pages: Address = ("", 0)
    session: int = 0

    def logged(self, part: str, times: int) -> list[dict[str, Any]]:
        """The access log's lines of requests with `part` in them, once there are so many."""
        self.wait_until(lambda: self.log.read_text().count(part) >= times)
        lines = map(json.loads, self.log.read_text().splitlines())
        return [line for line in lines if part in line["request"]]

    @contextmanager
    def held(self) -> Iterator[None]:
        """nginx does nothing meanwhile, and then everything that has come at once."""
        for pid in in_session(self.session):
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in in_session(self.session):
                os.kill(pid, signal.SIGCONT)


@contextmanager
def nginx_before(
    *apps: Address, pages: Path | None = None, impatient: bool = False
) -> Iterator[Front]:
    """nginx with the shipped files before the app at one address, or sharded over several.

    The files in the folder `pages` are a shop's pages, with SSI. It waits a minute for the app,
    which may be slow; if `impatient`, as long as it is shipped to.
    """
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed: sudo apt install nginx-light")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        listen = ("127.0.0.1", free_port())
        front = Front(listen, folder / "access.log", pages=("127.0.0.1", free_port()))
        configure_nginx(folder, front, apps, pages, impatient)
        log = folder / "error.log"
        command = ["nginx", "-p", name, "-c", f"{name}/nginx.conf", "-e", f"{name}/error.log"]
        front.process = process = subprocess.Popen(command, start_new_session=True)
        front.session = process.pid
        try:
            front.wait_until(lambda: _listens(listen))
            yield front
            # What a worker did not survive, its master says so.
            assert "[alert]" not in log.read_text(), log.read_text()
        except BaseException:
            print(log.read_text())
            raise
        finally:
            process.send_signal(signal.SIGQUIT)
            process.wait()


def configure_nginx(
    folder: Path,
    front: Front,
    apps: Sequence[Address],
    pages: Path | None = None,
    impatient: bool = False,
) -> None:
    """The shipped files in `folder`, with the tests' addresses and paths, and an nginx.conf there.

    The first app's address is that of its private listener too.
    """
    files = {path.name: path.read_text() for path in NGINX.iterdir()}
    if not impatient:
        files = {
            name: re.sub(r"(proxy_\w+_timeout) \w+;", r"\1 60s;", text)
            for name, text in files.items()
        }
    replaced = {
        "/var/cache/lookalike": str(folder / "cache"),
        "/var/log/nginx/lookalike.log": str(front.log),
        "127.0.0.1:8090": host_port(front.address),
        "127.0.0.1:8080": host_port(apps[0]),
        "127.0.0.1:8081": host_port(apps[0]),
    }
    if len(apps) > 1:
        files["upstream.conf"] = files["shards.conf"]
        hosts = re.findall(r"server (\S+:8080) ", files["shards.conf"])
        replaced |= dict(zip(hosts, map(host_port, apps), strict=False))
        for host in hosts[len(apps) :]:
            replaced[f"server {host}"] = f"# {host}"
        replaced[hosts[0].replace("8080", "8081")] = host_port(apps[0])
    (folder / "lookalike").mkdir()
    for name, text in files.items():
        for shipped, ours in replaced.items():
            text = text.replace(shipped, ours)
        (folder / "lookalike" / name).write_text(text)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; worker_processes 1;\n"
        f"{'user root;' if os.getuid() == 0 else ''}\n"  # the folder is ours alone
        "events { worker_connections 1024; }\n"
        f"http {{ access_log off; keepalive_requests 1000000000;\n{places}"
        "include lookalike/lookalike.conf;\n"
        f"server {{ listen {host_port(front.pages)}; include lookalike/related.conf;\n"
        f"root {pages or folder / 'none'}; ssi on; default_type text/html; }}\n}}\n"
    )


def host_port(address: Address) -> str:
    """An address as configurations have it."""
    return "{}:{}".format(*address)


def _listens(address: Address) -> bool:
    try:
        socket.create_connection(address, HUNG_S).close()
    except OSError:
        return False
    return True


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _check_unit_log(text: str, served: str, expected: Sequence[str]) -> None:
    """While it `served`, nothing at [alert] but what tests caused; no other deaths ever.

    Stopping, Unit's own processes tell each other so and log as [alert] that the other was faster.
    """
    stopping = text.removeprefix(served).splitlines()
    suspect = [line for line in served.splitlines() if "[alert]" in line]
    suspect += [line for line in stopping if "exited on signal" in line]
    unexpected = [line for line in suspect if not any(each in line for each in expected)]
    assert not unexpected, text
    _check_no_traceback(text, expected)


def _check_no_traceback(text: str, expected: Sequence[str]) -> None:
    assert "Traceback" in expected or "Traceback" not in text, text


def _is_ready(server: Server, root: ReleaseRoot) -> bool:
    """Whether it serves the root, or says that there is nothing to serve."""
    try:
        return server.get("/readyz")[0] == (200 if root.current() else 503)
    except (OSError, HTTPException):
        return False


def _wait_for_the_end(process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a server told to stop has none of its processes left; kill those that stay."""

    def left() -> list[int]:
        process.poll()
        return in_session(process.pid)

    try:
        wait_until(lambda: not left(), log=log)
    finally:
        for pid in left():
            os.kill(pid, signal.SIGKILL)
        process.wait()


def in_session(session: int) -> list[int]:
    """The living processes of a session, which a server's first process has begun."""
    pids = (int(process.name) for process in Path("/proc").glob("[0-9]*"))
    statuses = ((pid, _status(pid)) for pid in pids)
    return [pid for pid, at in statuses if at and at[0] not in "ZX" and int(at[3]) == session]


def cpu_s(pid: int) -> float:
    """The seconds of CPU that a process has used, which other load on the machine does not add to."""
    fields = _status(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _runs(pid: int) -> bool:
    fields = _status(pid)
    return bool(fields) and fields[0] not in "ZX"


def _status(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; none where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
