"""One step of a node to a newer version of its operator, and the verbs that steps are written in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from graphopt.errors import printable
from graphopt.ir.graph import Constant, Node, Variable
from graphopt.ir.inference.facts import Facts
from graphopt.ir.surgery import constant, insert, is_used, new_constant, new_tensor, producer


class OpsetError(ValueError):
    """A model cannot be raised to an operator set; the message is one readable line."""


@dataclass(frozen=True)
class Step:
    """One change of one operator, as it is brought to a node.

    Attributes:
        version: the operator set that brings the change.
        to: the operator set that the model is raised to.
        facts: what was proven of the tensors of the main graph before anything changed.
    """

    version: int
    to: int
    facts: Facts


_Type = onnx.defs.OpSchema.AttrType
_LISTS = (_Type.INTS, _Type.FLOATS, _Type.STRINGS)
_PLAIN: dict[onnx.defs.OpSchema.AttrType, tuple[type, ...]] = {
    **dict.fromkeys((_Type.INT, _Type.INTS), (int,)),
    **dict.fromkeys((_Type.FLOAT, _Type.FLOATS), (float, int)),
    **dict.fromkeys((_Type.STRING, _Type.STRINGS), (str, bytes)),
}

Rule = Callable[[Node, Step], int | None]
"""Rewrites a node in place; returns the version it is then written in if it is not the step's."""


def refusal(node: Node, why: str) -> OpsetError:
    """The error that names a node and says why it cannot be raised."""
    return OpsetError(f"{printable(node.op)} {node.label!r} cannot be raised: {why}")


def check(node: Node, schema: onnx.defs.OpSchema) -> None:
    """Refuse a node that is not what its own version of the operator asks for."""
    if len(node.inputs) < schema.min_input or len(node.outputs) < schema.min_output:
        raise refusal(node, "it lacks an input or output that its operator needs")
    for name, asked in schema.attributes.items():
        value = node.attrs.get(name)
        if value is None and asked.required:
            raise refusal(node, f"it lacks the attribute {name!r}, which its operator needs")
        kinds = _PLAIN.get(asked.type)
        if value is None or kinds is None or isinstance(value, gs.Node.AttributeRef):
            continue
        many = asked.type in _LISTS
        entries = value if many and isinstance(value, list) else [value]
        if many is not isinstance(value, list) or not all(isinstance(e, kinds) for e in entries):
            raise refusal(
                node, f"its attribute {name!r} is of another type than its operator asks for"
            )


def read(node: Node, name: str, default: Any = None) -> Any:
    """The value of an attribute, or the default; a function must not leave it to its callers."""
    value = node.attrs.get(name, default)
    if isinstance(value, gs.Node.AttributeRef):
        raise refusal(node, f"its attribute {name!r} is decided by the caller of a function")
    return value


def take(node: Node, name: str, default: Any = None) -> Any:
    """Remove an attribute from a node and return its value, or the default."""
    value = read(node, name, default)
    node.attrs.pop(name, None)
    return value


def give(node: Node, index: int, values: np.ndarray, name: str) -> None:
    """Let a node read a new constant at a position; inputs between are omitted."""
    assert node.graph is not None
    while len(node.inputs) <= index:
        node.inputs.append(Variable(""))
    node.inputs[index] = new_constant(node.graph, name, values)


def add(near: Node, op: str, inputs: list[gs.Tensor], **attrs: object) -> gs.Tensor:
    """Insert a node beside another and return what it computes."""
    assert near.graph is not None
    made = new_tensor(near.graph, f"{near.outputs[0].name or near.op}/{op}")
    allow(near, op)
    insert(near, op, inputs, [made], attrs)
    return made


def allow(node: Node, op: str) -> None:
    """Refuse to write an operator that a local function of the model redefines."""
    assert node.graph is not None
    if op in node.graph.shadowed:
        raise refusal(node, f"it becomes {op}, which a local function of the model redefines")


def known_type(node: Node, index: int, facts: Facts) -> np.dtype | None:
    """The proven element type of an input; None where there is no proof."""
    tensor = node.inputs[index]
    found = tensor.dtype if isinstance(tensor, Constant) else facts.dtype(tensor)
    return None if found is None else np.dtype(found)


def element_type(node: Node, index: int, facts: Facts) -> np.dtype:
    """The element type of an input, which must be proven."""
    found = known_type(node, index, facts)
    if found is None:
        raise refusal(node, f"the element type of its input {index} is not proven")
    return found


def stored_values(tensor: gs.Tensor | None) -> np.ndarray | None:
    """The values of a constant, also where a Constant node gives it; else None."""
    made = None if tensor is None else producer(tensor)
    if made is not None and made.op == "Constant" and made.standard:
        held = made.attrs.get("value")
        return held.values if isinstance(held, Constant) else None
    return constant(tensor)


def only_output(node: Node, why: str) -> None:
    """Drop the outputs after the first, which nothing may use."""
    if any(is_used(tensor) for tensor in node.outputs[1:]):
        raise refusal(node, why)
    while len(node.outputs) > 1:
        node.outputs.pop()
