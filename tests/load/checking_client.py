"""An HTTP client that asks for products at random and checks every answer.

An answer is right if it is the one that a release with its ETag gives (`made_release`). Run in
processes of its own by `check_answers`.
"""

import random
import re
import selectors
import socket
import statistics
import time
from dataclasses import dataclass, field

from load.made_release import neighbour_ids, product_id

LIMIT = 12
TIMEOUT_S = 8.0
_HEAD_END = b"\r\n\r\n"
_ETAG = re.compile(rb'^etag: (".*?")\r?$', re.MULTILINE | re.IGNORECASE)
_LENGTH = re.compile(rb"^content-length: (\d+)\r?$", re.MULTILINE | re.IGNORECASE)


@dataclass
class Seen:
    """What a client saw: latencies in milliseconds, failures (no 200), wrong answers, examples."""

    latencies: list[float] = field(default_factory=list)
    failed: int = 0
    wrong: int = 0
    problems: list[str] = field(default_factory=list)

    def quantile(self, percent: int) -> float:
        """The latency that so many percent of the answers kept within."""
        return statistics.quantiles(self.latencies, n=100)[percent - 1]

    def problem(self, text: str) -> None:
        """Keep the first few for the reader."""
        if len(self.problems) < 5:
            self.problems.append(text)


class _Connection:
    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""
        self.item = 0
        self.sent_at = 0.0

    def ask(self, item: int) -> None:
        self.item, self.received, self.sent_at = item, b"", time.perf_counter()
        target = f"/nns?category_id=1&product_id={product_id(item)}&limit={LIMIT}"
        self.socket.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())

    def answer(self) -> tuple[bytes, bytes] | None:
        """Head and body once all of them are here; ConnectionError if the other end is gone."""
        received = self.socket.recv(65536)
        if not received:
            raise ConnectionError("closed")
        self.received += received
        head, end, body = self.received.partition(_HEAD_END)
        length = _LENGTH.search(head)
        if not end or (length and len(body) < int(length[1])):
            return None
        return head, body


def check_answers(
    address: tuple[str, int], n_items: int, steps: dict[str, int], seconds: float, connections: int
) -> Seen:
    """Ask for `seconds` over so many connections. `steps` are the releases' ETags and their steps."""
    seen, rng = Seen(), random.Random(1)
    until = time.perf_counter() + seconds
    with selectors.DefaultSelector() as selector:
        for _ in range(connections):
            _begin(selector, address, rng.randrange(n_items))
        while time.perf_counter() < until:
            for key, _ in selector.select(1):
                connection: _Connection = key.data
                try:
                    answer = connection.answer()
                    if answer is None:
                        continue
                    seen.latencies.append(1e3 * (time.perf_counter() - connection.sent_at))
                    _check(seen, *answer, connection.item, n_items, steps)
                    connection.ask(rng.randrange(n_items))
                except OSError as error:
                    seen.failed += 1
                    seen.problem(f"connection: {error}")
                    selector.unregister(connection.socket)
                    connection.socket.close()
                    _begin(selector, address, rng.randrange(n_items))
            _end_overdue(selector, seen, address, rng.randrange(n_items))
        for key in list(selector.get_map().values()):
            key.data.socket.close()
    return seen


def _end_overdue(
    selector: selectors.BaseSelector, seen: Seen, address: tuple[str, int], item: int
) -> None:
    overdue = time.perf_counter() - TIMEOUT_S
    for key in list(selector.get_map().values()):
        connection: _Connection = key.data
        if connection.sent_at < overdue:
            seen.failed += 1
            seen.problem(f"no answer in {TIMEOUT_S} s")
            selector.unregister(connection.socket)
            connection.socket.close()
            _begin(selector, address, item)


def _begin(selector: selectors.BaseSelector, address: tuple[str, int], item: int) -> None:
    connection = _Connection(address)
    selector.register(connection.socket, selectors.EVENT_READ, connection)
    connection.ask(item)


def _check(
    seen: Seen, head: bytes, body: bytes, item: int, n_items: int, steps: dict[str, int]
) -> None:
    if not head.startswith(b"HTTP/1.1 200 "):
        seen.failed += 1
        seen.problem(f"{head[:40]!r} {body[:100]!r}")
        return
    etag = _ETAG.search(head)
    step = steps.get(etag[1].decode()) if etag else None
    if step is None or body != expected_body(n_items, item, step):
        seen.wrong += 1
        seen.problem(f"item {item}, {etag and etag[1]!r}: {body[:100]!r}")


def expected_body(n_items: int, item: int, step: int) -> bytes:
    """What `GET /nns` answers for an item."""
    ids = [product_id(item), *neighbour_ids(n_items, item, LIMIT - 1, step)]
    return b"[" + b",".join(b"%d" % each for each in ids) + b"]"
