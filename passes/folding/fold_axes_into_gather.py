"""Let a Gather make or drop the axis that a Squeeze or Unsqueeze after it changes.

    Unsqueeze(Gather(x, i))          =>   Gather(x, i')      i' is i with the axes inserted
    Squeeze(Gather(x, i))            =>   Gather(x, i')      i' is i with the axes dropped
    Squeeze(Slice(x, i : i + 1))     =>   Gather(x, i)       the sliced axis is the one dropped

The result of a Gather along axis a has the axes of i in the place of a, so axes that come or go among them
may come or go in the constant i (ONNX operator spec: Gather-13).

Refuses: indices that are not constant, or large and read elsewhere too; axes outside those of the indices;
a Gather or Slice that something else reads too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from graphopt.ir.graph import Constant, Node
from graphopt.ir.inference import Facts
from graphopt.ir.surgery import Scope, new_constant, producer, replace, sole_user
from graphopt.pass_base import Context, Edit, Pass, Skip

from ._integer_operands import from_front, integers, is_given, opset, plain
from ._permuted_operators import SHARED_BYTES
from .merge_slices import cuts_of


@dataclass(frozen=True)
class FoldAxesIntoGather(Pass):
    """A Squeeze or Unsqueeze after a Gather or Slice becomes part of the Gather."""

    name = "fold-axes-into-gather"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        for node in context.nodes(graph, "Squeeze", "Unsqueeze"):
            made = producer(node.inputs[0])
            if made is None or sole_user(node.inputs[0]) is not node:
                continue
            axes = _axes(node, context.facts)
            if axes is None:
                continue
            found = None
            if plain(made, node, "Gather"):
                found = _indices(made, node, axes, context.facts)
            elif node.op == "Squeeze" and len(axes) == 1 and plain(made, node, "Slice"):
                found = _index(made, axes[0], context.facts)
            if found is None:
                continue
            axis, indices = found
            constant = new_constant(graph, f"{made.name or made.op}/indices", indices)
            replace(node, "Gather", [made.inputs[0], constant], {"axis": axis})
            yield Edit(node, f"the {made.op} before it gives its axes")


def _axes(node: Node, facts: Facts) -> list[int] | None:
    """The axes from the front, in order."""
    if not is_given(node, "axes", 1):
        return None
    axes = integers(node, "axes", 1)
    rank = facts.rank(node.outputs[0] if node.op == "Unsqueeze" else node.inputs[0])
    axes = None if axes is None else from_front(axes, rank)
    return None if not axes or len(set(axes)) != len(axes) else sorted(axes)


def _indices(
    gather: Node, node: Node, axes: list[int], facts: Facts
) -> tuple[int, np.ndarray] | None:
    """The axis and the indices of the Gather that does both."""
    constant = gather.inputs[1]
    if not isinstance(constant, Constant):
        return None
    if len(constant.outputs) > 1 and constant.nbytes > SHARED_BYTES:
        return None
    axis = gather.attrs.get("axis", 0)
    given = from_front([axis], facts.rank(gather.inputs[0])) if isinstance(axis, int) else None
    if given is None:
        return None
    values, first = constant.values, given[0]
    places = tuple(place - first for place in axes)
    grows = node.op == "Unsqueeze"
    size = values.ndim + len(places) if grows else values.ndim
    if any(not 0 <= place < size for place in places):
        return None
    if grows:
        return first, np.expand_dims(values, places)
    if any(values.shape[place] != 1 for place in places):
        return None
    return first, np.squeeze(values, places)


def _index(node: Node, axis: int, facts: Facts) -> tuple[int, np.ndarray] | None:
    """The axis and the one index of a Slice that keeps one element of that axis only."""
    cuts = cuts_of(node, facts)
    if cuts is None or list(cuts) != [axis]:
        return None
    start, end, step = cuts[axis]
    last = start == -1 and end >= 2**31 - 1
    if step != 1 or not (end == start + 1 != 0 or last):
        return None
    if start < 0 and opset(node) < 11:
        shape = facts.shape(node.inputs[0])
        dim = None if shape is None else shape[axis]
        if not isinstance(dim, int):
            return None
        start += dim
    return axis, np.array(start, np.int64)
