"""Indexing on a Ray cluster: a task a category. Ray schedules the tasks, and starts one again where its
worker has died; what that has left of the category, the next one clears.

The release root and the feature store are on a file system that all machines see, their paths
absolute, and `lookalike[build,ray]` is installed on each. Import this where Ray is there to be used:
within `ray_cluster`.
"""

from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from lookalike_build.features.store import FeatureSource
from lookalike_build.indexing.build import index_category
from lookalike_build.indexing.category import Done, IndexSettings
from lookalike_build.publishing.category import CategoryWriter, Written
from lookalike_build.ray_cluster import ClusterError

_MOST_CPUS = 8
MAX_RETRIES = 3
_END_S = 30.0


def index_on_ray(
    store: FeatureSource, settings: IndexSettings, writers: Sequence[CategoryWriter], done: Done
) -> list[Written]:
    """The `IndexEngine` of the cluster that this process is connected to.

    Raises what the first task to fail has raised, ClusterError where Ray gave it up; all others have
    ended then, so that nobody writes to the staging folder any more.
    """
    # A large category must not be started when all others are done.
    largest_first = sorted(writers, key=lambda writer: -store.categories[writer.category_id])
    remote = ray.remote(num_cpus=_cpus_a_task(), max_retries=MAX_RETRIES)(index_category)
    shared = ray.put(store)
    waiting = {remote.remote(shared, settings, writer): writer for writer in largest_first}
    written = []
    try:
        while waiting:
            (ended,), _ = ray.wait(list(waiting))
            writer = waiting.pop(ended)
            written.append(_result(ended, writer))
            done(store.categories[writer.category_id])
    finally:
        for task in waiting:
            ray.cancel(task, force=True)
        if waiting:
            ray.wait(list(waiting), num_returns=len(waiting), timeout=_END_S)
    return written


def _cpus_a_task() -> int:
    """As many as every machine has, so that no task waits for a machine that is gone for good.

    NumPy looks for neighbours on all of them. Other parts of a category run in one thread: large
    machines are better off with several categories at a time.
    """
    nodes: Any = ray.nodes  # its types are not given
    counts = (int(node["Resources"].get("CPU", 0)) for node in nodes() if node["Alive"])
    return min([_MOST_CPUS, *filter(None, counts)])


def _result(ended: Any, writer: CategoryWriter) -> Written:
    category = f"category {writer.category_id}"
    try:
        written: Written = ray.get(ended)
    except RayTaskError as error:
        if isinstance(error.cause, RayError | RuntimeError):  # Ray could not start the task
            what = str(error.cause).strip().splitlines()[-1]
            way_out = "every machine of the cluster needs this version of lookalike[build,ray]"
            raise ClusterError(f"{category}: {what}; {way_out}") from error
        raise error.cause from error
    except RayError as error:
        raise ClusterError(f"{category}: {str(error).strip().splitlines()[0]}") from error
    return written
