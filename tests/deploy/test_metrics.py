"""deploy/metrics speaks of what the app gives: its metrics, its labels, and nothing else."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from itertools import combinations
from math import isnan
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml

from bad_requests import Address
from lookalike.journal import Change, Journal
from lookalike.release.root import ReleaseRoot
from lookalike.serving.metrics import ROUTES, STATUSES
from servers import Server, embedded, free_port
from support import REPOSITORY, TOKEN, integer_catalogue, publish
from waiting import HUNG_S, wait_until

FOLDER = REPOSITORY / "deploy" / "metrics"
RULES = FOLDER / "lookalike.rules.yml"
DASHBOARD = json.loads((FOLDER / "grafana-dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
ALERTS = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
ASKED = [target["expr"] for panel in PANELS for target in panel["targets"]]
ALL = [alert["expr"] for alert in ALERTS] + ASKED
ALL += [each["expr"] for each in DASHBOARD["annotations"]["list"] if "expr" in each]

METRIC = re.compile(r"\blookalike_[a-z_]+\b")
MATCHER = re.compile(r'(\w+) *(=~|!~|!=|=) *"([^"]*)"')
GROUPED = re.compile(r"\b(?:by|without|ignoring|on) ?\(([^)]*)\)")
OF_PROMETHEUS = {"job", "instance"}
VALUES = {
    "route": set(ROUTES),
    "status": {status[:3] for status in STATUSES},
    "state": {"live", "rejected"},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> ReleaseRoot:
    """A root with changes that are live, rejected and pending."""
    folder = tmp_path_factory.mktemp("metrics")
    root = publish(folder / "root", integer_catalogue(), folder / "features")
    with closing(Journal(root.journal)) as journal:
        journal.add([Change("delete", 1, product_id) for product_id in (1, 2, 3)])
        journal.reject({1: "no such product"})
        journal.settle(2, str(root.current()))
        journal.batch_done(2, 0.1)
    return root


@pytest.fixture(scope="module")
def server(root: ReleaseRoot) -> Iterator[Server]:
    """A server that has answered all there is."""
    with embedded(root, LOOKALIKE_TOKEN=TOKEN) as running:
        ask_everything(running)
        yield running


def ask_everything(server: Server) -> None:
    with closing(HTTPConnection(*server.address, timeout=HUNG_S)) as connection:
        for method, target, body in (
            ("GET", "/nns?category_id=1&product_id=100", None),
            ("GET", "/nns?category_id=1&product_id=1", None),
            ("GET", "/nns", None),
            ("POST", "/nns", b'{"category_id":1,"product_ids":[100]}'),
            ("PUT", "/products/1/100", b"photo"),
            ("DELETE", "/products/1/100", None),
            ("GET", "/changes/1", None),
            ("GET", "/release", None),
            ("GET", "/nothing", None),
            ("PATCH", "/healthz", None),
        ):
            connection.request(method, target, body, {"Authorization": f"Bearer {TOKEN}"})
            connection.getresponse().read()


@pytest.fixture(scope="module")
def labels(server: Server) -> dict[str, set[str]]:
    """The labels of each sample that the app gives, by its name."""
    found: dict[str, set[str]] = {}
    for line in server.get("/metrics")[2].decode().splitlines():
        if not line.startswith("#"):
            name = line.partition("{")[0].partition(" ")[0]
            found.setdefault(name, set()).update(re.findall(r'(\w+)="', line))
    return found


@pytest.fixture(scope="module")
def families(server: Server) -> set[str]:
    """The names of the app's metrics; a histogram has several samples."""
    text = server.get("/metrics")[2].decode()
    return set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE))


@pytest.mark.parametrize("expression", ALL)
def test_what_is_asked_of_prometheus_is_what_the_app_gives(
    labels: dict[str, set[str]], expression: str
) -> None:
    names = set(METRIC.findall(expression))
    assert names <= set(labels)
    assert names or expression.startswith(("up{", "node_"))
    known = set().union(OF_PROMETHEUS, *(labels[name] for name in names))
    for name, selector in re.findall(r"\b(lookalike_\w+)\{([^}]*)\}", expression):
        for label, operator, value in MATCHER.findall(selector):
            assert label in OF_PROMETHEUS | labels[name]
            if label in VALUES and operator in ("=", "!=") and not value.startswith("$"):
                assert value in VALUES[label]
    for group in GROUPED.findall(expression):
        assert set(re.split(r", *", group)) - {""} <= known


def test_every_metric_is_on_the_dashboard_and_in_the_readme(families: set[str]) -> None:
    readme = (REPOSITORY / "app" / "README.md").read_text()
    asked = " ".join(ASKED)
    assert [name for name in sorted(families) if not re.search(rf"\b{name}", asked)] == []
    assert [name for name in sorted(families) if f"`{name}`" not in readme] == []


def test_labels_shown_are_those_asked_for() -> None:
    for panel in PANELS:
        for target in panel["targets"]:
            shown = set(re.findall(r"\{\{(\w+)\}\}", target.get("legendFormat", "")))
            groups = GROUPED.findall(target["expr"])
            given = set(re.split(r", *", groups[0])) if groups else OF_PROMETHEUS
            assert shown <= given, panel["title"]


def test_panels_are_whole_and_none_lies_on_another() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels}) == len(panels)
    for panel in PANELS:
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"].get("unit") or panel["type"] in ("heatmap", "table")
        for source in (panel, *panel["targets"]):
            assert source["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    for one, other in combinations([panel["gridPos"] for panel in panels], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert beside or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
    assert all(place["gridPos"]["x"] + place["gridPos"]["w"] <= 24 for place in panels)


def test_variables_are_those_there_are() -> None:
    declared = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD))) - {"__rate_interval"}
    assert used - {"__all"} == declared


def test_every_alert_says_how_bad_it_is_and_what_to_do() -> None:
    for alert in ALERTS:
        assert re.fullmatch(r"\d+[mh]", alert["for"])
        assert alert["labels"]["severity"] in ("critical", "warning")
        assert len(alert["annotations"]["summary"]) < 100
        assert len(alert["annotations"]["description"]) > 100


def promtool(*arguments: str | Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed: sudo apt install prometheus")
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def filled_in(expression: str) -> str:
    """An expression of the dashboard as Grafana would send it."""
    for variable, value in (
        ("$__rate_interval", "1m"),
        ("$job", "lookalike"),
        ("$instance", ".*"),
        ("$route", "/nns"),
    ):
        expression = expression.replace(variable, value)
    return expression


@pytest.mark.prometheus
def test_prometheus_reads_rules_configuration_and_what_the_dashboard_asks(tmp_path: Path) -> None:
    promtool("check", "config", FOLDER / "prometheus.yml")
    records = [{"record": f"r{i}", "expr": filled_in(each)} for i, each in enumerate(ASKED)]
    rules = tmp_path / "rules.yml"
    rules.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": records}]}))
    promtool("check", "rules", rules)


@pytest.mark.prometheus
def test_alerts_fire_on_the_ill_and_not_on_the_well() -> None:
    tested = REPOSITORY / "tests/deploy/lookalike.rules.test.yml"
    text = tested.read_text()
    assert [alert["alert"] for alert in ALERTS if alert["alert"] not in text] == []
    promtool("test", "rules", tested)


@contextmanager
def prometheus(scraped: Address, folder: Path) -> Iterator[Address]:
    """Prometheus with the shipped configuration, its target and its interval replaced."""
    if shutil.which("prometheus") is None:
        pytest.skip("Prometheus is not installed: sudo apt install prometheus")
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    job["scrape_interval"] = "250ms"
    job["static_configs"] = [{"targets": ["{}:{}".format(*scraped)]}]
    config["rule_files"] = [str(RULES)]
    config["global"] = {"evaluation_interval": "250ms"}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    address = ("127.0.0.1", free_port())
    command = ["prometheus", f"--config.file={folder}/prometheus.yml"]
    command += [f"--storage.tsdb.path={folder}/data", "--web.listen-address={}:{}".format(*address)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield address
    finally:
        process.terminate()
        process.wait(HUNG_S)


@pytest.mark.prometheus
def test_every_panel_has_something_to_show_and_no_alert_fires(
    server: Server, root: ReleaseRoot, tmp_path: Path
) -> None:
    with (
        prometheus(server.address, tmp_path) as address,
        closing(Journal(root.journal)) as journal,
    ):
        front = Server(address, tmp_path / "log")

        def query(expression: str) -> list[float] | None:
            status, _, body = front.get(f"/api/v1/query?query={quote(expression)}")
            if status == 503:
                return None  # it is starting
            assert status == 200, body
            return [float(each["value"][1]) for each in json.loads(body)["data"]["result"]]

        def scraped() -> bool:
            ask_everything(server)
            journal.batch_done(1, 0.1)
            try:
                return bool(query("count_over_time(lookalike_ready[1m]) > 4"))
            except OSError:
                return False

        wait_until(scraped)
        shown = {expression: query(filled_in(expression)) or [] for expression in ASKED}
        assert [expression for expression, found in shown.items() if not found] == []
        assert [each for each, found in shown.items() if any(map(isnan, found))] == []
        rules = json.loads(front.get("/api/v1/rules")[2])["data"]["groups"][0]["rules"]
        assert {rule["health"] for rule in rules} == {"ok"}
        assert [rule["name"] for rule in rules if rule["alerts"]] == []
