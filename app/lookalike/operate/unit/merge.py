"""What Unit's configuration becomes when the app's is put into it, beside what else Unit serves.

What leads to the app and nowhere else is the app's, and so are routes named for it that lead there and
elsewhere, as to a folder of photos: they are replaced. All else is the host's and stays.
`settings` and `access_log` are Unit's as a whole: they are set where the app has Unit for itself.
"""

from collections.abc import Mapping
from typing import Any

from lookalike.operate.unit.config import APPLICATIONS, Config, own_listeners, own_routes, routes
from lookalike.operate.unit.control import UnitError

SHARED = ("settings", "access_log")
_ANY = ("*", "0.0.0.0", "[::]")  # noqa: S104  # compared with, not listened on


def merged(present: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[Config, list[str]]:
    """The `present` configuration with the `wanted` one in it; what of `SHARED` is left out.

    Raises UnitError where the host has already what is wanted: an address, a name.
    """
    gone = set(own_listeners(present))
    listeners = {
        address: each
        for address, each in present.get("listeners", {}).items()
        if address not in gone
    }
    own = own_routes(present)
    kept = {place: steps for place, steps in routes(present).items() if place not in own}
    _check_listeners(listeners, wanted["listeners"])
    _check_routes(kept, routes(wanted))
    others = {
        name: each
        for name, each in present.get("applications", {}).items()
        if name not in APPLICATIONS
    }
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


def _in_order(present: Mapping[str, Any], part: str, members: dict[str, Any]) -> dict[str, Any]:
    """The members in the order that they have now, new ones last: the difference shows no moves."""
    now = [name for name in present.get(part, {}) if name in members]
    return {name: members[name] for name in [*now, *members]}


def _as_unit_has_them(by_place: dict[str, Any]) -> Any:
    if "routes" in by_place or not by_place:
        return by_place.get("routes", [])
    return {place.removeprefix("routes/"): steps for place, steps in by_place.items()}


def _check_listeners(kept: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for address in wanted:
        for other, listener in kept.items():
            if _meet(address, other):
                raise UnitError(
                    f"{address} cannot be had: Unit listens on {other} for {listener.get('pass')}; "
                    "give another address"
                )


def _meet(address: str, other: str) -> bool:
    """Whether two listeners cannot be at once: the same, or one on all addresses of that port."""
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
            f"{whose} are an array without a name, beside which named ones cannot be; make it "
            '"routes": {"main": […]} and what leads there "pass": "routes/main"'
        )
