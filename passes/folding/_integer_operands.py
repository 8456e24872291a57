"""Lists of integers that older opsets keep in an attribute and newer ones in an input.

Squeeze and Unsqueeze (axes, opset 13), Slice (starts, ends, axes, opset 10), Pad (pads, opset 11),
Split (split, opset 13), Reduce (axes, opset 13 or 18) and Reshape (shape, opset 5) all changed in
this way. This module is no pass: it is how the passes on them read and write both forms.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.graph import Node
from graphopt.ir.surgery import constant, input_or_none, new_constant

MOVED_AT = {
    "Reshape": 5,
    "Slice": 10,
    "Pad": 11,
    "Squeeze": 13,
    "Unsqueeze": 13,
    "Split": 13,
    "ReduceSum": 13,
}
"""The opset from which an operator takes its integers as inputs; other Reduce operators: 18."""

INT64_MAX = 2**63 - 1

Operands = tuple[list[gs.Tensor], dict[str, object]]
"""Inputs after the data, and attributes."""


def opset(node: Node) -> int:
    """The version of the standard operators that a node is written in."""
    return int(node.graph.opset) if node.graph is not None else 0


def plain(node: Node | None, near: Node, *ops: str) -> bool:
    """Whether a node is one of these standard operators with known attributes, beside ``near``."""
    if node is None or node.dead or node.op not in ops or not node.standard:
        return False
    known = not any(isinstance(value, gs.Node.AttributeRef) for value in node.attrs.values())
    return known and node.graph is near.graph


def is_given(node: Node, attribute: str, index: int) -> bool:
    """Whether a list is there at all, in either form."""
    return attribute in node.attrs or input_or_none(node, index) is not None


def integers(node: Node, attribute: str, index: int) -> list[int] | None:
    """The entries of a list in either form; None when it is omitted or not constant."""
    value = node.attrs.get(attribute)
    if isinstance(value, list):
        return [int(entry) for entry in value]
    values = constant(input_or_none(node, index))
    if values is None or values.dtype.kind not in "iu":
        return None
    return [int(entry) for entry in values.reshape(-1)]


def operands(near: Node, op: str, **lists: list[int]) -> Operands:
    """Lists in the form that the opset wants: as attributes, or as inputs in the order given."""
    moved = MOVED_AT.get(op, 18 if op.startswith("Reduce") else 0)
    if opset(near) < moved:
        return [], dict(lists)
    assert near.graph is not None
    base = near.name or op
    inputs: list[gs.Tensor] = [
        new_constant(near.graph, f"{base}/{name}", np.array(values, np.int64))
        for name, values in lists.items()
    ]
    return inputs, {}


def from_front(axes: list[int], rank: int | None) -> list[int] | None:
    """Axes counted from the front; None where the rank is needed and not known."""
    if rank is None:
        return None if any(axis < 0 for axis in axes) else list(axes)
    found = [axis + rank if axis < 0 else axis for axis in axes]
    return found if all(0 <= axis < rank for axis in found) else None
