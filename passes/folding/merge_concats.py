"""Merge a Concat into the Concat that alone reads it.

    Concat(a, Concat(b, c), d)   =>   Concat(a, b, c, d)     along the same axis

Refuses: different axes; an inner Concat that something else reads too, which would copy its parts
twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from graphopt.ir.graph import Node
from graphopt.ir.surgery import Scope, producer, replace, sole_user
from graphopt.pass_base import Context, Edit, Pass, Skip

from ._integer_operands import plain


@dataclass(frozen=True)
class MergeConcats(Pass):
    """Nested Concats along one axis become one."""

    name = "merge-concats"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        for node in context.nodes(graph, "Concat"):
            rank = next((r for t in node.inputs if (r := context.facts.rank(t)) is not None), None)
            inputs: list[gs.Tensor] = []
            merged = 0
            for tensor in node.inputs:
                inner = producer(tensor)
                if inner is not None and _fits(inner, node, rank):
                    inputs += inner.inputs
                    merged += 1
                else:
                    inputs.append(tensor)
            if merged:
                replace(node, "Concat", inputs, dict(node.attrs))
                yield Edit(node, f"{merged} Concat before it became part of it")


def _fits(inner: Node, outer: Node, rank: int | None) -> bool:
    if not plain(inner, outer, "Concat") or sole_user(inner.outputs[0]) is not outer:
        return False
    axes = [node.attrs.get("axis") for node in (inner, outer)]
    if not all(isinstance(axis, int) for axis in axes):
        return False
    if axes[0] == axes[1]:
        return True
    return rank is not None and (axes[0] - axes[1]) % rank == 0
