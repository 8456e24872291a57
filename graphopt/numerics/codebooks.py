"""Weights that share few values, chosen so that the output of their layer changes least.

A layer computes X W. With H the second moments of X, C the codebook of k values and A the assignment of
weights to values, the squared error of all outputs is

    E = tr(D^T H D),   D = A C - W

1. C is the k-means clustering of the weights, each weighted by its ``H_ii``, A the nearest value.
2. to 4. of ``numerics.codebook_fitting``: A and C are fitted to E in turns.

Clusters can be merged away as long as E grows by no more than a given share (``numerics.cluster_merging``):
2 to 4 follow on the codebook that is left after some merges.

Outputs can have codebooks of their own, or groups of outputs: E is a sum over outputs, so these are problems
of their own, solved side by side. E of none is larger than after 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graphopt.numerics.cluster_merging import furthest, merges
from graphopt.numerics.codebook_fitting import TURNS, Clustered, Problem, fitted
from graphopt.numerics.kmeans import cluster, nearest
from graphopt.numerics.kmeans_rows import below, cluster_rows
from graphopt.numerics.rounding import DAMPING, Gram


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


@dataclass(frozen=True)
class Codebooks:
    """Several codebooks as one grid; a "zero point" is the number of the codebook that serves a weight.

    Args:
        centres: rising in each, float64 of shape ``(books, k)``.
    """

    centres: np.ndarray

    @property
    def dtype(self) -> np.dtype:
        """The smallest type that holds the places."""
        return np.dtype(np.min_scalar_type(max(self.centres.shape[1] - 1, 0)))

    def quantized(
        self, values: npt.ArrayLike, scale: npt.ArrayLike = 1.0, zero_point: npt.ArrayLike = 0
    ) -> np.ndarray:
        """The places of the nearest numbers of codebooks; the scale is 1."""
        wanted = np.asarray(values, np.float64)
        if len(self.centres) == 1:
            return np.asarray(nearest(self.centres[0], wanted), self.dtype)
        borders = (self.centres[:, 1:] + self.centres[:, :-1]) / 2
        return np.asarray(below(borders, wanted, np.asarray(zero_point), True), self.dtype)

    def dequantized(
        self, steps: np.ndarray, scale: npt.ArrayLike = 1.0, zero_point: npt.ArrayLike = 0
    ) -> np.ndarray:
        """The numbers at places of codebooks, float64."""
        return Clustered(self.centres, steps, np.asarray(zero_point)).values()


@dataclass(frozen=True)
class _Sharing:
    """How outputs share codebooks of single values; see ``codebook_fitting.Sharing``.

    Args:
        k: values of a codebook.
        zero: whether one value of each is 0.
    """

    k: int
    zero: bool
    together: int = 1

    def start(self, problem: Problem) -> np.ndarray:
        """The k-means clustering of the weights of each codebook."""
        weights, importance = problem.weights, problem.importance()
        if problem.number == 1:
            return cluster(weights, self.k, importance, self.zero)[0][None]
        rows, mass = (_by_book(part, problem) for part in (weights, importance))
        mass[~mass.any(axis=1)] = 1.0
        return cluster_rows(rows, self.k, mass, self.zero)

    def grid(self, centres: np.ndarray) -> Codebooks:
        """The values."""
        return Codebooks(centres)

    def ordered(self, centres: np.ndarray, steps: np.ndarray, books: np.ndarray) -> Clustered:
        """Values in rising order."""
        order = np.argsort(centres, axis=1, kind="stable")
        places = np.argsort(order, axis=1, kind="stable")
        rising = np.take_along_axis(centres, order, 1)
        return Clustered(rising, Clustered(places, steps, books).values(), books)

    def united(self, errors: np.ndarray) -> np.ndarray:
        """Each codebook is judged for itself."""
        return errors


def _by_book(values: np.ndarray, problem: Problem) -> np.ndarray:
    """Numbers of weights by codebook, of shape ``(books, numbers)``; rows are filled up with zeros."""
    columns = values.transpose(0, 2, 1).reshape(-1, values.shape[1])
    books = np.broadcast_to(problem.books, (len(values), 1, values.shape[2])).reshape(-1)
    order = np.argsort(books, kind="stable")
    counts = np.bincount(books, minlength=problem.number)
    places = np.arange(len(books)) - np.repeat(np.cumsum(counts) - counts, counts)
    found = np.zeros((problem.number, int(counts.max()), values.shape[1]))
    found[books[order], places] = columns[order]
    return found.reshape(problem.number, -1)


def clustered_to_fit(
    weights: np.ndarray,
    k: int,
    gram: Gram,
    zeros: np.ndarray | None = None,
    dtype: npt.DTypeLike = np.float64,
    damping: float = DAMPING,
    turns: int = TURNS,
    books: np.ndarray | None = None,
    merge: float = 0.0,
) -> Clustered:
    """Let weights share few values so that the output of their layer changes little.

    Args:
        weights: W, finite, of shape ``(groups, features, outputs)``.
        k: values of a codebook at most.
        gram: H, as for ``rounding.rounded_to_fit``.
        zeros: which weights are to be exactly 0; one value is 0 then.
        dtype: floats that the values are rounded to.
        damping: as for ``rounding.rounded_to_fit``.
        turns: of fitting the codebook and the assignment.
        books: the number of the codebook of each output, from 0 and none left out, of shape
            ``(groups, outputs)``; None: there is one.
        merge: share by which the error may grow as clusters of the one codebook are merged away.

    Returns:
        Values and the assignment. The squared error of the outputs of each codebook is not larger than with
        the weighted k-means clustering of the weights, its centres rounded alike, but for what is merged.

    Raises:
        ValueError: shapes do not fit, or an element is not finite.
    """
    pinned = np.zeros(weights.shape, bool) if zeros is None else zeros
    weights = np.where(pinned, 0.0, np.asarray(weights, np.float64))
    if books is None:
        books = np.zeros((1, 1), np.int64)
    problem = Problem.of(weights, gram, pinned, books)
    sharing = _Sharing(k, zeros is not None)
    found = fitted(problem, sharing, dtype, damping, turns)
    return _merged(found, problem, sharing, merge, dtype, damping, turns) if merge > 0 else found


def _merged(
    found: Clustered,
    problem: Problem,
    sharing: _Sharing,
    merge: float,
    dtype: npt.DTypeLike,
    damping: float,
    turns: int,
) -> Clustered:
    """Clusters of one codebook merged away as far as the error allows."""
    centres, steps = found.centres[0], found.steps.ravel()
    counts = np.bincount(steps, minlength=len(centres))
    mass = np.bincount(steps, problem.importance().ravel(), len(centres))
    rows = merges(centres, counts, mass, sharing.zero)

    def attempt(number: int) -> tuple[float, Clustered]:
        book = np.unique(rows[number])[None]
        reached = fitted(problem, sharing, dtype, damping, turns, book)
        return float(problem.errors(reached).sum()), reached

    limit = (1.0 + merge) * float(problem.errors(found).sum())
    return furthest(len(rows) - 1, attempt, limit) or found
