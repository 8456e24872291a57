"""Codebooks of layers with very many weights: those of k-means, and the assignment fitted to the output.

A codebook has k unknowns, and a large layer millions of weights to find them from: fitted to the output, it
differs little from that of k-means, each weight counting by the second moment of what it is multiplied with.
So that one is taken, of a part of the outputs: of so many in the order of their largest weights, always the
first. Outputs that are larger than the others thus count more, for they matter more: the blank of a CTC
decoder is one of thousands, and its weights would be cut off.

With the values fixed the outputs do not depend on each other: a portion at a time, each is rounded to them
(``numerics.rounding``), in float32. So the work is that of rounding once, and the memory that of a portion.

As there, no output is worse than with the nearest of the values.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from graphopt.numerics.cluster_merging import merged
from graphopt.numerics.codebook_fitting import importance
from graphopt.numerics.codebooks import clustered_to_fit
from graphopt.numerics.kmeans import centres_of
from graphopt.numerics.rounding import Gram, rounded_to_fit

LARGE = 1 << 19
"""Weights up to which the codebook is fitted to the output, too."""

SAMPLE = 1 << 18
"""About how many weights k-means sees."""

OUTPUTS = 16
"""Of so many outputs at least, where there are as many."""

PORTION = 1 << 22
"""About how many weights are rounded together, half as many more at most."""


def shared_to_fit(
    weights: np.ndarray,
    k: int,
    gram: Gram,
    zeros: np.ndarray | None = None,
    dtype: npt.DTypeLike = np.float64,
    merge: float = 0.0,
) -> np.ndarray:
    """Weights that share few values so that the output of their layer changes little.

    Args:
        weights: W, finite, of shape ``(groups, features, outputs)``.
        k: values at most.
        gram: H, as for ``rounding.rounded_to_fit``.
        zeros: which weights are to be exactly 0; one value is 0 then.
        dtype: floats that the values are rounded to.
        merge: as for ``clustered_to_fit``.

    Returns:
        The weights, of the shape of W, in floats of 32 bits at least. Up to ``LARGE`` weights they are those
        of ``clustered_to_fit``.

    Raises:
        ValueError: shapes do not fit, or an element is not finite.
    """
    wide = np.promote_types(dtype, np.float32)
    if weights.size <= LARGE:
        whole = clustered_to_fit(weights, k, gram, zeros, dtype, merge=merge)
        return whole.values().astype(wide)
    values = weights if zeros is None else np.where(zeros, 0.0, weights)
    mass = importance(gram, weights.shape)
    part = _largest(values, min(weights.size // SAMPLE, weights.shape[2] // OUTPUTS))
    sample, sampled = values[:, :, part], mass[:, :, part]
    centres = centres_of(sample, k, sampled, zeros is not None)
    if merge > 0:
        centres = merged(sample, centres, sampled, merge, zeros is not None)
    book = _Values(np.unique(centres.astype(dtype)))
    found = np.empty(weights.shape, wide)
    for own in _portions(weights.shape):
        pinned = False if zeros is None else zeros[:, :, own]
        steps = rounded_to_fit(
            values[:, :, own], 1.0, 0.0, book, gram, pinned=pinned, precision=np.dtype(np.float32)
        )
        found[:, :, own] = book.dequantized(steps)
    return found


class _Values:
    """A grid of rising numbers, in float32; scales are 1 and zero points 0."""

    def __init__(self, centres: np.ndarray) -> None:
        self._centres = centres.astype(np.float32)
        self._borders = ((centres[1:] + centres[:-1]) / 2).astype(np.float32)

    @property
    def dtype(self) -> np.dtype:
        """The smallest type that holds the places."""
        return np.dtype(np.min_scalar_type(len(self._borders)))

    def quantized(
        self, values: npt.ArrayLike, scale: npt.ArrayLike = 1.0, zero_point: npt.ArrayLike = 0.0
    ) -> np.ndarray:
        """The places of the nearest numbers."""
        wanted = np.asarray(values, np.float32)
        return np.searchsorted(self._borders, wanted).astype(self.dtype)

    def dequantized(
        self, steps: np.ndarray, scale: npt.ArrayLike = 1.0, zero_point: npt.ArrayLike = 0.0
    ) -> np.ndarray:
        """The numbers at places."""
        return np.asarray(self._centres[steps])


def _largest(weights: np.ndarray, step: int) -> np.ndarray:
    """Outputs, in the order of their largest weights: the first of every so many."""
    size = np.maximum(weights.max(axis=(0, 1)), -weights.min(axis=(0, 1)))
    return np.argsort(-size, kind="stable")[:: max(step, 1)]


def _portions(shape: tuple[int, ...]) -> Iterator[slice]:
    """Outputs that are rounded together."""
    parts = max(round(shape[0] * shape[1] * shape[2] / PORTION), 1)
    width = -(-shape[2] // parts)
    yield from (slice(start, start + width) for start in range(0, shape[2], width))
