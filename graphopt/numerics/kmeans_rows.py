"""Clustering of the numbers of each row by k-means, all rows at once, deterministic.

As ``numerics.kmeans``: each row is sorted once, with prefix sums, and a step of Lloyd's algorithm (IEEE
Trans. Inform. Theory 28, 1982) looks up the ``k - 1`` borders of each row, here by bisection in all rows
together. It starts from centres at equal distances, from centres of equal weight, and from halfway between
both; for each row the best result counts. The best division is not looked for: with hundreds of rows it would
take most of the time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphopt.numerics.kmeans import STEPS


def cluster_rows(
    values: np.ndarray, k: int, weights: np.ndarray | None = None, zero: bool = False
) -> np.ndarray:
    """The centres of each row, so that the weighted squared distance to the nearest is small.

    Args:
        values: finite, of shape ``(rows, numbers)``.
        k: clusters of a row. A row of fewer distinct numbers has centres that are equal.
        weights: non-negative, of the same shape, not all 0 in a row; all 1 where this is None. What weighs
            nothing has no say, so rows can be filled up.
        zero: whether one centre of each row is 0.

    Returns:
        float64 of shape ``(rows, k)``, rising.
    """
    data = _SortedRows.of(values, weights)
    even, equal = data.even(k), data.quantiles(k)
    starts = [even, equal, (even + equal) / 2]
    found = [data.lloyd(_with_zero(start) if zero else start, zero) for start in starts]
    errors = np.stack([error for _, error in found])
    centres = np.stack([centres for centres, _ in found])
    return np.asarray(centres[errors.argmin(axis=0), np.arange(len(values))])


def below(rows: np.ndarray, numbers: np.ndarray, own: np.ndarray, strictly: bool) -> np.ndarray:
    """How many numbers of a row lie below each of some numbers.

    Args:
        rows: rising, of shape ``(rows, n)``.
        numbers: of any shape.
        own: the row that each is looked up in, of a shape that broadcasts to theirs.
        strictly: whether equal ones do not count.
    """
    width = rows.shape[1]
    bits = max(width, 1).bit_length()
    room = np.full((len(rows), 2**bits - 1), np.inf)
    room[:, :width] = rows
    found = np.zeros(np.broadcast_shapes(numbers.shape, own.shape), np.int64)
    compare = np.greater if strictly else np.greater_equal
    for step in (1 << bit for bit in range(bits - 1, -1, -1)):
        found += step * compare(numbers, room[own, found + step - 1])
    return found


def _with_zero(centres: np.ndarray) -> np.ndarray:
    """Centres of which in each row the one nearest to 0 is 0."""
    moved = centres.copy()
    moved[np.arange(len(moved)), np.abs(moved).argmin(axis=1)] = 0.0
    return np.sort(moved, axis=1)


@dataclass(frozen=True)
class _SortedRows:
    """Sorted rows of what weighs something first, with prefix sums.

    Attributes:
        values: rising, then infinite.
        mass: sums of weights, of shape ``(rows, numbers + 1)``.
        first: of weighted numbers.
        second: of weighted squares.
    """

    values: np.ndarray
    mass: np.ndarray
    first: np.ndarray
    second: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, weights: np.ndarray | None) -> _SortedRows:
        """Sort rows."""
        wide = values.astype(np.float64)
        mass = np.ones(wide.shape) if weights is None else weights.astype(np.float64)
        keys = np.where(mass > 0, wide, np.inf)
        order = np.argsort(keys, axis=1, kind="stable")
        mass, wide, keys = (np.take_along_axis(part, order, 1) for part in (mass, wide, keys))
        sums = (np.cumsum(part, axis=1) for part in (mass, mass * wide, mass * wide * wide))
        return cls(keys, *(np.pad(part, ((0, 0), (1, 0))) for part in sums))

    def even(self, k: int) -> np.ndarray:
        """Centres at equal distances over the range of each row."""
        last = np.where(np.isfinite(self.values), self.values, -np.inf).max(axis=1)
        return np.linspace(self.values[:, 0], last, k, axis=1)

    def quantiles(self, k: int) -> np.ndarray:
        """Centres with equal shares of the weight of each row between them."""
        wanted = (np.arange(k) + 0.5) / k * self.mass[:, -1:]
        rows = np.arange(len(self.values))[:, None]
        places = below(self.mass, wanted, rows, strictly=True) - 1
        return np.asarray(self.values[rows, np.clip(places, 0, self.values.shape[1] - 1)])

    def lloyd(self, centres: np.ndarray, zero: bool) -> tuple[np.ndarray, np.ndarray]:
        """Move centres to the means of their clusters until none moves; they and the errors of rows."""
        stays = (centres == 0) & zero
        for _ in range(STEPS):
            mass, first, _ = self._clusters(centres)
            means = np.divide(first, mass, out=centres.copy(), where=(mass > 0) & ~stays)
            if np.array_equal(means, centres):
                break
            centres = means
        mass, first, second = self._clusters(centres)
        return centres, (second - 2 * centres * first + centres**2 * mass).sum(axis=1)

    def _clusters(self, centres: np.ndarray) -> list[np.ndarray]:
        """Weight, weighted numbers and weighted squares of each cluster."""
        rows = np.arange(len(centres))[:, None]
        inner = below(self.values, (centres[:, 1:] + centres[:, :-1]) / 2, rows, strictly=False)
        finite = np.isfinite(self.values).sum(axis=1)[:, None]
        edges = np.concatenate([0 * finite, np.minimum(inner, finite), finite], axis=1)
        return [np.diff(sums[rows, edges], axis=1) for sums in (self.mass, self.first, self.second)]
