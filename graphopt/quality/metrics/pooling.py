"""Rows pooled under weightings of the samples, in bounded memory.

    sums[r, k] = sum_i weights[r, i] rows[i, k]

A weight says how often a sample counts, so pooling under weights equals pooling repeated samples.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from graphopt.quality.metrics.base import Metric, Rows

BLOCK = 1 << 22
"""Weights, or elements of outputs, that are worked on at once."""


def blocks(count: int, elements: int) -> Iterator[slice]:
    """Parts of ``count`` items of so many elements each, none much larger than ``BLOCK`` elements."""
    step = max(1, BLOCK // max(elements, 1))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def weighted_sums(rows: Rows, weights: np.ndarray) -> np.ndarray:
    """Sums of every statistic.

    Args:
        rows: finite, ``(samples, statistics)``.
        weights: of any numeric type, ``(weightings, samples)``.

    Returns:
        float64 of shape ``(weightings, statistics)``.
    """
    sums = np.empty((len(weights), rows.shape[1]))
    for part in blocks(len(weights), len(rows)):
        sums[part] = weights[part].astype(np.float64, copy=False) @ rows
    return sums


def largest(rows: Rows, weights: np.ndarray) -> np.ndarray:
    """The largest value of every statistic over the samples that count at all.

    Args:
        rows: not negative, ``(samples, statistics)``; infinities are allowed.
        weights: ``(weightings, samples)``.

    Returns:
        float64 of shape ``(weightings, statistics)``; 0 where no sample counts.
    """
    found = np.zeros((len(weights), rows.shape[1]))
    if len(rows) == 0:
        return found
    falling = np.argsort(-rows, axis=0)
    for part in blocks(len(weights), len(rows)):
        counts = weights[part] > 0
        some = counts.any(axis=1)
        for column, order in enumerate(falling.T):
            first = order[counts[:, order].argmax(axis=1)]  # the largest one that counts
            found[part, column] = np.where(some, rows[first, column], 0.0)
    return found


def quotient(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """``numerator / denominator``, and the numerator itself where the denominator is 0."""
    return numerator / np.where(denominator > 0, denominator, 1.0)


class MeanMetric(Metric):
    """A metric whose rows are one number and whose value is their mean."""

    def values(self, rows: Rows, weights: np.ndarray) -> np.ndarray:
        """The weighted means; NaN where nothing counts."""
        total = weights.sum(axis=1, dtype=np.float64)
        with np.errstate(invalid="ignore"):
            return np.asarray(weighted_sums(rows, weights)[:, 0] / total)
