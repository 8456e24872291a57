"""Metrics of fidelity, each a mean over samples: how near outputs are to the original's, labels unseen.

    agreement = samples with the same predicted class / samples
    KL        = sum_c p_c ln(p_c / q_c)      p: the original, q: the candidate (Kullback & Leibler, 1951)
    cosine    = <a, b> / (|a| |b|)           1 where both are zero, 0 where one is
    equal     = equal elements / elements

Without an output they look at all that fit, and each sample counts as its worst output. Where the
original is NaN or infinite the candidate must be the same; elsewhere, and where the shape differs, the
sample has the worst value that there is.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphopt.quality.metrics.base import Observed, Rows
from graphopt.quality.metrics.labels import flat
from graphopt.quality.metrics.outputs import as_numbers, is_float
from graphopt.quality.metrics.pairs import Pair, matched, pairs
from graphopt.quality.metrics.pooling import MeanMetric
from graphopt.quality.metrics.scores import class_scores, highest


@dataclass(frozen=True)
class Fidelity(MeanMetric):
    """A mean over samples of how near one output is, or the worst of several.

    Attributes:
        wanted: the form of output that it looks at, in words.
        farthest: the worst contribution of a sample that there is.
    """

    wanted: ClassVar[str]
    farthest: ClassVar[float]

    output: str = ""

    def fits(self, array: np.ndarray, size: int) -> bool:
        """Whether an output of the original is of the form that the metric wants."""
        return is_float(array)

    @abc.abstractmethod
    def nearness(self, pair: Pair) -> np.ndarray:
        """The contribution of every sample, float64 ``(samples,)``."""

    def rows(self, seen: Observed) -> Rows:
        """The worst contribution of every sample."""
        found = [
            self.nearness(pair) if pair.comparable else np.full(len(pair.reference), self.farthest)
            for pair in pairs(self, seen, lambda a: self.fits(a, seen.size), self.wanted)
        ]
        worst = np.min(found, axis=0) if self.higher_is_better else np.max(found, axis=0)
        return np.asarray(worst, np.float64)[:, np.newaxis]


@dataclass(frozen=True)
class Agreement(Fidelity):
    """Share of samples for which original and candidate predict the same class."""

    binary = True
    worst = 1.0
    wanted = "scores of at least two classes (samples, classes)"
    farthest = 0.0

    name: str = "agreement"

    def fits(self, array: np.ndarray, size: int) -> bool:
        """Whether it holds scores of classes, for every sample or for something else than samples."""
        sizes = {size, len(array)} if array.ndim else {size}
        return any(class_scores(array, rows) is not None for rows in sizes)

    def nearness(self, pair: Pair) -> np.ndarray:
        """1 where the class with the highest score is the same, in every row that belongs to a sample."""
        first, second = (_predicted(array) for array in (pair.reference, pair.candidate))
        return np.asarray((first == second).all(axis=1), np.float64)


def _predicted(array: np.ndarray) -> np.ndarray:
    """Classes of ``(samples, ..., classes)``, axes of size 1 aside, as ``(samples, rows)``."""
    scores = flat(array)
    return highest(scores).reshape(len(scores), -1)


@dataclass(frozen=True)
class Cosine(Fidelity):
    """Cosine of the angle between the outputs, each sample one vector."""

    wanted = "floats"
    farthest = -1.0

    name: str = "cosine"

    def nearness(self, pair: Pair) -> np.ndarray:
        """The cosine of each sample."""
        found = np.empty(len(pair.reference))
        for part, a, b, broken in matched(pair):
            a, b = _scaled(a), _scaled(b)
            lengths = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
            angle = (a * b).sum(axis=1) / np.where(lengths > 0, lengths, 1.0)
            angle[~(a.any(axis=1) | b.any(axis=1))] = 1.0
            found[part] = np.where(broken, self.farthest, angle.clip(-1.0, 1.0))
        return found


def _scaled(rows: np.ndarray) -> np.ndarray:
    """Rows divided by their largest magnitude, so that squares neither overflow nor vanish."""
    peak = np.abs(rows).max(axis=1, keepdims=True, initial=0.0)
    return np.asarray(rows / np.where(peak > 0, peak, 1.0))


@dataclass(frozen=True)
class Equal(Fidelity):
    """Share of elements that are equal, NaN being equal to NaN."""

    worst = 1.0
    wanted = "numbers or booleans"
    farthest = 0.0

    name: str = "equal"

    def fits(self, array: np.ndarray, size: int) -> bool:
        """Whether it holds numbers or booleans."""
        return as_numbers(array).dtype.kind in "biufc"

    def nearness(self, pair: Pair) -> np.ndarray:
        """The share of equal elements of each sample; 1 where there is none."""
        a, b = (x.reshape(len(x), -1) for x in (pair.reference, pair.candidate))
        same = (a == b) | ((a != a) & (b != b))
        return np.asarray(same.mean(axis=1)) if same.shape[1] else np.ones(len(same))
