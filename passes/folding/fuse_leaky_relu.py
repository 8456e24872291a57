"""Recognize a LeakyRelu that is written out.

    max(x, a x) = LeakyRelu<alpha = a>(x),   0 < a < 1
    min(x, a x) = LeakyRelu<alpha = a>(x),   a > 1

Source: ONNX LeakyRelu-6.

Refuses: another slope; doubles, which runtimes have no kernel for; a constant of more than one
element, or that may raise the rank; a product that something else reads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from graphopt.ir.graph import Node
from graphopt.ir.surgery import Scope, replace
from graphopt.pass_base import Context, Edit, Pass, Skip
from graphopt.passes.folding._scalar_expressions import (
    ACTIVATION_TYPES,
    Expression,
    polynomial,
)


@dataclass(frozen=True)
class FuseLeakyRelu(Pass):
    """A maximum of a tensor and a part of it becomes a LeakyRelu."""

    name = "fuse-leaky-relu"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        if int(graph.opset) < 7:
            return
        for node in context.nodes(graph, "Max", "Min"):
            dtype = context.facts.dtype(node.outputs[0])
            if dtype is not None and dtype.name in ACTIVATION_TYPES and _fuse(node, context):
                yield Edit(node, "was the end of a LeakyRelu")


def _fuse(node: Node, context: Context) -> bool:
    if len(node.inputs) != 2:
        return False
    for x, part in (node.inputs, node.inputs[::-1]):
        seen = Expression()
        terms = polynomial(part, x, node, seen)
        if terms is None or set(terms) != {1} or not seen.keeps_shape(x, context):
            continue
        slope = terms[1]
        if (0 < slope < 1) if node.op == "Max" else (1 < slope < math.inf):
            replace(node, "LeakyRelu", [x], {"alpha": slope})
            return True
    return False
