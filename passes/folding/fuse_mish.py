"""Recognize a Mish that is written out.

    x tanh(softplus(x)) = Mish(x)

Source: Misra, Mish: A Self Regularized Non-Monotonic Activation Function, arXiv 1908.08681; ONNX
Mish-18. ``fuse-softplus`` finds a Softplus that is itself written out.

Refuses: an opset below 18; doubles, which runtimes have no kernel for; a step whose result
something else reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from graphopt.ir.pattern import Any, Op, find
from graphopt.ir.surgery import Scope, replace
from graphopt.pass_base import Context, Edit, Pass, Skip
from graphopt.passes.folding._scalar_expressions import ACTIVATION_TYPES

MISH_OPSET = 18
MISH = Op("Mul", "mul", (Any("x"), Op("Tanh", inputs=(Op("Softplus", inputs=(Any("x"),)),))))


@dataclass(frozen=True)
class FuseMish(Pass):
    """A written-out Mish becomes one node."""

    name = "fuse-mish"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        if int(graph.opset) < MISH_OPSET:
            return
        for match in find(context.nodes(graph, "Mul"), MISH):
            dtype = context.facts.dtype(match.tensor("x"))
            if dtype is not None and dtype.name in ACTIVATION_TYPES:
                replace(match["mul"], "Mish", [match.tensor("x")])
                yield Edit(match["mul"], "was the end of a Mish")
