"""Recognize a HardSigmoid that is written out.

    s clip(p x + q, 0, h) = s h HardSigmoid<alpha = p / h, beta = q / h>(x)

The limits may be a Clip (attributes or inputs) or any of Relu, Min, Max; ``p x + q`` may be written
in any order. Mostly ``s h = 1``; else a Mul by it stays. Source: ONNX HardSigmoid-6,
max(0, min(1, alpha x + beta)).

Refuses: a lower limit other than 0; constants of more than one element, or that may raise the rank;
doubles, which runtimes have no kernel for; a step whose result something else reads; a rewrite that
saves no node, now or once its Mul is folded into what follows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from graphopt.ir.graph import Node
from graphopt.ir.surgery import Scope
from graphopt.pass_base import Context, Edit, Pass, Skip
from graphopt.passes.folding._absorption import takes_scale
from graphopt.passes.folding._scalar_expressions import (
    ACTIVATION_TYPES,
    Expression,
    become,
    clamped,
    factor_of,
    factors,
    line,
    outermost_first,
)


@dataclass(frozen=True)
class FuseHardSigmoid(Pass):
    """A written-out HardSigmoid becomes one node."""

    name = "fuse-hard-sigmoid"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        if int(graph.opset) < 7:
            return
        for node in outermost_first(
            context.nodes(graph, "Mul", "Div", "Clip", "Relu", "Min", "Max")
        ):
            if _fuse(node, context):
                yield Edit(node, "was the end of a HardSigmoid")


def _fuse(node: Node, context: Context) -> bool:
    dtype = context.facts.dtype(node.outputs[0])
    if dtype is None or dtype.name not in ACTIVATION_TYPES:
        return False
    seen = Expression()
    scale, leaves = factors(node.outputs[0], None, seen)
    if len(leaves) != 1:
        return False
    limits = clamped(*leaves[0], seen)
    if limits is None:
        return False
    data, last, low, high = limits
    if low != 0 or not 0 < high < float("inf"):
        return False
    x, _, slope, offset = line(data, last, seen)
    factor = factor_of(scale * high, dtype)
    saved = len(seen.nodes) - 1 - factor.nodes
    if saved < 0 or not seen.keeps_shape(x, context):
        return False
    if saved == 0 and not (factor.nodes and takes_scale(node, context)):
        return False
    attrs: dict[str, object] = {"alpha": slope / high, "beta": offset / high}
    become(node, "HardSigmoid", [x], attrs, factor)
    return True
