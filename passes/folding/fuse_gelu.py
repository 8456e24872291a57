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
    Factor,
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
            found = written_gelu(node, context)
            if found is not None:
                become(node, "Gelu", [found.x], found.attrs, found.factor)
                yield Edit(node, "was the end of a Gelu")


@dataclass(frozen=True)
class WrittenGelu:
    """A Gelu that is written out: its argument, its kind, what it is multiplied by, its nodes."""

    x: gs.Tensor
    attrs: dict[str, object]
    factor: Factor
    nodes: list[Node]


def written_gelu(node: Node, context: Context) -> WrittenGelu | None:
    """Read the Gelu whose last node is ``node``, a Mul or Div; None where there is none."""
    dtype = context.facts.dtype(node.outputs[0])
    if dtype is None or dtype.name not in ACTIVATION_TYPES:
        return None
    seen = Expression()
    scale, leaves = factors(node.outputs[0], None, seen)
    if len(leaves) != 2:
        return None
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
        return WrittenGelu(x, attrs, factor_of(2 * scale * slope, dtype), inside.nodes)
    return None


def _is_argument(made: Node, x: gs.Tensor, seen: Expression, dtype: np.dtype) -> bool:
    """Whether Erf or Tanh reads what it does in a Gelu of ``x``."""
    wanted = ERF_TERMS if made.op == "Erf" else TANH_TERMS
    terms = polynomial(made.inputs[0], x, made, seen)
    if terms is None:
        return False
    powers = {power for power, value in terms.items() if value}
    return powers == wanted.keys() and all(close(terms[p], wanted[p], dtype) for p in powers)
