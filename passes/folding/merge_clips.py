"""Merge chains of operators that limit values, and remove limits that hold anyway.

    relu(x) = max(x, 0)    clip(x, a, b) = min(max(x, a), b)

    clip(clip(x, a, b), c, d) = clip(x, clip(a, c, d), clip(b, c, d))        for a <= b and c <= d

So a chain of Relu, Clip, Max and Min with constant scalars is one of them. A limit goes when the
range of what it reads lies within, as Relu after Sigmoid, Softmax, Exp, |x|, x * x or another Relu,
also through operators that only move or average elements. All of these hand NaN on, before and
after.

Refuses: bounds that are not one constant value or that may broadcast x to a larger shape; a lower
bound above the upper one; an inner result that is used elsewhere; types that the merged operator
lacks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.arguments import feeding, keeps_shape
from graphopt.ir.graph import Node, Variable
from graphopt.ir.ranges import Range, bounds, value_range
from graphopt.ir.surgery import Scope, bypass, new_constant, replace, splat
from graphopt.pass_base import Context, Edit, Pass, Skip

LIMITS = ("Relu", "Clip", "Max", "Min")
TYPES = frozenset(
    {"float16", "float32", "float64", "int8", "uint8", "int32", "uint32", "int64", "uint64"}
)


@dataclass(frozen=True)
class MergeClips(Pass):
    """Chains of Relu, Clip, Max and Min become one; those without effect go."""

    name = "merge-clips"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        for node in context.nodes(graph, *LIMITS):
            outer = _limit(node, context)
            if outer is None:
                continue
            low, high = value_range(outer.source, context.facts)
            if outer.ends[0] <= low and high <= outer.ends[1]:
                if bypass(node, outer.source):
                    yield Edit(node, f"{node.op} without effect: its input lies within")
                else:
                    yield Skip(node, "a graph returns it directly")
                continue
            if _merge(node, outer, context):
                yield Edit(node, "merged with the limit before it")


@dataclass(frozen=True)
class _Limit:
    """What is limited, and by what."""

    source: gs.Tensor
    ends: Range
    dtype: np.dtype


def _limit(node: Node, context: Context) -> _Limit | None:
    dtype = context.facts.dtype(node.outputs[0])
    graph = node.graph
    if dtype is None or dtype.name not in TYPES or graph is None:
        return None
    source = node.inputs[0]
    if node.op == "Relu":
        return _Limit(source, (0, math.inf), dtype)
    if node.op == "Clip":
        ends = bounds(node, dtype, int(graph.opset))
        return None if ends is None or ends[0] > ends[1] else _Limit(source, ends, dtype)
    if len(node.inputs) != 2:
        return None
    for source, other in (node.inputs, node.inputs[::-1]):
        value = splat(other)
        if value is not None and keeps_shape(source, [other], context.facts):
            bound = value.item()
            ends = (bound, math.inf) if node.op == "Max" else (-math.inf, bound)
            return _Limit(source, ends, dtype)
    return None


def _merge(node: Node, outer: _Limit, context: Context) -> bool:
    """Let one node limit as ``node`` and the one before it do together; False where none can."""
    inner_node = feeding(outer.source, node, *LIMITS)
    inner = None if inner_node is None else _limit(inner_node, context)
    if inner is None or inner_node is None:
        return False
    low, high = (min(max(end, outer.ends[0]), outer.ends[1]) for end in inner.ends)
    if (low, high) == outer.ends:
        return bypass(inner_node, inner.source)
    graph = node.graph
    assert graph is not None
    opset, label = int(graph.opset), node.name or node.op
    kind = outer.dtype

    def scalar(value: float, word: str) -> gs.Tensor:
        return new_constant(graph, f"{label}/{word}", np.array(value, kind))

    source = inner.source
    if high == math.inf and low == 0 and "Relu" in (node.op, inner_node.op):
        replace(node, "Relu", [source])
    elif high == math.inf:
        replace(node, "Max", [source, scalar(low, "min")])
    elif low == -math.inf:
        replace(node, "Min", [source, scalar(high, "max")])
    elif opset < 12 and kind != np.float32:
        return False
    elif opset < 11:
        replace(node, "Clip", [source], {"min": float(low), "max": float(high)})
    else:
        limits = np.finfo(kind) if kind.kind == "f" else np.iinfo(kind)
        inputs = [source, Variable("") if low == limits.min else scalar(low, "min")]
        if high != limits.max:
            inputs.append(scalar(high, "max"))
        replace(node, "Clip", inputs)
    return True
