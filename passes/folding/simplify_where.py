"""Simplify selections and their conditions.

    where(true, a, b) = a    where(false, a, b) = b    where(c, a, a) = a
    where(!c, a, b) = where(c, b, a)
    where(c, where(c, a, b), d) = where(c, a, d)       where(c, a, where(c, b, d)) = where(c, a, d)
    where(c, true, false) = c                          where(c, false, true) = !c
    !(a < b) = a >= b    !(a > b) = a <= b             and the reverse, for integers

Refuses: a tensor that is left out but may broadcast the result to a larger shape; negated
comparisons of floats, since NaN is neither less nor greater.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.arguments import feeding, keeps_shape, same_shape
from graphopt.ir.graph import Constant, Node
from graphopt.ir.surgery import Scope, bypass, replace, splat
from graphopt.pass_base import Context, Edit, Pass, Skip

NEGATED = {
    "Less": "GreaterOrEqual",
    "Greater": "LessOrEqual",
    "LessOrEqual": "Greater",
    "GreaterOrEqual": "Less",
}
COMPARED = frozenset({"int32", "int64"})
"""Types that all four comparisons have kernels for."""


@dataclass(frozen=True)
class SimplifyWhere(Pass):
    """Where with a known or negated condition, and negated comparisons, become simpler."""

    name = "simplify-where"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        for node in context.nodes(graph, "Where", "Not"):
            outcome: Edit | Skip | None
            if node.op == "Not":
                outcome = _comparison(node, int(graph.opset), context)
            else:
                outcome = (
                    _known(node, context)
                    or _boolean(node, context)
                    or _nested(node, context)
                    or _negated(node)
                )
            if outcome is not None:
                yield outcome


def _comparison(node: Node, opset: int, context: Context) -> Edit | None:
    inner = feeding(node.inputs[0], node, *NEGATED)
    if inner is None or opset < 12:
        return None
    dtype = context.facts.dtype(inner.inputs[0])
    if dtype is None or dtype.name not in COMPARED:
        return None
    replace(node, NEGATED[inner.op], list(inner.inputs))
    return Edit(node, f"negated {inner.op}")


def _condition(tensor: gs.Tensor, context: Context) -> bool | None:
    """The value of a condition, where all its elements have one that is known."""
    if isinstance(tensor, Constant):
        value = splat(tensor)
        return None if value is None else bool(value)
    known = context.facts.constant_value(tensor)
    if known is None or not known.size:
        return None
    found = {bool(entry) for entry in known.flat}
    return found.pop() if len(found) == 1 else None


def _known(node: Node, context: Context) -> Edit | Skip | None:
    """A Where that always selects the same tensor."""
    condition, yes, no = node.inputs
    value = True if yes is no else _condition(condition, context)
    if value is None:
        return None
    source = yes if value else no
    facts = context.facts
    whole = same_shape(source, node.outputs[0], facts)
    if not whole and not keeps_shape(source, [condition, yes, no], facts):
        return Skip(node, "what is never selected may broadcast the result to a larger shape")
    if bypass(node, source):
        return Edit(node, "always selects the same tensor")
    return Skip(node, "a graph returns it directly")


def _boolean(node: Node, context: Context) -> Edit | Skip | None:
    """A Where of true and false."""
    condition, *choices = node.inputs
    values = [splat(tensor) for tensor in choices]
    if any(value is None or value.dtype != np.bool_ for value in values):
        return None
    if values[0] == values[1] or not keeps_shape(condition, choices, context.facts):
        return None
    if not values[0]:
        replace(node, "Not", [condition])
        return Edit(node, "selects false where the condition holds")
    if bypass(node, condition):
        return Edit(node, "selects true where the condition holds")
    return Skip(node, "a graph returns it directly")


def _nested(node: Node, context: Context) -> Edit | None:
    """A Where that selects from another Where of the same condition."""
    condition = node.inputs[0]
    for index in (1, 2):
        inner = feeding(node.inputs[index], node, "Where")
        if inner is None or inner.inputs[0] is not condition:
            continue
        inputs = list(node.inputs)
        inputs[index] = inner.inputs[index]
        left_out = inner.inputs[3 - index]
        if any(keeps_shape(tensor, [left_out], context.facts) for tensor in inputs):
            replace(node, "Where", inputs)
            return Edit(node, "a Where of the same condition before it")
    return None


def _negated(node: Node) -> Edit | None:
    condition, yes, no = node.inputs
    inner = feeding(condition, node, "Not", shared=True)
    if inner is None:
        return None
    replace(node, "Where", [inner.inputs[0], no, yes])
    return Edit(node, "negated condition")
