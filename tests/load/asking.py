"""A client that asks for products, one after the other, and notes the answers."""

import json
import random
import threading
import time
from http.client import HTTPConnection, HTTPException
from typing import NamedTuple

PAUSE_S = 0.005


class Asked(NamedTuple):
    """An answer: its ETag, what it is of, the product ids in it."""

    etag: str
    product_id: int
    product_ids: list[int]


class Noted(NamedTuple):
    """Latencies in milliseconds, problems (anything but a 200 with the product first), a sample."""

    latencies: list[float]
    problems: list[str]
    sample: list[Asked]


def ask(
    address: tuple[str, int], products: list[int], stop: threading.Event, limit: int, sample: int
) -> Noted:
    """Ask for category 1's `products` at random until `stop` is set; keep about `sample` answers."""
    noted, rng = Noted([], [], []), random.Random(2)
    connection = HTTPConnection(*address, timeout=10)
    while not stop.wait(PAUSE_S):
        product = rng.choice(products)
        started = time.perf_counter()
        try:
            connection.request("GET", f"/nns?category_id=1&product_id={product}&limit={limit}")
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, HTTPException) as error:
            noted.problems.append(f"product {product}: {error!r}")
            connection.close()
            continue
        noted.latencies.append(1e3 * (time.perf_counter() - started))
        if answer.status != 200 or json.loads(body)[0] != product:
            noted.problems.append(f"product {product}: {answer.status} {body[:80]!r}")
            continue
        asked = Asked(answer.headers["ETag"] or "", product, json.loads(body))
        if len(noted.sample) < sample:
            noted.sample.append(asked)
        elif (place := rng.randrange(len(noted.latencies))) < sample:
            noted.sample[place] = asked
    return noted
