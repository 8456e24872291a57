"""Weights on the integers that change the output of their layer least, and a bias that makes up for the rest.

    min over integers  tr (W' - W)^T H (W' - W),     b' = b + (W - W')^T m

with m the mean and H the covariance of what the layer reads where a bias takes up the mean, else the second
moments. See ``graphopt.numerics.rounding``. A layer of which nothing was observed is rounded to the nearest.
Correcting the bias: Nagel et al., "Data-free quantization through weight equalization and bias correction",
2019; here the mean is observed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from graphopt.ir.model import Model
from graphopt.numerics.grids import SMALLEST_SCALE, AffineGrid
from graphopt.numerics.rounding import rounded_to_fit
from graphopt.numerics.streaming import Blocks, Gram, GramSpec
from graphopt.pass_base import Observe
from graphopt.runtime.observing import Request

from ...pruning._fitting.layers import Layer, layer_of
from ...pruning._portions import HELD_BYTES, portions
from .units import Unit


@dataclass(frozen=True)
class Rounded:
    """The weights of a unit as integers.

    Attributes:
        steps: int8, of the shape of the weights.
        scale: float32, a scalar or one for each channel.
        bias: float64, of shape ``(channels,)``; None where there is none.
    """

    steps: np.ndarray
    scale: np.ndarray
    bias: np.ndarray | None = None


def fitted(
    model: Model, units: Sequence[Unit], grid: AffineGrid, observe: Observe
) -> dict[int, Rounded]:
    """The weights of units fitted to what the units read on the calibration data.

    Args:
        model: that the units are of; not changed.
        units: any; those that are no layers with one scale for each output are left out.
        grid: of weights.
        observe: gives statistics of tensors.

    Returns:
        By the number of the unit.
    """
    layers = [(unit, layer) for unit in units if (layer := _layer(unit)) is not None]
    found: dict[int, Rounded] = {}
    for portion in portions(layers, lambda entry: _nbytes(entry[1]), HELD_BYTES):
        found.update(_fitted(model, portion, grid, observe))
    return found


def _layer(unit: Unit) -> Layer | None:
    if unit.weight != 1 or unit.channel_axis() is None:
        return None
    layer = layer_of(unit.node)
    return layer if isinstance(layer, Layer) and layer.node.op != "ConvTranspose" else None


def _width(layer: Layer) -> int:
    return int(layer.weight.values.size // layer.weight.shape[layer.output_axis] * layer.groups)


def _blocks(layer: Layer) -> Blocks:
    """Features of a block of the moments where those of all would take too much."""
    width = _width(layer)
    most = HELD_BYTES // (8 * width)
    return None if width // layer.groups <= most else max(most, 1)


def _nbytes(layer: Layer) -> int:
    width = _width(layer)
    return min(8 * width * (width // layer.groups), HELD_BYTES)


def _fitted(
    model: Model, portion: Sequence[tuple[Unit, Layer]], grid: AffineGrid, observe: Observe
) -> Iterator[tuple[int, Rounded]]:
    asked = {}
    for unit, layer in portion:
        sampling = observe.sampling(_width(layer) // layer.groups)
        spec = GramSpec(layer.rows, _blocks(layer), sampling)
        asked[unit.uid] = Request(unit.node.inputs[0].name, spec)
    answers = observe(model, list(asked.values()))
    for unit, layer in portion:
        gram = answers[asked[unit.uid]].value
        if gram is not None and gram.rows and np.isfinite(gram.second).all():
            yield unit.uid, _rounded(unit, layer, gram, grid)


def _rounded(unit: Unit, layer: Layer, gram: Gram, grid: AffineGrid) -> Rounded:
    matrices = layer.matrices()
    groups, features, outputs = matrices.shape
    scale = weight_scale(layer.weight.values, unit.channel_axis(), grid)
    scales = scale.reshape(groups, 1, outputs)
    centred = unit.bias is not None
    blocks = [
        (rows, gram.covariance(number) if centred else gram.product(number) / gram.rows)
        for number, rows in enumerate(gram.blocks)
    ]
    steps = rounded_to_fit(matrices, scales, np.zeros_like(scales, np.int32), grid, blocks)
    stored = layer.as_stored(steps).astype(np.int8)
    if unit.bias is None:
        return Rounded(stored, scale)
    gap = matrices - grid.dequantized(steps, scales, np.int32(0))
    shift = np.einsum("gf,gfo->go", gram.mean.reshape(groups, features), gap)
    bias = unit.node.inputs[unit.bias].values.astype(np.float64).reshape(-1)
    return Rounded(stored, scale, bias + shift.reshape(-1))


def weight_scale(values: np.ndarray, axis: int | None, grid: AffineGrid) -> np.ndarray:
    """The scales that cover weights, float32: a scalar, or of shape ``(channels,)``."""
    axes = tuple(n for n in range(values.ndim) if n != axis)
    reach = np.abs(values.astype(np.float64)).max(axis=axes, initial=0.0)
    scale = np.maximum(reach / grid.high, SMALLEST_SCALE).astype(np.float32)
    scale = np.where(reach > 0, scale, np.float32(1))
    return np.asarray(scale.reshape(-1) if axis is not None else scale.reshape(()))


def integers_of(
    values: np.ndarray, scale: np.ndarray, axis: int | None, grid: AffineGrid
) -> np.ndarray:
    """Weights on a symmetric grid within int8, rounded to the nearest."""
    shape = [1] * values.ndim
    if axis is not None:
        shape[axis] = -1
    steps = grid.quantized(values, scale.reshape(shape), np.zeros((), np.int8))
    return np.asarray(steps, np.int8)


def rounded(values: np.ndarray, axis: int | None, grid: AffineGrid) -> Rounded:
    """Weights rounded to the nearest, on scales that cover them."""
    scale = weight_scale(values, axis, grid)
    return Rounded(integers_of(values, scale, axis, grid), scale)
