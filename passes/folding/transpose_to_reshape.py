"""Turn a Transpose that moves only axes of size 1 into a Reshape that merges with a neighbour.

    Transpose(x, p)   =>   Reshape(x, t)     when the axes of size > 1 keep their order

The elements keep their order in memory, so both do the same. The Reshape then merges with the
Reshape, Flatten, Squeeze or Unsqueeze before or after it (``merge-reshapes``).

Refuses: a Transpose beside another Transpose, which merge better as they are, or beside no node of
the Reshape family; a result whose shape is not expressible as a constant target.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from graphopt.ir.graph import Node
from graphopt.ir.surgery import Scope, producer, replace, users
from graphopt.pass_base import Context, Edit, Pass, Skip

from ._integer_operands import opset, plain
from .materialize_reshape import reshaped
from .merge_reshapes import RESHAPES
from .merge_transposes import permutation


@dataclass(frozen=True)
class TransposeToReshape(Pass):
    """A Transpose that moves only axes of size 1 becomes a Reshape."""

    name = "transpose-to-reshape"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        for node in context.nodes(graph, "Transpose"):
            if opset(node) < 5:
                continue
            shape = context.facts.shape(node.inputs[0])
            wanted = context.facts.shape(node.outputs[0])
            if shape is None or wanted is None or shape == wanted or not _beside_reshape(node):
                continue
            perm = permutation(node) or list(range(len(shape)))[::-1]
            kept = [axis for axis in perm if shape[axis] != 1]
            if kept != sorted(kept):
                continue
            target = reshaped(node, shape, wanted)
            if target is None:
                yield Skip(node, "too many dims of its result are known by name only")
                continue
            replace(node, "Reshape", [node.inputs[0], target])
            yield Edit(node, "it moves only axes of size 1")


def _beside_reshape(node: Node) -> bool:
    """Whether it has a neighbour of the Reshape family, and no Transpose."""
    before, after = producer(node.inputs[0]), users(node.outputs[0])
    if plain(before, node, "Transpose") or any(plain(user, node, "Transpose") for user in after):
        return False
    if plain(before, node, *RESHAPES):
        return True
    return any(plain(user, node, *RESHAPES) and user.inputs[0] is node.outputs[0] for user in after)
