"""Remove a scatter that overwrites everything.

    ScatterND(data, all indices in order, updates) = updates
    ScatterElements(data, all indices in order along the axis, updates) = updates

where the updates have the shape of the data and replace what was there.

Refuses: indices that are not constant; a reduction; a shape that is not proven.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from graphopt.ir.arguments import dims, same_shape
from graphopt.ir.graph import Node
from graphopt.ir.surgery import Scope, bypass, constant
from graphopt.pass_base import Context, Edit, Pass, Skip


@dataclass(frozen=True)
class RemoveRedundantScatter(Pass):
    """ScatterND and ScatterElements that overwrite everything are removed."""

    name = "remove-redundant-scatter"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        for node in context.nodes(graph, "ScatterND", "ScatterElements"):
            if node.attrs.get("reduction", "none") not in ("none", b"none"):
                continue
            if not same_shape(node.inputs[0], node.inputs[2], context.facts):
                continue
            if not _covers(node, context):
                continue
            if bypass(node, node.inputs[2]):
                yield Edit(node, "it overwrites everything")
            else:
                yield Skip(node, "a graph returns it directly")


def _covers(node: Node, context: Context) -> bool:
    """Whether the indices name every element once, in order."""
    indices = constant(node.inputs[1])
    shape = dims(node.inputs[0], context.facts)
    if indices is None or shape is None or not indices.size:
        return False
    if node.op == "ScatterND":
        depth = indices.shape[-1]
        head = indices.shape[:-1]
        if len(head) != depth or depth > len(shape) or tuple(shape[:depth]) != head:
            return False
        wanted = np.moveaxis(np.indices(head), 0, -1)
        sizes = np.array(head)
    else:
        axis = int(node.attrs.get("axis", 0))
        if not -len(shape) <= axis < len(shape) or tuple(shape) != indices.shape:
            return False
        wanted = np.indices(indices.shape, sparse=True)[axis]
        sizes = np.array(indices.shape[axis])
    return bool(np.all(np.where(indices < 0, indices + sizes, indices) == wanted))
