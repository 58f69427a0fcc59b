"""lookalike doctor, of nginx: upstreams are read, and those that outwait Unit named."""

import shutil
from pathlib import Path

import pytest

from findings import only
from lookalike.operate.doctor import nginx
from lookalike.operate.doctor.finding import Finding, Level
from lookalike.operate.doctor.host import Asked, Host

CONFIG = """
# configuration file /etc/nginx/nginx.conf:
upstream idle { server 10.0.0.1:80; }
http { # a { brace in a comment
  log_format main '$remote_addr "$request" {';
  upstream "shop front" {
    server 127.0.0.1:8080 max_fails=0;
    server unix:/run/app.sock;
    keepalive 32; keepalive_timeout 1m30s;
  }
  upstream plain { server localhost:8080; keepalive 4; }
  server { location / { proxy_pass http://plain; } }
}
"""


def test_upstreams_are_read_with_quotes_comments_and_times() -> None:
    front, plain = nginx.read_upstreams(CONFIG)[1:]
    assert front == (
        "shop front",
        ("127.0.0.1:8080", "unix:/run/app.sock"),
        True,
        90.0,
    )
    assert plain == ("plain", ("localhost:8080",), True, 60.0)


@pytest.mark.parametrize(
    ("server", "listener", "same"),
    [
        ("127.0.0.1:8080", "127.0.0.1:8080", True),
        ("localhost:8080", "127.0.0.1:8080", True),
        ("10.0.0.5:8080", "*:8080", True),
        ("127.0.0.1:8081", "*:8080", False),
        ("10.0.0.5:8080", "127.0.0.1:8080", False),
        ("unix:/run/app.sock", "unix:/run/app.sock", True),
        ("127.0.0.1", "127.0.0.1:80", True),
    ],
)
def test_a_server_is_known_by_its_address(server: str, listener: str, same: bool) -> None:
    assert nginx._same_address(server, listener) == same


def test_nginx_is_to_let_go_first() -> None:
    def said(keeps: bool, timeout_s: float, idle_s: float, version: str = "1.22.1") -> Finding:
        upstream = nginx.Upstream("shop", ("127.0.0.1:8080",), keeps, timeout_s)
        return nginx.keep_alive(upstream, idle_s, nginx.version_of(version))

    assert said(True, 60, 180).level == Level.OK
    long = said(True, 60, 30)
    assert long.level == Level.PROBLEM
    assert "keeps idle connections 60 s, Unit closes them after 30 s" in long.text
    assert long.remedy.startswith("keepalive_timeout 15s;")
    assert said(True, 30, 30).level == Level.PROBLEM
    assert said(False, 60, 30).level == Level.OK
    assert said(False, 60, 30, "1.29.7").level == Level.PROBLEM


def test_unit_and_freeunit_have_defaults_of_their_own() -> None:
    assert nginx.default_idle_s(nginx.version_of("1.35.0")) == 180
    assert nginx.default_idle_s(nginx.version_of("1.35.4")) == 30


def test_no_nginx_is_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    assert only(nginx.nginx(Host(Asked()))).text == "not here: no nginx on PATH"


@pytest.mark.nginx
def test_a_configuration_that_nginx_refuses_is_told(tmp_path: Path) -> None:
    if not shutil.which("nginx"):
        pytest.skip("nginx is not installed: sudo apt install nginx-light")
    (tmp_path / "nginx.conf").write_text("nonsense;")
    found = only(nginx.nginx(Host(Asked(nginx=tmp_path / "nginx.conf"))))
    assert (found.level, "nonsense" in found.text) == (Level.WARNING, True)
