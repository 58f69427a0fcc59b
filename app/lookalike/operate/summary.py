"""Summaries of releases, in a few words."""

from datetime import UTC, datetime

from lookalike.release.manifest import BehaviourEntry, Manifest


def of_release(manifest: Manifest) -> str:
    """What a release holds."""
    return (
        f"products: {manifest.n_items}, categories: {len(manifest.categories)}, "
        f"model: {manifest.model.name}"
        + (f", behaviour: {of_behaviour(manifest.behaviour)}" if manifest.behaviour else "")
    )


def of_behaviour(entry: BehaviourEntry) -> str:
    """What its behaviour holds."""
    newest = datetime.fromtimestamp(entry.newest_rating, UTC)
    return f"{entry.n_products} products, ratings to {newest:%Y-%m-%d}"
