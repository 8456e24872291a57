"""Clustering of single numbers by k-means, deterministic.

In one dimension the clusters are intervals: between two neighbouring centres the border lies in the middle.
So the numbers are sorted once, with prefix sums of weights and weighted numbers (``masses``), and each step
of Lloyd's algorithm (IEEE Trans. Inform. Theory 28, 1982) is a search of ``k - 1`` borders, ``O(k log n)``.
It starts from centres at equal distances, from centres of equal weight, from the centres that are best for
many clusters, whose density is the cube root of the numbers' (Panter and Dite, Proc. IRE 39, 1951), and from
the best division of the numbers into intervals, and the best result counts.

The best division is found by dynamic programming (Fisher, J. Amer. Statist. Assoc. 53, 1958; Wang and Song,
"Ckmeans.1d.dp", R Journal 3, 2011): the least error of the first i numbers in j intervals is the least, over
l, of that of the first l in ``j - 1`` plus the error of the interval from l to i. That takes ``k n^2`` steps,
so where there are many distinct numbers it divides a histogram, and the result is a start like the others.
"""

from __future__ import annotations

import math

import numpy as np

from graphopt.numerics.divisions import best_division
from graphopt.numerics.masses import Masses

STEPS = 200
"""Steps of Lloyd's algorithm after which it stops, converged or not."""

BINS = 512
"""Distinct numbers up to which the best division is looked for among all; else there are so many bins."""

FINE = 1 << 12
"""Bins of a histogram that is only looked at."""

WORK = 1 << 23
"""Steps that dynamic programming may take: with many clusters there are fewer bins."""


def cluster(
    values: np.ndarray, k: int, weights: np.ndarray | None = None, zero: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Cluster numbers so that the weighted squared distance to the nearest centre is small.

    Args:
        values: finite numbers of any shape.
        k: clusters; fewer are made where there are fewer distinct numbers.
        weights: non-negative, of the same shape; all 1 where this is None.
        zero: whether one centre is 0, so that what is 0 stays so.

    Returns:
        The centres, float64, rising, and for each number the index of its centre, of the shape of ``values``.
        Where there are no more distinct numbers than clusters they are the centres. Where there are few
        enough of them (``BINS``, ``WORK``) no other centres have a smaller error. Of very many numbers those
        that are nearly equal are clustered together (``masses``).
    """
    centres = centres_of(values, k, weights, zero)
    return centres, nearest(centres, values)


def centres_of(
    values: np.ndarray, k: int, weights: np.ndarray | None = None, zero: bool = False
) -> np.ndarray:
    """The centres of ``cluster`` alone, which takes less memory."""
    masses = Masses(values, weights)
    distinct = _few(values, masses, k)
    return divided(masses, k, zero)[0] if distinct is None else distinct


def divided(masses: Masses, k: int, zero: bool = False) -> tuple[np.ndarray, float]:
    """The best clusters that are found of points: their centres, and the weighted squared error.

    Args:
        masses: the points.
        k: clusters; fewer are made where there are fewer points.
        zero: whether one centre is 0.
    """
    if len(masses.values) <= k and not zero:
        return np.unique(masses.values), 0.0
    data = _Points(masses)
    starts = [data.even(k), data.quantiles(k), data.companded(k)]
    if _bins(k) > k:
        starts.append(data.divided(k, zero))
    found = [data.lloyd(_with_zero(start) if zero else start, zero) for start in starts]
    return min(found, key=lambda result: result[1])


def _few(values: np.ndarray, masses: Masses, k: int) -> np.ndarray | None:
    """The distinct numbers, float64, where there are no more of them than clusters."""
    if len(np.unique(masses.values)) > k:
        return None
    distinct = np.unique(values).astype(np.float64)
    return distinct if len(distinct) <= k else None


def nearest(centres: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The index of the nearest of some rising centres, for each number; of itself where it is one."""
    borders = np.minimum((centres[1:] + centres[:-1]) / 2, np.nextafter(centres[1:], -np.inf))
    return np.searchsorted(borders, values.astype(np.float64))


def _with_zero(centres: np.ndarray) -> np.ndarray:
    """Centres of which the one nearest to 0 is 0."""
    moved = centres.copy()
    moved[np.abs(centres).argmin()] = 0.0
    return np.unique(moved)


def _bins(k: int) -> int:
    """The most bins that are divided into so many clusters."""
    return min(BINS, math.isqrt(WORK // k))


class _Points:
    """Points, as they are clustered."""

    def __init__(self, masses: Masses) -> None:
        self.values, self.mass = masses.values, masses.mass
        self.first, self.second = masses.first, masses.second

    def even(self, k: int) -> np.ndarray:
        """Centres at equal distances over the range."""
        return np.linspace(self.values[0], self.values[-1], k)

    def quantiles(self, k: int) -> np.ndarray:
        """Centres with equal shares of the weight between them."""
        wanted = (np.arange(k) + 0.5) / k * self.mass[-1]
        places = np.clip(np.searchsorted(self.mass, wanted) - 1, 0, len(self.values) - 1)
        return np.unique(self.values[places])

    def companded(self, k: int) -> np.ndarray:
        """Centres as dense as the cube root of the numbers' density, in a histogram."""
        edges = self._bins(FINE)
        ends = np.append(self.values[edges[:-1]], self.values[-1])
        share = np.cbrt(np.diff(self.mass[edges]) * np.square(np.diff(ends)))
        reached = np.concatenate([[0.0], np.cumsum(share)])
        return np.unique(np.interp((np.arange(k) + 0.5) / k * reached[-1], reached, ends))

    def divided(self, k: int, zero: bool) -> np.ndarray:
        """Centres of the best division, of the numbers or of a histogram of them."""
        edges = self._bins(_bins(k))
        sums = [part[edges] for part in (self.mass, self.first, self.second)]
        mass, first, second = (part[None, :] - part[:, None] for part in sums)
        mean = first / np.where(mass > 0, mass, 1.0)
        free, around = (np.maximum(cost, 0.0) for cost in (second - mean * first, second))
        found = best_division(free, min(k, len(edges) - 1), around if zero else None)
        centres = mean[found.borders[:-1], found.borders[1:]]
        if found.special is not None:
            centres[found.special] = 0.0
        return np.unique(centres)

    def lloyd(self, centres: np.ndarray, zero: bool) -> tuple[np.ndarray, float]:
        """Move centres to the means of their clusters until none moves; they and the squared error.

        Args:
            centres: rising.
            zero: whether the one that is 0 stays there.
        """
        stays = (centres == 0) & zero
        for _ in range(STEPS):
            edges = self._edges(centres)
            mass = np.diff(self.mass[edges])
            moved = centres.copy()
            full = (mass > 0) & ~stays
            moved[full] = np.diff(self.first[edges])[full] / mass[full]
            if np.array_equal(moved, centres):
                break
            centres = moved
        edges = self._edges(centres)
        mass, first, second = (np.diff(s[edges]) for s in (self.mass, self.first, self.second))
        return centres, float((second - 2 * centres * first + centres**2 * mass).sum())

    def _edges(self, centres: np.ndarray) -> np.ndarray:
        inner = np.searchsorted(self.values, (centres[1:] + centres[:-1]) / 2, side="right")
        return np.concatenate([[0], inner, [len(self.values)]])

    def _bins(self, most: int) -> np.ndarray:
        """Where at most so many bins begin: each one number, or half of equal width, half of equal mass."""
        starts = np.flatnonzero(np.diff(self.values)) + 1
        size = len(self.values)
        if len(starts) < most:
            return np.concatenate([[0], starts, [size]])
        wide = np.searchsorted(self.values, self.even(most // 2 + 1))
        equal = np.searchsorted(self.mass, np.linspace(0, self.mass[-1], most // 2 + 1))
        return np.unique(np.concatenate([[0], wide, equal, [size]]).clip(0, size))
