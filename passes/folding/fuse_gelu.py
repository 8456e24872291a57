"""Recognize a Gelu that is written out.

    0.5 x (1 + erf(x / sqrt 2)) = Gelu(x)
    0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) = Gelu<approximate = "tanh">(x)

Products, the halves and the cubic polynomial may be written in any order and with Mul, Div or Pow.
Where the factor is not 0.5, a Mul by the rest stays. Source: Hendrycks, Gimpel, Gaussian Error
Linear Units, arXiv 1606.08415; ONNX Gelu-20.

Refuses: an opset below 20; doubles, which runtimes have no kernel for; constants of more than one
element, or that may raise the rank; a step whose result something else reads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.graph import Node
from graphopt.ir.surgery import Scope
from graphopt.pass_base import Context, Edit, Pass, Skip
from graphopt.passes.folding._scalar_expressions import (
    ACTIVATION_TYPES,
    Expression,
    become,
    close,
    factor_of,
    factors,
    line,
    outermost_first,
    polynomial,
)

GELU_OPSET = 20
ERF_TERMS = {1: math.sqrt(0.5)}
TANH_TERMS = {1: math.sqrt(2 / math.pi), 3: 0.044715 * math.sqrt(2 / math.pi)}


@dataclass(frozen=True)
class FuseGelu(Pass):
    """A written-out Gelu becomes one node."""

    name = "fuse-gelu"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        if int(graph.opset) < GELU_OPSET:
            return
        for node in outermost_first(context.nodes(graph, "Mul", "Div")):
            dtype = context.facts.dtype(node.outputs[0])
            if dtype is not None and dtype.name in ACTIVATION_TYPES and _fuse(node, dtype, context):
                yield Edit(node, "was the end of a Gelu")


def _fuse(node: Node, dtype: np.dtype, context: Context) -> bool:
    seen = Expression()
    scale, leaves = factors(node.outputs[0], None, seen)
    if len(leaves) != 2:
        return False
    for (x, _), (gate, reader) in (leaves, leaves[::-1]):
        inside = Expression(list(seen.nodes), seen.rank)
        core, below, slope, offset = line(gate, reader, inside)
        made = inside.inner(core, below)
        if made is None or made.op not in ("Erf", "Tanh") or not close(slope, offset, dtype):
            continue
        inside.enter(made)
        if not _is_argument(made, x, inside, dtype) or not inside.keeps_shape(x, context):
            continue
        attrs: dict[str, object] = {} if made.op == "Erf" else {"approximate": "tanh"}
        become(node, "Gelu", [x], attrs, factor_of(2 * scale * slope, dtype))
        return True
    return False


def _is_argument(made: Node, x: gs.Tensor, seen: Expression, dtype: np.dtype) -> bool:
    """Whether Erf or Tanh reads what it does in a Gelu of ``x``."""
    wanted = ERF_TERMS if made.op == "Erf" else TANH_TERMS
    terms = polynomial(made.inputs[0], x, made, seen)
    if terms is None:
        return False
    powers = {power for power, value in terms.items() if value}
    return powers == wanted.keys() and all(close(terms[p], wanted[p], dtype) for p in powers)
