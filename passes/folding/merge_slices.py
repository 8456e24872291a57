"""Merge a Slice of a Slice into one Slice.

    x[s1 : e1 : k1][s2 : e2 : k2]  =>  x[s1 + k1 s2 : min(e1, s1 + k1 e2) : k1 k2]

for bounds that count from the front and positive steps: element i of the first is x[s1 + k1 i],
which lies before e1. Different axes do not touch each other, so any slices of them merge. A bound
that counts from the back is turned around where the dim is a number (ONNX operator spec: Slice-1,
Slice-13).

Refuses: bounds that are not constant; a negative step, or a bound from the back of a symbolic dim,
on an axis that both slice; a first Slice that something else reads too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from graphopt.ir.graph import Node
from graphopt.ir.inference import Facts
from graphopt.ir.inference.facts import Shape
from graphopt.ir.surgery import Scope, producer, replace, sole_user
from graphopt.numerics.dims import Dim, lower_bound
from graphopt.pass_base import Context, Edit, Pass, Skip

from ._integer_operands import INT64_MAX, from_front, integers, is_given, operands, opset, plain

MEMORY_BYTES = 1 << 48
"""More than what any one tensor takes."""

Cut = tuple[int, int, int]
"""Start, end and step."""


@dataclass(frozen=True)
class MergeSlices(Pass):
    """A Slice of a Slice becomes one Slice."""

    name = "merge-slices"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        for second in context.nodes(graph, "Slice"):
            first = producer(second.inputs[0])
            if first is None or not plain(first, second, "Slice"):
                continue
            if sole_user(first.outputs[0]) is not second:
                continue
            cuts = [cuts_of(node, context.facts) for node in (first, second)]
            if not cuts[0] or not cuts[1]:
                continue
            merged = _merge(first, second, cuts[0], cuts[1], context.facts)
            if merged is None:
                yield Skip(second, "the bounds of the two Slices cannot be compared")
                continue
            lists = {
                "starts": [merged[axis][0] for axis in sorted(merged)],
                "ends": [merged[axis][1] for axis in sorted(merged)],
                "axes": sorted(merged),
            }
            if opset(second) >= 10 and any(step != 1 for _, _, step in merged.values()):
                lists["steps"] = [merged[axis][2] for axis in sorted(merged)]
            inputs, attrs = operands(second, "Slice", **lists)
            replace(second, "Slice", [first.inputs[0], *inputs], attrs)
            yield Edit(second, "two Slices became one")


def cuts_of(node: Node, facts: Facts) -> dict[int, Cut] | None:
    """The start, end and step of a Slice on each axis that it cuts; None where not constant."""
    starts, ends = integers(node, "starts", 1), integers(node, "ends", 2)
    if starts is None or ends is None or len(starts) != len(ends):
        return None
    axes: list[int] | None = list(range(len(starts)))
    if is_given(node, "axes", 3):
        axes = integers(node, "axes", 3)
    steps: list[int] | None = [1] * len(starts)
    if is_given(node, "steps", 4):
        steps = integers(node, "steps", 4)
    axes = None if axes is None else from_front(axes, facts.rank(node.inputs[0]))
    if axes is None or steps is None or len(set(axes)) != len(starts) or len(steps) != len(starts):
        return None
    cuts = zip(starts, ends, steps, strict=True)
    return {a: cut for a, cut in zip(axes, cuts, strict=True) if not _is_whole(node, a, cut, facts)}


def _is_whole(node: Node, axis: int, cut: Cut, facts: Facts) -> bool:
    """Whether a cut takes all of an axis."""
    if cut[2] < 1:
        return False
    if cut[0] == 0 and cut[1] >= 2**31 - 1 and cut[2] == 1:
        return True
    source, result = facts.shape(node.inputs[0]), facts.shape(node.outputs[0])
    if source is None or axis >= len(source):
        return False
    if result is not None and axis < len(result) and source[axis] == result[axis]:
        return True
    return cut[0] == 0 and cut[2] == 1 and _out_of_reach(cut[1], axis, source, node, facts)


def _out_of_reach(end: int, axis: int, shape: Shape, node: Node, facts: Facts) -> bool:
    """Whether a tensor with an axis longer than this would not fit into any memory."""
    dtype = facts.dtype(node.inputs[0])
    others = [lower_bound(dim) for index, dim in enumerate(shape) if index != axis]
    least = math.prod(bound if bound is not None and bound > 0 else 0 for bound in others)
    return dtype is not None and end * least * dtype.itemsize >= MEMORY_BYTES


def counted_from_front(cut: Cut, dim: Dim | None) -> Cut | None:
    """The same cut with bounds that are not negative; None where it steps back or dim is needed."""
    start, end, step = cut
    if step < 1:
        return None
    if isinstance(dim, int):
        start, end = (min(max(b + dim if b < 0 else b, 0), dim) for b in (start, end))
    return None if start < 0 or end < 0 else (start, end, step)


def _merge(
    first: Node, second: Node, one: dict[int, Cut], two: dict[int, Cut], facts: Facts
) -> dict[int, Cut] | None:
    merged = {**one, **two}
    for axis in one.keys() & two.keys():
        shapes = facts.shape(first.inputs[0]), facts.shape(second.inputs[0])
        dims = [None if s is None or axis >= len(s) else s[axis] for s in shapes]
        a, b = counted_from_front(one[axis], dims[0]), counted_from_front(two[axis], dims[1])
        if a is None or b is None:
            return None
        start = min(a[0] + a[2] * b[0], INT64_MAX)
        step = a[2] * b[2]
        if step > INT64_MAX:
            return None
        merged[axis] = (start, min(a[1], a[0] + a[2] * b[1]), step)
    return merged
