"""How many cases tests try: pairs of values whose product would take too long, and examples.

Mistakes hide in one value, or in two that do not get on; three that fail only together are rare.
So tests run a few combinations in which each two values of different lists meet.
"""

import itertools
import os
from collections.abc import Iterable
from typing import Any

# The profile of properties (see conftest.py) that takes the time to try everything.
EXPLORE = os.environ.get("HYPOTHESIS_PROFILE") == "explore"


def examples(count: int) -> int:
    """How many examples a property draws; with HYPOTHESIS_PROFILE=explore, 20 times as many."""
    return 20 * count if EXPLORE else count


def pairwise(*values: Iterable[Any]) -> list[tuple[Any, ...]]:
    """A few combinations of one value from each list, in which each two values meet at least once.

    With HYPOTHESIS_PROFILE=explore, all of them. Of two lists there is nothing to leave out. The
    order is that of the product, hence the same in every process.
    """
    lists = [list(one) for one in values]
    product = list(itertools.product(*map(range, map(len, lists))))
    chosen = product if EXPLORE else sorted(_cover([len(one) for one in lists]))
    return [tuple(one[i] for one, i in zip(lists, row, strict=True)) for row in chosen]


def _cover(sizes: list[int]) -> list[tuple[int, ...]]:
    """Rows of indices, one row at a time: the pair that is missing first, and most others."""
    missing = {
        ((a, i), (b, j)): None
        for a, b in itertools.combinations(range(len(sizes)), 2)
        for i, j in itertools.product(range(sizes[a]), range(sizes[b]))
    }
    used = [[0] * size for size in sizes]
    rows = []
    while missing:
        row = dict(next(iter(missing)))
        for axis in (axis for axis in range(len(sizes)) if axis not in row):
            met = [
                sum(_pair((axis, i), (other, j)) in missing for other, j in row.items())
                for i in range(sizes[axis])
            ]
            row[axis] = max(range(sizes[axis]), key=lambda i: (met[i], -used[axis][i]))
        for one, other in itertools.combinations(sorted(row.items()), 2):
            missing.pop((one, other), None)
        for axis, i in row.items():
            used[axis][i] += 1
        rows.append(tuple(row[axis] for axis in range(len(sizes))))
    return rows


def _pair(one: tuple[int, int], other: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    return (one, other) if one < other else (other, one)
