"""Remove a Concat of all parts of a Split, and merge a Split of a Split.

    Concat(Split(x))                 =>   x                  all parts, in order, along one axis
    Split(Split(x, {a, b})[0], {c, d}) => Split(x, {c, d, b})  along one axis

Refuses: a part that something else reads too (nested Splits only); sizes that are not numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from graphopt.ir.graph import Node
from graphopt.ir.inference import Facts
from graphopt.ir.surgery import Scope, bypass, insert, producer, remove, replace, sole_user
from graphopt.pass_base import Context, Edit, Pass, Skip

from ._integer_operands import integers, operands, opset, plain


@dataclass(frozen=True)
class MergeSplits(Pass):
    """A Concat of all parts goes, nested Splits become one."""

    name = "merge-splits"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        for node in context.nodes(graph, "Concat", "Split"):
            made = producer(node.inputs[0])
            if made is None or opset(node) < 2 or not plain(made, node, "Split"):
                continue
            if not _same_axis(made, node, context.facts):
                continue
            if node.op == "Split":
                if _merge(made, node, context.facts):
                    yield Edit(node, "became part of the Split before it")
            elif _is_whole(node.inputs, made.outputs):
                source = made.inputs[0]
                if not bypass(node, source):
                    replace(node, "Identity", [source])
                yield Edit(node, "joins what the Split before it cut")


def _is_whole(parts: list[gs.Tensor], outputs: list[gs.Tensor]) -> bool:
    return len(parts) == len(outputs) and all(a is b for a, b in zip(parts, outputs, strict=True))


def _same_axis(one: Node, two: Node, facts: Facts) -> bool:
    axes = [node.attrs.get("axis", 0 if node.op == "Split" else None) for node in (one, two)]
    if not all(isinstance(axis, int) for axis in axes):
        return False
    rank = facts.rank(one.inputs[0])
    return axes[0] == axes[1] or (rank is not None and (axes[0] - axes[1]) % rank == 0)


def _sizes(node: Node, facts: Facts) -> list[int] | None:
    """The sizes of a Split's parts when all are known numbers."""
    given = integers(node, "split", 1)
    if given is not None:
        return given if len(given) == len(node.outputs) else None
    sizes = []
    for tensor in node.outputs:
        shape, axis = facts.shape(tensor), node.attrs.get("axis", 0)
        dim = None if shape is None or not -len(shape) <= axis < len(shape) else shape[axis]
        if not isinstance(dim, int):
            return None
        sizes.append(dim)
    return sizes


def _merge(outer: Node, inner: Node, facts: Facts) -> bool:
    part = inner.inputs[0]
    if sole_user(part) is not inner:
        return False
    one, two = _sizes(outer, facts), _sizes(inner, facts)
    if one is None or two is None:
        return False
    place = next(i for i, tensor in enumerate(outer.outputs) if tensor is part)
    outputs = [*outer.outputs[:place], *inner.outputs, *outer.outputs[place + 1 :]]
    if not all(tensor.name for tensor in outputs):
        return False
    sizes = [*one[:place], *two, *one[place + 1 :]]
    inputs, attrs = operands(outer, "Split", split=sizes)
    source = outer.inputs[0]
    attrs["axis"] = outer.attrs.get("axis", 0)
    insert(outer, "Split", [source, *inputs], outputs, attrs)
    remove(inner)
    return True
