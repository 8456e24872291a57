"""Merge two matrix products by constants with nothing between.

    (x W1 + b1) W2 + b2 = x (W1 W2) + (b1 W2 + b2)

Refuses: more weights, and so more multiplications, than before: low-rank factors stay; stacks of
weights; weights so large that merging them would take long; weights or a C that are not constant, or
a C that varies by row; a transposed x; shared weights; a first product with a second user.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from graphopt.ir.graph import Node
from graphopt.ir.surgery import Scope, input_or_none, new_constant, producer, replace, sole_user
from graphopt.pass_base import Context, Edit, Pass, Skip
from graphopt.passes.folding._folded_constants import owned, rounded, spend
from graphopt.passes.folding._linear_layers import PRODUCTS, SHARED, LinearLayer, linear_layer

MAX_MACS = 1 << 31
"""Multiply-accumulates that computing the merged weights may take: a second or so."""


@dataclass(frozen=True)
class MergeMatmuls(Pass):
    """Two products by constants in a row become one, where that is less work."""

    name = "merge-matmuls"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        for node in context.nodes(graph, *PRODUCTS):
            made = producer(node.inputs[0])
            if made is None or made.op not in PRODUCTS or sole_user(node.inputs[0]) is not node:
                continue
            first, second = linear_layer(made), linear_layer(node)
            if first is None or second is None or not _mergeable(first, second):
                continue
            label = made.label
            if not owned(first.weight) or not owned(second.weight):
                yield Skip(node, f"{label}: {SHARED}")
                continue
            why = _merge(first, second, context)
            yield Skip(node, why) if why else Edit(node, f"merged with {label}")


def _mergeable(first: LinearLayer, second: LinearLayer) -> bool:
    """Whether one product computes both, with less work."""
    for layer in (first, second):
        if len(layer.weight.shape) != 2 or layer.node.attrs.get("transA", 0):
            return False
        if not layer.known_bias or _row(layer) is None:
            return False
    inner = first.outputs
    if second.inputs != inner or first.inputs * inner * second.outputs > MAX_MACS:
        return False
    return first.inputs * second.outputs <= inner * (first.inputs + second.outputs)


def _row(layer: LinearLayer) -> np.ndarray | None:
    """What a layer adds to each row, zeros for nothing; None where it varies by row."""
    if layer.bias is None:
        return np.zeros(layer.outputs)
    if layer.bias.size > 1 and layer.bias.size != layer.bias.shape[-1]:
        return None
    return np.broadcast_to(layer.bias.reshape(-1), (layer.outputs,))


def _matrix(layer: LinearLayer) -> np.ndarray:
    """The weights as float64 [output, input], with Gemm's alpha applied."""
    values: np.ndarray = layer.view[0, :, :, 0] * float(layer.node.attrs.get("alpha", 1.0))
    return values


def _merge(first: LinearLayer, second: LinearLayer, context: Context) -> str:
    """Make the second product compute both; why not, where the result cannot be stored."""
    node, outer = second.node, _matrix(second)
    dtype = second.weight.dtype
    weight = rounded((outer @ _matrix(first)).T, dtype, ((0,), (1,)))
    rows = [_row(first), _row(second)]
    assert rows[0] is not None
    assert rows[1] is not None
    biased = first.bias is not None or second.bias is not None
    bias = rounded(outer @ rows[0] + rows[1], dtype) if biased else None
    for made in (weight, bias):
        if isinstance(made, str):
            return made
    assert not isinstance(weight, str)
    assert not isinstance(bias, str)
    old = [input_or_none(layer.node, 2) for layer in (first, second)]
    before = [first.weight, second.weight, *(t for t in old if t is not None and owned(t))]
    growth = weight.nbytes + (0 if bias is None else bias.nbytes)
    why = spend(context, growth - sum(t.nbytes for t in before))
    if why:
        return why
    _write(first.node, node, second, weight, bias)
    return ""


def _write(
    first: Node, node: Node, second: LinearLayer, weight: np.ndarray, bias: np.ndarray | None
) -> None:
    graph = node.graph
    assert graph is not None
    base = second.weight.name.split("/folded")[0] + "/folded"
    inputs = [first.inputs[0], new_constant(graph, base, weight)]
    if bias is None and "Gemm" not in (first.op, node.op):
        replace(node, "MatMul", inputs)
        return
    values = np.zeros(weight.shape[1], weight.dtype) if bias is None else bias
    replace(node, "Gemm", [*inputs, new_constant(graph, f"{base}/bias", values)])
