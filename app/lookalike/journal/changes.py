"""A change of a product, what became of it, and the status of the journal."""

from typing import Final, Literal, NamedTuple

from lookalike.release.attributes import Values
from lookalike.release.ids import Id

PUT: Final = "put"
DELETE: Final = "delete"
SET: Final = "set"
Op = Literal["put", "delete", "set"]
State = Literal["pending", "live", "rejected"]


class Change(NamedTuple):
    """A product registered or changed (`put`) or removed (`delete`), or attributes of one (`set`).

    A `put` has either `photo`, its bytes, or `image`, its URL or absolute path. A `set` has `values`,
    at least one; the product's other attributes stay as they are.
    """

    op: Op
    category_id: Id
    product_id: Id
    image: str | None = None
    photo: bytes | None = None
    values: Values | None = None


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
        """The state in one word."""
        if self.settled_at is None:
            return "pending"
        return "live" if self.reason is None else "rejected"


class Status(NamedTuple):
    """The counters of a journal; times in seconds.

    `n_pending` changes are pending, the oldest for `oldest_pending_s`; their photos take
    `pending_bytes`. `n_live` changes ever became live and `n_rejected` were rejected, in `n_batches`
    that took `batches_s` together. The last batch ended at `last_batch_at` (Unix time, 0 for never).
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
