"""Weights rounded to a grid that stands fixed, so that the output of their layer changes least.

A layer computes X W; with H the second moments of X and D = W' - W the squared error of output j is
``D_j^T H D_j``. To round each weight to the nearest integer is the best only where H is diagonal. Instead

1. features are rounded one after another, and what one leaves is made up for in those still to come
   (Frantar, Ashkboos, Hoefler and Alistarh, "GPTQ", 2022; the step is the Optimal Brain Surgeon's). With
   ``H^-1 = U^T U``, U upper triangular, and ``e = (w_i - w'_i) / U_ii`` the weights after i move by
   ``-e U_i``. Features of the largest second moment come first, for they have the most others to make up
   for them. H is damped: directions that the data hardly reach are not known.
2. single weights then move to the integer that is the best while all others stay, feature after feature
   (coordinate descent; Behdin et al., "QuantEase", 2023): ``w'_i`` is the rounded ``w'_i - (H D)_i / H_ii``.
   The error falls with every move.
3. an output for which plain rounding is still as good keeps that. So none is ever worse.

The grid need not be even: any values in rising order do (``numerics.codebooks``). Nor need each weight have
an integer of its own: outputs that follow each other can share one, which stands for a vector of numbers
(``numerics.vector_codebooks``). H is the same for all outputs, so the nearest vector is still the best.

Both work on panels of features: what a panel changes elsewhere is one product of matrices. For F features and
O outputs the work is about ``2 F^2 O`` for each of the sweeps, and ``F^3`` for U.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from graphopt.numerics.positive import transposed
from graphopt.numerics.sparsity import inverse_factor

DAMPING = 0.01
"""Share of the mean of H's diagonal that is added to it while features are rounded, as in GPTQ."""

SWEEPS = 3
"""The most sweeps of coordinate descent. It ends earlier where no weight moves."""

PANEL = 32
"""Features whose effect on all others is one product."""

LEAST_GAIN = 1e-9
"""Of ``H_ii`` times the squared move, the least gain for which a weight moves: ties do not."""

WIDE = np.dtype(np.float64)

Gram = np.ndarray | Sequence[tuple[np.ndarray, np.ndarray]]
"""H of each group, of shape ``(groups, features, features)``; or the blocks of a block-diagonal one, each the
numbers of its rows and their matrix. Row ``group * features + feature`` is that of a feature."""


class Grid(Protocol):
    """Numbers that weights are rounded to, each of which an integer stands for; see ``AffineGrid``."""

    @property
    def dtype(self) -> np.dtype:
        """The type of the integers."""

    def quantized(
        self, values: npt.ArrayLike, scale: npt.ArrayLike, zero_point: npt.ArrayLike
    ) -> np.ndarray:
        """The integers of the nearest numbers of the grid."""

    def dequantized(
        self, steps: np.ndarray, scale: npt.ArrayLike, zero_point: npt.ArrayLike
    ) -> np.ndarray:
        """The numbers that integers stand for."""


@dataclass(frozen=True)
class _Problem:
    """Stacked layers; all of shape ``(groups, features, outputs)``, H ``(groups, features, features)``.

    Attributes:
        pinned: which weights stay at the nearest number of the grid.
        together: outputs that share an integer.
    """

    weights: np.ndarray
    scale: np.ndarray
    zero_point: np.ndarray
    pinned: np.ndarray
    grid: Grid
    gram: np.ndarray
    together: int = 1

    def rounded(self, feature: int | slice, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The nearest integers to values of some features, and the numbers that they stand for."""
        scale, zero = self.scale[:, feature], self.zero_point[:, feature]
        steps = self.grid.quantized(values, scale, zero)
        real = self.grid.dequantized(steps, scale, zero)
        return steps, real.astype(self.weights.dtype, copy=False)

    def ordered(self, order: np.ndarray) -> _Problem:
        """The same with its features in another order, of shape ``(groups, features)``."""
        rows = order[:, :, None]
        weights, scale, zero_point, pinned = (
            np.take_along_axis(part, rows, 1) if part.strides[1] else part
            for part in (self.weights, self.scale, self.zero_point, self.pinned)
        )
        gram = np.take_along_axis(np.take_along_axis(self.gram, rows, 1), order[:, None, :], 2)
        return _Problem(weights, scale, zero_point, pinned, self.grid, gram, self.together)

    def summed(self, values: np.ndarray) -> np.ndarray:
        """Numbers of outputs, the last axis, summed over those that share an integer."""
        if self.together == 1:
            return values
        sums = values.reshape(*values.shape[:-1], -1, self.together).sum(-1)
        return np.repeat(sums, self.together, -1)


def rounded_to_fit(
    weights: np.ndarray,
    scale: npt.ArrayLike,
    zero_point: npt.ArrayLike,
    grid: Grid,
    gram: Gram,
    damping: float = DAMPING,
    pinned: npt.ArrayLike = False,
    start: np.ndarray | None = None,
    together: int = 1,
    precision: np.dtype = WIDE,
) -> np.ndarray:
    """Round weights to a grid so that the output of their layer changes least.

    Args:
        weights: W, finite, of shape ``(groups, features, outputs)``.
        scale: of the grid, of a shape that broadcasts to that of W: ``(outputs,)`` for a scale of each
            output, ``(features, 1)`` or ``(features, outputs)`` where blocks of features have their own.
        zero_point: likewise.
        grid: of integers, or of other numbers that integers stand for.
        gram: H, symmetric: X^T X, or the covariance of X where a bias takes up the mean.
        damping: share of the mean of H's diagonal that is added to it while features are rounded.
        pinned: which weights go to the nearest number whatever the others do; broadcasts likewise.
        start: integers like the result, to begin with where 2 shall follow on them and not on 1.
        together: outputs in a row that share an integer, which the grid knows of; it divides the outputs.
        precision: floats that it is computed in; float32 takes half of the memory and the time.

    Returns:
        Integers of ``grid.dtype``, of the shape of W. The error ``D^T H D`` of no output (for blocks, of no
        output in any block, and of those that share integers in sum) is larger than with
        ``grid.quantized(weights, scale, zero_point)``, nor than with the start, up to the rounding of
        ``precision``.

    Raises:
        ValueError: shapes do not fit, or an element is not finite.
    """
    if weights.ndim != 3 or not np.isfinite(weights).all():
        raise ValueError(
            f"weights of shape {weights.shape} are no stack of matrices of finite numbers"
        )
    wide = np.asarray(weights, precision)
    scales, zeros, pins = (
        np.broadcast_to(part, weights.shape) for part in (scale, zero_point, pinned)
    )
    if isinstance(gram, np.ndarray):
        if gram.shape != (*weights.shape[:2], weights.shape[1]):
            raise ValueError(f"H of shape {gram.shape} is not of weights of shape {weights.shape}")
        whole = np.asarray(gram, precision)
        problem = _Problem(wide, scales, zeros, pins, grid, whole, together)
        return _fitted(problem, damping, start)
    _check(gram, weights.shape)
    found = np.empty((weights.shape[0] * weights.shape[1], weights.shape[2]), grid.dtype)
    stacked = [part.reshape(1, *found.shape) for part in (wide, scales, zeros, pins)]
    first = None if start is None else start.reshape(1, *found.shape)
    for rows, matrix in gram:
        own, scales, zeros, pins = (part[:, rows] for part in stacked)
        square = np.asarray(matrix, precision)[None]
        block = _Problem(own, scales, zeros, pins, grid, square, together)
        found[rows] = _fitted(block, damping, None if first is None else first[:, rows])[0]
    return found.reshape(weights.shape)


def output_error(gap: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """``D_j^T H D_j`` of each output.

    Args:
        gap: D, of shape ``(groups, features, outputs)``.
        gram: H, of shape ``(groups, features, features)``.

    Returns:
        float64 of shape ``(groups, outputs)``.
    """
    return np.asarray(np.sum(gap * (gram @ gap), axis=1))


def _check(blocks: Sequence[tuple[np.ndarray, np.ndarray]], shape: tuple[int, ...]) -> None:
    """Refuse blocks that do not hold each row once, or rows of several groups."""
    every = np.sort(np.concatenate([np.empty(0, np.int64), *(rows for rows, _ in blocks)]))
    if not np.array_equal(every, np.arange(shape[0] * shape[1])):
        raise ValueError(
            f"the blocks of H do not hold each of {shape[0] * shape[1]} rows exactly once"
        )
    for rows, matrix in blocks:
        if matrix.shape != (len(rows), len(rows)):
            raise ValueError(f"a block of H of shape {matrix.shape} is not of {len(rows)} rows")
        if len(np.unique(rows // shape[1])) > 1:
            raise ValueError("a block of H has rows of several groups")


def _fitted(problem: _Problem, damping: float, start: np.ndarray | None) -> np.ndarray:
    """The better of both ways for each output; see ``rounded_to_fit``."""
    steps, real = problem.rounded(slice(None), problem.weights)
    if not steps.size:
        return steps
    diagonal = np.diagonal(problem.gram, axis1=1, axis2=2)
    order = np.argsort(-diagonal, axis=1, kind="stable")
    sorted_ = problem.ordered(order)
    if start is None:
        upper = np.stack([inverse_factor(matrix, damping) for matrix in sorted_.gram])
        begun = _swept(sorted_, upper)
    else:
        begun = np.take_along_axis(start.astype(steps.dtype), order[:, :, None], 1)
    moved = np.empty_like(steps)
    np.put_along_axis(moved, order[:, :, None], _descended(sorted_, begun), 1)
    other = problem.grid.dequantized(moved, problem.scale, problem.zero_point)
    other = other.astype(real.dtype, copy=False)
    gaps = (new - problem.weights for new in (real, other))
    before, after = (problem.summed(output_error(gap, problem.gram)) for gap in gaps)
    return np.where((after < before)[:, None], moved, steps)


def _swept(problem: _Problem, upper: np.ndarray) -> np.ndarray:
    """Round feature after feature, each making up for those before.

    Args:
        problem: its features in the order in which they are rounded.
        upper: U of each group, of shape ``(groups, features, features)``.
    """
    left = problem.weights.copy()
    steps = np.empty(left.shape, problem.grid.dtype)
    features = left.shape[1]
    for start in range(0, features, PANEL):
        stop = min(start + PANEL, features)
        errors = np.empty((len(left), stop - start, left.shape[2]), left.dtype)
        for i in range(start, stop):
            wanted = np.where(problem.pinned[:, i], problem.weights[:, i], left[:, i])
            steps[:, i], real = problem.rounded(i, wanted)
            errors[:, i - start] = (left[:, i] - real) / upper[:, i, i, None]
            after = slice(i + 1, stop)
            left[:, after] -= upper[:, i, after, None] * errors[:, None, i - start]
        left[:, stop:] -= transposed(upper[:, start:stop, stop:]) @ errors
    return steps


def _descended(problem: _Problem, steps: np.ndarray) -> np.ndarray:
    """Move single weights while that lessens the error."""
    real = problem.grid.dequantized(steps, problem.scale, problem.zero_point)
    gap = (real - problem.weights).astype(problem.weights.dtype, copy=False)
    features = gap.shape[1]
    for _ in range(SWEEPS):
        moved = False
        for start in range(0, features, PANEL):
            panel = slice(start, min(start + PANEL, features))
            slope = problem.gram[:, panel] @ gap
            for i in range(panel.start, panel.stop):
                moved = _move(problem, i, panel, steps, gap, slope) or moved
        if not moved:
            break
    return steps


def _move(
    problem: _Problem, i: int, panel: slice, steps: np.ndarray, gap: np.ndarray, slope: np.ndarray
) -> bool:
    """Move the weights of one feature, in place; whether any moved.

    Args:
        problem: in the order of the arrays.
        i: the feature.
        panel: the features that it is one of.
        steps: the integers.
        gap: D.
        slope: H D of the panel; of features behind this one it is kept up.
    """
    own = slope[:, i - panel.start]
    curve = problem.gram[:, i, i, None]
    known = (curve > 0) & ~problem.pinned[:, i]
    weights = problem.weights[:, i]
    aim = weights + gap[:, i] - own / np.where(known, curve, 1.0)
    found, real = problem.rounded(i, aim)
    change = real - weights - gap[:, i]
    gain = problem.summed(-change * (2 * own + curve * change))
    better = known & (gain > LEAST_GAIN * problem.summed(curve * change * change))
    if better.any():
        change = np.where(better, change, 0.0)
        steps[:, i] = np.where(better, found, steps[:, i])
        gap[:, i] += change
        later = slice(i + 1, panel.stop)
        slope[:, i + 1 - panel.start :] += problem.gram[:, later, i, None] * change[:, None]
        return True
    return False
