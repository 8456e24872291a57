"""What can take up a division of the channels of a tensor, so that it costs nothing.

    (W x + b) / s = (W / s) x + b / s          Conv, ConvTranspose, Gemm, MatMul with constants
    (g n + b) / s = (g / s) n + b / s          a normalization with a scale and a shift of its own
    (c x) / s = (c / s) x,  (x / c) / s = x / (c s),  (x + c) / s = x / s + c / s
    f(x) / s = f(x / s)                        f positively homogeneous, and alike or alone in each channel:
                                               Relu, LeakyRelu, PRelu, pooling
    (x y) / s = (x / s) y                      a gate: either factor

Clip, Sigmoid and the like are no such functions: Relu6 reaches its bound at another input once it is scaled.

By powers of two all of this is exact: no digit of any number changes, only exponents, as long as no number
leaves the range of its type.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.graph import Constant, Node
from graphopt.ir.surgery import input_or_none, producer, sole_user
from graphopt.pass_base import Context

from ..folding._affine_maps import AffineMap, constant_operand
from ..folding._folded_constants import owned
from ..folding._linear_layers import CONVOLUTIONS, PRODUCTS, LinearLayer, linear_layer

HOMOGENEOUS = ("Relu", "LeakyRelu", "PRelu")
"""f(x) / s = f(x / s) for each element."""

POOLS = ("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")
"""The same for each channel of axis 1."""

NORMALIZATIONS = {
    "BatchNormalization": 1,
    "GroupNormalization": 1,
    "InstanceNormalization": 1,
    "LayerNormalization": -1,
    "RMSNormalization": -1,
}
"""The axis of the channels whose scales and shifts are their second and third input."""


@dataclass(frozen=True)
class Replacement:
    """A constant of a node that is to be scaled.

    Attributes:
        node: it.
        index: of its input.
        scaled: gives the values, float64 in the shape that they are stored in, for factors by channel.
    """

    node: Node
    index: int
    scaled: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Division:
    """What takes up a division of the channels of a tensor.

    Attributes:
        root: the node in which it ends.
        parts: constants to be divided.
        reach: the magnitude of each channel that the constants of the root let expect, up to one factor for
            all; float64 of shape ``(channels,)``.
    """

    root: Node
    parts: tuple[Replacement, ...]
    reach: np.ndarray

    def beside(self, *more: Replacement) -> Division:
        """The same with more constants."""
        return Division(self.root, (*self.parts, *more), self.reach)


def division(tensor: gs.Tensor, axis: int, channels: int, context: Context) -> Division | str:
    """What takes up a division of a tensor, or why nothing does.

    Args:
        tensor: computed in the main graph; whoever reads it is the caller's concern.
        axis: of its channels, from the end: -1 is the last one.
        channels: how many there are.
        context: what is known.
    """
    node = producer(tensor)
    if node is None or not node.standard or node.outputs[0] is not tensor:
        made = "an input of the model" if node is None else f"what {node.label} gives"
        return f"it is {made}"
    if any(isinstance(value, gs.Node.AttributeRef) for value in node.attrs.values()):
        return f"attributes of {node.label} are not known"
    if node.op in (*CONVOLUTIONS, *PRODUCTS):
        return _layer(node, axis, channels, context)
    if node.op in NORMALIZATIONS:
        return _normalization(node, axis, channels, context)
    if node.op in HOMOGENEOUS or node.op in POOLS:
        return _function(node, axis, channels, context)
    if constant_operand(node) is not None:
        return _arithmetic(node, axis, channels, context)
    if node.op == "Mul" and len(node.inputs) == 2:
        return _gate(node, axis, channels, context)
    return f"{node.op} is not proportional to what it reads"


def _layer(node: Node, axis: int, channels: int, context: Context) -> Division | str:
    layer = linear_layer(node)
    if layer is None or not layer.known_bias:
        return f"weights or bias of {node.label} are computed"
    rank, own = layer.output_axis(context)
    if from_the_end(rank, own) != axis or layer.outputs != channels:
        return f"the channels of {node.label} lie along another axis"
    if not owned(layer.weight):
        return f"the weights of {node.label} are shared"
    parts = [Replacement(node, 1, lambda factors: _divided_outputs(layer, factors))]
    bias = input_or_none(node, 2)
    if bias is not None:
        place = 0 if layer.is_convolution else -1
        found = _along(node, 2, place, channels)
        if isinstance(found, str):
            return found
        parts.append(found)
    reach = np.abs(layer.view).max(axis=(2, 3)).reshape(-1)
    return Division(node, tuple(parts), reach)


def _divided_outputs(layer: LinearLayer, factors: np.ndarray) -> np.ndarray:
    weight, _ = layer.after(AffineMap(1.0 / factors))
    assert weight is not None
    return layer.stored(weight)


def multiplied_inputs(layer: LinearLayer) -> Replacement:
    """The weights of a layer, to be multiplied by factors of what it reads."""

    def scaled(factors: np.ndarray) -> np.ndarray:
        weight, _ = layer.before(AffineMap(factors))
        assert weight is not None
        return layer.stored(weight)

    return Replacement(layer.node, 1, scaled)


def _normalization(node: Node, axis: int, channels: int, context: Context) -> Division | str:
    rank = context.facts.rank(node.outputs[0])
    own = NORMALIZATIONS[node.op]
    if from_the_end(rank, own) != axis:
        return f"the channels of {node.label} lie along another axis"
    if node.op == "BatchNormalization" and not _infers(node):
        return f"{node.label} is in training mode"
    parts = []
    for index in (1, 2):
        if index == 1 or (input_or_none(node, 2) is not None and node.op != "RMSNormalization"):
            found = _along(node, index, -1, channels)
            if isinstance(found, str):
                return found
            parts.append(found)
    scale = np.abs(node.inputs[1].values.astype(np.float64))
    return Division(node, tuple(parts), scale.reshape(-1, channels).max(axis=0))


def _infers(node: Node) -> bool:
    """Whether a BatchNormalization has fixed statistics, one for each channel."""
    trains = node.attrs.get("training_mode", 0) or any(t.name for t in node.outputs[1:])
    return not trains and bool(node.attrs.get("spatial", 1))


def _function(node: Node, axis: int, channels: int, context: Context) -> Division | str:
    if node.op in POOLS:
        rank = context.facts.rank(node.outputs[0])
        if from_the_end(rank, 1) != axis:
            return f"{node.label} pools across the channels"
        if any(t.name and (t.outputs or t.is_output) for t in node.outputs[1:]):
            return f"positions of {node.label} are read"
    return _through(node, 0, axis, channels, context)


def _through(node: Node, index: int, axis: int, channels: int, context: Context) -> Division | str:
    """What takes up the division of an operand of a node, in the place of what the node gives."""
    operand = node.inputs[index]
    if sole_user(operand) is not node:
        return f"others read what {node.label} reads, too"
    shape = context.facts.shape(operand)
    whole = context.facts.rank(node.outputs[0])
    if shape is None or whole != len(shape) or shape[axis] != channels:
        return f"{node.label} may spread one channel over many"
    return division(operand, axis, channels, context)


def _arithmetic(node: Node, axis: int, channels: int, context: Context) -> Division | str:
    operands = constant_operand(node)
    assert operands is not None
    index = 0 if node.inputs[0] is operands[1] else 1
    if node.op in ("Add", "Sub"):
        found = _along(node, index, axis, channels)
        inner = _through(node, 1 - index, axis, channels, context)
        if isinstance(found, str) or isinstance(inner, str):
            return found if isinstance(found, str) else inner
        return inner.beside(found)
    upside_down = node.op == "Div" and index == 1
    part = _along(node, index, axis, channels, upside_down)
    if isinstance(part, str) and (node.op == "Mul" or index == 1):
        return _through(node, 1 - index, axis, channels, context)
    if isinstance(part, str):
        return part
    values = operands[1].values.astype(np.float64)
    moved = np.abs(np.moveaxis(values, axis, -1).reshape(-1, channels)).max(axis=0)
    with np.errstate(divide="ignore"):
        return Division(node, (part,), 1.0 / moved if upside_down else moved)


def _gate(node: Node, axis: int, channels: int, context: Context) -> Division | str:
    if node.inputs[0] is node.inputs[1]:
        return f"{node.label} squares what it reads"
    reasons = []
    for index in (0, 1):
        found = _through(node, index, axis, channels, context)
        if isinstance(found, Division):
            return found
        reasons.append(found)
    return " and ".join(dict.fromkeys(reasons))


def _along(
    node: Node, index: int, axis: int, channels: int, multiplied: bool = False
) -> Replacement | str:
    """The constant of a node with a number for each channel along an axis, to be divided or multiplied."""
    held = node.inputs[index]
    if not isinstance(held, Constant):
        return f"{node.label} reads scales that are computed"
    rank = len(held.shape)
    if rank < max(-axis, 1) or held.shape[axis] != channels:
        return f"{node.label} holds one number for many channels"
    if not owned(held):
        return f"a constant of {node.label} is shared"

    def scaled(factors: np.ndarray) -> np.ndarray:
        shape = [1] * rank
        shape[axis] = channels
        wide = factors.reshape(shape)
        values = held.values.astype(np.float64)
        return np.asarray(values * wide if multiplied else values / wide)

    return Replacement(node, index, scaled)


def from_the_end(rank: int | None, axis: int) -> int | None:
    """An axis counted from the end, as -1; None where that is not known."""
    if axis < 0:
        return axis
    return None if rank is None else axis - rank
