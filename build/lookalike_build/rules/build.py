"""Rules in a new release that is otherwise the current one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lookalike.errors import LookalikeError
from lookalike.release.category import read_product_ids
from lookalike.release.ids import Id, IdType, category_folder
from lookalike.release.manifest import CategoryEntry
from lookalike.release.root import LOCK_WAIT_S, UPDATE_SUFFIX, ReleaseRoot
from lookalike.release.rules import Rule
from lookalike_build.publishing.ids import id_array, positions_of
from lookalike_build.publishing.staging import Published, Staging, current_manifest
from lookalike_build.rules.files import RulesByCategory

Read = Callable[[tuple[IdType, IdType]], RulesByCategory]
"""Reads a table whose category and product ids are of these types."""


class RulesError(LookalikeError):
    """The current release cannot be given rules; the text says what to do."""


class Named(NamedTuple):
    """A rule of a category."""

    category_id: Id
    rule: Rule


@dataclass(frozen=True)
class Made:
    """The published release, its rules by category, and how many the release before had.

    `lost` are of categories that the release does not have, `idle` name products that it does not have,
    and `banned` are pins of products that are banned in the same answers.
    """

    published: Published
    rules: RulesByCategory
    n_before: int
    lost: list[Named]
    idle: list[Named]
    banned: list[Named]


def set_rules(root: ReleaseRoot, read: Read) -> Made:
    """Publish the current release with the rules that `read` gives, in place of those it has.

    Where nothing differs the current release stays. Raises RulesError, ReleaseError, RootError or
    OSError, or what `read` raises; the current release then stays.
    """
    id_types = current_manifest(root, "rules", RulesError).id_types
    rules = read(id_types)
    with root.lock(LOCK_WAIT_S):
        manifest = current_manifest(root, "rules", RulesError)
        if manifest.id_types != id_types:
            raise RulesError(
                f"release {manifest.release} became current meanwhile, with ids of other types; run "
                "this again"
            )
        there = {entry.category_id: entry for entry in manifest.categories}
        known = {one: each for one, each in rules.items() if one in there}
        idle = [
            each
            for one, of in known.items()
            for each in _idle(root.folder(manifest.release), there[one], of)
        ]
        staging = Staging(root, root.updating)
        try:
            written = [staging.category(each).keep() for each in there]
            draft = replace(manifest, behaviour=None)
            published = staging.publish(draft, written, UPDATE_SUFFIX, rules=known)
        finally:
            staging.discard()
    lost = [Named(one, rule) for one, each in rules.items() if one not in there for rule in each]
    banned = [Named(one, rule) for one, each in known.items() for rule in _banned(each)]
    n_before = sum(entry.n_rules for entry in manifest.categories)
    return Made(published, known, n_before, lost, idle, banned)


def _idle(release: Path, entry: CategoryEntry, rules: Sequence[Rule]) -> list[Named]:
    """The rules that name a product which the category does not have."""
    ids = read_product_ids(release / category_folder(entry.category_id), entry)
    named = {one for rule in rules for one in (rule.product_id, rule.other_id)} - {None}
    is_text = ids.dtype.kind == "S"
    _, known = positions_of(
        ids, id_array(list(map(str, named)) if is_text else np.array([*named], np.int64))
    )
    missing = {one for one, is_known in zip(named, known.tolist(), strict=True) if not is_known}
    return [
        Named(entry.category_id, rule)
        for rule in rules
        if rule.product_id in missing or rule.other_id in missing
    ]


def _banned(rules: Sequence[Rule]) -> list[Rule]:
    """The pins of products that are banned in the same answers."""
    bans = {(rule.product_id, rule.other_id) for rule in rules if rule.kind == "ban"}
    return [
        rule
        for rule in rules
        if rule.kind == "pin" and not bans.isdisjoint({rule[::2], (None, rule.other_id)})
    ]
