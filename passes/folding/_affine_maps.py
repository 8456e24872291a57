"""Nodes that scale and shift a tensor by constants, channel by channel.

    y = scale * x + shift        Add, Sub, Mul, Div with a constant; BatchNormalization (inference)

    BatchNormalization: scale = gamma / sqrt(var + eps),  shift = beta - scale * mean

A constant counts only where it varies along no axis but the channels'. It is aligned to the *last*
axis, so ``[C]`` beside an image of shape ``[N, C, H, W]`` runs along W.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.graph import Constant, Node
from graphopt.ir.surgery import is_used

FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})
"""Element types in which a product may be re-associated up to rounding."""

_ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div"})


@dataclass(frozen=True)
class AffineMap:
    """What a node does to each channel of one of its inputs.

    Attributes:
        scale: float64 of shape [1] or [channels]; None for 1.
        shift: float64 of shape [1] or [channels]; None for 0.
    """

    scale: np.ndarray | None = None
    shift: np.ndarray | None = None

    @property
    def finite(self) -> bool:
        """Whether all numbers are finite; a division by zero is not."""
        parts = (self.scale, self.shift)
        return all(part is None or bool(np.isfinite(part).all()) for part in parts)


def affine_map(
    node: Node, data: gs.Tensor, rank: int | None, axis: int, channels: int
) -> AffineMap | None:
    """What a node computes of ``data``, when that is one scale and shift per channel; else None.

    Args:
        node: the node that reads ``data``.
        data: the tensor that varies.
        rank: its number of axes, or None.
        axis: the channels' axis; -1 for the last, which needs no rank.
        channels: their number.
    """
    if any(isinstance(value, gs.Node.AttributeRef) for value in node.attrs.values()):
        return None
    if node.op == "BatchNormalization":
        if rank is None or rank < 2 or axis % rank != 1 or node.inputs[0] is not data:
            return None
        return _batch_normalization(node, channels)
    found = constant_operand(node)
    if found is None or found[0] is not data or int(node.graph.opset) < 7:  # type: ignore[union-attr]
        return None
    vector = per_channel(found[1], rank, axis, channels)
    if vector is None:
        return None
    if node.op == "Add":
        return AffineMap(None, vector)
    if node.op == "Sub":
        if node.inputs[0] is data:
            return AffineMap(None, -vector)
        return AffineMap(np.array([-1.0]), vector)
    if node.op == "Mul":
        return AffineMap(vector, None)
    if node.inputs[0] is not data:
        return None
    with np.errstate(divide="ignore"):
        return AffineMap(1.0 / vector, None)


def constant_operand(node: Node) -> tuple[gs.Tensor, Constant] | None:
    """The operands of Add, Sub, Mul, Div with one constant float: what varies, and the constant."""
    if node.op not in _ARITHMETIC or not node.standard or len(node.inputs) != 2:
        return None
    left, right = node.inputs
    if isinstance(left, Constant) == isinstance(right, Constant):
        return None
    data, constant = (right, left) if isinstance(left, Constant) else (left, right)
    return (data, constant) if constant.dtype.name in FLOATS else None


def per_channel(
    constant: Constant, rank: int | None, axis: int, channels: int
) -> np.ndarray | None:
    """The values as float64 [1] or [channels], when they vary along the channels' axis alone.

    Args:
        constant: what is broadcast to a tensor.
        rank: the tensor's rank; None suffices for scalars and vectors on the last axis.
        axis: the channels' axis of the tensor.
        channels: the tensor's size there.
    """
    if rank is None:
        if axis != -1 or len(constant.shape) > 1:
            return None
        rank = 1
    if len(constant.shape) > rank or rank == 0:
        return None
    shape = (1,) * (rank - len(constant.shape)) + tuple(constant.shape)
    size = shape[axis]
    if int(np.prod(shape)) != size or size not in (1, channels):
        return None
    vector: np.ndarray = constant.values.reshape(-1).astype(np.float64)
    return vector


def _batch_normalization(node: Node, channels: int) -> AffineMap | None:
    opset = int(node.graph.opset)  # type: ignore[union-attr]
    attrs = node.attrs
    if opset < 7 or attrs.get("spatial", 1) != 1 or attrs.get("training_mode", 0):
        return None
    if len(node.inputs) != 5 or any(is_used(t) for t in node.outputs[1:] if t.name):
        return None
    parameters = node.inputs[1:]
    if not all(isinstance(t, Constant) and tuple(t.shape) == (channels,) for t in parameters):
        return None
    gamma, beta, mean, variance = (t.values.astype(np.float64) for t in parameters)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        scale = gamma / np.sqrt(variance + float(attrs.get("epsilon", 1e-5)))
        return AffineMap(scale, beta - scale * mean)
