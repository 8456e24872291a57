"""Weights that share few values, chosen so that the output of their layer changes least.

A layer computes X W. With H the second moments of X, C the codebook of k values and A the assignment of
weights to values, the squared error of all outputs is

    E = tr(D^T H D),   D = A C - W

1. C is the k-means clustering of the weights, each weighted by its ``H_ii``, A the nearest value.
2. with C fixed, A is found as for rounding to any grid: feature after feature, and weight after weight
   (``numerics.rounding``).
3. with A fixed, E is quadratic in C. Its normal equations, ``(A^T H A) C = A^T H W`` summed over outputs, are
   solved by conjugate gradients (Hestenes and Stiefel, 1952) from the C at hand: each step takes one product
   with H, and none makes E larger. Values that come to stand in another order are sorted.
4. 2 and 3 take turns, from the A at hand. The best counts.

E is never larger than after 1. The idea of a codebook that is fitted to outputs in turns with its assignment
is that of Stock et al., "And the bit goes down", 2020; there outputs are not looked at while A is found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from graphopt.numerics.kmeans import cluster, nearest
from graphopt.numerics.rounding import DAMPING, Gram, rounded_to_fit

TURNS = 3
"""Turns of fitting the codebook and the assignment. They end earlier where the codebook stays."""

STEPS = 16
"""Steps of conjugate gradients at most."""


@dataclass(frozen=True)
class Codebook:
    """A grid of any rising numbers: an integer is the number's place among them.

    Args:
        centres: rising, float64 of shape ``(k,)``.
    """

    centres: np.ndarray

    @property
    def dtype(self) -> np.dtype:
        """The smallest type that holds the places."""
        return np.dtype(np.min_scalar_type(max(len(self.centres) - 1, 0)))

    def quantized(
        self, values: npt.ArrayLike, scale: npt.ArrayLike = 1.0, zero_point: npt.ArrayLike = 0.0
    ) -> np.ndarray:
        """The places of the nearest numbers ``(c - z) s``.

        Args:
            values: finite, of any shape.
            scale: s, positive, of a shape that broadcasts to that of the values.
            zero_point: z, likewise.
        """
        wanted = np.asarray(values, np.float64) / np.asarray(scale) + np.asarray(zero_point)
        return np.asarray(nearest(self.centres, wanted), self.dtype)

    def dequantized(
        self, steps: np.ndarray, scale: npt.ArrayLike = 1.0, zero_point: npt.ArrayLike = 0.0
    ) -> np.ndarray:
        """The numbers ``(c - z) s`` at places, float64."""
        return np.asarray((self.centres[steps] - np.asarray(zero_point)) * np.asarray(scale))


class Clustered(NamedTuple):
    """Weights that share values.

    Attributes:
        centres: the values, float64 of shape ``(k,)``, rising.
        steps: the place of each weight's value, of the shape of the weights.
    """

    centres: np.ndarray
    steps: np.ndarray

    def values(self) -> np.ndarray:
        """The weights, float64."""
        return np.asarray(self.centres[self.steps])


def clustered_to_fit(
    weights: np.ndarray,
    k: int,
    gram: Gram,
    zeros: np.ndarray | None = None,
    dtype: npt.DTypeLike = np.float64,
    damping: float = DAMPING,
    turns: int = TURNS,
) -> Clustered:
    """Let weights share few values so that the output of their layer changes little.

    Args:
        weights: W, finite, of shape ``(groups, features, outputs)``.
        k: values at most.
        gram: H, as for ``rounding.rounded_to_fit``.
        zeros: which weights are to be exactly 0; one value is 0 then.
        dtype: floats that the values are rounded to.
        damping: as for ``rounding.rounded_to_fit``.
        turns: of fitting the codebook and the assignment.

    Returns:
        Values and the assignment. The squared error of the outputs is not larger than with the weighted
        k-means clustering of the weights, its centres rounded alike.

    Raises:
        ValueError: shapes do not fit, or an element is not finite.
    """
    pinned = np.zeros(weights.shape, bool) if zeros is None else zeros
    weights = np.where(pinned, 0.0, np.asarray(weights, np.float64))
    problem = _Problem(weights, _blocks(gram, weights.shape), pinned)
    centres, _ = cluster(weights, k, problem.importance(), zeros is not None)
    best = _rounded(centres, dtype)
    steps = rounded_to_fit(weights, 1.0, 0.0, Codebook(best), gram, damping, pinned)
    least = problem.error(best, steps)
    for _ in range(turns):
        moved = _rounded(problem.refitted(best, steps, zeros is not None), dtype)
        order = np.argsort(moved, kind="stable")
        moved, begun = moved[order], np.argsort(order, kind="stable")[steps]
        found = rounded_to_fit(weights, 1.0, 0.0, Codebook(moved), gram, damping, pinned, begun)
        error = problem.error(moved, found)
        if not error < least:
            break
        best, steps, least = moved, found, error
    return Clustered(best, steps)


class _Problem(NamedTuple):
    """A stack of layers.

    Attributes:
        weights: W, of shape ``(groups, features, outputs)``.
        blocks: rows and matrices of H.
        pinned: which weights are 0.
    """

    weights: np.ndarray
    blocks: list[tuple[np.ndarray, np.ndarray]]
    pinned: np.ndarray

    def times(self, values: np.ndarray) -> np.ndarray:
        """H times matrices of the shape of W."""
        rows = values.reshape(-1, values.shape[-1])
        found = np.zeros(rows.shape)
        for own, matrix in self.blocks:
            found[own] = matrix @ rows[own]
        return found.reshape(values.shape)

    def importance(self) -> np.ndarray:
        """``H_ii`` of each weight; 1 of each where all are 0."""
        diagonal = np.zeros(self.weights.shape[0] * self.weights.shape[1])
        for own, matrix in self.blocks:
            diagonal[own] = np.maximum(np.diagonal(matrix), 0.0)
        if not diagonal.any():
            diagonal[:] = 1.0
        stacked = diagonal.reshape(*self.weights.shape[:2], 1)
        return np.broadcast_to(stacked, self.weights.shape)

    def error(self, centres: np.ndarray, steps: np.ndarray) -> float:
        """E."""
        gap = centres[steps] - self.weights
        return float(np.vdot(gap, self.times(gap)))

    def refitted(self, centres: np.ndarray, steps: np.ndarray, zero: bool) -> np.ndarray:
        """The codebook of about the least E for an assignment; one value that is 0 stays so, if asked for."""
        free = ~((centres == 0) & zero)

        def gathered(values: np.ndarray) -> np.ndarray:
            sums = np.bincount(steps.ravel(), values.ravel(), len(centres))
            return np.where(free, sums, 0.0)

        scale = np.sqrt(gathered(self.importance()))  # of each value, to have them alike
        scale = np.divide(1.0, scale, out=np.zeros(len(scale)), where=scale > 0)
        left = -scale * gathered(self.times(centres[steps] - self.weights))
        moved, course, power = centres.copy(), left, float(left @ left)
        start = power
        for _ in range(min(STEPS, len(centres))):
            if power <= 1e-20 * start:
                break
            bent = scale * gathered(self.times((scale * course)[steps]))
            curve = float(course @ bent)
            if curve <= 0:
                break
            moved += power / curve * scale * course
            left = left - power / curve * bent
            before, power = power, float(left @ left)
            course = left + power / before * course
        return moved


def _blocks(gram: Gram, shape: tuple[int, ...]) -> list[tuple[np.ndarray, np.ndarray]]:
    if not isinstance(gram, np.ndarray):
        return [(rows, np.asarray(matrix, np.float64)) for rows, matrix in gram]
    features = np.arange(shape[1])
    wide = np.asarray(gram, np.float64)
    return [(features + group * shape[1], matrix) for group, matrix in enumerate(wide)]


def _rounded(centres: np.ndarray, dtype: npt.DTypeLike) -> np.ndarray:
    largest = float(np.finfo(dtype).max)
    return np.asarray(np.clip(centres, -largest, largest).astype(dtype), np.float64)
