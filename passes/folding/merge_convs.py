"""Merge two convolutions with nothing between, of which one has a kernel of size 1.

    W2 * (W1 * x + b1) + b2 = (W2 W1) * x + (W2 b1 + b2)

With the second of size 1 the first's padding stays as it is, and strides multiply. With the first
of size 1 the padding of the second must see zeros, so there may be a b1 only without it.

Refuses: more weights or more multiplications than before; groups; weights or a bias that are not
constant; shared weights; a first convolution with a second user.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from graphopt.ir.graph import Node
from graphopt.ir.surgery import Scope, input_or_none, new_constant, producer, replace, sole_user
from graphopt.pass_base import Context, Edit, Pass, Skip
from graphopt.passes.folding._folded_constants import owned, rounded, spend
from graphopt.passes.folding._linear_layers import SHARED, LinearLayer, linear_layer, unpadded


@dataclass(frozen=True)
class MergeConvs(Pass):
    """Two convolutions in a row become one, where that is less work."""

    name = "merge-convs"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        for node in context.nodes(graph, "Conv"):
            made = producer(node.inputs[0])
            if made is None or made.op != "Conv" or sole_user(node.inputs[0]) is not node:
                continue
            first, second = linear_layer(made), linear_layer(node)
            if first is None or second is None or not _mergeable(first, second):
                continue
            if not owned(first.weight) or not owned(second.weight):
                yield Skip(node, f"{made.label}: {SHARED}")
                continue
            label = made.label
            why = _merge(first, second, context)
            yield Skip(node, why) if why else Edit(node, f"merged with {label}")


def _pointwise(layer: LinearLayer) -> bool:
    return all(size == 1 for size in layer.weight.shape[2:])


def _strides(node: Node) -> list[int]:
    return [int(stride) for stride in node.attrs.get("strides") or ()]


def _mergeable(first: LinearLayer, second: LinearLayer) -> bool:
    """Whether one convolution computes both, with less work."""
    if first.groups != 1 or second.groups != 1 or not (first.known_bias and second.known_bias):
        return False
    if first.outputs != second.inputs or len(first.weight.shape) != len(second.weight.shape):
        return False
    inner, taps = first.outputs, int(np.prod(second.weight.shape[2:]))
    if _pointwise(second) and unpadded(second.node):
        plain = first.node.attrs.get("auto_pad", "NOTSET") in ("NOTSET", "VALID")
        if not plain and any(stride != 1 for stride in _strides(second.node)):
            return False
        taps = int(np.prod(first.weight.shape[2:]))
        return second.outputs * first.inputs * taps <= inner * (
            first.inputs * taps + second.outputs
        )
    if not _pointwise(first) or not unpadded(first.node):
        return False
    if any(stride != 1 for stride in _strides(first.node)):
        return False
    if unpadded(second.node):
        return second.outputs * first.inputs * taps <= inner * (
            first.inputs + second.outputs * taps
        )
    return first.bias is None and first.inputs <= inner


def _merge(first: LinearLayer, second: LinearLayer, context: Context) -> str:
    """Make the one with the kernel compute both; why not, where the result cannot be stored."""
    outer, inner = second.view[0], first.view[0]
    keep = first if _pointwise(second) and unpadded(second.node) else second
    taps = max(outer.shape[2], inner.shape[2])
    product = np.einsum("ojs,jit->oist", outer, inner).reshape(*outer.shape[:1], -1, taps)
    weight = rounded(product, keep.weight.dtype, ((1, 2), (0, 2)))
    bias = second.bias
    if first.bias is not None:
        passed = outer.sum(2) @ first.bias
        bias = passed if bias is None else bias + passed
    stored = None if bias is None else rounded(bias, keep.weight.dtype)
    for made in (weight, stored):
        if isinstance(made, str):
            return made
    assert not isinstance(weight, str)
    assert not isinstance(stored, str)
    biases = [input_or_none(layer.node, 2) for layer in (first, second)]
    before = [first.weight, second.weight, *(t for t in biases if t is not None and owned(t))]
    growth = weight.nbytes + (0 if stored is None else stored.nbytes)
    why = spend(context, growth - sum(t.nbytes for t in before))
    if why:
        return why
    _write(first, second, keep, weight, stored)
    return ""


def _write(
    first: LinearLayer,
    second: LinearLayer,
    keep: LinearLayer,
    weight: np.ndarray,
    bias: np.ndarray | None,
) -> None:
    graph = second.node.graph
    assert graph is not None
    shape = (second.outputs, first.inputs, *keep.weight.shape[2:])
    base = keep.weight.name.split("/folded")[0] + "/folded"
    inputs = [first.node.inputs[0], new_constant(graph, base, weight.reshape(shape))]
    if bias is not None:
        inputs.append(new_constant(graph, f"{base}/bias", bias))
    attrs = dict(keep.node.attrs)
    if keep is first and "strides" in second.node.attrs:
        both = [_strides(layer.node) or [1] * len(shape[2:]) for layer in (first, second)]
        attrs["strides"] = [a * b for a, b in zip(*both, strict=True)]
    replace(second.node, "Conv", inputs, attrs)
