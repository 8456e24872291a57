"""Weights as integers of a grid: which scales, and how each weight is rounded.

Scales are those of the least squared error among a few (``numerics.grids.fitted_parameters``), each error
counting by E[x^2] of what the weight is multiplied with, where that is known. Weights go to the nearest
integers, or to those that change the output of their layer least (``numerics.rounding``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from graphopt.numerics.grids import fitted_parameters
from graphopt.numerics.rounding import rounded_to_fit

from ._layer_moments import Moments, importance, layer_with
from ._weight_formats import Format
from ._weight_places import Layout, Place

SLICE = 1 << 17
"""Elements for which scales are fitted together, so that they stay within a processor's cache."""


@dataclass(frozen=True)
class Integers:
    """A weight on a grid.

    Attributes:
        format: in what it is stored.
        steps: the integers, of the grid's type and the weight's shape.
        scale: positive, of the layout's cut shape with shared axes of size 1.
        zero_point: int32, likewise; all 0 where integers have a sign.
    """

    format: Format
    steps: np.ndarray
    scale: np.ndarray
    zero_point: np.ndarray

    def values(self) -> np.ndarray:
        """The numbers that the integers stand for, float32 of the weight's shape."""
        spread = self.format.layout.spread
        return self.format.grid.dequantized(self.steps, spread(self.scale), spread(self.zero_point))


def nearest(place: Place, stored: Format, moments: Moments | None = None) -> Integers:
    """Every weight as the nearest integer.

    Args:
        place: the weight.
        stored: in what.
        moments: of what its layer reads; scales are then chosen by it.
    """
    layout, grid = stored.layout, stored.grid
    cut, counts = layout.cut(_values(place)), importance(place, moments)
    counts = counts if counts is None else layout.cut(counts)
    parts = [
        fitted_parameters(
            cut[own], grid, layout.shared, stored.signed, 1.0 if counts is None else counts[own]
        )
        for own in _slices(layout)
    ]
    scale, zero = (np.concatenate(each, _sliced(layout) or 0) for each in zip(*parts, strict=True))
    scale = _typed(scale, stored)
    steps = np.empty(cut.shape, grid.dtype)
    for own in _slices(layout):
        steps[own] = grid.quantized(cut[own], scale[own], zero[own])
    return Integers(stored, layout.joined(steps), scale, zero)


def fitted_to_outputs(place: Place, stored: Format, moments: Moments) -> Integers:
    """Every weight as the integer with which the output of its layer changes least; see ``nearest``."""
    start = nearest(place, stored, moments)
    layer, spread = layer_with(place), stored.layout.spread
    matrices, scale, zero = (
        layer.as_matrices(part)
        for part in (_values(place), spread(start.scale), spread(start.zero_point))
    )
    groups, features, _ = matrices.shape
    blocks = moments.damped()
    whole = len(blocks) == groups and all(len(rows) == features for rows, _ in blocks)
    gram = np.stack([matrix for _, matrix in blocks]) if whole else blocks
    found = rounded_to_fit(matrices, scale, zero, stored.grid, gram)
    return replace(start, steps=np.ascontiguousarray(layer.as_stored(found)))


def _values(place: Place) -> np.ndarray:
    return np.asarray(place.weight.values, np.float32)


def _typed(scale: np.ndarray, stored: Format) -> np.ndarray:
    """Scales in the type that they are stored in, still positive; of floats, where that loses digits."""
    limits = np.finfo(stored.scales)
    fits = limits.tiny <= scale.min() and scale.max() <= limits.max
    dtype = stored.scales if fits else stored.floats
    return np.asarray(np.maximum(scale.astype(dtype), np.finfo(dtype).smallest_subnormal))


def _sliced(layout: Layout) -> int | None:
    """The axis along which scales can be fitted slice by slice; None where there is none."""
    own = [n for n in range(len(layout.cut_shape)) if n not in layout.shared]
    return max(own, key=lambda n: layout.cut_shape[n]) if own else None


def _slices(layout: Layout) -> Iterator[tuple[slice, ...]]:
    axis, shape = _sliced(layout), layout.cut_shape
    if axis is None:
        yield (slice(None),)
        return
    step = max(SLICE * shape[axis] // max(int(np.prod(shape)), 1), 1)
    for start in range(0, shape[axis], step):
        yield (*[slice(None)] * axis, slice(start, start + step))
