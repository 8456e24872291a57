"""Fold the one that a residual connection adds to a hard gate into the layer behind the gate.

    y + y h,  h = max(0, min(1, a z + b)),  z = W x + c
        = y clip(z', 1, 2),  z' = (a W) x + (a c + b + 1)

One node less for each squeeze-and-excitation block with a residual connection. Where y is infinite
and h is 0, the sum is NaN and the product infinite. Source: Hu et al., Squeeze-and-Excitation
Networks, arXiv 1709.01507.

Refuses: a gate that something else reads; a layer with a second user, shared weights, or weights or
a bias that are not constant; an opset below 11, whose Clip is another; doubles.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from graphopt.ir.pattern import Any, Match, Op, find
from graphopt.ir.surgery import (
    Scope,
    insert,
    new_constant,
    new_tensor,
    producer,
    replace,
    sole_user,
)
from graphopt.pass_base import Context, Edit, Pass, Skip
from graphopt.passes.folding._affine_maps import AffineMap
from graphopt.passes.folding._linear_layers import CONVOLUTIONS, install, linear_layer
from graphopt.passes.folding._scalar_expressions import ACTIVATION_TYPES

CLIP_INPUTS_OPSET = 11
LAYERS = (*CONVOLUTIONS, "Gemm")
GATE = Op(
    "Add",
    "sum",
    (Any("y"), Op("Mul", "product", (Any("y"), Op("HardSigmoid", "gate", (Any("z"),))))),
)


@dataclass(frozen=True)
class FoldResidualGate(Pass):
    """y + y HardSigmoid(z) becomes y Clip(z', 1, 2)."""

    name = "fold-residual-gate"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        if int(graph.opset) < CLIP_INPUTS_OPSET:
            return
        for match in find(context.nodes(graph, "Add"), GATE):
            outcome = _fold(match, context)
            if outcome is not None:
                yield outcome


def _fold(match: Match, context: Context) -> Edit | Skip | None:
    node, gate, z = match["sum"], match["gate"], match.tensor("z")
    made = producer(z)
    layer = linear_layer(made) if made is not None and made.op in LAYERS else None
    if layer is None or sole_user(z) is not gate or not layer.known_bias:
        return None
    dtype = layer.weight.dtype
    if dtype.name not in ACTIVATION_TYPES:
        return None
    alpha = float(gate.attrs.get("alpha", 0.2))
    beta = float(gate.attrs.get("beta", 0.5))
    weight, bias = layer.after(AffineMap(np.array([alpha]), np.array([beta + 1.0])))
    changed = install(layer, context, weight, bias)
    if isinstance(changed, str):
        return Skip(node, f"{layer.node.label}: {changed}")
    graph = node.graph
    assert graph is not None
    clipped = new_tensor(graph, f"{gate.outputs[0].name}/Clip")
    bounds = [
        new_constant(graph, f"{clipped.name}/{name}", np.asarray(value).astype(dtype))
        for name, value in (("min", 1.0), ("max", 2.0))
    ]
    insert(gate, "Clip", [z, *bounds], [clipped])
    replace(node, "Mul", [match.tensor("y"), clipped])
    return Edit(node, f"the residual connection went into {layer.node.label}")
