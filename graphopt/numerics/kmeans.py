"""Clustering of single numbers by k-means, deterministic.

In one dimension the clusters are intervals: between two neighbouring centres the border lies in the middle.
So the numbers are sorted once, with prefix sums of weights and weighted numbers, and each step of Lloyd's
algorithm (IEEE Trans. Inform. Theory 28, 1982) is a search of ``k - 1`` borders, ``O(k log n)``. It starts
once from centres at equal distances and once from centres of equal weight, and the better result counts.
"""

from __future__ import annotations

import numpy as np

STEPS = 200
"""Steps of Lloyd's algorithm after which it stops, converged or not."""


def cluster(
    values: np.ndarray, k: int, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Cluster numbers so that the weighted squared distance to the nearest centre is small.

    Args:
        values: finite numbers of any shape.
        k: clusters; fewer are made where there are fewer distinct numbers.
        weights: non-negative, of the same shape; all 1 where this is None.

    Returns:
        The centres, float64, rising, and for each number the index of its centre, of the shape of ``values``.
    """
    flat = values.astype(np.float64).ravel()
    distinct = np.unique(flat)
    if len(distinct) <= k:
        return distinct, np.searchsorted(distinct, flat).reshape(values.shape)
    order = np.argsort(flat, kind="stable")
    data = _Sorted(flat[order], None if weights is None else weights.ravel()[order])
    found = [data.lloyd(start) for start in (data.even(k), data.quantiles(k))]
    centres, _ = min(found, key=lambda result: result[1])
    return centres, nearest(centres, values)


def nearest(centres: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The index of the nearest of some rising centres, for each number."""
    return np.searchsorted((centres[1:] + centres[:-1]) / 2, values.astype(np.float64))


class _Sorted:
    """Sorted numbers with prefix sums."""

    def __init__(self, values: np.ndarray, weights: np.ndarray | None) -> None:
        weight = np.ones(len(values)) if weights is None else weights.astype(np.float64)
        self.values = values
        self.mass = np.concatenate([[0.0], np.cumsum(weight)])
        self.first = np.concatenate([[0.0], np.cumsum(weight * values)])
        self.second = np.concatenate([[0.0], np.cumsum(weight * values * values)])

    def even(self, k: int) -> np.ndarray:
        """Centres at equal distances over the range."""
        return np.linspace(self.values[0], self.values[-1], k)

    def quantiles(self, k: int) -> np.ndarray:
        """Centres with equal shares of the weight between them."""
        wanted = (np.arange(k) + 0.5) / k * self.mass[-1]
        places = np.clip(np.searchsorted(self.mass, wanted) - 1, 0, len(self.values) - 1)
        return np.unique(self.values[places])

    def lloyd(self, centres: np.ndarray) -> tuple[np.ndarray, float]:
        """Move centres to the means of their clusters until none moves; they and the squared error."""
        for _ in range(STEPS):
            edges = self._edges(centres)
            mass = np.diff(self.mass[edges])
            moved = centres.copy()
            full = mass > 0
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
