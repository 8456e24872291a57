"""The best division of a row of items into consecutive intervals, by dynamic programming.

    e_1(i) = c(0, i)        e_j(i) = min over l of e_(j-1)(l) + c(l, i)

with c(l, i) the cost of the items from l to i, and e_j(i) that of the first i items in j intervals (Bellman,
"On the approximation of curves by line segments using dynamic programming", 1961; Fisher, "On grouping for
maximum homogeneity", 1958). For n items it takes ``k n^2`` steps, one array operation for each j.

One interval can be special and have costs of its own: then there are two rows of e, without and with it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Division(NamedTuple):
    """Consecutive intervals.

    Attributes:
        borders: where they begin, and the end of the last, int64 of shape ``(k + 1,)``.
        special: the number of the special one; None where there is none.
    """

    borders: np.ndarray
    special: int | None


def best_division(costs: np.ndarray, k: int, special: np.ndarray | None = None) -> Division:
    """The division of the least sum of costs.

    Args:
        costs: ``costs[l, i]`` of an interval from l up to before i, of shape ``(n + 1, n + 1)``; not read
            where ``i <= l``.
        k: intervals, at most n; none is empty.
        special: likewise, of the one that is special, which may be empty; not read where ``i < l``.

    Raises:
        ValueError: there are fewer items than intervals.
    """
    count = len(costs)
    if not 1 <= k < count:
        raise ValueError(f"{count - 1} items cannot be divided into {k} intervals")
    ordinary = np.where(np.tri(count, dtype=bool), np.inf, costs)
    if special is not None:
        special = np.where(np.tri(count, k=-1, dtype=bool), np.inf, special)
    least = np.full((2, count), np.inf)
    least[0, 0] = 0.0
    steps = [_step(least, ordinary, special)]
    for _ in range(k - 1):
        steps.append(_step(steps[-1].least, ordinary, special))
    return _traced(steps, special is not None)


class _Step(NamedTuple):
    """The least costs after one more interval, without and with the special one; and how they came about."""

    least: np.ndarray
    start: np.ndarray
    by_special: np.ndarray


def _step(least: np.ndarray, ordinary: np.ndarray, special: np.ndarray | None) -> _Step:
    rows = np.arange(least.shape[1])
    found, starts = np.full(least.shape, np.inf), np.zeros(least.shape, np.int64)
    by_special = np.zeros(least.shape[1], bool)
    for used in (0,) if special is None else (0, 1):
        sums = least[used][:, None] + ordinary
        starts[used] = sums.argmin(axis=0)
        found[used] = sums[starts[used], rows]
    if special is not None:
        sums = least[0][:, None] + special
        start = sums.argmin(axis=0)
        by_special = sums[start, rows] < found[1]
        starts[1] = np.where(by_special, start, starts[1])
        found[1] = np.where(by_special, sums[start, rows], found[1])
    return _Step(found, starts, by_special)


def _traced(steps: list[_Step], used: bool) -> Division:
    borders, special = [len(steps[0].by_special) - 1], None
    for number in range(len(steps) - 1, -1, -1):
        end, step = borders[-1], steps[number]
        borders.append(int(step.start[int(used), end]))
        if used and step.by_special[end]:
            used, special = False, number
    return Division(np.array(borders[::-1]), special)
