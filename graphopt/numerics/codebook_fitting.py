"""A codebook and an assignment to it, fitted in turns to the output of a layer.

With H the second moments of what a layer reads, C the codebook, A the assignment of weights to its values:

    E = tr(D^T H D),   D = A C - W

1. a start is given (k-means).
2. with C fixed, A is found as for rounding to any grid: feature after feature, and weight after weight
   (``numerics.rounding``).
3. with A fixed, E is quadratic in C. Its normal equations, ``(A^T H A) C = A^T H W`` summed over outputs, are
   solved by conjugate gradients (Hestenes and Stiefel, 1952) from the C at hand: each step takes one product
   with H, and none makes E larger. Values that come to stand in another order are sorted.
4. 2 and 3 take turns, from the A at hand. The best counts.

Outputs whose values stand in different codebooks do not meet in E: the conjugate gradients of each codebook
have steps of their own, with one product for all. The idea of a codebook that is fitted to outputs in turns
with its assignment is that of Stock et al., "And the bit goes down", 2020; there outputs are not looked at
while A is found.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from graphopt.numerics.rounding import Gram, Grid, rounded_to_fit

TURNS = 3
"""Turns of fitting the codebook and the assignment. They end earlier where the codebook stays."""

STEPS = 16
"""Steps of conjugate gradients at most."""


class Clustered(NamedTuple):
    """Weights that share values.

    Attributes:
        centres: the values of each codebook, float64 of shape ``(books, k)``.
        steps: the place of each weight's value, of the shape of the weights.
        books: the number of each weight's codebook, of a shape that broadcasts to that of the weights.
    """

    centres: np.ndarray
    steps: np.ndarray
    books: np.ndarray

    def values(self) -> np.ndarray:
        """The weights, of the type of the values."""
        if len(self.centres) == 1:
            return np.asarray(self.centres[0][self.steps])
        return np.asarray(self.centres[self.books, self.steps])


class Problem(NamedTuple):
    """A stack of layers.

    Attributes:
        weights: W, of shape ``(groups, features, outputs)``.
        blocks: rows and matrices of H.
        gram: the same as it was given.
        pinned: which weights are 0.
        books: the number of the codebook of each output, of shape ``(groups, 1, outputs)``, or ones of it.
        number: of codebooks.
    """

    weights: np.ndarray
    blocks: list[tuple[np.ndarray, np.ndarray]]
    gram: Gram
    pinned: np.ndarray
    books: np.ndarray
    number: int

    @classmethod
    def of(cls, weights: np.ndarray, gram: Gram, pinned: np.ndarray, books: np.ndarray) -> Problem:
        """That of weights; see ``codebooks.clustered_to_fit``."""
        count = int(books.max(initial=0)) + 1
        return cls(weights, _blocks(gram, weights.shape), gram, pinned, books[:, None, :], count)

    def times(self, values: np.ndarray) -> np.ndarray:
        """H times matrices of the shape of W."""
        rows = values.reshape(-1, values.shape[-1])
        found = np.zeros(rows.shape)
        for own, matrix in self.blocks:
            found[own] = matrix @ rows[own]
        return found.reshape(values.shape)

    def importance(self) -> np.ndarray:
        """``H_ii`` of each weight."""
        return importance(self.gram, self.weights.shape)

    def errors(self, found: Clustered) -> np.ndarray:
        """E of the outputs of each codebook."""
        gap = found.values() - self.weights
        each = np.sum(gap * self.times(gap), axis=1)
        books = np.broadcast_to(self.books[:, 0], each.shape)
        return np.bincount(books.ravel(), each.ravel(), self.number)

    def refitted(self, found: Clustered, zero: bool) -> np.ndarray:
        """The codebooks of about the least E for an assignment; values that are 0 stay so, if asked for."""
        centres = found.centres
        free = ~((centres == 0) & zero)
        place = self.books * centres.shape[1] + found.steps.astype(np.int64)

        def gathered(values: np.ndarray) -> np.ndarray:
            sums = np.bincount(place.ravel(), values.ravel(), centres.size)
            return np.where(free, sums.reshape(centres.shape), 0.0)

        def spread(values: np.ndarray) -> np.ndarray:
            return found._replace(centres=values).values()

        scale = np.sqrt(gathered(self.importance()))  # of each value, to have them alike
        scale = np.divide(1.0, scale, out=np.zeros(scale.shape), where=scale > 0)
        left = -scale * gathered(self.times(spread(centres) - self.weights))
        moved, course, power = centres.copy(), left, _squares(left, left)
        start = power
        for _ in range(min(STEPS, centres.shape[1])):
            bent = scale * gathered(self.times(spread(scale * course)))
            curve = _squares(course, bent)
            going = (power > 1e-20 * start) & (curve > 0)
            if not going.any():
                break
            rate = np.divide(power, curve, out=np.zeros(power.shape), where=going)
            moved += rate * scale * course
            left = left - rate * bent
            before, power = power, _squares(left, left)
            kept = np.divide(power, before, out=np.zeros(power.shape), where=before > 0)
            course = left + kept * course
        return moved


class Sharing(Protocol):
    """A way of sharing values."""

    @property
    def zero(self) -> bool:
        """Whether values that are 0 stay so."""

    @property
    def together(self) -> int:
        """Outputs in a row that share a place."""

    def start(self, problem: Problem) -> np.ndarray:
        """The codebooks that k-means gives."""

    def grid(self, centres: np.ndarray) -> Grid:
        """What weights are rounded to; its zero points are the numbers of codebooks."""

    def ordered(self, centres: np.ndarray, steps: np.ndarray, books: np.ndarray) -> Clustered:
        """Values in the order that the grid wants."""

    def united(self, errors: np.ndarray) -> np.ndarray:
        """The errors that codebooks are judged by, of the errors of each."""


def fitted(
    problem: Problem,
    sharing: Sharing,
    dtype: npt.DTypeLike,
    damping: float,
    turns: int,
    start: np.ndarray | None = None,
) -> Clustered:
    """See the module's docstring; E of no codebook that is judged for itself is larger than after 2.

    Args:
        problem: the layers.
        sharing: how values are shared.
        dtype: floats that the values are rounded to.
        damping: as for ``rounding.rounded_to_fit``.
        turns: of fitting the codebook and the assignment.
        start: codebooks; None: those of k-means.
    """
    centres = sharing.start(problem) if start is None else start
    best = _rounded(problem, sharing, _of_type(centres, dtype), damping)
    least = problem.errors(best)
    for _ in range(turns):
        moved = _of_type(problem.refitted(best, sharing.zero), dtype)
        begun = sharing.ordered(moved, best.steps, best.books)
        found = _rounded(problem, sharing, begun.centres, damping, begun.steps)
        errors = problem.errors(found)
        better = sharing.united(errors) < sharing.united(least)
        if not better.any():
            break
        centres = np.where(better[:, None], found.centres, best.centres)
        steps = np.where(better[problem.books], found.steps, best.steps)
        best, least = Clustered(centres, steps, best.books), np.where(better, errors, least)
    return best


def _rounded(
    problem: Problem,
    sharing: Sharing,
    centres: np.ndarray,
    damping: float,
    start: np.ndarray | None = None,
) -> Clustered:
    """The assignment to codebooks."""
    steps = rounded_to_fit(
        problem.weights,
        1.0,
        problem.books,
        sharing.grid(centres),
        problem.gram,
        damping,
        problem.pinned,
        start,
        sharing.together,
    )
    return Clustered(centres, steps, problem.books)


def _squares(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Products summed over each codebook."""
    return np.asarray(np.sum(left * right, axis=1, keepdims=True))


def importance(gram: Gram, shape: tuple[int, ...]) -> np.ndarray:
    """``H_ii`` of each weight of a shape ``(groups, features, outputs)``; 1 of each where all are 0."""
    diagonal = np.zeros(shape[0] * shape[1])
    for own, matrix in _blocks(gram, shape):
        diagonal[own] = np.maximum(np.diagonal(matrix), 0.0)
    if not diagonal.any():
        diagonal[:] = 1.0
    return np.broadcast_to(diagonal.reshape(*shape[:2], 1), shape)


def _blocks(gram: Gram, shape: tuple[int, ...]) -> list[tuple[np.ndarray, np.ndarray]]:
    if not isinstance(gram, np.ndarray):
        return [(rows, np.asarray(matrix, np.float64)) for rows, matrix in gram]
    features = np.arange(shape[1])
    wide = np.asarray(gram, np.float64)
    return [(features + group * shape[1], matrix) for group, matrix in enumerate(wide)]


def _of_type(centres: np.ndarray, dtype: npt.DTypeLike) -> np.ndarray:
    largest = float(np.finfo(dtype).max)
    return np.asarray(np.clip(centres, -largest, largest).astype(dtype), np.float64)
