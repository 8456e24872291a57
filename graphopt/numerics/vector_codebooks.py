"""Codebooks of vectors: outputs in a row share one place, which stands for a weight of each of them.

With d weights to a place and k vectors, a weight takes ``log2(k) / d`` bits (product quantization; Jégou,
Douze and Schmid, "Product quantization for nearest neighbor search", 2011; for layers Stock et al., "And the
bit goes down", 2020). Here a vector holds the weights that d outputs give to the same feature. So all of them
count by the same moments of that feature, the nearest vector is the best one, and feature after feature is
rounded as with single values (``numerics.rounding``). With the assignment fixed, the n-th entries of all
vectors serve other outputs than the m-th, so each is a codebook of its own to ``numerics.codebook_fitting``;
d of them share their places.

The start is k-means by splitting (Linde, Buzo and Gray, "An algorithm for vector quantizer design", 1980):
the clusters of the largest error are split in two along the direction in which they are widest, and Lloyd's
algorithm follows, until there are k. No chance is involved.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graphopt.numerics.codebook_fitting import TURNS, Clustered, Problem, fitted
from graphopt.numerics.rounding import DAMPING, Gram

ROUNDS, LAST_ROUNDS = 4, 20
"""Steps of Lloyd's algorithm after each splitting, and after the last one."""

SAMPLE = 128
"""Vectors for each centre that k-means looks at, evenly spaced among all."""

PORTION = 1 << 14
"""Vectors whose distances are computed at once."""


def nearest_vectors(centres: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """The number of the nearest centre of each vector; of equally near ones the first.

    Args:
        centres: of shape ``(k, d)``.
        vectors: of shape ``(n, d)``.
    """
    half = np.square(centres).sum(axis=1) / 2
    found = [np.argmin(half - part @ centres.T, axis=1) for part in _portions(vectors)]
    return np.concatenate([np.empty(0, np.int64), *found])


def cluster_vectors(vectors: np.ndarray, k: int, mass: np.ndarray | None = None) -> np.ndarray:
    """Centres so that the weighted squared distance of vectors to the nearest is small.

    Args:
        vectors: finite, of shape ``(n, d)``, n at least 1.
        k: centres at most; where there are no more distinct vectors, these are the centres.
        mass: non-negative weights of shape ``(n,)``; all 1 where this is None or all are 0.

    Returns:
        float64 of shape ``(k, d)`` or fewer rows.
    """
    wide = np.asarray(vectors, np.float64)
    weights = np.ones(len(wide)) if mass is None or not mass.any() else mass.astype(np.float64)
    if len(wide) > SAMPLE * k:
        picked = np.linspace(0, len(wide) - 1, SAMPLE * k).astype(np.int64)
        if weights[picked].any():
            wide, weights = wide[picked], weights[picked]
    distinct = np.unique(wide, axis=0)
    if len(distinct) <= k:
        return distinct
    centres = np.average(wide, axis=0, weights=weights)[None]
    while len(centres) < k:
        centres = _split(wide, weights, centres, min(len(centres), k - len(centres)))
        centres = _lloyd(wide, weights, centres, ROUNDS)
    return _lloyd(wide, weights, centres, LAST_ROUNDS)


def _portions(vectors: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(vectors), PORTION):
        yield vectors[start : start + PORTION]


def _sums(index: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """Rows summed by number, of shape ``(count, columns)``."""
    return np.stack([np.bincount(index, column, count) for column in values.T], axis=1)


def _split(vectors: np.ndarray, weights: np.ndarray, centres: np.ndarray, count: int) -> np.ndarray:
    """Split so many clusters of the largest error, each along the direction in which it is widest."""
    index = nearest_vectors(centres, vectors)
    gap = vectors - centres[index]
    error = np.bincount(index, weights * np.square(gap).sum(axis=1), len(centres))
    chosen = np.sort(np.argsort(-error, kind="stable")[:count])
    outer = (weights[:, None, None] * gap[:, :, None] * gap[:, None, :]).reshape(len(gap), -1)
    total = np.maximum(np.bincount(index, weights, len(centres)), np.finfo(float).tiny)
    spread = (_sums(index, outer, len(centres)) / total[:, None])[chosen]
    sizes, axes = np.linalg.eigh(spread.reshape(count, gap.shape[1], gap.shape[1]))
    widest = axes[:, :, -1]
    rows = np.arange(count)
    widest = widest * np.sign(widest[rows, np.abs(widest).argmax(axis=1)])[:, None]
    step = np.sqrt(np.maximum(sizes[:, -1], 0.0))[:, None] * widest
    moved = centres.copy()
    moved[chosen] -= step
    return np.concatenate([moved, centres[chosen] + step])


def _lloyd(
    vectors: np.ndarray, weights: np.ndarray, centres: np.ndarray, rounds: int
) -> np.ndarray:
    """Move centres to the means of their clusters; one without any goes to where the error is largest."""
    for _ in range(rounds):
        index = nearest_vectors(centres, vectors)
        mass = np.bincount(index, weights, len(centres))
        sums = _sums(index, weights[:, None] * vectors, len(centres))
        full = mass > 0
        moved = centres.copy()
        moved[full] = sums[full] / mass[full, None]
        if not full.all():
            lost = weights * np.square(vectors - moved[index]).sum(axis=1)
            moved[~full] = vectors[np.argsort(-lost, kind="stable")[: np.count_nonzero(~full)]]
        if np.array_equal(moved, centres):
            break
        centres = moved
    return centres


@dataclass(frozen=True)
class VectorGrid:
    """Vectors as a grid: an integer that d outputs in a row share is the number of the nearest vector.

    Args:
        centres: the entries of the vectors, float64 of shape ``(d, k)``. The "zero point" of a weight is the
            number of its entry.
    """

    centres: np.ndarray

    @property
    def dtype(self) -> np.dtype:
        """The smallest type that holds the numbers."""
        return np.dtype(np.min_scalar_type(max(self.centres.shape[1] - 1, 0)))

    def quantized(
        self, values: npt.ArrayLike, scale: npt.ArrayLike = 1.0, zero_point: npt.ArrayLike = 0
    ) -> np.ndarray:
        """The numbers of the nearest vectors, for each weight; the scale is 1."""
        wanted = np.asarray(values, np.float64)
        width = len(self.centres)
        found = nearest_vectors(self.centres.T, wanted.reshape(-1, width)).astype(self.dtype)
        return np.repeat(found, width).reshape(wanted.shape)

    def dequantized(
        self, steps: np.ndarray, scale: npt.ArrayLike = 1.0, zero_point: npt.ArrayLike = 0
    ) -> np.ndarray:
        """The entries of vectors, float64."""
        return Clustered(self.centres, steps, np.asarray(zero_point)).values()


@dataclass(frozen=True)
class _Sharing:
    """How outputs share vectors; see ``codebook_fitting.Sharing``.

    Args:
        k: vectors.
        together: d, outputs in a row.
    """

    k: int
    together: int
    zero: bool = False

    def start(self, problem: Problem) -> np.ndarray:
        """The k-means clustering of the vectors."""
        vectors = problem.weights.reshape(-1, self.together)
        mass = problem.importance().reshape(-1, self.together)[:, 0]
        return cluster_vectors(vectors, self.k, mass).T

    def grid(self, centres: np.ndarray) -> VectorGrid:
        """The vectors."""
        return VectorGrid(centres)

    def ordered(self, centres: np.ndarray, steps: np.ndarray, books: np.ndarray) -> Clustered:
        """Vectors have no order."""
        return Clustered(centres, steps, books)

    def united(self, errors: np.ndarray) -> np.ndarray:
        """The entries of vectors are judged together."""
        return np.full(errors.shape, errors.sum())


def vectors_to_fit(
    weights: np.ndarray,
    k: int,
    together: int,
    gram: Gram,
    dtype: npt.DTypeLike = np.float64,
    damping: float = DAMPING,
    turns: int = TURNS,
) -> Clustered:
    """Let weights share few vectors so that the output of their layer changes little.

    Args:
        weights: W, finite, of shape ``(groups, features, outputs)``.
        k: vectors at most.
        together: d, outputs in a row whose weights are a vector; it divides the outputs.
        gram: H, as for ``rounding.rounded_to_fit``.
        dtype: floats that the values are rounded to.
        damping: as for ``rounding.rounded_to_fit``.
        turns: of fitting the vectors and the assignment.

    Returns:
        The entries of the vectors, of shape ``(d, k)``, and the assignment. The squared error of the outputs
        is not larger than with the nearest ones of the weighted k-means clustering, rounded alike.

    Raises:
        ValueError: shapes do not fit, or an element is not finite.
    """
    if weights.shape[-1] % together:
        raise ValueError(f"{weights.shape[-1]} outputs are no vectors of {together}")
    wide = np.asarray(weights, np.float64)
    books = (np.arange(wide.shape[-1]) % together)[None]
    problem = Problem.of(wide, gram, np.zeros((1, 1, 1), bool), books)
    return fitted(problem, _Sharing(k, together), dtype, damping, turns)
