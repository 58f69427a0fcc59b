"""Removal: how much of what there is a build may take away without being asked to.

A feed that was cut, or whose ids a spreadsheet has changed, is well-formed. What shows is that products
are gone.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from lookalike.errors import LookalikeError
from lookalike.release.category import read_product_ids
from lookalike.release.files import ReleaseError
from lookalike.release.ids import Id, IdType, category_folder
from lookalike.release.manifest import Model
from lookalike.release.root import ReleaseRoot
from lookalike_build.catalogue.reader import Catalogue
from lookalike_build.features.store import FeatureSource, id_type
from lookalike_build.publishing.staging import full_manifest

FEW = 10
"""Up to so many products, of all or of a category, are removed without question."""
_SHOWN = 3


class RemovalError(LookalikeError):
    """A build would take away much of what there is; the text says what, and which option allows it."""


@dataclass(frozen=True)
class AllowedRemoval:
    """How much a build may take away.

    `products` is a share of all products, `of_category` of those of one category (both 0 to 1), and
    `categories` a number of categories. `other_ids` allows ids of another type, `other_model` features
    of another network.
    """

    products: float = 0.2
    of_category: float = 0.5
    categories: int = 0
    other_ids: bool = False
    other_model: bool = False


ANY = AllowedRemoval(1, 1, 2**31, True, True)
"""Nothing is asked."""


@dataclass(frozen=True)
class Products:
    """The product ids of each category (of any type, in any order); `name` is what has them.

    `id_types` are those of the category and the product ids, `type_reasons` what made them so; `model`
    made the features.
    """

    name: str
    id_types: tuple[IdType, IdType]
    model: Model
    ids: Mapping[Id, pa.Array]
    type_reasons: tuple[str, str] = ("", "")

    def without(self, products: Collection[tuple[str, str]]) -> "Products":
        """Without these, given by their category and product ids as text."""
        if not products:
            return self
        ids = {}
        for category_id, each in self.ids.items():
            given = [product for category, product in products if category == str(category_id)]
            found = pc.is_in(each.cast(pa.string()), pa.array(given, pa.string()))
            ids[category_id] = each.filter(pc.invert(found))
        return replace(self, ids=ids)


def released(root: ReleaseRoot) -> Products | None:
    """The products of the current release; None where there is none, or it cannot be read.

    Categories whose file is damaged, which the build replaces, are left out.
    """
    manifest = full_manifest(root, root.current())
    if manifest is None:
        return None
    ids: dict[Id, pa.Array] = {}
    for entry in manifest.categories:
        folder = root.folder(manifest.release) / category_folder(entry.category_id)
        with suppress(ReleaseError, ValueError):
            ids[entry.category_id] = pa.array(read_product_ids(folder, entry).tolist()).cast(
                pa.string()
            )
    return Products(f"release {manifest.release}", manifest.id_types, manifest.model, ids)


def in_source(source: FeatureSource) -> Products:
    """The products whose features a release is to be made of; FeatureError if they cannot be read."""
    ids = {category_id: source.ids_of(category_id) for category_id in source.categories}
    return Products(str(source.folder), source.id_types, source.model, ids)


def in_catalogue(name: str, catalogue: Catalogue, model: Model) -> Products:
    """The products of a catalogue, whose features `model` is to make."""
    columns = "category_id", "product_id"
    types = [id_type(catalogue.rows.schema.field(column).type) for column in columns]
    groups = catalogue.rows.group_by(columns[0]).aggregate([(columns[1], "list")])
    ids = {key.as_py(): each.values for key, each in zip(*groups.columns, strict=True)}
    reasons = [catalogue.type_reasons[column] for column in columns]
    return Products(name, (types[0], types[1]), model, ids, (reasons[0], reasons[1]))


def check_removal(before: Products, after: Products, allowed: AllowedRemoval) -> None:
    """RemovalError if `after` lacks more of `before` than is allowed."""
    if before.id_types != after.id_types and not allowed.other_ids:
        raise RemovalError(_other_ids(before, after))
    if before.model != after.model and not allowed.other_model:
        raise RemovalError(
            f"{before.name} has features of {_name(before.model)}, {after.name} of "
            f"{_name(after.model)}: all answers would change. {before.name} stays as it is; if that is "
            "meant: --allow-other-model"
        )
    if problems := list(_problems(_texts(before), _texts(after), allowed)):
        raise RemovalError(
            f"{after.name} would take away much of {before.name}, which stays as it is: "
            f"{'; '.join(problems)}. If that is meant, give these options higher values for this run"
        )


def _other_ids(before: Products, after: Products) -> str:
    what = zip(
        ("category", "product"), before.id_types, after.id_types, after.type_reasons, strict=True
    )
    changes = [
        f"{name} ids of {before.name} are {was}s, those of {after.name} {now}s"
        f"{reason and f' ({reason})'}"
        for name, was, now, reason in what
        if was != now
    ]
    return (
        f"{'; '.join(changes)}. {before.name} stays as it is; if that is meant: --allow-other-ids"
    )


def _name(model: Model) -> str:
    return f"{model.name} {model.digest[:12]}"


def _problems(
    before: Mapping[str, pa.Array], after: Mapping[str, pa.Array], allowed: AllowedRemoval
) -> Iterator[str]:
    yield from _lost("", _all(before), _all(after), allowed.products, "--max-removed")
    gone = [each for each, ids in before.items() if each not in after and len(ids) > FEW]
    if len(gone) > allowed.categories:
        shown = ", ".join([*gone[:_SHOWN], *["…"] * (len(gone) > _SHOWN)])
        yield f"{len(gone)} categories ({shown}; --max-removed-categories {allowed.categories})"
    for each in before.keys() & after.keys():
        name = f" of category {each}"
        yield from _lost(
            name, before[each], after[each], allowed.of_category, "--max-removed-of-category"
        )


def _lost(name: str, before: pa.Array, after: pa.Array, share: float, option: str) -> Iterator[str]:
    n_lost = len(before) - pc.sum(pc.is_in(before, after), min_count=0).as_py()
    if n_lost > max(FEW, share * len(before)):
        yield f"{n_lost} of {len(before)} products{name} ({option} {100 * share:g})"


def _texts(products: Products) -> dict[str, pa.Array]:
    """The product ids by category, both as text: the same, whatever type they have."""
    return {str(each): ids.cast(pa.string()) for each, ids in products.ids.items()}


def _all(ids: Mapping[str, pa.Array]) -> pa.Array:
    return pa.chunked_array(list(ids.values()), pa.string()).unique()
