"""The commands of ``lookalike`` about a host, which need no release root: ``doctor`` and ``plan``."""

import argparse
from collections.abc import Callable
from pathlib import Path

from lookalike.operate import doctor, plan
from lookalike.terminal.arguments import share, url, whole_number
from lookalike.terminal.output import complain, say

DONE, FAILED, WRONG = 0, 1, 2
"""Exit statuses; argparse itself exits with the last."""

Add = Callable[..., argparse.ArgumentParser]
"""`add(name, run, text, example, …)` adds a command, which `run` carries out."""


def add_host_commands(add: Add) -> None:
    """Add the commands."""
    _add_doctor(add)
    _add_plan(add)


def _add_doctor(add: Add) -> None:
    added = add(
        "doctor",
        _doctor,
        "Say what is wrong with this host and what to do about it. Run it as root to see all.",
        "lookalike doctor --root /var/lib/lookalike",
        needs_root=False,
    )
    added.add_argument("--control", type=Path, metavar="SOCKET", help="Unit's control socket")
    added.add_argument("--url", type=url, help="where the app answers (default: as Unit is told)")
    added.add_argument("--nginx", type=Path, metavar="FILE", help="nginx's main configuration file")
    added.add_argument("--full", action="store_true", help="compare every byte of the release")
    added.add_argument("--json", action="store_true", help="print JSON")


def _add_plan(add: Add) -> None:
    usual, shape, number = plan.Catalogue(1), plan.Shape(), whole_number(1)
    added = add(
        "plan",
        _plan,
        "Say what a catalogue will need of disk, memory and time.",
        "lookalike plan --products 3800000 --categories 120 --largest-category 440000",
        takes_root=False,
    )
    default = "(%(default)s)"
    for name, kind, least, text in (
        ("--products", number, None, "products, counted in each of their categories"),
        ("--categories", number, usual.categories, f"categories {default}"),
        ("--largest-category", number, None, "products in the largest (default: by rank^-0.8)"),
        ("--neighbours", number, shape.neighbours, f"neighbours kept of each product {default}"),
        ("--dims", number, shape.n_dims, f"numbers in a feature {default}"),
        ("--id-bytes", number, None, "length of product ids that are strings (default: integers)"),
        ("--keep", number, usual.keep, f"releases kept {default}"),
        ("--changed", share, usual.changed, "percent of the categories that change a night (100)"),
        ("--photo-bytes", number, usual.photo_bytes, f"bytes of a photo from a URL {default}"),
        ("--photos-per-second", number, None, "as measured by you (default: estimated)"),
        ("--requests-per-second", number, None, "how many are to be served"),
        ("--cores", number, None, "cores of the machine (default: this one's)"),
    ):
        added.add_argument(
            name, type=kind, default=least, metavar="N", help=text, required=name == "--products"
        )
    added.add_argument(
        "--no-measure",
        action="store_true",
        help="take the reference machine's speed, not this one's",
    )
    added.add_argument("--json", action="store_true", help="print JSON")


def _doctor(options: argparse.Namespace) -> int:
    asked = doctor.Asked(options.root, options.control, options.url, options.nginx, options.full)
    findings = []
    for finding in doctor.examine(doctor.Host(asked)):
        findings.append(finding)
        if not options.json:
            say(*finding.lines())
    say(*(doctor.as_json(findings).split("\n") if options.json else [doctor.summary(findings)]))
    found = any(finding.level == doctor.Level.PROBLEM for finding in findings)
    return FAILED if found else DONE


def _plan(options: argparse.Namespace) -> int:
    catalogue = plan.Catalogue(
        options.products,
        options.categories,
        options.largest_category,
        options.changed,
        options.keep,
        options.photo_bytes,
    )
    shape = plan.Shape(options.neighbours, options.dims, options.id_bytes)
    machine = plan.Machine.reference if options.no_measure else plan.Machine.measure
    try:
        made = plan.plan(
            catalogue,
            shape,
            machine(options.cores),
            options.photos_per_second,
            options.requests_per_second,
        )
    except plan.PlanError as error:
        complain(f"lookalike plan: error: {error}")
        return WRONG
    say(*(made.to_json().split("\n") if options.json else made.lines()))
    return DONE
