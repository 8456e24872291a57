"""What could be done to the weights of a layer, to see what it costs.

sparsity s   the share s of its weights, those of the smallest magnitude, is set to zero
bits b       its weights are rounded to a symmetric grid of b bits, one scale for each channel
clusters k   its weights are replaced by k values, found by k-means
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from graphopt.errors import UsageError
from graphopt.numerics.grids import dequantized, fitted_scale, quantized
from graphopt.numerics.importance import without_smallest
from graphopt.numerics.kmeans import cluster

Kind = Literal["sparsity", "bits", "clusters"]

STRENGTHS: dict[Kind, tuple[float, ...]] = {
    "sparsity": (0.3, 0.5, 0.7, 0.9),
    "bits": (8, 4, 3, 2),
    "clusters": (256, 16, 8, 4),
}
"""What is tried where the user names nothing."""


def checked_strengths(
    strengths: dict[Kind, Sequence[float]],
) -> dict[Kind, tuple[float, ...]]:
    """Strengths as they can be tried.

    Raises:
        UsageError: one is out of its range.
    """
    ranges: dict[Kind, tuple[float, float]] = {
        "sparsity": (0.0, 1.0),
        "bits": (2, 16),
        "clusters": (2, 65536),
    }
    for kind, values in strengths.items():
        low, high = ranges[kind]
        for value in values:
            whole = kind == "sparsity" or float(value).is_integer()
            if not (low <= value <= high and whole):
                raise UsageError(
                    f"{value:g} is no strength for {kind}",
                    f"Give {'shares' if kind == 'sparsity' else 'whole numbers'} "
                    f"from {low:g} to {high:g}",
                )
    return {kind: tuple(values) for kind, values in strengths.items()}


def altered(values: np.ndarray, axes: tuple[int, ...], kind: Kind, strength: float) -> np.ndarray:
    """A weight with something done to it; see the module's docstring.

    Args:
        values: the weight.
        axes: of its channels.
        kind: what is done.
        strength: how much of it.

    Returns:
        A new array of the same shape and dtype.
    """
    if kind == "sparsity":
        return without_smallest(values, strength)
    if kind == "clusters":
        centres, index = cluster(values, int(strength))
        return np.asarray(centres[index], values.dtype)
    others = tuple(axis for axis in range(values.ndim) if axis not in axes)
    scale = fitted_scale(values.astype(np.float64), int(strength), others)
    steps = quantized(values, scale, int(strength))
    return np.asarray(dequantized(steps, scale), values.dtype)
