"""Recognize a HardSwish that is written out.

    s x clip(p x + q, 0, h) = s h x HardSigmoid<alpha = p / h, beta = q / h>(x)
                            = s h HardSwish(x)         p / h = 1/6, q / h = 1/2, from opset 14 on
    x HardSigmoid<alpha = 1/6, beta = 1/2>(x) = HardSwish(x)

The product and ``p x + q`` may be written in any order, the limits as a Clip (attributes or inputs)
or any of Relu, Min, Max. Mostly ``s h = 1``; else a Mul by it stays. The opset stays as it is.
Source: Howard et al., Searching for MobileNetV3, arXiv 1905.02244; ONNX HardSwish-14.

Refuses: a lower limit other than 0; constants of more than one element, or that may raise the rank;
doubles, which runtimes have no kernel for; a step whose result something else reads; a rewrite that
saves no node, now or once its Mul is folded into what follows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.graph import Node
from graphopt.ir.surgery import Scope, insert, new_tensor
from graphopt.pass_base import Context, Edit, Pass, Skip
from graphopt.passes.folding._absorption import takes_scale
from graphopt.passes.folding._scalar_expressions import (
    ACTIVATION_TYPES,
    Expression,
    Factor,
    become,
    clamped,
    close,
    factor_of,
    factors,
    outermost_first,
    polynomial,
)

HARD_SWISH_OPSET = 14


@dataclass(frozen=True)
class FuseHardSwish(Pass):
    """A written-out HardSwish becomes one node, or two where the opset has none."""

    name = "fuse-hard-swish"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        if int(graph.opset) < 7:
            return
        for node in outermost_first(context.nodes(graph, "Mul", "Div")):
            dtype = context.facts.dtype(node.outputs[0])
            if dtype is not None and dtype.name in ACTIVATION_TYPES and _fuse(node, dtype, context):
                yield Edit(node, "was the end of a HardSwish")


@dataclass(frozen=True)
class _Gate:
    """factor * HardSigmoid<alpha, beta>(x)."""

    factor: float
    alpha: float
    beta: float


def _fuse(node: Node, dtype: np.dtype, context: Context) -> bool:
    seen = Expression()
    scale, leaves = factors(node.outputs[0], None, seen)
    if len(leaves) != 2:
        return False
    for (x, _), (gate, reader) in (leaves, leaves[::-1]):
        inside = Expression(list(seen.nodes), seen.rank)
        found = _gate(gate, reader, x, inside)
        if found is None or not inside.keeps_shape(x, context):
            continue
        factor = factor_of(scale * found.factor, dtype)
        swish = close(found.alpha, 1 / 6, dtype) and close(found.beta, 0.5, dtype)
        swish = swish and int(node.graph.opset) >= HARD_SWISH_OPSET  # type: ignore[union-attr]
        saved = len(inside.nodes) - (1 if swish else 2) - factor.nodes
        written_out = inside.nodes[-1].op != "HardSigmoid"
        if saved < 0 or (saved == 0 and not (written_out and takes_scale(node, context))):
            continue
        _write(node, x, found, swish, factor)
        return True
    return False


def _gate(tensor: gs.Tensor, reader: Node | None, x: gs.Tensor, seen: Expression) -> _Gate | None:
    """Read a tensor as a HardSigmoid of ``x``, written out or not."""
    made = seen.inner(tensor, reader)
    if made is not None and made.op == "HardSigmoid" and made.inputs[0] is x:
        seen.enter(made)
        return _Gate(1.0, float(made.attrs.get("alpha", 0.2)), float(made.attrs.get("beta", 0.5)))
    limits = clamped(tensor, reader, seen)
    if limits is None:
        return None
    data, last, low, high = limits
    if low != 0 or not 0 < high < float("inf"):
        return None
    terms = polynomial(data, x, last, seen)
    if terms is None or set(terms) - {0, 1}:
        return None
    return _Gate(high, terms.get(1, 0.0) / high, terms.get(0, 0.0) / high)


def _write(node: Node, x: gs.Tensor, gate: _Gate, swish: bool, factor: Factor) -> None:
    if swish:
        become(node, "HardSwish", [x], {}, factor)
        return
    graph = node.graph
    assert graph is not None
    inner = new_tensor(graph, f"{node.outputs[0].name}/HardSigmoid")
    insert(node, "HardSigmoid", [x], [inner], {"alpha": gate.alpha, "beta": gate.beta})
    become(node, "Mul", [x, inner], {}, factor)
