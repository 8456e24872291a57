"""Metrics of regression: labels of the output's shape.

    mse = sum (y - label)^2 / elements        mae = sum |y - label| / elements

Their size depends on the data, so a budget is a share of what the original has:

    drop = (after - before) / before

An original without any error (before = 0) may not get any: every error is an infinite drop. An output
that is not finite has an infinite error; where the original's is, nothing can be said and the drop is
NaN.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass

import numpy as np

from graphopt.errors import UsageError
from graphopt.quality.metrics.base import Metric, Observed, Rows
from graphopt.quality.metrics.labels import flat, require
from graphopt.quality.metrics.outputs import as_numbers, by_sample, is_score, select, shown
from graphopt.quality.metrics.pooling import quotient, weighted_sums


@dataclass(frozen=True)
class MeanDeviation(Metric):
    """A mean error over all elements."""

    higher_is_better = False
    needs_labels = True

    output: str = ""

    @staticmethod
    @abc.abstractmethod
    def cost(difference: np.ndarray) -> np.ndarray:
        """The error of each element, from the difference of output and label."""

    def rows(self, seen: Observed) -> Rows:
        """The sum of errors, the number of elements, and whether an element is not finite."""
        labels = flat(_numbers(self.name, require(self.name, seen.labels, seen.size)))
        wanted = f"an output of the labels' shape {list(labels.shape)}"
        _, output = select(
            self, seen.outputs, lambda a: _shaped(a, labels.shape, seen.size), wanted
        )
        with np.errstate(over="ignore", invalid="ignore"):
            costs = self.cost(output.astype(np.float64) - labels).reshape(len(labels), -1)
            sums = costs.sum(axis=1)
        broken = ~np.isfinite(sums)
        count = np.full(len(sums), costs.shape[1])
        return np.stack([np.where(broken, 0.0, sums), count, broken], axis=1).astype(np.float64)

    def values(self, rows: Rows, weights: np.ndarray) -> np.ndarray:
        """The mean error; infinite where an element that counts is not finite."""
        sums = weighted_sums(rows, weights)
        return np.where(sums[:, 2] > 0, np.inf, quotient(sums[:, 0], sums[:, 1]))

    def drop(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """How much larger the error is, as a share of the original's."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(after == before, 0.0 * after, (after - before) / before)


@dataclass(frozen=True)
class MSE(MeanDeviation):
    """Mean squared error."""

    name: str = "mse"

    @staticmethod
    def cost(difference: np.ndarray) -> np.ndarray:
        """The square."""
        return np.asarray(np.square(difference))


@dataclass(frozen=True)
class MAE(MeanDeviation):
    """Mean absolute error."""

    name: str = "mae"

    @staticmethod
    def cost(difference: np.ndarray) -> np.ndarray:
        """The magnitude."""
        return np.asarray(np.abs(difference))


def _numbers(metric: str, labels: np.ndarray) -> np.ndarray:
    if labels.dtype.kind not in "fiub":
        raise UsageError(f"metric {metric} wants numbers; the labels are {shown(labels)}")
    found = labels.astype(np.float64)
    if not np.isfinite(found).all():
        raise UsageError(f"metric {metric}: a label is NaN or infinite")
    return found


def _shaped(array: np.ndarray, shape: tuple[int, ...], size: int) -> np.ndarray | None:
    """An output with the labels' shape, axes of size 1 aside."""
    found = by_sample(array, size)
    if found is None or array.size == 0 or not (is_score(found) or found.dtype.kind in "iu"):
        return None
    found = flat(found)
    return as_numbers(found) if found.shape == shape else None
