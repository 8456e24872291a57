"""Numbers with weights on a line, as sorted points with prefix sums: all that clustering asks of them.

Few numbers are points of their own. Of many, those in the same of ``BINS`` bins are one point: it has their
weight, their weighted mean and their weighted sum of squares, so the squared error of clusters is exact as
far as no border of a cluster cuts a bin. Bins are of equal width in

    u = asinh((x - m) / s),   m the median, s the mean distance from it, both of a part of the numbers

They are narrow where most numbers lie and never wider than a share of the distance from there, whatever the
tails. A cluster that begins or ends inside a bin takes it whole: that moves each number of the bin by less
than the bin's width.
"""

from __future__ import annotations

import numpy as np

EXACT = 1 << 16
"""Numbers up to which each is a point of its own."""

BINS = 1 << 15

SAMPLE = 1 << 12
"""Numbers from which m and s are found."""

BLOCK = 1 << 18
"""Numbers that are looked at together."""


class Masses:
    """Points in rising order.

    Attributes:
        values: where they are, float64 of shape ``(points,)``.
        mass: prefix sums of weights, with a 0 before them, float64 of shape ``(points + 1,)``.
        first: of weighted values, likewise.
        second: of weighted squares, likewise.
    """

    def __init__(self, values: np.ndarray, weights: np.ndarray | None = None) -> None:
        """Take numbers.

        Args:
            values: finite numbers of any shape, at least one.
            weights: non-negative, of the same shape; all 1 where this is None or all are 0.
        """
        flat = values.reshape(-1)
        mass = None if weights is None or not weights.any() else weights.reshape(-1)
        sums = _sorted(flat, mass) if flat.size <= EXACT else _binned(flat, mass)
        self.values, *parts = sums
        self.mass, self.first, self.second = (
            np.concatenate([[0.0], np.cumsum(part)]) for part in parts
        )

    @property
    def power(self) -> float:
        """The weighted sum of the squares of all numbers."""
        return float(self.second[-1])


Sums = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Where points are, and of each the weight, the weighted sum and the weighted sum of squares."""


def _sorted(flat: np.ndarray, weights: np.ndarray | None) -> Sums:
    wide = flat.astype(np.float64)
    order = np.argsort(wide, kind="stable")
    values = wide[order]
    mass = np.ones(len(values)) if weights is None else weights[order].astype(np.float64)
    return values, mass, mass * values, mass * values * values


def _binned(flat: np.ndarray, weights: np.ndarray | None) -> Sums:
    sample = flat[:: len(flat) // SAMPLE].astype(np.float64)
    middle = float(np.median(sample))
    spread = float(np.abs(sample - middle).mean()) or float(np.abs(flat - middle).max()) or 1.0

    def stretched(values: np.ndarray) -> np.ndarray:
        return np.asarray(np.arcsinh((values.astype(np.float64) - middle) / spread))

    low, high = (float(stretched(np.asarray(end))) for end in (flat.min(), flat.max()))
    scale = (BINS - 1) / (high - low) if high > low else 0.0
    sums = np.zeros((4, BINS))
    for start in range(0, len(flat), BLOCK):
        part = slice(start, start + BLOCK)
        own = flat[part].astype(np.float64)
        mass = None if weights is None else weights[part].astype(np.float64)
        places = ((stretched(own) - low) * scale).astype(np.int64).clip(0, BINS - 1)
        weighted = own if mass is None else mass * own
        for row, numbers in enumerate((None, mass, weighted, weighted * own)):
            sums[row] += np.bincount(places, numbers, BINS)
    _, mass, first, second = sums[:, sums[1] > 0]
    return first / mass, mass, first, second
