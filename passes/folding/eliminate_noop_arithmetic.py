"""Remove arithmetic with a neutral element, and operators that undo themselves.

    x + 0 = x - 0 = x * 1 = x / 1 = x ** 1 = x        max(x, -inf) = min(x, inf) = x
    x | false = x & true = x ^ false = x              -(-x) = !(!x) = ~(~x) = x
    sum(x) = mean(x) = max(x) = min(x) = x            max(x, x) = min(x, x) = x & x = x | x = x
    clip(x, -inf, inf) = x

For integers the lowest and highest value of the type take the place of the infinities. ``x + 0``
counts as ``x`` though it turns -0.0 into +0.0: the two are equal numbers.

Refuses: a neutral constant that may broadcast x to a larger shape; a Clip of floats that leaves out
a bound, for it then limits infinities to the largest finite number; the scale of 1 or shift of 0 of a
written-out normalization, which runtimes look for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.arguments import feeding, keeps_shape
from graphopt.ir.graph import Node
from graphopt.ir.surgery import Scope, bypass, input_or_none, splat
from graphopt.pass_base import Context, Edit, Pass, Skip
from graphopt.passes.folding._idioms import in_idiom

NEUTRAL = {
    "Add": 0,
    "Sub": 0,
    "Mul": 1,
    "Div": 1,
    "Pow": 1,
    "Or": 0,
    "And": 1,
    "Xor": 0,
    "BitwiseOr": 0,
    "BitwiseXor": 0,
    "BitwiseAnd": -1,
    "BitShift": 0,
    "Sum": 0,
}
"""The neutral element of each operator; Max, Min have the ends of the type instead."""

RIGHT_ONLY = frozenset({"Sub", "Div", "Pow", "BitShift"})
"""Operators whose neutral element must stand on the right."""

VARIADIC = frozenset({"Sum", "Mean", "Max", "Min"})
IDEMPOTENT = frozenset({"Max", "Min", "And", "Or", "BitwiseAnd", "BitwiseOr"})
INVOLUTIONS = frozenset({"Neg", "Not", "BitwiseNot"})


@dataclass(frozen=True)
class EliminateNoopArithmetic(Pass):
    """Arithmetic that gives back its input is removed."""

    name = "eliminate-noop-arithmetic"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        ops = {*NEUTRAL, *VARIADIC, *INVOLUTIONS, "Clip"}
        for node in context.nodes(graph, *sorted(ops)):
            source, others = _source(node, int(graph.opset), context)
            if source is None or in_idiom(node, context):
                continue
            if not keeps_shape(source, others, context.facts):
                yield Skip(node, "its neutral constant may broadcast the input to a larger shape")
            elif bypass(node, source):
                yield Edit(node, f"{node.op} without effect")
            else:
                yield Skip(node, "a graph returns it directly")


def _source(node: Node, opset: int, context: Context) -> tuple[gs.Tensor | None, list[gs.Tensor]]:
    """The tensor that a node gives back, and the tensors that it is broadcast with."""
    inputs = list(node.inputs)
    if node.op == "Clip":
        return (inputs[0] if _unbounded(node, opset, context) else None), []
    if node.op in INVOLUTIONS:
        inner = feeding(inputs[0], node, node.op, shared=True)
        return (None if inner is None else inner.inputs[0]), []
    if node.op in VARIADIC and len(inputs) == 1:
        return inputs[0], []
    if len(inputs) != 2:
        return None, []
    if node.op in IDEMPOTENT and inputs[0] is inputs[1]:
        return inputs[0], []
    if _is_neutral(node.op, inputs[1]):
        return inputs[0], [inputs[1]]
    if node.op not in RIGHT_ONLY and _is_neutral(node.op, inputs[0]):
        return inputs[1], [inputs[0]]
    return None, []


def _is_neutral(op: str, tensor: gs.Tensor) -> bool:
    value = splat(tensor)
    if value is None:
        return False
    if op in ("Max", "Min"):
        return _is_end(value, highest=op == "Min")
    if op == "BitwiseAnd":
        return bool(np.invert(value) == 0)
    return op in NEUTRAL and bool(value == NEUTRAL[op])


def _is_end(value: np.generic, highest: bool) -> bool:
    """Whether nothing of the value's type lies beyond it."""
    if value.dtype.kind in "iu":
        limits = np.iinfo(value.dtype.name)
        return bool(value == (limits.max if highest else limits.min))
    return value.dtype.kind == "f" and bool(value == (np.inf if highest else -np.inf))


def _unbounded(node: Node, opset: int, context: Context) -> bool:
    if opset < 11:
        low, high = node.attrs.get("min", 0.0), node.attrs.get("max", 0.0)
        return bool(low == -np.inf and high == np.inf)
    dtype = context.facts.dtype(node.inputs[0])
    for index, highest in ((1, False), (2, True)):
        tensor = input_or_none(node, index)
        if tensor is None:
            if dtype is None or dtype.kind not in "iu":
                return False
            continue
        value = splat(tensor)
        if value is None or not _is_end(value, highest):
            return False
    return True
