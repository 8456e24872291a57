"""Fold the multiplication by or addition of a constant into the linear layers behind it.

    W (s x) + b = (W s) x + b                        always
    W (x + t) + b = W x + (b + W t)                  where the layer pads nothing
    W (s x + t) + b = (W s) (x + t / s) + b          where it does: one node less
    (x + t) W + b = x W + (b + t W)                  MatMul, then an Add that is the bias

``s`` and ``t`` are numbers or one number per input channel. Padding is zeros, which a scale leaves
alone and a shift does not. A scale may go into several layers, if nothing else reads it.

Refuses: a constant that varies along another axis than the input channels, or that makes ``x``
larger, or may; division by zero; a reader that is no layer; weights that are not constant, or
shared; a bias that is computed at run time; a part of a written-out normalization or Gelu, which runtimes
look for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from graphopt.ir.graph import Node
from graphopt.ir.surgery import Scope, bypass, new_constant, replace, sole_user
from graphopt.pass_base import Context, Edit, Pass, Skip
from graphopt.passes.folding._absorption import (
    absorb_before,
    input_map,
    layer_after,
    layers_after,
    shiftable,
)
from graphopt.passes.folding._affine_maps import AffineMap, affine_map, constant_operand
from graphopt.passes.folding._folded_constants import owned, rounded, spend
from graphopt.passes.folding._idioms import in_idiom
from graphopt.passes.folding._linear_layers import (
    CONVOLUTIONS,
    PRODUCTS,
    LinearLayer,
    cannot_become,
    install,
)

LAYERS = (*CONVOLUTIONS, *PRODUCTS)


@dataclass(frozen=True)
class FoldAffineForward(Pass):
    """Mul, Div, Add and Sub of a constant go into the layer behind them."""

    name = "fold-affine-forward"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        for node in context.nodes(graph, "Mul", "Div", "Add", "Sub"):
            if constant_operand(node) is None or in_idiom(node, context):
                continue
            outcome = (
                absorb_before(node, LAYERS, context)
                or _scale_into_all(node, context)
                or _scale_behind_shift(node, context)
                or _shift_before_product(node, context)
            )
            if outcome is not None:
                yield outcome


def _scale_into_all(node: Node, context: Context) -> Edit | Skip | None:
    """W_i (s x) = (W_i s) x for all layers that read s x."""
    layers, operand = layers_after(node, LAYERS, context), constant_operand(node)
    if node.op not in ("Mul", "Div") or len(layers) < 2 or operand is None:
        return None
    affine = input_map(node, operand[0], layers[0], context)
    if affine is None or affine.scale is None:
        return None
    why = _scale(layers, affine.scale, context)
    if why:
        return Skip(node, why)
    bypass(node, operand[0])
    return Edit(node, f"folded into {', '.join(layer.node.label for layer in layers)}")


def _scale_behind_shift(node: Node, context: Context) -> Edit | Skip | None:
    """W (s x + t) = (W s) (x + t / s), where ``node`` is the product s x."""
    shift = sole_user(node.outputs[0])
    if node.op not in ("Mul", "Div") or shift is None or shift.op not in ("Add", "Sub"):
        return None
    layers = layers_after(shift, LAYERS, context)
    operand, added = constant_operand(node), constant_operand(shift)
    if not layers or operand is None or added is None:
        return None
    inner = input_map(node, operand[0], layers[0], context)
    outer = input_map(shift, node.outputs[0], layers[0], context)
    if inner is None or outer is None or inner.scale is None or outer.shift is None:
        return None
    if len(layers) == 1 and shiftable(layers[0], outer, context):
        return None
    scale = inner.scale if outer.scale is None else inner.scale * outer.scale
    if not scale.all() or not np.isfinite(scale).all():
        return Skip(node, "its scale is zero or not finite")
    values = rounded(outer.shift / scale, added[1].dtype)
    if isinstance(values, str):
        return Skip(node, values)
    values = _laid_out(values, layers[0])
    growth = values.nbytes - sum(c.nbytes for c in (operand[1], added[1]) if owned(c))
    why = _scale(layers, scale, context, growth)
    if why:
        return Skip(node, why)
    past = shift.label
    constant = new_constant(node.graph, added[1].name, values)  # type: ignore[arg-type]
    replace(shift, "Add", [operand[0], constant])
    labels = ", ".join(layer.node.label for layer in layers)
    return Edit(node, f"folded into {labels}, past {past}")


def _scale(layers: list[LinearLayer], scale: np.ndarray, context: Context, growth: int = 0) -> str:
    """Scale the inputs of layers, all or none; why none."""
    weights = [layer.before(AffineMap(scale))[0] for layer in layers]
    for layer, weight in zip(layers, weights, strict=True):
        assert weight is not None
        why = cannot_become(layer, weight)
        if why:
            return f"{layer.node.label}: {why}"
    why = spend(context, growth)
    if why:
        return why
    for layer, weight in zip(layers, weights, strict=True):
        install(layer, context, weight, None)
    return ""


def _laid_out(values: np.ndarray, layer: LinearLayer) -> np.ndarray:
    """A vector over input channels in the shape that broadcasts to the layer's input."""
    if values.size == 1:
        return values.reshape(())
    if layer.is_convolution:
        return values.reshape(-1, *[1] * (len(layer.weight.shape) - 2))
    return values.reshape(-1, 1) if layer.node.attrs.get("transA", 0) else values


def _shift_before_product(node: Node, context: Context) -> Edit | Skip | None:
    """(x + t) W + b = x W + (b + t W) for a MatMul, where ``node`` is x + t."""
    layer, operand = layer_after(node, ("MatMul",)), constant_operand(node)
    if layer is None or operand is None or len(layer.weight.shape) != 2:
        return None
    inner = input_map(node, operand[0], layer, context)
    product = layer.node.outputs[0]
    adding = sole_user(product)
    if inner is None or inner.shift is None or inner.scale is not None or adding is None:
        return None
    if adding.op not in ("Add", "Sub"):
        return None
    outer = affine_map(adding, product, *layer.output_axis(context), layer.outputs)
    added = constant_operand(adding)
    if outer is None or added is None:
        return None
    _, reached = layer.before(inner)
    assert reached is not None
    sign = 1.0 if adding.op == "Add" else -1.0
    values = rounded(
        added[1].values.astype(np.float64).reshape(-1) + sign * reached, added[1].dtype
    )
    if isinstance(values, str):
        return Skip(node, values)
    freed = sum(c.nbytes for c in (operand[1], added[1]) if owned(c))
    why = spend(context, values.nbytes - freed)
    if why:
        return Skip(node, why)
    constant = new_constant(node.graph, added[1].name, values)  # type: ignore[arg-type]
    adding.inputs = [constant if t is added[1] else t for t in adding.inputs]
    bypass(node, operand[0])
    return Edit(node, f"folded into {adding.label}, past {layer.node.label}")
