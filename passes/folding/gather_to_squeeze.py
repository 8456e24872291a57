"""Turn a Gather of the only element of an axis into a Squeeze.

    Gather(x, 0, axis = a)   =>   Squeeze(x, a)      where axis a has size 1

A Squeeze copies nothing at run time and merges with the Reshapes around it.

Refuses: an axis whose size is not proven to be 1; indices that are not one constant scalar.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from graphopt.ir.graph import Constant
from graphopt.ir.surgery import Scope, constant, replace
from graphopt.pass_base import Context, Edit, Pass, Skip

from ._integer_operands import from_front, operands


@dataclass(frozen=True)
class GatherToSqueeze(Pass):
    """A Gather of the only element of an axis becomes a Squeeze."""

    name = "gather-to-squeeze"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        for node in context.nodes(graph, "Gather"):
            indices, axis = constant(node.inputs[1]), node.attrs.get("axis", 0)
            shape = context.facts.shape(node.inputs[0])
            if indices is None or indices.ndim or shape is None or not isinstance(axis, int):
                continue
            if isinstance(node.inputs[0], Constant) or int(indices) not in (0, -1):
                continue
            axes = from_front([axis], len(shape))
            if axes is None or shape[axes[0]] != 1:
                continue
            inputs, attrs = operands(node, "Squeeze", axes=axes)
            replace(node, "Squeeze", [node.inputs[0], *inputs], attrs)
            yield Edit(node, "it takes the only element of an axis")
