"""Turn Slices that cut a tensor into parts without gap or overlap into one Split.

    x[0 : a], x[a : b], x[b : n]   =>   Split(x, {a, b - a, n - b})     along one axis

A Gather of consecutive indices is such a Slice too.

Refuses: an axis whose dim is not a number; Slices of several axes or with steps; parts that leave
a gap, overlap, or stand in different scopes; a part whose axis a Squeeze drops, which is one Gather
(``fold-axes-into-gather``); data that is constant, which is cut beforehand.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from graphopt.ir.graph import Constant, Node
from graphopt.ir.inference import Facts
from graphopt.ir.surgery import Scope, constant, insert, remove, sole_user
from graphopt.pass_base import Context, Edit, Pass, Skip

from ._integer_operands import from_front, is_given, operands, opset, plain
from .merge_slices import counted_from_front, cuts_of

Part = tuple[int, int, Node]
"""Start, end and the node that takes it."""


@dataclass(frozen=True)
class SlicesToSplit(Pass):
    """Slices that partition an axis become one Split."""

    name = "slices-to-split"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        groups: dict[tuple[int, int], list[Part]] = {}
        for node in context.nodes(graph, "Slice", "Gather"):
            found = _part(node, context.facts)
            if found is not None:
                axis, start, end = found
                groups.setdefault((id(node.inputs[0]), axis), []).append((start, end, node))
        for (_, axis), parts in groups.items():
            parts = [part for part in parts if not part[2].dead]
            if len(parts) < 2:
                continue
            source: gs.Tensor = parts[0][2].inputs[0]
            dim = _dim(source, axis, context.facts)
            cover = None if dim is None else _cover(parts, dim)
            if cover is not None:
                yield _split(source, axis, cover)


def _dim(tensor: gs.Tensor, axis: int, facts: Facts) -> int | None:
    shape = facts.shape(tensor)
    dim = None if shape is None or axis >= len(shape) else shape[axis]
    return dim if isinstance(dim, int) else None


def _part(node: Node, facts: Facts) -> tuple[int, int, int] | None:
    """Axis, start and end of what a node takes of one axis whose dim is a number."""
    if isinstance(node.inputs[0], Constant) or opset(node) < 2:
        return None
    found = _sliced(node, facts) if node.op == "Slice" else _gathered(node, facts)
    if found is not None and found[2] == found[1] + 1:
        user = sole_user(node.outputs[0])
        if user is not None and plain(user, node, "Squeeze") and is_given(user, "axes", 1):
            return None
    return found


def _gathered(node: Node, facts: Facts) -> tuple[int, int, int] | None:
    indices, axis = constant(node.inputs[1]), node.attrs.get("axis", 0)
    rank = facts.rank(node.inputs[0])
    if indices is None or indices.ndim != 1 or not indices.size or rank is None:
        return None
    given = from_front([axis], rank) if isinstance(axis, int) else None
    dim = None if given is None else _dim(node.inputs[0], given[0], facts)
    if given is None or dim is None:
        return None
    places = [int(index) + dim if index < 0 else int(index) for index in indices]
    start, end = places[0], places[0] + len(places)
    if places != list(range(start, end)) or start < 0 or end > dim:
        return None
    return given[0], start, end


def _sliced(node: Node, facts: Facts) -> tuple[int, int, int] | None:
    cuts = cuts_of(node, facts)
    if cuts is None or len(cuts) != 1:
        return None
    ((axis, cut),) = cuts.items()
    dim = _dim(node.inputs[0], axis, facts)
    front = None if dim is None else counted_from_front(cut, dim)
    if front is None or front[2] != 1 or front[0] >= front[1]:
        return None
    return axis, front[0], front[1]


def _cover(parts: list[Part], dim: int) -> list[Part] | None:
    """Parts that together are the whole axis, in order; None where there are none or a choice."""
    by_start: dict[int, Part] = {}
    for part in parts:
        if part[0] in by_start:
            return None
        by_start[part[0]] = part
    place, cover = 0, []
    while place < dim:
        if place not in by_start:
            return None
        cover.append(by_start[place])
        place = by_start[place][1]
    return cover if len(cover) >= 2 else None


def _split(source: gs.Tensor, axis: int, cover: list[Part]) -> Edit:
    first = min((node for _, _, node in cover), key=lambda node: node.order)
    sizes = [end - start for start, end, _ in cover]
    inputs, attrs = operands(first, "Split", split=sizes)
    outputs = [node.outputs[0] for _, _, node in cover]
    insert(first, "Split", [source, *inputs], outputs, {"axis": axis, **attrs})
    for _, _, node in cover:
        remove(node)
    return Edit(first, f"{len(cover)} parts became a Split into {sizes}")
