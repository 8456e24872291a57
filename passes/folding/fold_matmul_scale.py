"""Fold the multiplication by a constant into the weights of the matrix product before it.

    s (x W + b) = x (W s) + s b          s a number, or one number per column

The bias may be the C of a Gemm, or an Add or Sub of a constant behind a MatMul.

Refuses: a constant that varies along another axis than the last or makes the result larger;
division by zero; weights that are not constant floats, or shared; a product with a second user; a
bias that is not constant; a part of a written-out normalization or Gelu, which runtimes look for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from graphopt.ir.graph import Node
from graphopt.ir.surgery import Scope, bypass, new_constant, producer, sole_user
from graphopt.pass_base import Context, Edit, Pass, Skip
from graphopt.passes.folding._absorption import absorb_after
from graphopt.passes.folding._affine_maps import AffineMap, affine_map, constant_operand
from graphopt.passes.folding._folded_constants import owned, rounded, spend
from graphopt.passes.folding._idioms import in_idiom
from graphopt.passes.folding._linear_layers import PRODUCTS, cannot_become, install, linear_layer


@dataclass(frozen=True)
class FoldMatmulScale(Pass):
    """Mul and Div by a constant go into the weights of MatMul and Gemm."""

    name = "fold-matmul-scale"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        for node in context.nodes(graph, "Mul", "Div"):
            if in_idiom(node, context):
                continue
            outcome = absorb_after(node, PRODUCTS, context) or _past_bias(node, context)
            if outcome is not None:
                yield outcome


def _past_bias(node: Node, context: Context) -> Edit | Skip | None:
    """Scale a product and the Add or Sub of its bias: s (x W + b) = x (W s) + s b."""
    scaling = constant_operand(node)
    adding = None if scaling is None else producer(scaling[0])
    if scaling is None or adding is None or sole_user(scaling[0]) is not node:
        return None
    added = constant_operand(adding) if adding.op in ("Add", "Sub") else None
    layer = linear_layer(producer(added[0])) if added is not None else None
    if added is None or layer is None or layer.node.op not in PRODUCTS:
        return None
    if sole_user(added[0]) is not adding or not layer.known_bias:
        return None
    axis = layer.output_axis(context)
    inner = affine_map(adding, added[0], *axis, layer.outputs)
    outer = affine_map(node, scaling[0], *axis, layer.outputs)
    if inner is None or outer is None or outer.scale is None:
        return None
    if not outer.finite:
        return Skip(node, "it divides by zero or has constants that are not finite")
    weight, bias = layer.after(AffineMap(outer.scale))
    assert weight is not None
    values = rounded(_scaled(added[1].values, outer.scale), added[1].dtype)
    why = values if isinstance(values, str) else cannot_become(layer, weight)
    if why and isinstance(why, str):
        return Skip(node, f"{layer.node.label}: {why}")
    assert not isinstance(values, str)
    growth = values.nbytes - sum(c.nbytes for c in (scaling[1], added[1]) if owned(c))
    why = spend(context, growth)
    changed = why or install(layer, context, weight, bias)
    if isinstance(changed, str):
        return Skip(node, f"{layer.node.label}: {changed}")
    constant = new_constant(node.graph, added[1].name, values)  # type: ignore[arg-type]
    adding.inputs = [constant if t is added[1] else t for t in adding.inputs]
    bypass(node, scaling[0])
    return Edit(node, f"folded into {layer.node.label}, past {adding.label}")


def _scaled(values: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """A bias times one number, or times one number per column."""
    exact: np.ndarray = values.astype(np.float64) * (scale[0] if scale.size == 1 else scale)
    return exact
