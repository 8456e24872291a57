"""Merge matrix products of one input, as the queries, keys and values of an attention.

    x W1, x W2, ... = Split(x [W1 W2 ...])
    x W1 + b1, x W2 + b2, ... = Split(x [W1 W2 ...] + [b1 b2 ...])

The weights take as many bytes as before and are multiplied as often, in one product that is large
enough to use the hardware. Three products become two nodes, two with biases three.

Refuses: no fewer nodes; weights that are not constant, of rank 2 and of one height, or are shared;
a bias that is not one number per column; for Gemm, other attributes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.graph import Node
from graphopt.ir.surgery import Scope, insert, new_constant, new_tensor, remove, sole_user
from graphopt.pass_base import Context, Edit, Pass, Skip
from graphopt.passes.folding._affine_maps import affine_map, constant_operand
from graphopt.passes.folding._folded_constants import owned, spend
from graphopt.passes.folding._linear_layers import LinearLayer, linear_layer

SPLIT_INPUT_OPSET = 13
NEGATIVE_AXIS_OPSET = 11


@dataclass(frozen=True)
class _Branch:
    """One of the products.

    Attributes:
        layer: the product.
        last: the node that adds the bias, or the product itself.
        bias: what is added, one number per column; None for nothing.
    """

    layer: LinearLayer
    last: Node
    bias: np.ndarray | None


@dataclass(frozen=True)
class MergeLinearSiblings(Pass):
    """Products of one input by several constants become one product and a Split."""

    name = "merge-linear-siblings"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        groups: dict[tuple[object, ...], list[_Branch]] = {}
        for node in context.nodes(graph, "MatMul", "Gemm"):
            branch = _branch(node, context)
            if branch is not None:
                groups.setdefault(_key(branch), []).append(branch)
        for group in groups.values():
            added = sum(branch.last is not branch.layer.node for branch in group)
            if len(group) + added <= (3 if added else 2):
                continue
            why = _merge(group, context)
            node = group[0].layer.node
            yield Skip(node, why) if why else Edit(node, f"{len(group)} products became one")


def _branch(node: Node, context: Context) -> _Branch | None:
    layer = linear_layer(node)
    if layer is None or not layer.known_bias or not owned(layer.weight):
        return None
    if len(layer.weight.shape) != 2:
        return None
    if node.op == "Gemm":
        bias = layer.bias
        if bias is not None and (bias.size != layer.outputs or bias.shape[-1:] != (bias.size,)):
            return None
        return _Branch(layer, node, None if bias is None else bias.reshape(-1))
    adding = sole_user(node.outputs[0])
    added = None if adding is None or adding.op != "Add" else constant_operand(adding)
    if adding is None or added is None:
        return _Branch(layer, node, None)
    affine = affine_map(adding, node.outputs[0], *layer.output_axis(context), layer.outputs)
    if affine is None or affine.shift is None:
        return _Branch(layer, node, None)
    return _Branch(layer, adding, np.broadcast_to(affine.shift, (layer.outputs,)))


def _key(branch: _Branch) -> tuple[object, ...]:
    """What products must have in common to be merged."""
    node, layer = branch.layer.node, branch.layer
    attrs = tuple((k, node.attrs.get(k, d)) for k, d in (("transA", 0), ("alpha", 1.0)))
    biased = branch.bias is not None
    return (id(node.inputs[0]), node.op, layer.inputs, layer.weight.dtype, biased, attrs)


def _merge(group: list[_Branch], context: Context) -> str:
    """Put one product and a Split in the place of all; why not, where that cannot be."""
    first = group[0].layer.node
    graph, layers = first.graph, [branch.layer for branch in group]
    assert graph is not None
    opset, rank = int(graph.opset), layers[0].output_axis(context)[0]
    if rank is None and opset < NEGATIVE_AXIS_OPSET:
        return "the axis to split is not known"
    dtype = layers[0].weight.dtype
    weight = np.concatenate([layer.view[0, :, :, 0].T for layer in layers], axis=1).astype(dtype)
    inputs: list[gs.Tensor] = [first.inputs[0]]
    bias = None
    if group[0].bias is not None:
        parts = [branch.bias for branch in group if branch.bias is not None]
        bias = np.concatenate(parts).astype(dtype)
        old = [t for b in group for t in (*b.layer.node.inputs[2:], *b.last.inputs) if owned(t)]
        weights = [layer.weight for layer in layers]
        freed = {id(t): t.nbytes for t in old if all(t is not w for w in weights)}
        why = spend(context, bias.nbytes - sum(freed.values()))
        if why:
            return why
    inputs.append(new_constant(graph, f"{layers[0].weight.name}/merged", weight))
    merged = new_tensor(graph, f"{first.outputs[0].name}/merged")
    attrs = {k: v for k, v in first.attrs.items() if k in ("transA", "alpha")}
    if first.op == "Gemm" and bias is not None:
        inputs.append(new_constant(graph, f"{merged.name}/bias", bias))
    insert(first, first.op, inputs, [merged], attrs)
    if first.op == "MatMul" and bias is not None:
        summed = new_tensor(graph, f"{merged.name}/biased")
        addend = new_constant(graph, f"{merged.name}/bias", bias)
        insert(first, "Add", [merged, addend], [summed])
        merged = summed
    axis = -1 if rank is None else rank - 1
    _split(group, merged, axis)
    return ""


def _split(group: list[_Branch], merged: gs.Tensor, axis: int) -> None:
    """Compute all results from the merged one."""
    first = group[0].layer.node
    graph = first.graph
    assert graph is not None
    sizes = [branch.layer.outputs for branch in group]
    inputs, attrs = [merged], {"axis": axis}
    if int(graph.opset) < SPLIT_INPUT_OPSET:
        insert(
            first, "Split", inputs, [b.last.outputs[0] for b in group], {**attrs, "split": sizes}
        )
    else:
        lengths = new_constant(graph, f"{merged.name}/split", np.array(sizes, np.int64))
        insert(first, "Split", [*inputs, lengths], [b.last.outputs[0] for b in group], dict(attrs))
    for branch in group:
        remove(branch.last)
