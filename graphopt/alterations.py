"""What could be done to a layer, to see what it costs.

sparsity s      the share s of its weights, those of the smallest magnitude, is set to zero
bits b          its weights are rounded to a symmetric grid of b bits, one scale for each channel
clusters k      its weights are replaced by k values, found by k-means
activations b   what it reads is rounded to an affine grid of b bits, one scale for each tensor; see
                ``rounded_activations``
both w a        its weights are rounded to w bits, and what it reads to a bits
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from graphopt.errors import UsageError
from graphopt.numerics.grids import dequantized, fitted_scale, quantized
from graphopt.numerics.importance import without_smallest
from graphopt.numerics.kmeans import cluster

Kind = Literal["sparsity", "bits", "clusters", "activations", "both"]

Strength = float | tuple[float, float]
"""How much of it; of ``both`` the bits of the weights and those of what is read."""

STRENGTHS: dict[Kind, tuple[Strength, ...]] = {
    "sparsity": (0.3, 0.5, 0.7, 0.9),
    "bits": (8, 4, 3, 2),
    "clusters": (256, 16, 8, 4),
}
"""What is tried where the user names nothing."""

RANGES: dict[Kind, tuple[float, float]] = {
    "sparsity": (0.0, 1.0),
    "bits": (2, 16),
    "clusters": (2, 65536),
    "activations": (2, 16),
    "both": (2, 16),
}
"""Between which numbers a strength lies."""


@dataclass(frozen=True)
class Alteration:
    """One thing that could be done to a layer.

    Attributes:
        kind: what is done.
        strength: how much of it to its weights; of ``activations`` the bits of what it reads.
        activations: of ``both`` the bits of what it reads; None otherwise.
    """

    kind: Kind
    strength: float
    activations: int | None = None

    @property
    def reading_bits(self) -> int | None:
        """Bits that what the layer reads is rounded to; None where it is not."""
        return int(self.strength) if self.kind == "activations" else self.activations

    @property
    def weights(self) -> Kind | None:
        """What is done to the weights; None for nothing."""
        if self.kind == "activations":
            return None
        return "bits" if self.kind == "both" else self.kind

    def __str__(self) -> str:
        """As in ``bits 4``, or ``w4a8``."""
        if self.kind == "both":
            return f"w{self.strength:g}a{self.activations}"
        return f"{self.kind} {self.strength:g}"


def alterations(strengths: Mapping[Kind, Sequence[Strength]]) -> list[Alteration]:
    """What is to be tried.

    Raises:
        UsageError: a strength is out of its range.
    """
    return [_alteration(kind, value) for kind, values in strengths.items() for value in values]


def _alteration(kind: Kind, strength: Strength) -> Alteration:
    low, high = RANGES[kind]
    values = strength if isinstance(strength, tuple) else (strength,)
    fits = all(low <= v <= high and (kind == "sparsity" or float(v).is_integer()) for v in values)
    if not fits or len(values) != (2 if kind == "both" else 1):
        raise UsageError(
            f"{' and '.join(f'{value:g}' for value in values)} is no strength for {kind}",
            f"Give {'shares' if kind == 'sparsity' else 'whole numbers'} from {low:g} to {high:g}",
        )
    return Alteration(kind, float(values[0]), int(values[1]) if len(values) > 1 else None)


def altered(values: np.ndarray, axes: tuple[int, ...], kind: Kind, strength: float) -> np.ndarray:
    """A weight with something done to it; see the module's docstring.

    Args:
        values: the weight.
        axes: of its channels.
        kind: what is done to weights: sparsity, bits or clusters.
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
