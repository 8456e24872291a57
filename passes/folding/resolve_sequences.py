"""Compute with tensors where a sequence of known make is only a detour.

    at([a, b, c], 1) = b                    length([a, b, c]) = 3
    concat([a, b, c]) = Concat(a, b, c)     concat(split(x, axis), axis) = x
    insert([a, b], c) = [a, b, c]           erase([a, b, c], 0) = [b, c]
    at(split(x), i) = Slice(x), or Gather where the axis is dropped

A sequence is known that SequenceConstruct, SequenceEmpty or SplitToSequence makes.

Refuses: a position or split that is not constant; concatenation along a new axis of more than one
tensor, which would take more nodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.arguments import dims, feeding, integers
from graphopt.ir.graph import Node
from graphopt.ir.surgery import Scope, bypass, input_or_none, new_constant, remove, replace
from graphopt.pass_base import Context, Edit, Pass, Skip

from .fold_constants import become_constant

READERS = (
    *("ConcatFromSequence", "SequenceAt", "SequenceErase", "SequenceInsert", "SequenceLength"),
)


@dataclass(frozen=True)
class ResolveSequences(Pass):
    """Sequences that are made and taken apart again go."""

    name = "resolve-sequences"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        for node in context.nodes(graph, *READERS):
            made = feeding(
                node.inputs[0],
                node,
                *("SequenceConstruct", "SequenceEmpty", "SplitToSequence"),
                shared=True,
            )
            if made is None:
                continue
            if made.op == "SplitToSequence":
                outcome = _of_split(node, made, context)
            else:
                outcome = _of_elements(node, list(made.inputs), context)
            if outcome is not None:
                yield outcome


def _of_elements(node: Node, elements: list[gs.Tensor], context: Context) -> Edit | Skip | None:
    """A reader of a sequence whose elements are known tensors."""
    if node.op == "SequenceLength":
        return _length(node, len(elements))
    if node.op == "ConcatFromSequence":
        return _concat(node, elements)
    if node.op == "SequenceAt":
        at = _position(node.inputs[1], len(elements), context)
        if at is None:
            return None
        if bypass(node, elements[at]):
            return Edit(node, f"element {at} of a known sequence")
        return Skip(node, "a graph returns it directly")
    if node.op == "SequenceErase":
        given = input_or_none(node, 1)
        at = len(elements) - 1 if given is None else _position(given, len(elements), context)
        if at is None or len(elements) < 2:
            return None
        rest = elements[:at] + elements[at + 1 :]
        replace(node, "SequenceConstruct", rest)
        return Edit(node, f"without element {at}")
    given = input_or_none(node, 2)
    at = len(elements) if given is None else _position(given, len(elements), context, spare=1)
    if at is None:
        return None
    more = [*elements[:at], node.inputs[1], *elements[at:]]
    replace(node, "SequenceConstruct", more)
    return Edit(node, f"with element {at}")


def _position(tensor: gs.Tensor, length: int, context: Context, spare: int = 0) -> int | None:
    """A constant position in a sequence of known length; None where it is unknown or outside."""
    found = integers(tensor, context.facts)
    if found is None or len(found) != 1 or not -length <= found[0] < length + spare:
        return None
    return found[0] + length if found[0] < 0 else found[0]


def _length(node: Node, length: int) -> Edit:
    become_constant(node, node.outputs[0], np.array(length, np.int64))
    remove(node)
    return Edit(node, f"always {length}")


def _concat(node: Node, elements: list[gs.Tensor]) -> Edit | None:
    axis = int(node.attrs["axis"])
    if not elements or node.attrs.get("new_axis"):
        return None
    replace(node, "Concat", elements, {"axis": axis})
    return Edit(node, f"concatenation of {len(elements)} known elements")


def _of_split(node: Node, split: Node, context: Context) -> Edit | Skip | None:
    """A reader of a sequence that is a tensor in pieces."""
    facts = context.facts
    source, sizes = split.inputs[0], input_or_none(split, 1)
    shape, axis = dims(source, facts), int(split.attrs.get("axis", 0))
    size = None if shape is None or not -len(shape) <= axis < len(shape) else shape[axis]
    kept = sizes is not None or bool(split.attrs.get("keepdims", 1))
    if node.op == "ConcatFromSequence":
        return _joined(node, split, kept, context)
    lengths = integers(sizes, facts) if sizes is not None else [1]
    rank = 0 if sizes is None else None
    if sizes is not None:
        known = dims(sizes, facts)
        rank = None if known is None else len(known)
    if lengths is None or rank is None or not lengths or min(lengths) < 0:
        return None
    equal = lengths[0] if rank == 0 else None
    count = len(lengths) if equal is None else None
    if equal and isinstance(size, int):
        count = -(-size // equal)
    if node.op == "SequenceLength":
        return None if count is None else _length(node, count)
    if node.op != "SequenceAt" or equal == 0:
        return None
    at = integers(node.inputs[1], facts)
    if at is None or len(at) != 1:
        return None
    return _piece(node, source, axis, at[0], lengths if equal is None else equal, count, kept)


def _joined(node: Node, split: Node, kept: bool, context: Context) -> Edit | Skip | None:
    """All pieces put together again."""
    if bool(node.attrs.get("new_axis")) == kept:
        return None
    axes, rank = [], len(dims(split.inputs[0], context.facts) or ())
    for other in (node, split):
        axis = int(other.attrs.get("axis", 0))
        axes.append(axis % rank if rank and -rank <= axis < rank else axis)
    if axes[0] != axes[1]:
        return None
    if bypass(node, split.inputs[0]):
        return Edit(node, "all pieces of one tensor")
    return Skip(node, "a graph returns it directly")


def _piece(
    node: Node,
    source: gs.Tensor,
    axis: int,
    at: int,
    sizes: list[int] | int,
    count: int | None,
    kept: bool,
) -> Edit | None:
    """One piece of a tensor."""
    graph = node.graph
    assert graph is not None
    label = node.name or node.op
    if at < 0 and count is not None:
        at += count
    if at < 0 or (count is not None and at >= count):
        return None
    if not kept:
        index = new_constant(graph, f"{label}/index", np.array(at, np.int64))
        replace(node, "Gather", [source, index], {"axis": axis})
        return Edit(node, f"piece {at}")
    if isinstance(sizes, int):
        start, stop = at * sizes, (at + 1) * sizes
    else:
        ends = [0, *accumulate(sizes)]
        start, stop = ends[at], ends[at + 1]
    arguments: list[gs.Tensor] = [source]
    for word, value in (("starts", start), ("ends", stop), ("axes", axis)):
        arguments.append(new_constant(graph, f"{label}/{word}", np.array([value], np.int64)))
    replace(node, "Slice", arguments)
    return Edit(node, f"piece {at}")
