"""Recognize a Softplus that is written out.

    log(1 + exp(x)) = Softplus(x)

Where exp(x) leaves the range of the type, the written-out form gives infinity and Softplus its true
value, which is x up to rounding. Source: ONNX Softplus-1.

Refuses: doubles, which runtimes have no kernel for; a constant that may raise the rank; a step
whose result something else reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from graphopt.ir.surgery import Scope, replace
from graphopt.pass_base import Context, Edit, Pass, Skip
from graphopt.passes.folding._scalar_expressions import ACTIVATION_TYPES, Expression, line


@dataclass(frozen=True)
class FuseSoftplus(Pass):
    """A written-out Softplus becomes one node."""

    name = "fuse-softplus"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        if int(graph.opset) < 7:
            return
        for node in context.nodes(graph, "Log"):
            dtype = context.facts.dtype(node.outputs[0])
            if dtype is None or dtype.name not in ACTIVATION_TYPES:
                continue
            seen = Expression()
            power, reader, slope, offset = line(node.inputs[0], node, seen)
            made = seen.inner(power, reader)
            if made is None or made.op != "Exp" or (slope, offset) != (1.0, 1.0):
                continue
            if seen.keeps_shape(made.inputs[0], context):
                replace(node, "Softplus", [made.inputs[0]])
                yield Edit(node, "was the end of a Softplus")
