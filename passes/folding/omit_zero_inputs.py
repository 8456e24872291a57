"""Omit optional inputs that hold what the operator assumes anyway.

    LSTM(x, W, R, B, lens, 0, 0)   =>   LSTM(x, W, R, B, lens)
    Conv(x, W, 0)                  =>   Conv(x, W)
    Gemm(a, b, 0)                  =>   Gemm(a, b)

The initial states, peepholes and biases of recurrent layers, and the biases of Conv, ConvTranspose and Gemm,
are zero when they are absent (ONNX operator spec). Exporters build zero states of the right size at run
time; a tensor counts as zero when it is a constant of zeros or comes from one, or from ConstantOfShape, by
operators that only move elements.

Refuses: a Gemm without C below opset 11; an absent input that would stand before a given one keeps its place.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.graph import Constant, Node, Variable
from graphopt.ir.surgery import Scope, producer, remove
from graphopt.pass_base import Context, Edit, Pass, Skip

ZERO_BY_DEFAULT: dict[str, tuple[int, ...]] = {
    "Conv": (2,),
    "ConvTranspose": (2,),
    "GRU": (3, 5),
    "Gemm": (2,),
    "LSTM": (3, 5, 6, 7),
    "RNN": (3, 5),
}
"""Positions of optional inputs that are zero when they are absent."""

MOVING = frozenset(
    {
        "Cast",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    }
)
"""Operators whose results hold nothing but elements of their first input."""

MAX_STEPS = 16
"""Operators that are looked through on the way up to the zeros."""


@dataclass(frozen=True)
class OmitZeroInputs(Pass):
    """Biases and initial states that are zero are left out."""

    name = "omit-zero-inputs"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        for node in context.nodes(graph, *ZERO_BY_DEFAULT):
            if node.op == "Gemm" and int(graph.opset) < 11:
                continue
            found = [
                index
                for index in ZERO_BY_DEFAULT[node.op]
                if index < len(node.inputs) and is_zero(node.inputs[index])
            ]
            if found:
                _omit(node, found)
                yield Edit(node, f"{len(found)} inputs that are zero were omitted")


def is_zero(tensor: gs.Tensor) -> bool:
    """Whether all elements of a tensor are known to be zero."""
    for _ in range(MAX_STEPS):
        if not tensor.name:
            return False
        if isinstance(tensor, Constant):
            return tensor.dtype.kind == "f" and not np.any(tensor.values)
        node = producer(tensor)
        if node is None or not node.standard:
            return False
        if node.op == "ConstantOfShape":
            value = node.attrs.get("value")
            return value is None or (isinstance(value, Constant) and not np.any(value.values))
        if node.op not in MOVING:
            return False
        tensor = node.inputs[0]
    return False


def _omit(node: Node, positions: list[int]) -> None:
    inputs = list(node.inputs)
    gone = [inputs[index] for index in positions]
    for index in positions:
        inputs[index] = Variable("")
    while inputs and not inputs[-1].name:
        inputs.pop()
    node.inputs = inputs
    for tensor in gone:
        made = producer(tensor)
        if made is not None:
            remove(made)
