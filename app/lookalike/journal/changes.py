"""Changes of products, what became of each, and where their journal stands."""

from typing import Final, Literal, NamedTuple

from lookalike.release.ids import Id

PUT: Final = "put"
DELETE: Final = "delete"
Op = Literal["put", "delete"]
State = Literal["pending", "live", "rejected"]


class Change(NamedTuple):
    """A product registered or changed (`put`) or removed (`delete`).

    A `put` has `photo`, the bytes, or `image`, where the photo is: a URL or an absolute path.
    """

    op: Op
    category_id: Id
    product_id: Id
    image: str | None = None
    photo: bytes | None = None


class Outcome(NamedTuple):
    """What became of a change: `release` is set where it is live, `reason` where it is rejected.

    `settled_at` (Unix time, seconds) is None while it is pending.
    """

    op: Op
    category_id: Id
    product_id: Id
    received_at: float
    settled_at: float | None
    release: str | None
    reason: str | None

    @property
    def state(self) -> State:
        """In one word."""
        if self.settled_at is None:
            return "pending"
        return "live" if self.reason is None else "rejected"


class Status(NamedTuple):
    """Where a journal stands; times in seconds.

    `n_pending` changes wait, the oldest for `oldest_pending_s`; so many ever became live or were
    rejected, in `n_batches` that took `batches_s` together. The last batch, at `last_batch_at` (Unix
    time, 0 for never), had so many changes and took so long. The photos of pending changes take
    `pending_bytes`.
    """

    n_pending: int = 0
    oldest_pending_s: float = 0.0
    n_live: int = 0
    n_rejected: int = 0
    n_batches: int = 0
    batches_s: float = 0.0
    last_batch_changes: int = 0
    last_batch_s: float = 0.0
    last_batch_at: float = 0.0
    pending_bytes: int = 0
