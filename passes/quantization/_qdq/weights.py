"""Weights on the integers that change the output of their layer least, and a bias that makes up for the rest.

    min over integers  tr (W' - W)^T H (W' - W),     b' = b + (W - W')^T m

with m the mean and H the covariance of what the layer reads where a bias takes up the mean, else the second
moments. See ``graphopt.numerics.rounding``. A layer of which nothing was observed is rounded to the nearest.
Correcting the bias: Nagel et al., "Data-free quantization through weight equalization and bias correction",
2019; here the mean is observed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graphopt.ir.model import Model
from graphopt.numerics.grids import AffineGrid, covering_scale
from graphopt.numerics.rounding import rounded_to_fit
from graphopt.numerics.streaming import Blocks, Gram, GramSpec
from graphopt.pass_base import Observe
from graphopt.runtime.observing import Request

from ...pruning._fitting.layers import Layer, layer_of
from ...pruning._portions import HELD_BYTES, portions
from .scales import Scale
from .units import Unit

GRID = AffineGrid(-127, 127)
"""Of weights: symmetric, so that their sums with activations need no correction."""


@dataclass(frozen=True)
class Rounded:
    """The weights of a unit as integers, in terms of x / r and y / r where activations have a spread r.

    Attributes:
        steps: int8, of the shape of the weights.
        scale: float32, a scalar or one for each channel.
        bias: float64, of shape ``(channels,)``; None where there is none.
        values: the weights that the integers stand for, in terms of x and y; float32.
        values_bias: the bias in these terms.
    """

    steps: np.ndarray
    scale: np.ndarray
    bias: np.ndarray | None
    values: np.ndarray
    values_bias: np.ndarray | None


def fitted(
    model: Model, units: Sequence[Unit], scales: Mapping[str, Scale], observe: Observe
) -> dict[int, Rounded]:
    """The weights of units fitted to what the units read on the calibration data.

    Args:
        model: that the units are of; not changed.
        units: any; those that are no layers with one scale for each output are left out.
        scales: of activations, by name.
        observe: gives statistics of tensors.

    Returns:
        By the number of the unit.
    """
    layers = [(unit, layer) for unit in units if (layer := _layer(unit)) is not None]
    found: dict[int, Rounded] = {}
    for portion in portions(layers, lambda entry: _nbytes(entry[1]), HELD_BYTES):
        found.update(_fitted(model, portion, scales, observe))
    return found


def _layer(unit: Unit) -> Layer | None:
    if unit.weight != 1 or unit.channel_axis() is None:
        return None
    layer = layer_of(unit.node)
    return layer if isinstance(layer, Layer) and layer.node.op != "ConvTranspose" else None


def _width(layer: Layer) -> int:
    return layer.weight.values.size // layer.weight.shape[layer.output_axis] * layer.groups


def _blocks(layer: Layer) -> Blocks:
    """Features of a block of the moments where those of all would take too much."""
    width = _width(layer)
    most = HELD_BYTES // (8 * width)
    return None if width // layer.groups <= most else max(most, 1)


def _nbytes(layer: Layer) -> int:
    width = _width(layer)
    return min(8 * width * (width // layer.groups), HELD_BYTES)


def _fitted(
    model: Model,
    portion: Sequence[tuple[Unit, Layer]],
    scales: Mapping[str, Scale],
    observe: Observe,
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
            yield unit.uid, _rounded(unit, layer, gram, scales)


def _rounded(unit: Unit, layer: Layer, gram: Gram, scales: Mapping[str, Scale]) -> Rounded:
    weights, bias = migrated(unit, scales)
    matrices = layer.as_matrices(weights)
    groups, features, outputs = matrices.shape
    scale = weight_scale(weights, unit.channel_axis())
    shaped = scale.reshape(groups, 1, outputs)
    spread = _spread(unit.inputs[0].name, scales)
    by_feature = (
        np.ones(groups * features) if spread is None else _by_feature(spread, layer, features)
    )
    blocks = [
        (
            rows,
            (gram.covariance(n) if bias is not None else gram.product(n) / gram.rows)
            / np.outer(by_feature[rows], by_feature[rows]),
        )
        for n, rows in enumerate(gram.blocks)
    ]
    steps = rounded_to_fit(matrices, shaped, np.zeros_like(shaped, np.int32), GRID, blocks)
    if bias is not None:
        gap = matrices - GRID.dequantized(steps, shaped, np.int32(0))
        mean = (gram.mean.reshape(-1) / by_feature).reshape(groups, features)
        bias = bias + np.einsum("gf,gfo->go", mean, gap).reshape(-1)
    return _told(unit, layer.as_stored(steps).astype(np.int8), scale, bias, scales)


def _by_feature(spread: np.ndarray, layer: Layer, features: int) -> np.ndarray:
    """The factor of each feature: of each position of the kernel that of its channel."""
    kernel = layer.groups * features // spread.size
    return np.repeat(spread.astype(np.float64), kernel)


def rounded(unit: Unit, scales: Mapping[str, Scale]) -> Rounded:
    """The weights of a unit rounded to the nearest, on scales that cover them."""
    weights, bias = migrated(unit, scales)
    scale = weight_scale(weights, unit.channel_axis())
    return _told(unit, integers_of(weights, scale, unit.channel_axis()), scale, bias, scales)


def _told(
    unit: Unit,
    steps: np.ndarray,
    scale: np.ndarray,
    bias: np.ndarray | None,
    scales: Mapping[str, Scale],
) -> Rounded:
    shape = [1] * steps.ndim
    axis = unit.channel_axis()
    if axis is not None:
        shape[axis] = -1
    into, out = _factors(unit, scales)
    values = steps * scale.reshape(shape) * out / into
    told = None if bias is None else bias * out.reshape(-1)
    return Rounded(steps, scale, bias, values.astype(np.float32), told)


def migrated(unit: Unit, scales: Mapping[str, Scale]) -> tuple[np.ndarray, np.ndarray | None]:
    """The weights of a unit, and its bias, in terms of x / r and y / r; float64."""
    assert unit.weight is not None
    into, out = _factors(unit, scales)
    weights = unit.node.inputs[unit.weight].values.astype(np.float64) * into / out
    if unit.bias is None:
        return weights, None
    bias = unit.node.inputs[unit.bias].values.astype(np.float64).reshape(-1)
    return weights, bias / out.reshape(-1)


def _spread(name: str, scales: Mapping[str, Scale]) -> np.ndarray | None:
    scale = scales.get(name)
    return None if scale is None else scale.spread


def _factors(unit: Unit, scales: Mapping[str, Scale]) -> tuple[np.ndarray, np.ndarray]:
    """What weights are multiplied by for what they read, and divided by for what they give."""
    assert unit.weight is not None
    shape = unit.node.inputs[unit.weight].shape
    ones = np.ones([1] * len(shape))
    read = _spread(unit.inputs[0].name, scales) if unit.weight == 1 else None
    made = None if unit.gives_floats else _spread(unit.output.name, scales)
    out = ones if made is None else made.astype(np.float64).reshape(-1, *[1] * (len(shape) - 1))
    if read is None:
        return ones, out
    into = read.astype(np.float64)
    if unit.node.op == "Conv":
        groups = int(unit.node.attrs.get("group", 1))
        each = np.repeat(into.reshape(groups, -1), shape[0] // groups, axis=0)
        return each.reshape(*each.shape, *[1] * (len(shape) - 2)), out
    across = unit.node.op == "Gemm" and bool(unit.node.attrs.get("transB", 0))
    return into.reshape(1, -1) if across else into.reshape(-1, 1), out


def weight_scale(values: np.ndarray, axis: int | None) -> np.ndarray:
    """The scales that cover weights, float32: a scalar, or of shape ``(channels,)``."""
    axes = tuple(n for n in range(values.ndim) if n != axis)
    scale = covering_scale(values.astype(np.float64), 8, axes).astype(np.float32)
    return scale.reshape(-1) if axis is not None else scale.reshape(())


def integers_of(values: np.ndarray, scale: np.ndarray, axis: int | None) -> np.ndarray:
    """Weights on the symmetric grid of int8, rounded to the nearest."""
    shape = [1] * values.ndim
    if axis is not None:
        shape[axis] = -1
    steps = GRID.quantized(values, scale.reshape(shape), np.zeros((), np.int8))
    return steps.astype(np.int8)
