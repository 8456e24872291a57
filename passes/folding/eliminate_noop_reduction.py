"""Remove reductions over axes of size 1.

    reduce(x, axes) = x             where every axis has size 1 and is kept
    reduce(x, axes) = squeeze(x)    where it is not kept
    reduce(x, {})   = x             with noop_with_empty_axes

for Sum, Mean, Max, Min and Prod; a ReduceL1 becomes Abs and a ReduceSumSquare x * x where the axes
are kept. A global pool over spatial axes of size 1 goes too.

Refuses: axes or sizes that are not proven; ReduceL2, ReduceLogSum and ReduceLogSumExp, which round.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from graphopt.ir.arguments import dims, reduced_axes, with_axes
from graphopt.ir.graph import Node
from graphopt.ir.surgery import Scope, bypass, replace
from graphopt.pass_base import Context, Edit, Pass, Skip

PLAIN = ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd")
ELEMENTWISE = {"ReduceL1": "Abs", "ReduceSumSquare": "Mul"}
POOLS = ("GlobalAveragePool", "GlobalMaxPool")


@dataclass(frozen=True)
class EliminateNoopReduction(Pass):
    """Reductions over axes of size 1 are removed."""

    name = "eliminate-noop-reduction"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        for node in context.nodes(graph, *PLAIN, *ELEMENTWISE, *POOLS):
            axes = _unit_axes(node, context)
            if axes is None:
                continue
            kept = bool(node.attrs.get("keepdims", 1)) or not axes
            if node.op in ELEMENTWISE:
                if kept:
                    op = ELEMENTWISE[node.op]
                    replace(node, op, [node.inputs[0]] * (2 if op == "Mul" else 1))
                    yield Edit(node, f"{node.op} over axes of size 1 became {op}")
            elif not kept:
                inputs, attrs = with_axes(graph, "Squeeze", node.inputs[0], axes)
                replace(node, "Squeeze", inputs, attrs)
                yield Edit(node, f"{node.op} over axes of size 1 became Squeeze")
            elif bypass(node):
                yield Edit(node, f"{node.op} over axes of size 1")
            else:
                yield Skip(node, "a graph returns it directly")


def _unit_axes(node: Node, context: Context) -> list[int] | None:
    """The axes that a node reduces, when all of them have size 1."""
    shape = dims(node.inputs[0], context.facts)
    if node.op in POOLS:
        axes = None if shape is None else list(range(2, len(shape)))
    else:
        axes = reduced_axes(node, context.facts)
    if shape is None or axes is None or any(shape[axis] != 1 for axis in axes):
        return None
    return axes
