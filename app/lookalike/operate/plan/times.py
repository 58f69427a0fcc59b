"""How long the builder takes, from the machine's speed and measured constants.

The table of a category is made in two steps. First all products are compared: a float32 matrix product
on all cores, n^2 * n_dims operations since each pair is compared once, while one core merges the scores
of the last block. Then each product's candidates are ranked in float64, on up to two cores.
"""

from collections import Counter
from collections.abc import Iterable

from lookalike.operate.plan import measured
from lookalike.operate.plan.machine import Machine
from lookalike.operate.plan.size import Shape

EXTRA_SCORES = 28
"""How many candidates beyond k are kept and ranked."""


def index_s(categories: Iterable[int], shape: Shape, machine: Machine) -> float:
    """Seconds to index categories of these numbers of products in turn."""
    return sum(
        times * category_s(n_items, shape, machine)
        for n_items, times in Counter(categories).items()
    )


def category_s(n_items: int, shape: Shape, machine: Machine) -> float:
    """Seconds to index one category."""
    rest = measured.INDEX_CATEGORY * min(1, n_items / 2048) + measured.INDEX * n_items
    return table_s(n_items, shape, machine) + rest * machine.slower


def table_s(n_items: int, shape: Shape, machine: Machine) -> float:
    """Seconds for the exact table of one category."""
    pairs, dims = n_items**2, shape.n_dims
    product = pairs * dims / (machine.gflops * machine.cores * 1e9)
    merge = pairs * measured.MERGE * 1e-9 * machine.slower
    # One core merges; if there are many cores, the others wait for it.
    compare = max(merge, product + merge / machine.cores)
    candidates = min(shape.neighbours + EXTRA_SCORES, n_items)
    rank = n_items * candidates * dims * measured.RANK * 1e-9 * machine.slower
    prepare = n_items * measured.PREPARE * machine.slower * dims / 2048
    return compare + rank / min(2, machine.cores) + prepare


def photos_s(machine: Machine) -> float:
    """Photos extracted in a second."""
    each = measured.PHOTOS_BFLOAT16 if machine.bfloat16 else measured.PHOTOS_FLOAT32
    return each * machine.cores * machine.gflops / measured.PRODUCT
