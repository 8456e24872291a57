"""Where a gain and a shift of what a layer gives can be put: into its weights and its bias, however stored.

y' = g y + t:   W' = g W,  b' = g b + t

W      a constant of floats; DequantizeLinear(integers, scales) or Mul(integers, scales) with one scale for
       each output: the gain goes into these. Codes of shared values, or what else is computed from constants:
       a factor behind (``_stored_weights``)
b      a constant of floats; DequantizeLinear(int32, s_x s_w): to the nearest step; nothing yet: one is
       added, as int32 where input and weights are dequantized, for kernels of integers want it so
MatMul has none: the Add of a vector that reads it, also past QuantizeLinear and DequantizeLinear
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.graph import Constant, Node
from graphopt.ir.operators import weight_channels
from graphopt.ir.surgery import (
    discard,
    input_or_none,
    insert,
    new_constant,
    new_tensor,
    producer,
    sole_user,
)
from graphopt.numerics.grids import SMALLEST_SCALE

from ..folding._folded_constants import owned
from ._stored_weights import float_type, gain_behind

REACH = 2.0**31 - 1
"""The largest integer of a bias."""


@dataclass(frozen=True)
class Slot:
    """What of a layer can be changed.

    Attributes:
        node: the layer.
        outputs: its channels.
        shift: adds to its bias what is asked for after a gain was put into its weights.
        gain: multiplies its weights; None where these are stored so that nothing can.
    """

    node: Node
    outputs: int
    shift: Callable[[np.ndarray, np.ndarray], None]
    gain: Callable[[np.ndarray], None] | None


def slot_of(node: Node, outputs: int) -> Slot | str:
    """What of a layer can be changed, or why nothing can.

    Args:
        node: a Conv, ConvTranspose, Gemm or MatMul.
        outputs: its channels.
    """
    gain = _gain(node, outputs)
    shift = _behind(node, outputs) if node.op == "MatMul" else _inside(node, outputs)
    return shift if isinstance(shift, str) else Slot(node, outputs, shift, gain)


def dequantized(tensor: gs.Tensor | None) -> Node | None:
    """The DequantizeLinear that gives a tensor."""
    made = None if tensor is None else producer(tensor)
    return made if made is not None and made.standard and made.op == "DequantizeLinear" else None


def _replace(node: Node, index: int, values: np.ndarray) -> None:
    """Let a node read other values in the place of a constant of its own."""
    old = node.inputs[index]
    assert node.graph is not None
    held = new_constant(node.graph, old.name, values.astype(old.dtype).reshape(old.shape))
    node.inputs = [held if n == index else t for n, t in enumerate(node.inputs)]
    discard(node.graph, old)


def _gain(node: Node, outputs: int) -> Callable[[np.ndarray], None] | None:
    weight = node.inputs[1]
    made = producer(weight)
    if isinstance(weight, Constant):
        return _scaling(node, 1, _spread(node, tuple(weight.shape), outputs))
    if made is None or not made.standard or sole_user(weight) is None or not made.inputs:
        return None
    held = made.inputs[-1]
    if made.op == "Mul" and isinstance(held, Constant):
        return _scaling(made, 1, _spread(node, tuple(held.shape), outputs))
    if made.op != "DequantizeLinear":
        return gain_behind(node, outputs)
    integers, held = made.inputs[:2]
    if not isinstance(integers, Constant):
        return None
    rank = len(integers.shape)
    axes = weight_channels(node.op, 1, node.attrs, rank)
    along = int(made.attrs.get("axis", 1)) % rank
    whole = "block_size" not in made.attrs and axes == (along,)
    return _scaling(made, 1, (outputs,)) if whole and tuple(held.shape) == (outputs,) else None


def _spread(node: Node, shape: tuple[int, ...], outputs: int) -> tuple[int, ...] | None:
    """The shape in which a number for each output broadcasts to weights, or to their scales."""
    axes = weight_channels(node.op, 1, node.attrs, len(shape))
    if len(axes) != 1 or shape[axes[0]] != outputs:
        return None
    return tuple(outputs if axis == axes[0] else 1 for axis in range(len(shape)))


def _scaling(
    holder: Node, index: int, shape: tuple[int, ...] | None
) -> Callable[[np.ndarray], None] | None:
    """Multiplies a constant of floats by a number for each output."""
    held = holder.inputs[index]
    if shape is None or not owned(held) or held.dtype.kind != "f":
        return None

    def multiply(factors: np.ndarray) -> None:
        values = holder.inputs[index].values.astype(np.float64)
        _replace(holder, index, values * factors.reshape(shape))

    return multiply


def _inside(node: Node, outputs: int) -> Callable[[np.ndarray, np.ndarray], None] | str:
    """The bias that a layer takes itself."""
    bias = input_or_none(node, 2)
    if bias is None:
        return _added(node)
    if isinstance(bias, Constant):
        beta = float(node.attrs.get("beta", 1.0)) if node.op == "Gemm" else 1.0
        if not owned(bias) or math.prod(bias.shape) != outputs or bias.shape[-1] != outputs:
            return f"the bias of {node.label} is shared, or no number for each channel"
        if not beta:
            return f"{node.label} multiplies its bias by 0"

        def add(gain: np.ndarray, shift: np.ndarray) -> None:
            values = node.inputs[2].values.astype(np.float64).reshape(-1)
            _replace(node, 2, values * gain + shift / beta)

        return add
    held = dequantized(bias)
    if held is None or not owned(bias_steps := held.inputs[0]) or sole_user(bias) is None:
        return f"the bias of {node.label} is computed"
    scale = held.inputs[1]
    if bias_steps.dtype != np.int32 or not owned(scale) or math.prod(bias_steps.shape) != outputs:
        return f"the bias of {node.label} is no int32 for each channel"
    return lambda gain, shift: _restep(held, gain, shift)


def _restep(held: Node, gain: np.ndarray, shift: np.ndarray) -> None:
    """Change a bias of integers whose scale is that of input and weights, these already with their gain."""
    scale = held.inputs[1].values.astype(np.float64).reshape(-1)
    values = held.inputs[0].values.astype(np.float64) * scale
    finer = gain if scale.size == gain.size else np.ones(1)
    made = np.maximum(scale * finer, SMALLEST_SCALE).astype(np.float32)
    steps = np.rint((values * gain + shift) / made.astype(np.float64))
    _replace(held, 0, np.clip(steps, -REACH, REACH))
    _replace(held, 1, made)


def _added(node: Node) -> Callable[[np.ndarray, np.ndarray], None] | str:
    """A bias that a layer does not have yet."""
    if node.op == "Gemm" and int(node.graph.opset) < 11:  # type: ignore[union-attr]
        return f"{node.label} takes no bias that it lacks"
    read, weight = dequantized(node.inputs[0]), dequantized(node.inputs[1])
    whole = read is not None and weight is not None and _integer(read)
    if whole and not all(isinstance(n.inputs[1], Constant) for n in (read, weight) if n):
        return f"scales of {node.label} are computed"

    def add(gain: np.ndarray, shift: np.ndarray) -> None:
        graph = node.graph
        assert graph is not None
        if node.op == "Gemm":
            node.attrs["beta"] = 1.0
        base = f"{node.label}/bias"
        if not whole or read is None or weight is None:
            kind = float_type(node.inputs[1])
            node.inputs = [*node.inputs[:2], new_constant(graph, base, shift.astype(kind))]
            return
        scales = (n.inputs[1].values.astype(np.float64).reshape(-1) for n in (read, weight))
        scale = np.maximum(math.prod(scales), SMALLEST_SCALE).astype(np.float32)
        steps = np.rint(shift / scale.astype(np.float64))
        held = [
            new_constant(
                graph, f"{base}_quantized", np.clip(steps, -REACH, REACH).astype(np.int32)
            ),
            new_constant(graph, f"{base}_scale", scale if scale.size > 1 else scale.reshape(())),
        ]
        made = new_tensor(graph, f"{base}_dequantized")
        attrs: dict[str, object] = {"axis": 0} if scale.size > 1 else {}
        insert(node, "DequantizeLinear", held, [made], attrs).order -= 0.5
        node.inputs = [*node.inputs[:2], made]

    return add


def _integer(read: Node) -> bool:
    """Whether what is dequantized has the unsigned type of kernels that take integers for a bias."""
    zero = input_or_none(read, 2)
    return isinstance(zero, Constant) and zero.dtype == np.uint8


def _behind(node: Node, outputs: int) -> Callable[[np.ndarray, np.ndarray], None] | str:
    """The vector that an Add puts on a MatMul."""
    tensor = node.outputs[0]
    reader = sole_user(tensor)
    while reader is not None and reader.op in ("QuantizeLinear", "DequantizeLinear"):
        tensor = reader.outputs[0]
        reader = sole_user(tensor)
    why = f"{node.label} takes no bias, and no Add behind it holds one"
    if reader is None or not reader.standard or reader.op != "Add":
        return why
    add, index = reader, 1 if reader.inputs[0] is tensor else 0
    held = add.inputs[index]
    if not owned(held) or held.shape[-1:] != (outputs,) or math.prod(held.shape) != outputs:
        return why

    def shift_it(gain: np.ndarray, shift: np.ndarray) -> None:
        _replace(
            add, index, add.inputs[index].values.astype(np.float64) + shift.reshape(held.shape)
        )

    return shift_it
