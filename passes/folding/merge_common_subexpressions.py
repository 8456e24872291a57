"""Compute what is computed twice only once (common subexpression elimination).

    y1 = f(x; a)   y2 = f(x; a)   =>   y1 = f(x; a), and what read y2 reads y1

Nodes are numbered by operator, attributes and inputs (global value numbering), so a chain of equal nodes
merges in one go.

Refuses: random operators, operators with bodies, operators outside the standard domain, training mode; a
second node whose output a graph returns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from graphopt.ir.graph import Constant, Node
from graphopt.ir.operators import TRAINING_OPS, deterministic
from graphopt.ir.surgery import Scope, is_used, redirect, remove
from graphopt.pass_base import Context, Edit, Pass, Skip

Key = tuple[object, ...]


@dataclass(frozen=True)
class MergeCommonSubexpressions(Pass):
    """Equal nodes on equal inputs become one."""

    name = "merge-common-subexpressions"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        seen: dict[Key, Node] = {}
        for node in context.nodes(graph):
            if not _mergeable(node):
                continue
            key = _key(node)
            if key is None:
                continue
            first = seen.setdefault(key, node)
            if first is node:
                continue
            used = [(i, t) for i, t in enumerate(node.outputs) if t.name and is_used(t)]
            if any(t.is_output for _, t in used):
                yield Skip(node, f"equal to {first.label}, but a graph returns it")
                continue
            if any(i >= len(first.outputs) or not first.outputs[i].name for i, _ in used):
                continue
            for index, tensor in used:
                redirect(tensor, first.outputs[index])
            remove(node)
            yield Edit(node, f"equal to {first.label}")


def _mergeable(node: Node) -> bool:
    if not deterministic(node.op) or node.op == "Constant" or not node.outputs:
        return False
    return (
        node.op not in TRAINING_OPS or len(node.inputs) <= 2 or not node.attrs.get("training_mode")
    )


def _key(node: Node) -> Key | None:
    attrs = []
    for name, value in sorted(node.attrs.items()):
        hashable = _hashable(value)
        if hashable is None:
            return None
        attrs.append((name, hashable))
    inputs = tuple(id(t) if t.name else None for t in node.inputs)
    while inputs and inputs[-1] is None:
        inputs = inputs[:-1]
    return (node.op, tuple(attrs), inputs)


def _hashable(value: object) -> object | None:
    """An attribute's value as a key; None where it cannot be one."""
    if isinstance(value, int | float | str | bytes):
        return (type(value).__name__, value)
    if isinstance(value, list) and all(
        isinstance(entry, int | float | str | bytes) for entry in value
    ):
        return ("list", tuple(value))
    if isinstance(value, Constant) and value.dtype != object and value.nbytes <= 1024:
        return (value.dtype.name, value.shape, value.values.tobytes())
    return None
