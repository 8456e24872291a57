"""Who reads the units of a group, and by which weights: what is lost when some of them read as zero.

A reader computes ``sum_f x_f W_f`` over features f, some of which are a unit's:

    Conv, ConvTranspose   x: patches of the input              W: a row for each channel and kernel position
    Gemm, MatMul          x: either operand's inner axis       W: the other operand, stacks side by side
    Einsum                x: the axis summed over              W: likewise
    LSTM, GRU, RNN        x: the input X                       W of all gates and directions side by side
                          x: the state, as in Y or else Y_h    R of all gates and directions side by side
    product of two
      activations         x_f = a_f b_f, f on the inner axis   1
    sums and norms        x: the axis summed over              1

Stacks and directions are taken to have inputs of one distribution. Weights that are computed (dequantized
ones) count as an activation. Of a product of two activations the rows of a and b meet in all pairs; taken as
independent of each other, the second moments of ``a_f b_f`` are those of a times those of b, element by
element, which is positive semidefinite (Schur's product theorem).

A reader that can be refitted makes up for what is missing, as the Optimal Brain Surgeon has it. Any other
one keeps its weights; then what is lost is ``tr(W_u^T E[x_u x_u^T] W_u)`` for unit u, and these are added
up as if units were uncorrelated.

Where the outputs that a unit reaches leave with it, as in a depthwise convolution, nothing is lost there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from graphopt.ir.channels import ChannelGroup, Slot
from graphopt.ir.graph import Constant, Node
from graphopt.ir.surgery import input_or_none
from graphopt.numerics.streaming import FeatureRows, Rows

from .._fitting.layers import CONVOLUTIONS, LAYERS, Layer, layer_of, refittable

RECURRENT = ("LSTM", "GRU", "RNN")

SUMS = ("ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare")

Operand = tuple[str, Rows]
"""A tensor and how it is read as rows; the name is empty where the model does not have the tensor."""


@dataclass(frozen=True, eq=False)
class Reader:
    """A node that sums over units.

    Attributes:
        node: it.
        operands: the tensors whose product, feature by feature, is x.
        units: of each unit the features.
        weight: the constant with W; None where all weights are 1.
        axis: of the weight, that its features lie along.
        layer: the node as a layer where it is a convolution or can be refitted.
        fixed: whether it keeps its weights.
    """

    node: Node
    operands: tuple[Operand, ...]
    units: tuple[np.ndarray, ...]
    weight: Constant | None = None
    axis: int = 0
    layer: Layer | None = None
    fixed: bool = True

    @property
    def layout(self) -> tuple[int, int, int]:
        """Groups, channels of a group, and features of a channel."""
        if self.weight is None:
            return 1, 1 + max(int(rows.max()) for rows in self.units), 1
        if self.layer is None or self.node.op not in CONVOLUTIONS:
            return 1, int(self.weight.shape[self.axis]), 1
        groups, shape = self.layer.groups, self.weight.shape
        channels = shape[1] if self.node.op == "Conv" else shape[0] // groups
        return groups, channels, math.prod(shape[2:])

    def matrix(self, features: int) -> np.ndarray:
        """W, float64 of shape ``(features, outputs)``; of several groups under each other.

        Args:
            features: how many there are, for weights that are all 1.
        """
        if self.weight is None:
            return np.ones((features, 1))
        if self.layer is not None:
            return np.concatenate(list(self.layer.matrices()))
        values = np.moveaxis(self.weight.values, self.axis, 0)
        return values.reshape(len(values), -1).astype(np.float64)


def reader_of(node: Node, slot: Slot, group: ChannelGroup) -> Reader | str | None:
    """What reads a group at one slot, or why it cannot be ranked; None where nothing is lost there."""
    found = _reader(node, slot)
    if isinstance(found, str):
        return found
    if found.layer is not None and _leave_with_units(found, slot, group):
        return None
    if found.weight is not None:
        if not np.isfinite(found.weight.values).all():
            return f"the weights of {node.label} are not finite"
        if max(int(rows.max()) for rows in found.units) >= math.prod(found.layout):
            return f"the weights of {node.label} do not fit what it reads"
    return found


def _reader(node: Node, slot: Slot) -> Reader | str:
    if not node.standard:
        return f"{node.label} is of another domain"
    if node.op in LAYERS and slot.index == 0:
        layer = layer_of(node)
        if isinstance(layer, Layer):
            return _of_layer(layer, slot)
        if node.op in CONVOLUTIONS:
            return layer if _has_constant(node) else _convolution(node, slot)
    if node.op in RECURRENT:
        return _recurrent(node, slot)
    if node.op in ("Gemm", "MatMul"):
        return _product(node, slot, (1 - slot.index, _inner_axis(node, 1 - slot.index)))
    if node.op == "Einsum" and len(node.inputs) == 2:
        return _product(node, slot, _lettered(node, slot))
    if node.op in SUMS:
        return Reader(node, (_operand(node, slot.index, slot.axis),), tuple(slot.indices))
    return f"{node.label} is a {node.op} that reads it by input {slot.index}"


def _has_constant(node: Node) -> bool:
    return isinstance(input_or_none(node, 1), Constant)


def _convolution(node: Node, slot: Slot) -> Reader | str:
    """A convolution by weights that are computed, such as quantized ones: every pixel is read as a row."""
    if int(node.attrs.get("group", 1)) != 1:
        return f"{node.label} has several groups and computed weights"
    return _product(node, slot, (1, 1 if node.op == "Conv" else 0))


def _operand(node: Node, index: int, axis: int) -> Operand:
    return node.inputs[index].name, FeatureRows(axis)


def _of_layer(layer: Layer, slot: Slot) -> Reader:
    size = math.prod(layer.weight.shape[2:]) if layer.node.op in CONVOLUTIONS else 1
    units = tuple((places[:, None] * size + np.arange(size)).ravel() for places in slot.indices)
    operand = (layer.node.inputs[0].name, layer.rows)
    fixed = bool(refittable(layer))
    axis = 0 if layer.node.op in CONVOLUTIONS else _inner_axis(layer.node, 1)
    return Reader(layer.node, (operand,), units, layer.weight, axis, layer, fixed)


def _recurrent(node: Node, slot: Slot) -> Reader | str:
    if slot.index not in (0, 2):
        return f"{node.label} is a {node.op} that reads it by input {slot.index}"
    weight = input_or_none(node, 1 if slot.index == 0 else 2)
    if not _is_floats(weight):
        return f"the weights of {node.label} are no constant of floats"
    if slot.index == 0:
        source = node.inputs[0].name
    else:  # the state: of all steps where they are returned, else of the last one
        source = next((tensor.name for tensor in node.outputs[:2] if tensor.name), "")
    return Reader(node, ((source, FeatureRows(-1)),), tuple(slot.indices), weight, 2)


def _product(node: Node, slot: Slot, other: tuple[int, int] | str) -> Reader | str:
    """A product that reads units by one operand; the other is told by its index and inner axis."""
    if isinstance(other, str):
        return other
    index, axis = other
    factor = input_or_none(node, index)
    operand = _operand(node, slot.index, slot.axis)
    units = tuple(slot.indices)
    if isinstance(factor, Constant):
        if not _is_floats(factor):
            return f"{node.label} multiplies it by a constant of {factor.dtype.name}"
        return Reader(node, (operand,), units, factor, axis % len(factor.shape))
    return Reader(node, (operand, _operand(node, index, axis)), units)


def _is_floats(tensor: object) -> bool:
    return (
        isinstance(tensor, Constant) and tensor.dtype.kind == "f" and bool(math.prod(tensor.shape))
    )


def _inner_axis(node: Node, index: int) -> int:
    """The axis of an operand of Gemm or MatMul that is summed over."""
    if node.op == "Gemm":
        turned = bool(node.attrs.get("transB" if index else "transA", 0))
        return int(turned) if index else int(not turned)
    tensor = node.inputs[index]
    rank = len(tensor.shape) if isinstance(tensor, Constant) else 2
    return -2 if index and rank > 1 else -1


def _lettered(node: Node, slot: Slot) -> tuple[int, int] | str:
    """The other operand of an Einsum of two, and its axis of the same letter."""
    terms = str(node.attrs["equation"]).replace(" ", "").partition("->")[0].split(",")
    letter, other = terms[slot.index][slot.axis], terms[1 - slot.index]
    if letter not in other:
        return f"{node.label} sums it without a factor"
    return 1 - slot.index, other.index(letter)


def _leave_with_units(reader: Reader, slot: Slot, group: ChannelGroup) -> bool:
    """Whether of a convolution in groups all outputs that a unit reaches leave together with it."""
    groups, width, _ = reader.layout
    made = next((s for s in group.members if s.node == slot.node and not s.read), None)
    if groups == 1 or made is None or reader.weight is None:
        return False
    shape = reader.weight.shape
    each = shape[0] // groups if reader.node.op == "Conv" else shape[1]
    for places, outputs in zip(slot.indices // width, made.indices // each, strict=True):
        if any(np.count_nonzero(outputs == reached) < each for reached in np.unique(places)):
            return False
    return True
