"""Merges the app's configuration into Unit's, beside whatever else Unit serves.

Listeners and routes that lead to the app alone are the app's. So are routes named for the app that lead
to it and elsewhere, such as to a folder of photos. These are replaced; the rest is the host's and
stays. `settings` and `access_log` concern all of Unit, so they are set only if Unit serves the app
alone.
"""

from collections.abc import Container, Mapping
from typing import Any

from lookalike.operate.unit.config import APPLICATIONS, Config, own_listeners, own_routes, routes
from lookalike.operate.unit.control import UnitError

SHARED = ("settings", "access_log")
_ANY = ("*", "0.0.0.0", "[::]")  # noqa: S104  # compared with, not listened on


def merged(present: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[Config, list[str]]:
    """The `present` configuration with the `wanted` one in it, and the parts of `SHARED` left out.

    UnitError if the host already uses an address or a name that is wanted.
    """
    listeners = _without(own_listeners(present), present.get("listeners", {}))
    kept = _without(own_routes(present), routes(present))
    others = _without(APPLICATIONS, present.get("applications", {}))
    _check_listeners(listeners, wanted["listeners"])
    _check_routes(kept, routes(wanted))
    applications = {**others, **wanted["applications"]}
    config = {
        **present,
        "listeners": _in_order(present, "listeners", {**listeners, **wanted["listeners"]}),
        "routes": _as_unit_has_them({**kept, **routes(wanted)}),
        "applications": _in_order(present, "applications", applications),
    }
    if not config["routes"] and "routes" not in present:
        del config["routes"]
    if listeners or kept or others or present.get("upstreams"):
        left = [name for name in SHARED if name in wanted and wanted[name] != present.get(name)]
        return config, left
    for name in SHARED:
        if name in wanted:
            config[name] = wanted[name]
    return config, []


def _without(gone: Container[str], members: Mapping[str, Any]) -> dict[str, Any]:
    return {name: each for name, each in members.items() if name not in gone}


def _in_order(present: Mapping[str, Any], part: str, members: dict[str, Any]) -> dict[str, Any]:
    """The members in their present order, new ones last, so that the difference shows no moves."""
    now = [name for name in present.get(part, {}) if name in members]
    return {name: members[name] for name in [*now, *members]}


def _as_unit_has_them(by_name: dict[str, Any]) -> Any:
    if "routes" in by_name or not by_name:
        return by_name.get("routes", [])
    return {name.removeprefix("routes/"): steps for name, steps in by_name.items()}


def _check_listeners(kept: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for address in wanted:
        for other, listener in kept.items():
            if _meet(address, other):
                raise UnitError(
                    f"{address} is in use: Unit listens on {other} for {listener.get('pass')}; "
                    "give another address"
                )


def _meet(address: str, other: str) -> bool:
    """Whether two listeners exclude each other: the same, or one is on all addresses of the port."""
    (host, _, port), (other_host, _, other_port) = address.rpartition(":"), other.rpartition(":")
    if port != other_port:
        return False
    return host == other_host or bool({host, other_host} & set(_ANY))


def _check_routes(kept: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    if taken := sorted(set(kept) & set(wanted)):
        raise UnitError(f"{taken[0]} is the host's already and leads elsewhere; give another name")
    if kept and wanted and "routes" in {*kept, *wanted}:
        whose = "Unit's routes" if "routes" in kept else "the file's routes"
        raise UnitError(
            f"{whose} are an array without a name, which excludes named ones; make it "
            '"routes": {"main": […]} and what leads there "pass": "routes/main"'
        )
