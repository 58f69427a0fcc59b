"""A batch of changes: what they make, one after the other, of the products of the current release."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set

from lookalike.journal import DELETE, SET, Change
from lookalike.release.arrays import Features
from lookalike.release.attributes import AttributeTypes, Value, Values, value_problem
from lookalike.release.ids import Id, shown
from lookalike_build.indexing.live import CategoryChanges, ChangesByCategory

There = Callable[[Id, Collection[Id]], Set[Id]]
"""Which of some products a category of the current release has."""


def resolved(
    batch: Sequence[tuple[int, Change]],
    features: Mapping[int, Features],
    known: AttributeTypes,
    there: There,
) -> tuple[ChangesByCategory, dict[int, str]]:
    """What products become by a batch of valid puts and deletes, and of sets; why some are rejected.

    `features`, by number, are what puts give. `known` are the attributes of the release.
    """
    categories: dict[Id, _Category] = {}
    for category_id, group in _by_category(batch).items():
        asked = {change.product_id for change in group if change.op == SET}
        categories[category_id] = _Category(there(category_id, asked) if asked else set())
    reasons = {}
    for number, change in batch:
        category = categories[change.category_id]
        if change.op == SET:
            if reason := category.set(change, known):
                reasons[number] = reason
        else:
            category.replace(change, features.get(number), known)
    changes = {one: CategoryChanges(each.features, each.values) for one, each in categories.items()}
    return changes, reasons


def _by_category(batch: Iterable[tuple[int, Change]]) -> dict[Id, list[Change]]:
    groups = defaultdict(list)
    for _, change in batch:
        groups[change.category_id].append(change)
    return groups


class _Category:
    """What the changes so far make of a category; `there` are products that it has, if any is set."""

    def __init__(self, there: Set[Id]) -> None:
        self.features: dict[Id, Features | None] = {}
        self.values: dict[Id, dict[str, Value | None]] = {}
        self._there = {*there}

    def set(self, change: Change, known: AttributeTypes) -> str | None:
        """Give a product values, or return why not."""
        values = change.values or {}
        if change.product_id not in self._there:
            return (
                f"category {change.category_id} has no product {change.product_id}; put it first, then "
                "set its attributes"
            )
        if reason := _problem(values, known):
            return reason
        self.values.setdefault(change.product_id, {}).update(values)
        return None

    def replace(self, change: Change, feature: Features | None, known: AttributeTypes) -> None:
        """Put or delete a product; one that is deleted has no values any more."""
        self.features[change.product_id] = feature
        if change.op == DELETE:
            self.values[change.product_id] = dict.fromkeys(known)
            self._there.discard(change.product_id)
        else:
            self._there.add(change.product_id)


def _problem(values: Values, known: AttributeTypes) -> str | None:
    for name, value in values.items():
        if name not in known:
            return f"the release has no attribute {shown(name)}; it has {', '.join(known)}"
        if value is not None and (problem := value_problem(value, known[name])):
            return f"{name} {problem}"
    return None
