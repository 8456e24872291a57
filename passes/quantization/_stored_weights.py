"""Weights that nodes compute from constants alone, such as codes of clustered ones: their rank, and gains.

A runtime computes them once, when it loads the model. A gain for each output is one more factor of that:

    W' = Mul(W, g),   g of a shape that broadcasts to W along the axis that counts outputs
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.graph import Constant, Node
from graphopt.ir.operators import weight_channels
from graphopt.ir.surgery import constant, insert, new_constant, new_tensor, producer, sole_user

MOVING = ("Cast", "Identity", "Slice", "Transpose")
"""What has the rank of its first input."""

READING = ("Gather", "GatherElements", "Reshape", "Slice", "Transpose")
"""What has the type of its first input, whatever the others are."""


def rank_of(tensor: gs.Tensor) -> int | None:
    """The rank of what nodes compute from constants, as passes write them; None where it is not that."""
    if isinstance(tensor, Constant):
        return len(tensor.shape)
    made = producer(tensor)
    if made is None or not made.standard:
        return None
    ranks = [rank_of(each) for each in made.inputs]
    if any(rank is None for rank in ranks):
        return None
    first = ranks[0]
    if made.op in MOVING:
        return first
    if made.op == "GatherElements":
        return first
    if made.op == "Gather" and first is not None and ranks[1] is not None:
        return first - 1 + ranks[1]
    wanted = constant(made.inputs[1]) if made.op == "Reshape" else None
    return None if wanted is None else int(wanted.size)


def gain_behind(node: Node, outputs: int) -> Callable[[np.ndarray], None] | None:
    """What multiplies the weights of a layer by a number for each output; None where nothing can.

    Args:
        node: a Conv, ConvTranspose, Gemm or MatMul, whose weights nodes compute from constants for it alone.
        outputs: its channels.
    """
    weight = node.inputs[1]
    rank = rank_of(weight)
    if rank is None or sole_user(weight) is None or node.graph is None:
        return None
    axes = weight_channels(node.op, 1, node.attrs, rank)
    if len(axes) != 1 or (node.op == "ConvTranspose" and int(node.attrs.get("group", 1)) > 1):
        return None
    shape = tuple(outputs if axis == axes[0] else 1 for axis in range(rank))

    def multiply(factors: np.ndarray) -> None:
        graph, held = node.graph, node.inputs[1]
        assert graph is not None
        values = factors.reshape(shape).astype(float_type(held))
        made = new_tensor(graph, f"{held.name}_scaled")
        insert(node, "Mul", [held, new_constant(graph, f"{held.name}_gain", values)], [made])
        node.inputs = [made if n == 1 else tensor for n, tensor in enumerate(node.inputs)]

    return multiply


def float_type(weight: gs.Tensor) -> np.dtype:
    """The type of floats of weights, as the constants tell that they are computed from."""
    made = producer(weight)
    while not isinstance(weight, Constant) or weight.dtype.kind != "f":
        if made is None or not made.inputs:
            return np.dtype(np.float32)
        reading = made.op in READING
        if not reading and len(made.inputs) < 2:
            return np.dtype(np.float32)
        weight = made.inputs[0 if reading else 1]
        made = producer(weight)
    return np.dtype(weight.dtype)
