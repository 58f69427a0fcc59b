"""The status of `lookalike-build follow`, in lines for a person. Changes nothing."""

import fcntl
import time
from collections.abc import Iterator

from lookalike.journal import read_rejected, read_status
from lookalike.release.files import ReleaseError
from lookalike.release.root import FOLLOW_LOCK, ReleaseRoot, RootError

_N_REJECTED = 5
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def report(root: ReleaseRoot) -> list[str]:
    """The status of the follower of `root`, its current release and its journal.

    Raises RootError if the folder is missing, JournalError if the journal cannot be read.
    """
    if not root.path.is_dir():
        raise RootError(f"no folder {root.path}")
    running = is_followed(root)
    hint = "" if running else f"; `lookalike-build follow --root {root.path}` starts it"
    return [
        f"follower: {'running' if running else 'not running'}{hint}",
        f"current release: {_release(root)}",
        *_journal(root),
    ]


def is_followed(root: ReleaseRoot) -> bool:
    """Whether a follower of `root` is running."""
    try:
        with (root.path / FOLLOW_LOCK).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def in_words(seconds: float) -> str:
    """A duration in the largest unit that it reaches: 59 s, 2 min, 5 h, 3 d."""
    whole = max(0, int(seconds))
    size, unit = next((unit for unit in _UNITS if whole >= unit[0]), _UNITS[-1])
    return f"{whole // size} {unit}"


def _release(root: ReleaseRoot) -> str:
    try:
        name = root.current()
        if name is None:
            return "none yet; `lookalike-build index` makes one"
        manifest = root.manifest(name)
    except (ReleaseError, RootError) as error:
        return f"cannot be read: {error}"
    return f"{name}, products: {manifest.n_items}, categories: {len(manifest.categories)}"


def _journal(root: ReleaseRoot) -> Iterator[str]:
    status, now = read_status(root.journal), time.time()
    if status is None:
        yield f"changes: none yet (no journal {root.journal})"
        return
    oldest = f", the oldest for {in_words(status.oldest_pending_s)}" if status.n_pending else ""
    yield f"changes pending: {status.n_pending}{oldest}"
    yield f"changes settled: {status.n_live} live, {status.n_rejected} rejected"
    if status.n_batches:
        mean_s = status.batches_s / status.n_batches
        yield f"batches: {status.n_batches}, {mean_s:.1f} s each on average"
        ago = in_words(now - status.last_batch_at)
        n, seconds = status.last_batch_changes, status.last_batch_s
        yield f"last batch: {n} {'change' if n == 1 else 'changes'} in {seconds:.1f} s, {ago} ago"
    else:
        yield "batches: none yet"
    rejected = read_rejected(root.journal, _N_REJECTED)
    if rejected:
        yield "last rejected, newest first:"
    for number, outcome in rejected:
        ago = in_words(now - (outcome.settled_at or now))
        yield (
            f"  change {number}, {outcome.op} of product {outcome.product_id} in category "
            f"{outcome.category_id}, {ago} ago: {outcome.reason}"
        )
