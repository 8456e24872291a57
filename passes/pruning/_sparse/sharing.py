"""How many weights of each tensor become zero, so that enough of all are and least is lost.

The loss of each tensor is measured at a few shares of zeros; between them its logarithm is taken to be
linear, below the first of them the loss itself. The numbers are the solution of a knapsack problem
(``graphopt.numerics.allocation``). Its levels are half a hundredth of a tensor apart, and the last step is
taken in part, so the total is met exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphopt.numerics.allocation import Table, greedy

from .solving import Method, Problem

DENSITIES = np.geomspace(0.9, 0.02, 14)
"""Shares of weights that stay at which the loss is measured."""

SHARES = np.linspace(0.0, 0.99, 199)
"""Shares of zeros that a tensor may get; and the one asked for in all."""

LEAST = 1e-12
"""What counts as no loss."""


@dataclass(frozen=True)
class Curve:
    """The loss of a tensor over the number of its zeros.

    Attributes:
        size: weights.
        zeros: those that are zero already.
        shares: at which the loss is known, rising from 0 to 1.
        losses: there.
    """

    size: int
    zeros: int
    shares: np.ndarray
    losses: np.ndarray

    @classmethod
    def of(cls, problem: Problem, method: Method) -> Curve:
        """Measure the loss of a tensor."""
        sample = problem.sample()
        losses = [sample.loss(sample.solve(method, 1 - density)) for density in DENSITIES]
        rising = np.maximum.accumulate([LEAST, *losses, 1.0])
        shares = np.concatenate([[0.0], 1 - DENSITIES, [1.0]])
        zeros = problem.matrices.size - int(np.count_nonzero(problem.matrices))
        return cls(problem.matrices.size, zeros, shares, np.maximum(rising, LEAST))

    def loss(self, zeros: np.ndarray) -> np.ndarray:
        """The loss with so many zeros."""
        share = zeros / self.size
        found = np.exp(np.interp(share, self.shares, np.log(self.losses)))
        first = share < self.shares[1]
        found = np.where(first, np.interp(share, self.shares[:2], self.losses[:2]), found)
        return np.where(zeros <= self.zeros, 0.0, found)

    def levels(self, share: float) -> np.ndarray:
        """Numbers of zeros that the tensor may get, at least one of them a given share."""
        some = np.ceil(np.append(SHARES, share) * self.size)
        return np.unique(np.maximum(some, self.zeros))


def zeros_of(curves: Sequence[Curve], share: float) -> list[int]:
    """How many weights of each tensor shall be zero, those that are zero already included.

    Args:
        curves: of the tensors, of which there is at least one.
        share: of zeros among all their weights, from 0 to below 1.
    """
    levels = [curve.levels(share) for curve in curves]
    target = min(round(share * sum(c.size for c in curves)), int(sum(each[-1] for each in levels)))
    tables = [Table(curve.loss(each), each) for curve, each in zip(curves, levels, strict=True)]
    chosen = greedy(tables, target).levels
    found = [int(each[level]) for each, level in zip(levels, chosen, strict=True)]
    spare = sum(found) - max(target, sum(curve.zeros for curve in curves))
    relief = [
        float(curve.loss(np.array(count)) - curve.loss(np.array(count - spare)))
        if count - spare >= curve.zeros
        else -1.0
        for curve, count in zip(curves, found, strict=True)
    ]
    most = int(np.argmax(relief))
    if spare > 0 and relief[most] >= 0:
        found[most] -= spare
    return found
