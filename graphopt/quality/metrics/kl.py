"""The Kullback-Leibler divergence of outputs from the original's (Ann. of Math. Statistics 22, 1951).

    KL = sum_c p_c ln(p_c / q_c)    in nats; p: the original, q: the candidate

Outputs of the original that are not negative and sum up to 1 are probabilities; the candidate's are then
divided by their sum, as rounding leaves it. Other outputs are logits, whose softmax is taken.
Probabilities below the smallest normal float32 count as that number, so that one divergence is 87.34 nats
at most; it is that where an output is NaN or infinite and the original's is not the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from graphopt.errors import UsageError
from graphopt.quality.metrics.fidelity import Fidelity
from graphopt.quality.metrics.outputs import is_score, shown
from graphopt.quality.metrics.pairs import Pair
from graphopt.quality.metrics.pooling import blocks
from graphopt.quality.metrics.scores import class_scores

SMALLEST = float(np.finfo(np.float32).tiny)
"""The probability that smaller ones count as."""

SUM_TOLERANCE = 1e-3
"""How far from 1 probabilities may sum up."""

COARSE_SUM_TOLERANCE = 2e-2
"""The same where one of both outputs has a type of 16 bits or fewer."""

Scores = Literal["auto", "probabilities", "logits"]


@dataclass(frozen=True)
class KL(Fidelity):
    """Kullback-Leibler divergence, averaged over all positions of a sample.

    Attributes:
        axis: of the classes, in the output.
        scores: what the outputs are.
    """

    higher_is_better = False
    unit = "nats"
    wanted = "scores of at least two classes"
    farthest = -math.log(SMALLEST)

    name: str = "kl"
    axis: int = -1
    scores: Scores = "auto"

    def fits(self, array: np.ndarray, size: int) -> bool:
        """Whether it holds scores: of any rank where it is named, else one row per sample."""
        if self.output:
            return is_score(array) and array.ndim > 0
        return class_scores(array, size) is not None

    def nearness(self, pair: Pair) -> np.ndarray:
        """The mean divergence of each sample."""
        p, q = (self._classes_last(array, pair.added) for array in (pair.reference, pair.candidate))
        coarse = min(pair.reference.dtype.itemsize, pair.candidate.dtype.itemsize) < 4
        tolerance = COARSE_SUM_TOLERANCE if coarse else SUM_TOLERANCE
        likely = self.scores == "probabilities" or (
            self.scores == "auto" and are_probabilities(p, tolerance)
        )
        found = np.zeros(len(p))
        if p.size:
            for part in blocks(len(p), p[0].size):
                found[part] = _divergence(p[part], q[part], likely).mean(axis=1)
        return found

    def _classes_last(self, array: np.ndarray, added: bool) -> np.ndarray:
        """An array as ``(samples, positions, classes)``."""
        rows = None if added else class_scores(array, len(array))
        if rows is not None:
            return rows[:, np.newaxis]
        rank = array.ndim - added
        axis = self.axis % rank + added if -rank <= self.axis < rank else 0
        if axis == 0 or array.shape[axis] < 2:
            raise UsageError(
                f"metric {self.name}: axis {self.axis} of {shown(array)} is no axis of classes",
                "Give the axis with axis=NUMBER",
            )
        moved = np.moveaxis(array, axis, -1)
        return moved.reshape(len(moved), math.prod(moved.shape[1:-1]), moved.shape[-1])


def are_probabilities(rows: np.ndarray, tolerance: float = SUM_TOLERANCE) -> bool:
    """Whether numbers are not negative and sum up to 1 along the last axis."""
    if rows.size == 0 or rows.dtype.kind != "f":
        return False
    with np.errstate(invalid="ignore", over="ignore"):
        off = np.abs(rows.sum(axis=-1, dtype=np.float64) - 1)
        return bool((rows >= 0).all() and (off <= tolerance).all())


def _divergence(p: np.ndarray, q: np.ndarray, probabilities: bool) -> np.ndarray:
    """Divergences along the last axis, in float64."""
    p, q = p.astype(np.float64), q.astype(np.float64)
    logarithm = _log_probabilities if probabilities else _log_softmax
    (first, odd_first), (second, odd_second) = logarithm(p), logarithm(q)
    least = math.log(SMALLEST)
    terms = np.exp(first) * (np.maximum(first, least) - np.maximum(second, least))
    found = np.maximum(terms.sum(axis=-1), 0.0)
    same = ((p == q) | (np.isnan(p) & np.isnan(q))).all(axis=-1)
    return np.where(odd_first | odd_second, np.where(same, 0.0, KL.farthest), found)


def _log_probabilities(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms of rows divided by their sums, and which rows have none; those are 0."""
    positive = np.maximum(rows, 0.0)
    sums = positive.sum(axis=-1)
    odd = ~np.isfinite(rows).all(axis=-1) | ~((sums > 0) & np.isfinite(sums))
    positive[odd] = 1.0
    with np.errstate(divide="ignore"):
        return np.log(positive / positive.sum(axis=-1, keepdims=True)), odd


def _log_softmax(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms of the softmax of rows, and which rows have none; a logit may be minus infinity."""
    peak = rows.max(axis=-1, keepdims=True)
    odd = ~np.isfinite(peak[..., 0])
    shifted = np.where(odd[..., np.newaxis], 0.0, rows)
    shifted = shifted - np.where(odd[..., np.newaxis], 0.0, peak)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)), odd
