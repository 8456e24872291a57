"""Recognize a Swish (SiLU) that is written out.

    x sigmoid(a x) = Swish<alpha = a>(x)

A constant factor stays as a Mul. Source: Ramachandran et al., Searching for Activation Functions,
arXiv 1710.05941; ONNX Swish-24.

Refuses: an opset below 24; constants of more than one element, or that may raise the rank; a step
whose result something else reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from graphopt.ir.graph import Node
from graphopt.ir.surgery import Scope
from graphopt.pass_base import Context, Edit, Pass, Skip
from graphopt.passes.folding._scalar_expressions import (
    Expression,
    become,
    factor_of,
    factors,
    outermost_first,
    polynomial,
)

SWISH_OPSET = 24
SWISH_TYPES = frozenset({"float16", "float32", "float64"})


@dataclass(frozen=True)
class FuseSilu(Pass):
    """A written-out Swish becomes one node."""

    name = "fuse-silu"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        if int(graph.opset) < SWISH_OPSET:
            return
        for node in outermost_first(context.nodes(graph, "Mul", "Div")):
            dtype = context.facts.dtype(node.outputs[0])
            if dtype is not None and dtype.name in SWISH_TYPES and _fuse(node, dtype, context):
                yield Edit(node, "was the end of a Swish")


def _fuse(node: Node, dtype: np.dtype, context: Context) -> bool:
    seen = Expression()
    scale, leaves = factors(node.outputs[0], None, seen)
    if len(leaves) != 2:
        return False
    for (x, _), (gate, reader) in (leaves, leaves[::-1]):
        inside = Expression(list(seen.nodes), seen.rank)
        made = inside.inner(gate, reader)
        if made is None or made.op != "Sigmoid":
            continue
        inside.enter(made)
        terms = polynomial(made.inputs[0], x, made, inside)
        if terms is None or set(terms) != {1} or not inside.keeps_shape(x, context):
            continue
        factor = factor_of(scale, dtype)
        if len(inside.nodes) > 1 + factor.nodes:
            attrs: dict[str, object] = {} if terms[1] == 1.0 else {"alpha": terms[1]}
            become(node, "Swish", [x], attrs, factor)
            return True
    return False
