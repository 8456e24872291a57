"""Move equal Unsqueezes or Squeezes down through the Concat that joins them.

    Concat(Unsqueeze(x, A), Unsqueeze(y, A))   =>   Unsqueeze(Concat(x, y), A)
    Concat(Unsqueeze(x, c), Unsqueeze(y, c))   =>   Reshape(Concat(x, y), t)     a stack along c
    Concat(Squeeze(x, A), Squeeze(y, A))       =>   Squeeze(Concat(x, y), A)

The first where the Concat's axis c is not in A. In the second, joining parts of shape (p, d, q)
along d puts the same elements in the same order as stacking them to (p, k, d, q).

Refuses: parts that something else reads too, or that may merge with what comes before them; a
stack along a last axis, which would put the elements in another order, or of a shape that is not
expressible as a constant target.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from graphopt.ir.graph import Node
from graphopt.ir.inference import Facts
from graphopt.ir.surgery import Scope, insert, new_tensor, producer, replace, sole_user
from graphopt.numerics.dims import Dim
from graphopt.pass_base import Context, Edit, Pass, Skip

from ._integer_operands import from_front, integers, operands, plain
from .materialize_reshape import reshaped
from .merge_reshapes import RESHAPES


@dataclass(frozen=True)
class SinkUnsqueezes(Pass):
    """Equal Unsqueezes or Squeezes move down through a Concat."""

    name = "sink-unsqueezes"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        for node in context.nodes(graph, "Concat"):
            parts = _parts(node)
            rank = context.facts.rank(node.outputs[0])
            axis = node.attrs.get("axis")
            if parts is None or rank is None or not isinstance(axis, int):
                continue
            given = from_front([axis], rank)
            axes = _common_axes(parts, context.facts)
            if given is None or axes is None:
                continue
            if _sink(node, parts, axes, given[0], context.facts):
                yield Edit(node, f"{len(parts)} {parts[0].op} before it became one after it")


def _parts(node: Node) -> list[Node] | None:
    """The Squeezes or Unsqueezes that make all inputs of a Concat, which alone reads them."""
    parts = []
    for tensor in node.inputs:
        made = producer(tensor)
        if made is None or not plain(made, node, "Squeeze", "Unsqueeze"):
            return None
        above = producer(made.inputs[0])
        if sole_user(tensor) is not node or (above is not None and _may_merge(above)):
            return None
        parts.append(made)
    return parts if len(parts) > 1 and len({part.op for part in parts}) == 1 else None


def _may_merge(node: Node) -> bool:
    """Whether a Squeeze or Unsqueeze after a node may go away where it stands."""
    passing = ("Gather", "Slice", "If", "Identity")
    return node.op in (*RESHAPES, *passing) or node.op.startswith(("Reduce", "Arg"))


def _common_axes(parts: list[Node], facts: Facts) -> list[int] | None:
    """The axes that all parts insert or drop, from the front."""
    found = set()
    for part in parts:
        rank = facts.rank(part.outputs[0] if part.op == "Unsqueeze" else part.inputs[0])
        axes = integers(part, "axes", 1)
        front = from_front(axes, rank) if axes and rank is not None else None
        if front is None or len(set(front)) != len(front):
            return None
        found.add(tuple(sorted(front)))
    return list(found.pop()) if len(found) == 1 else None


def _sink(node: Node, parts: list[Node], axes: list[int], axis: int, facts: Facts) -> bool:
    sources: list[gs.Tensor] = [part.inputs[0] for part in parts]
    rank = facts.rank(sources[0])
    if node.graph is None or rank is None:
        return False
    if parts[0].op == "Squeeze":
        kept = [index for index in range(rank) if index not in axes]
        joined, op = kept[axis], "Squeeze"
        inputs, attrs = operands(parts[0], op, axes=axes)
    elif axis not in axes:
        joined, op = axis - sum(1 for index in axes if index < axis), "Unsqueeze"
        inputs, attrs = operands(parts[0], op, axes=axes)
    else:
        shapes, wanted = [facts.shape(source) for source in sources], facts.shape(node.outputs[0])
        if axes != [axis] or axis >= rank or None in shapes or wanted is None:
            return False
        total: Dim = 0
        for shape in shapes:
            total = total + shape[axis] if shape is not None else total
        first = shapes[0] or ()
        target = reshaped(node, (*first[:axis], total, *first[axis + 1 :]), wanted)
        if target is None:
            return False
        joined, op, inputs, attrs = axis, "Reshape", [target], {}
    tensor = new_tensor(node.graph, sources[0].name)
    insert(parts[0], "Concat", sources, [tensor], {"axis": joined}, node.name)
    replace(node, op, [tensor, *inputs], attrs)
    return True
