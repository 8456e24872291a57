"""Merge adjacent Reshape, Flatten, Squeeze and Unsqueeze nodes, which keep the order of elements.

    R2(R1(x))               =>  x                   when the result provably has the shape of x
    Squeeze(Unsqueeze(x))   =>  x, or one of them   what both name cancels
    Reshape(R1(x), t)       =>  Reshape(x, t)       a 0 (copy) in t is resolved by R1's dims
    R2(R1(x))               =>  Reshape(x, t)       when the result's shape is expressible as t

Squeeze and Unsqueeze are followed axis by axis, so they merge even where the rank is unknown as
long as their axes count from the front (ONNX operator spec: Reshape-5/14, Squeeze-13,
Unsqueeze-13, Flatten-13).

Refuses: a target whose 0 or unknown entries cannot be resolved; a result of several symbolic dims.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.graph import Node
from graphopt.ir.inference.facts import Shape
from graphopt.ir.surgery import (
    Scope,
    bypass,
    constant,
    new_constant,
    producer,
    replace,
    sole_user,
)
from graphopt.numerics.dims import is_positive
from graphopt.pass_base import Context, Edit, Pass, Skip

from ._integer_operands import from_front, integers, is_given, operands, opset, plain
from .materialize_reshape import reshaped

RESHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")


@dataclass(frozen=True)
class MergeReshapes(Pass):
    """Two adjacent nodes that only rename axes become one, or none."""

    name = "merge-reshapes"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        for second in context.nodes(graph, *RESHAPES):
            first = producer(second.inputs[0])
            if first is None or not plain(first, second, *RESHAPES):
                continue
            ops = f"{first.op} and {second.op}"
            source = context.facts.shape(first.inputs[0])
            wanted = context.facts.shape(second.outputs[0])
            if source is not None and source == wanted:
                if cancel(second, first):
                    yield Edit(second, f"{ops} cancel")
                continue
            done = _merge_axes(first, second, context)
            if not done and second.op == "Reshape" and opset(second) >= 5:
                done = _skip_first(first, second, context)
                if not done and not _expressible(first, second, source, wanted):
                    yield Skip(second, f"its target depends on {first.op} before it")
                    continue
            if done or _reshape(first, second, source, wanted):
                yield Edit(second, f"{ops} became one")


def cancel(second: Node, first: Node) -> bool:
    """Let what reads ``second`` read what ``first`` reads; False where that gains nothing."""
    alone = sole_user(first.outputs[0]) is second
    if bypass(second, first.inputs[0]):
        return True
    if alone:
        replace(second, "Identity", [first.inputs[0]])
    return alone


def _expressible(first: Node, second: Node, source: Shape | None, wanted: Shape | None) -> bool:
    if wanted is None or sole_user(first.outputs[0]) is not second:
        return False
    return reshaped(second, source, wanted) is not None


def _reshape(first: Node, second: Node, source: Shape | None, wanted: Shape | None) -> bool:
    """One Reshape to the shape that the second node gives."""
    if wanted is None or sole_user(first.outputs[0]) is not second:
        return False
    target = reshaped(second, source, wanted)
    if target is None:
        return False
    replace(second, "Reshape", [first.inputs[0], target])
    return True


def _skip_first(first: Node, second: Node, context: Context) -> bool:
    """A Reshape that reads past the node before it."""
    source, target = first.inputs[0], second.inputs[1]
    if second.attrs.get("allowzero"):
        replace(second, "Reshape", [source, target], {"allowzero": 1})
        return True
    values = constant(target)
    if values is None:
        known = context.facts.value(target)
        if known is None or not all(is_positive(entry) or entry == -1 for entry in known.flat):
            return False
        replace(second, "Reshape", [source, target])
        return True
    old = [int(entry) for entry in values]
    entries = _resolved(old, context.facts.shape(source), context.facts.shape(second.inputs[0]))
    if entries is None:
        return False
    if entries != old:
        assert second.graph is not None
        base = f"{second.name or second.op}/shape"
        target = new_constant(second.graph, base, np.array(entries, np.int64))
    replace(second, "Reshape", [source, target])
    return True


def _resolved(entries: list[int], source: Shape | None, middle: Shape | None) -> list[int] | None:
    """The entries with each 0 meaning the same for ``source`` as it did for ``middle``."""
    found = list(entries)
    for index, entry in enumerate(entries):
        if entry != 0:
            continue
        if middle is None or index >= len(middle):
            return None
        dim = middle[index]
        if source is not None and index < len(source) and source[index] == dim:
            continue
        if isinstance(dim, int) and dim > 0:
            found[index] = dim
        elif -1 not in found and dim != 0:
            found[index] = -1
        else:
            return None
    return found


def _merge_axes(first: Node, second: Node, context: Context) -> bool:
    """Squeeze and Unsqueeze in any order, followed axis by axis."""
    if {first.op, second.op} - {"Squeeze", "Unsqueeze"}:
        return False
    axes = [_axes(node, context) for node in (first, second)]
    if axes[0] is None or axes[1] is None:
        return False
    rank = context.facts.rank(first.inputs[0])
    if rank is None:
        rank = len(axes[0]) + len(axes[1]) + max([*axes[0], *axes[1]], default=0) + 1
    items: list[int | None] | None = list(range(rank))
    for node, given in zip((first, second), axes, strict=True):
        items = _moved(items, node.op, given) if items is not None and given is not None else None
    if items is None:
        return False
    return _rebuild(first, second, rank, _paired(items, rank))


def _axes(node: Node, context: Context) -> list[int] | None:
    """The axes from the front; for a Squeeze without axes those of size 1, when all are known."""
    rank = context.facts.rank(node.outputs[0] if node.op == "Unsqueeze" else node.inputs[0])
    if is_given(node, "axes", 1):
        axes = integers(node, "axes", 1)
        return None if axes is None else from_front(axes, rank)
    shape = context.facts.shape(node.inputs[0])
    if shape is None or not all(isinstance(dim, int) or is_positive(dim - 1) for dim in shape):
        return None
    return [axis for axis, dim in enumerate(shape) if dim == 1]


def _moved(items: list[int | None], op: str, axes: list[int]) -> list[int | None] | None:
    if len(set(axes)) != len(axes):
        return None
    if op == "Squeeze":
        if any(axis >= len(items) for axis in axes):
            return None
        return [item for index, item in enumerate(items) if index not in axes]
    rest = iter(items)
    size = len(items) + len(axes)
    if any(axis >= size for axis in axes):
        return None
    return [None if index in axes else next(rest) for index in range(size)]


def _paired(items: list[int | None], rank: int) -> list[int | None]:
    """A new axis where an axis of size 1 was dropped is that axis."""
    gone = sorted(set(range(rank)) - {item for item in items if item is not None})
    found: list[int | None] = list(items)
    for index, item in enumerate(found):
        if item is not None:
            continue
        low = next((i for i in reversed(found[:index]) if i is not None), -1)
        high = next((i for i in found[index + 1 :] if i is not None), rank)
        fit = next((axis for axis in gone if low < axis < high), None)
        if fit is not None:
            found[index] = fit
            gone.remove(fit)
    return found


def _rebuild(first: Node, second: Node, rank: int, items: list[int | None]) -> bool:
    source: gs.Tensor = first.inputs[0]
    kept = {item for item in items if item is not None}
    gone = [axis for axis in range(rank) if axis not in kept]
    new = [index for index, item in enumerate(items) if item is None]
    if gone and new:
        return False
    if not gone and not new:
        return cancel(second, first)
    op = "Squeeze" if gone else "Unsqueeze"
    inputs, attrs = operands(second, op, axes=gone or new)
    replace(second, op, [source, *inputs], attrs)
    return True
