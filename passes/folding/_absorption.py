"""Nodes that scale and shift, taken up by the linear layer before or behind them.

after:   s (W x + b) + t  =  (s W) x + (s b + t)
before:  W (s x + t) + b  =  (W s) x + (b + W t)      the shift only where nothing is padded
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_graphsurgeon as gs

from graphopt.ir.graph import Constant, Node
from graphopt.ir.surgery import bypass, producer, sole_user
from graphopt.pass_base import Context, Edit, Skip
from graphopt.passes.folding._affine_maps import AffineMap, affine_map, constant_operand
from graphopt.passes.folding._linear_layers import (
    CONVOLUTIONS,
    PRODUCTS,
    LinearLayer,
    install,
    linear_layer,
    unpadded,
)


def absorb_after(node: Node, ops: Sequence[str], context: Context) -> Edit | Skip | None:
    """Let the linear layer that feeds ``node`` do what ``node`` does, and take ``node`` out.

    Args:
        node: a node that scales and shifts.
        ops: the kinds of layers to look for.
        context: what is known and may be spent.

    Returns:
        What was done; None where there is no such layer.
    """
    for data in node.inputs:
        made = producer(data)
        if made is None or made.op not in ops or sole_user(data) is not node:
            continue
        layer = linear_layer(made)
        if layer is None:
            continue
        affine = affine_map(node, data, *layer.output_axis(context), layer.outputs)
        if affine is None or not biasable(layer, affine, context):
            continue
        if not layer.known_bias:
            return Skip(node, f"the bias of {made.label} is computed at run time")
        if not affine.finite:
            return Skip(node, "it divides by zero or has constants that are not finite")
        label = made.label
        weight, bias = layer.after(affine)
        changed = install(layer, context, weight, bias, [t for t in node.inputs if t is not data])
        if isinstance(changed, str):
            return Skip(node, f"{label}: {changed}")
        taken = bypass(node, changed.outputs[0])
        assert taken, "a sole user can always be taken out"
        return Edit(node, f"folded into {label}")
    return None


def absorb_before(node: Node, ops: Sequence[str], context: Context) -> Edit | Skip | None:
    """Let the linear layer that alone reads ``node`` do what ``node`` does, and take ``node`` out.

    Args:
        node: a node that scales and shifts.
        ops: the kinds of layers to look for.
        context: what is known and may be spent.

    Returns:
        What was done; None where there is no such layer, or its padding forbids a shift.
    """
    layer = layer_after(node, ops)
    if layer is None:
        return None
    for data in node.inputs:
        if isinstance(data, Constant):
            continue
        affine = input_map(node, data, layer, context)
        if affine is None or not shiftable(layer, affine, context):
            continue
        if affine.shift is not None and not layer.known_bias:
            return Skip(node, f"the bias of {layer.node.label} is computed at run time")
        if not affine.finite:
            return Skip(node, "it divides by zero or has constants that are not finite")
        label = layer.node.label
        weight, bias = layer.before(affine)
        bias = None if affine.shift is None else bias
        changed = install(layer, context, weight, bias, [t for t in node.inputs if t is not data])
        if isinstance(changed, str):
            return Skip(node, f"{label}: {changed}")
        taken = bypass(node, data)
        assert taken, "what is no graph output can always be taken out"
        return Edit(node, f"folded into {label}")
    return None


def input_map(
    node: Node, data: gs.Tensor, layer: LinearLayer, context: Context
) -> AffineMap | None:
    """What ``node`` does to ``data`` before a layer reads it, if it leaves the shape as it is."""
    rank, axis = layer.input_axis(context)
    affine = affine_map(node, data, rank, axis, layer.inputs)
    if affine is None or node.op == "BatchNormalization":
        return affine
    shape = context.facts.shape(data)
    ranks = [len(t.shape) for t in node.inputs if isinstance(t, Constant)]
    if shape is None:
        keeps = all(r == 0 or (rank is not None and r < rank) for r in ranks)
    else:
        keeps = all(r <= len(shape) for r in ranks) and rank in (None, len(shape))
    sizes = {part.size for part in (affine.scale, affine.shift) if part is not None}
    if not keeps or (sizes != {1} and (shape is None or shape[axis] != layer.inputs)):
        return None
    return affine


def layer_after(node: Node, ops: Sequence[str]) -> LinearLayer | None:
    """The linear layer that alone reads what ``node`` computes, as its data."""
    user = sole_user(node.outputs[0])
    if user is None or user.op not in ops or user.inputs[0] is not node.outputs[0]:
        return None
    return linear_layer(user)


def layers_after(node: Node, ops: Sequence[str], context: Context) -> list[LinearLayer]:
    """The linear layers that read what ``node`` computes as their data, if they alone read it.

    All have their channels on the same axis.
    """
    tensor = node.outputs[0]
    found: list[LinearLayer] = []
    if tensor.is_output or len({id(user) for user in tensor.outputs}) != len(tensor.outputs):
        return []
    for user in tensor.outputs:
        layer = linear_layer(user) if user.op in ops and user.graph is node.graph else None
        if layer is None or user.inputs[0] is not tensor:
            return []
        found.append(layer)
    axes = {(layer.input_axis(context), layer.inputs) for layer in found}
    return found if len(axes) == 1 else []


def takes_scale(node: Node, context: Context) -> bool:
    """Whether what reads ``node`` takes up a scale of it: layers, also past a shift, or a scale."""
    if layers_after(node, (*CONVOLUTIONS, *PRODUCTS), context):
        return True
    user = sole_user(node.outputs[0])
    if user is None or constant_operand(user) is None:
        return False
    return user.op in ("Mul", "Div") or bool(
        layers_after(user, (*CONVOLUTIONS, *PRODUCTS), context)
    )


def shiftable(layer: LinearLayer, affine: AffineMap, context: Context) -> bool:
    """Whether a shift of the layer's input is the same as one of its bias."""
    if affine.shift is None:
        return True
    if layer.node.op == "ConvTranspose":
        return False
    if layer.node.op == "Conv":
        return unpadded(layer.node)
    return biasable(layer, affine, context)


def biasable(layer: LinearLayer, affine: AffineMap, context: Context) -> bool:
    """Whether a shift has a bias to go to: a MatMul must be one that a Gemm can compute."""
    if affine.shift is None or layer.node.op != "MatMul":
        return True
    if int(layer.node.graph.opset) < 7 or len(layer.weight.shape) != 2:  # type: ignore[union-attr]
        return False
    return context.facts.rank(layer.node.inputs[0]) == 2
