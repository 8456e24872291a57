"""Remove an Expand before an operator that broadcasts by itself.

    f(Expand(x, s), y)        =>   f(x, y)        when y with x has the shape of the result
    Expand(Expand(x, s), t)   =>   Expand(x, t)   when t with x says the shape of the result

On each axis of the result some operand that remains must provably have the result's dim; the other
ones have that dim or 1, as they did before (ONNX, Broadcasting.md). Of several users those are
rewired that allow it.

Refuses: an axis that only the Expand enlarges; dims of which that cannot be told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from graphopt.ir.graph import Constant, Node
from graphopt.ir.inference.facts import Facts, Shape
from graphopt.ir.surgery import Scope, constant, is_used, remove, users
from graphopt.pass_base import Context, Edit, Pass, Skip

from ._integer_operands import opset

BROADCASTING = {
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor"), 7),
    **dict.fromkeys(("Equal", "Greater", "Less", "PRelu"), 7),
    **dict.fromkeys(("Min", "Max", "Sum", "Mean", "Expand"), 8),
    "Where": 9,
    "Mod": 10,
    "BitShift": 11,
    **dict.fromkeys(("GreaterOrEqual", "LessOrEqual"), 12),
    **dict.fromkeys(("BitwiseAnd", "BitwiseOr", "BitwiseXor"), 18),
}
"""Operators whose operands are broadcast, with the opset since which they are."""


@dataclass(frozen=True)
class EliminateExpand(Pass):
    """An Expand before an operator that broadcasts by itself is removed."""

    name = "eliminate-expand"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        for node in context.nodes(graph, "Expand"):
            grown, source = node.outputs[0], node.inputs[0]
            rewired = []
            for user in dict.fromkeys(users(grown)):
                if _broadcasts(user, grown, source, context.facts):
                    for index, tensor in enumerate(user.inputs):
                        if tensor is grown and (user.op != "Expand" or index == 0):
                            user.inputs[index] = source
                    rewired.append(user)
            if not rewired:
                continue
            if not is_used(grown):
                remove(node)
            names = ", ".join(user.label for user in rewired)
            yield Edit(node, f"{names} broadcasts by itself")


def _broadcasts(user: Node, grown: gs.Tensor, source: gs.Tensor, facts: Facts) -> bool:
    """Whether ``user`` gives the same shape when it reads ``source`` in the place of ``grown``."""
    if user.dead or not user.standard or opset(user) < BROADCASTING.get(user.op, 1 << 16):
        return False
    result = facts.shape(user.outputs[0])
    if result is None:
        return False
    if user.op == "Expand":
        target = _entries(user.inputs[1], facts)
        if user.inputs[0] is not grown or target is None:
            return False
        operands: list[Shape | None] = [_shape(source, facts), target]
    else:
        if user.op == "PRelu" and user.inputs[0] is grown:
            return False
        operands = [_shape(source if t is grown else t, facts) for t in user.inputs]
    return _covers(operands, result)


def _shape(tensor: gs.Tensor, facts: Facts) -> Shape | None:
    return tuple(tensor.shape) if isinstance(tensor, Constant) else facts.shape(tensor)


def _entries(target: gs.Tensor, facts: Facts) -> Shape | None:
    values = constant(target)
    if values is not None:
        return tuple(int(entry) for entry in values.reshape(-1))
    known = facts.value(target)
    return None if known is None else tuple(known.flat)


def _covers(operands: Sequence[Shape | None], result: Shape) -> bool:
    """Whether on each axis some operand of known shape has the result's dim."""
    known = [shape for shape in operands if shape is not None]
    return all(
        any(len(shape) >= place and shape[-place] == result[-place] for shape in known)
        for place in range(1, len(result) + 1)
    )
