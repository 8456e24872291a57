"""Merge two Pads that add the same around a tensor.

    Pad(Pad(x, p), q)   =>   Pad(x, p + q)

for amounts that are not negative, in mode ``constant`` with the same value (bit for bit) or in mode
``edge``, whose border repeats itself (ONNX operator spec: Pad-2, Pad-11, Pad-18).

Refuses: negative amounts, which cut; reflected or wrapped borders; amounts or values that are not
constant.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.graph import Node, Variable
from graphopt.ir.inference import Facts
from graphopt.ir.surgery import Scope, constant, input_or_none, producer, replace, sole_user
from graphopt.pass_base import Context, Edit, Pass, Skip

from ._integer_operands import from_front, integers, is_given, operands, opset, plain

Borders = dict[int, tuple[int, int]]
"""By axis, what is added before and after it."""


@dataclass(frozen=True)
class MergePads(Pass):
    """Two Pads become one."""

    name = "merge-pads"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        for second in context.nodes(graph, "Pad"):
            first = producer(second.inputs[0])
            if first is None or opset(second) < 2 or not plain(first, second, "Pad"):
                continue
            if sole_user(first.outputs[0]) is not second or not _same_border(first, second):
                continue
            one, two = (borders(node, context.facts) for node in (first, second))
            if one is None or two is None:
                continue
            if any(amount < 0 for pair in (*one.values(), *two.values()) for amount in pair):
                yield Skip(second, "one of the two Pads cuts")
                continue
            _merge(first, second, one, two)
            yield Edit(second, "two Pads became one")


def borders(node: Node, facts: Facts) -> Borders | None:
    """What a Pad adds to each axis that it names; None where that is not constant."""
    pads = integers(node, "pads", 1)
    if pads is None or len(pads) % 2:
        return None
    count = len(pads) // 2
    axes: list[int] | None = list(range(count))
    if is_given(node, "axes", 3):
        axes = integers(node, "axes", 3)
        axes = None if axes is None else from_front(axes, facts.rank(node.inputs[0]))
    if axes is None or len(set(axes)) != count:
        return None
    return {axis: (pads[i], pads[count + i]) for i, axis in enumerate(axes)}


def _same_border(first: Node, second: Node) -> bool:
    modes = [node.attrs.get("mode", "constant") for node in (first, second)]
    if modes == ["edge", "edge"]:
        return True
    if modes != ["constant", "constant"]:
        return False
    values = [_value(node) for node in (first, second)]
    return values[0] is not None and values[0] == values[1]


def _value(node: Node) -> bytes | None:
    """The bytes of the value that a Pad adds; None where it is not constant."""
    if opset(node) < 11:
        return np.float32(node.attrs.get("value", 0.0)).tobytes()
    given = input_or_none(node, 2)
    if given is None:
        return b""
    value = constant(given)
    if value is None or value.dtype == object:
        return None
    data = value.tobytes()
    return data if any(data) else b""


def _merge(first: Node, second: Node, one: Borders, two: Borders) -> None:
    axes = sorted(one.keys() | two.keys())
    sums = [
        one.get(axis, (0, 0))[side] + two.get(axis, (0, 0))[side]
        for side in (0, 1)
        for axis in axes
    ]
    lists = {"pads": sums}
    if is_given(first, "axes", 3) or is_given(second, "axes", 3):
        lists["axes"] = axes
    inputs, attrs = operands(second, "Pad", **lists)
    kept = {k: v for k, v in second.attrs.items() if k not in ("pads", "axes")}
    if inputs and len(second.inputs) > 2:
        inputs.insert(1, second.inputs[2])
    elif len(inputs) == 2:
        omitted: gs.Tensor = Variable("")
        inputs.insert(1, omitted)
    replace(second, "Pad", [first.inputs[0], *inputs], {**kept, **attrs})
