"""Unit's configuration: read from a file, put beside the host's own, and its difference shown."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from lookalike.operate.unit.config import configuration, own_listeners
from lookalike.operate.unit.control import UnitError
from lookalike.operate.unit.difference import difference
from lookalike.operate.unit.merge import merged
from support import REPOSITORY

SMALL = REPOSITORY / "unit-config.json"
PRODUCTION = REPOSITORY / "deploy/unit/lookalike.json"
HOME = Path(sys.prefix)

FRESH: dict[str, Any] = {"listeners": {}, "routes": [], "applications": {}}
"""What Unit has before it is given anything."""
WIKI: dict[str, Any] = {
    "listeners": {"*:80": {"pass": "routes/site"}, "127.0.0.1:9000": {"pass": "applications/wiki"}},
    "routes": {"site": [{"match": {"host": "w"}, "action": {"pass": "applications/wiki"}}]},
    "applications": {"wiki": {"type": "php", "environment": {"DATABASE": "mysql://wiki:pw@db"}}},
    "access_log": "/var/log/site.log",
    "settings": {"http": {"static": {"mime_types": {"text/x": ".x"}}}},
}


def small() -> dict[str, Any]:
    return configuration(SMALL, HOME, Path("/r"))


def production() -> dict[str, Any]:
    return configuration(PRODUCTION, HOME, Path("/r"))


def given(tmp_path: Path, **changes: Any) -> Path:
    """The small file with parts replaced; None leaves one out."""
    parts = {**json.loads(SMALL.read_text()), **changes}
    file = tmp_path / "given.json"
    file.write_text(json.dumps({name: part for name, part in parts.items() if part is not None}))
    return file


def test_a_file_is_made_fit_for_one_place() -> None:
    config = configuration(PRODUCTION, Path("home"), Path("root"), ["127.0.0.1:1", "[::1]:2"])
    for name, application in config["applications"].items():
        assert application["home"] == str(Path("home").absolute())
        assert application["environment"] == {
            **production()["applications"][name]["environment"],
            "LOOKALIKE_ROOT": str(Path("root").absolute()),
        }
    assert config["listeners"] == {
        "127.0.0.1:1": {"pass": "routes/lookalike-public"},
        "[::1]:2": {"pass": "routes/lookalike-private"},
    }
    assert own_listeners(config) == ["127.0.0.1:1", "[::1]:2"]


def test_comments_are_blanks_and_what_looks_like_one_in_a_string_is_not(tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    text = json.dumps(
        {
            "listeners": {"*:1": {"pass": "applications/lookalike"}},
            "applications": {
                "lookalike": {"type": "python", "environment": {"A": '\\" // /* "', "B": "*/"}}
            },
        }
    )
    file.write_text(f'/* of\n"two" lines */ {text} // the end "')
    application = configuration(file, HOME, Path("/r"))["applications"]["lookalike"]
    assert application["environment"]["A"] == '\\" // /* "'
    assert application["environment"]["B"] == "*/"
    file.write_text("/* one\ntwo */ {\n  // no comma\n  /* here: */ 1\n}")
    with pytest.raises(UnitError, match=r"c\.json:4:15: Expecting property name"):
        configuration(file, HOME, Path("/r"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"upstreams": {}}, '"upstreams" is none of settings, listeners, routes,'),
        ({"applications": None}, 'must hold "lookalike", perhaps "lookalike-changes", and nothing'),
        (
            {"applications": {"lookalike": {}, "b": {}}},
            'must hold "lookalike", perhaps "lookalike-c',
        ),
        (
            {"applications": {"lookalike-changes": {}}},
            'must hold "lookalike", perhaps "lookalike-c',
        ),
        ({"applications": {"lookalike": []}}, '"lookalike" and its "environment" must be objects'),
        (
            {"applications": {"lookalike": {}, "lookalike-changes": []}},
            '"lookalike-changes" and its',
        ),
        (
            {
                "applications": {
                    "lookalike": {"environment": {"LOOKALIKE_TOKEN_FILE": "/t"}},
                    "lookalike-changes": {"environment": {"LOOKALIKE_TOKEN_FILE": "/u"}},
                }
            },
            'LOOKALIKE_TOKEN_FILE is not the same in the "environment" of lookalike and of lookalike-',
        ),
        (
            {"applications": {"lookalike": {"environment": {"A": "b"}}, "lookalike-changes": {}}},
            "A is not the same in the",
        ),
        ({"applications": {"lookalike": {"environment": []}}}, "must be objects"),
        ({"listeners": []}, '"listeners" must be an object'),
        (
            {"listeners": {"*:1": {"pass": "routes/x"}}},
            "leads to applications/lookalike, directly or",
        ),
        ({"listeners": {"*:1": 1}}, "leads to applications/lookalike, directly or"),
    ],
)
def test_a_file_that_is_not_of_the_app_is_refused(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(UnitError) as raised:
        configuration(given(tmp_path, **changes), HOME, Path("/r"))
    assert said in str(raised.value)


def test_a_name_that_stands_twice_is_refused_as_unit_would(tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    file.write_text('{"settings": {"http": {}, "http": {}}}')
    with pytest.raises(UnitError, match=r'c\.json: "http" stands twice in one object'):
        configuration(file, HOME, Path("/r"))


def test_where_both_shipped_files_say_something_they_say_the_same() -> None:
    of_both, of_small = production(), small()
    assert of_both["settings"]["http"].items() >= of_small["settings"]["http"].items()
    assert list(of_small["listeners"]) == list(of_both["listeners"])[:1]
    ours, theirs = (each["applications"]["lookalike"] for each in (of_small, of_both))
    changes = of_both["applications"]["lookalike-changes"]
    assert changes == {**theirs, "processes": 1, "threads": 4, "limits": {"timeout": 30}}
    assert theirs.pop("environment").items() >= ours.pop("environment").items()
    assert theirs.items() >= ours.items()
    assert {"user", "group", "limits", "isolation"} <= theirs.keys() - ours.keys()


def test_nothing_that_a_client_writes_can_stand_in_the_access_log() -> None:
    # Unit substitutes these as they are. All of its others come from the request, or may be another's.
    safe = {"time_local", "remote_addr", "method", "status", "body_bytes_sent", "request_time"}
    for value in production()["access_log"]["format"].values():
        assert value.removeprefix("$") in safe


def test_the_largest_photo_fits_through_unit() -> None:
    from lookalike.serving.settings import MAX_PHOTO_BYTES

    assert str(production()["settings"]["http"]["max_body_size"]) == MAX_PHOTO_BYTES.default_text


@pytest.mark.parametrize("wanted", [small(), production()])
def test_an_empty_unit_has_what_the_file_has(wanted: dict[str, Any]) -> None:
    config, left_out = merged(FRESH, wanted)
    assert (config, left_out) == ({**FRESH, **wanted}, [])
    assert merged(config, wanted) == (config, [])
    assert merged({}, wanted)[0] == wanted


def test_what_else_the_host_serves_is_left_alone() -> None:
    config, left_out = merged(WIKI, production())
    assert left_out == ["settings", "access_log"]
    for part in WIKI:
        assert config[part] == WIKI[part] or config[part].items() >= WIKI[part].items()
    assert list(config["listeners"]) == ["*:80", "127.0.0.1:9000", *production()["listeners"]]
    assert merged(config, production()) == (config, left_out)
    assert merged(config, small())[0] == {**WIKI, **{
        part: {**WIKI[part], **small()[part]} for part in ("listeners", "applications")
    }}  # fmt: skip


def test_what_led_to_the_app_alone_is_replaced_and_a_route_that_leads_elsewhere_too_stays() -> None:
    ours = {"action": {"pass": "applications/lookalike"}}
    present: dict[str, Any] = {
        "listeners": {
            "*:1": {"pass": "applications/lookalike"},
            "*:2": {"pass": "routes/old%20one"},
            "*:3": {"pass": "routes/both"},
        },
        "routes": {
            "old one": [ours, {"action": {"return": 404}}],
            "both": [ours, {"action": {"share": "/www$uri", "fallback": ours["action"]}}],
            "none": [{"action": {"return": 404}}],
        },
        "applications": {"lookalike": {"type": "python 2"}},
    }
    config, _ = merged(present, small())
    assert config["listeners"] == {"*:3": {"pass": "routes/both"}, **small()["listeners"]}
    assert list(config["routes"]) == ["both", "none"]
    assert config["applications"] == small()["applications"]


def test_what_takes_changes_goes_with_the_app_and_nothing_of_another_name_does() -> None:
    theirs = {"lookalike-staging": {"type": "python 3"}}
    present = {**merged({}, production())[0]}
    present["applications"] = {**theirs, **present["applications"]}
    config, _ = merged(present, small())
    assert config["applications"] == {**theirs, **small()["applications"]}
    assert config["listeners"] == small()["listeners"]
    again, _ = merged(config, production())
    assert again["applications"] == {**theirs, **production()["applications"]}


def test_routes_named_for_the_app_may_lead_to_photos_too(tmp_path: Path) -> None:
    steps: list[dict[str, Any]] = [
        {"match": {"uri": "/photos/*"}, "action": {"share": "/srv$uri"}},
        {"action": {"pass": "applications/lookalike"}},
    ]
    listeners = {"*:1": {"pass": "routes/lookalike"}}
    wanted = configuration(
        given(tmp_path, routes={"lookalike": steps}, listeners=listeners), HOME, Path("/r")
    )
    config, _ = merged(WIKI, wanted)
    assert merged(config, wanted)[0] == config
    assert merged(config, small())[0] == merged(WIKI, small())[0]
    with pytest.raises(UnitError, match="leads to applications/lookalike, directly or"):
        configuration(
            given(tmp_path, routes=steps, listeners={"*:1": {"pass": "routes"}}), HOME, HOME
        )


def test_an_array_of_routes_that_lead_to_the_app_alone_is_replaced() -> None:
    routes = [{"action": {"pass": "applications/lookalike"}}]
    present = {"listeners": {"*:1": {"pass": "routes"}}, "routes": routes}
    config, _ = merged(present, production())
    assert config == production()


@pytest.mark.parametrize("address", ["127.0.0.1:8080", "*:8080", "0.0.0.0:8081", "[::]:8081"])
def test_an_address_that_another_application_has_is_refused(address: str) -> None:
    present = {"listeners": {address: {"pass": "applications/wiki"}}}
    with pytest.raises(UnitError) as raised:
        merged(present, production())
    assert f"Unit listens on {address} for applications/wiki; give another" in str(raised.value)


def test_the_same_port_of_another_address_is_no_reason_to_refuse() -> None:
    present = {"listeners": {"10.0.0.1:8080": {"pass": "applications/wiki"}}}
    assert next(iter(merged(present, production())[0]["listeners"])) == "10.0.0.1:8080"


def test_routes_that_cannot_stand_beside_the_hosts_are_refused(tmp_path: Path) -> None:
    foreign = [{"action": {"share": "/www$uri"}}]
    with pytest.raises(UnitError, match="Unit's routes are an array without a name"):
        merged({"routes": foreign}, production())
    own = [{"action": {"pass": "applications/lookalike"}}]
    file = given(tmp_path, routes=own, listeners={"*:1": {"pass": "routes"}})
    with pytest.raises(UnitError, match="the file's routes are an array without a name"):
        merged(WIKI, configuration(file, HOME, Path("/r")))
    with pytest.raises(UnitError, match="routes/lookalike-public is the host's already"):
        merged({"routes": {"lookalike-public": foreign}}, production())


def test_a_difference_shows_what_changes_and_no_secret() -> None:
    before, _ = merged(WIKI, small())
    after, _ = merged(WIKI, small())
    assert difference(before, after, "new") == []
    was = before["applications"]["lookalike"] = {**small()["applications"]["lookalike"]}
    becomes = after["applications"]["lookalike"] = {**was, "processes": 4}
    shared = {"LOOKALIKE_TOKEN_FILE": "/etc/t", "API_KEY": "same-key"}
    was["environment"] = {"LOOKALIKE_TOKEN": "old-secret", **shared}
    becomes["environment"] = {"LOOKALIKE_TOKEN": "new-secret", **shared, "PASSWORD": "added"}
    shown = difference(before, after, "new")
    lines = [line for line in shown if line[0] in "+-"]
    assert [line.replace(" ", "") for line in lines] == [
        "---Unitnow",
        "+++new",
        '-"processes":2,',
        '+"processes":4,',
        '-"LOOKALIKE_TOKEN":"(hidden)",',
        '+"LOOKALIKE_TOKEN":"(hidden,another)",',
        '-"API_KEY":"(hidden)"',
        '+"API_KEY":"(hidden)",',
        '+"PASSWORD":"(hidden)"',
    ]
    assert "/etc/t" in "\n".join(shown)


def test_a_difference_shows_nothing_of_other_applications_environments() -> None:
    match: dict[str, Any] = {
        "headers": [{"Authorization": "Bearer abc"}],
        "cookies": {"key": ["abc"]},
    }
    secret = {**WIKI, "routes": {"s": [{"match": match, "action": {"return": 200}}]}}
    shown = "\n".join(difference({}, secret, "new"))
    assert "DATABASE" in shown
    assert "mysql" not in shown
    assert "abc" not in shown
