"""Remove element-wise operators that their input makes idle.

    |a| = a                        a >= 0 by the operator that computes it, or unsigned
    floor(n) = ceil(n) = round(n) = n          n integral: rounded, a sign, or cast from an integer
    sign(sign(x)) = sign(x)
    f(-x) = f(|x|) = f(x)          f even: |x|, cos, cosh, and the norms and the sum of squares

Infinities are integral here: rounding gives them back. NaN stays NaN.

Refuses: |a| of signed integers, whose lowest value is its own absolute; a graph output that would
become an alias of another tensor.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from graphopt.ir.arguments import feeding
from graphopt.ir.graph import Node
from graphopt.ir.ranges import value_range
from graphopt.ir.surgery import Scope, bypass, producer
from graphopt.pass_base import Context, Edit, Pass, Skip

ROUNDERS = ("Floor", "Ceil", "Round")
EVEN = ("Abs", "Cos", "Cosh", "ReduceL1", "ReduceL2", "ReduceSumSquare")

KEEPS_INTEGRAL = frozenset(
    {
        *("Abs", "Identity", "Neg", "Relu"),
        *("Expand", "Flatten", "Reshape", "Squeeze", "Transpose", "Unsqueeze"),
    }
)
"""Operators that give whole numbers for whole numbers."""

MAX_DEPTH = 6


@dataclass(frozen=True)
class FuseIdempotent(Pass):
    """Abs, Neg, Sign and rounding without effect are removed."""

    name = "fuse-idempotent"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        for node in context.nodes(graph, "Sign", *ROUNDERS, *EVEN):
            if _idle(node, context):
                if bypass(node):
                    yield Edit(node, f"{node.op} without effect")
                else:
                    yield Skip(node, "a graph returns it directly")
            elif node.op in EVEN:
                inner = feeding(node.inputs[0], node, "Neg", "Abs")
                if inner is not None and bypass(inner):
                    yield Edit(node, f"{inner.op} before it has no effect")


def _idle(node: Node, context: Context) -> bool:
    """Whether a node gives back its first input."""
    source = node.inputs[0]
    if node.op == "Abs":
        return value_range(source, context.facts)[0] >= 0
    if node.op == "Sign":
        return feeding(source, node, "Sign", shared=True) is not None
    return node.op in ROUNDERS and _is_integral(source, context)


def _is_integral(tensor: gs.Tensor, context: Context) -> bool:
    """Whether a tensor of floats holds whole numbers, infinities and NaN only."""
    for _ in range(MAX_DEPTH):
        node = producer(tensor)
        if node is None or not node.standard:
            return False
        if node.op in (*ROUNDERS, "Sign"):
            return True
        if node.op == "Cast":
            dtype = context.facts.dtype(node.inputs[0])
            return dtype is not None and dtype.kind in "iub"
        if node.op not in KEEPS_INTEGRAL:
            return False
        tensor = node.inputs[0]
    return False
