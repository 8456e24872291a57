"""Turn computed targets of Reshape and Expand into constants.

    Reshape(x, Concat(Shape(x)[0], 4, ...))   =>   Reshape(x, {0, 4, -1})

The shape of the result is known symbolically. In a Reshape a number stays a number, a dim equal to
the input's at the same place becomes 0 (copy), and one other dim may become -1 (what remains). In
an Expand a dim equal to the input's, counted from the back, becomes 1 (ONNX operator spec:
Reshape-5, Expand-8).

Refuses: a result with two or more symbolic dims that cannot be copied; a result that is known to
be empty where the 0 would mean something else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from graphopt.ir.graph import Constant, Node
from graphopt.ir.inference.facts import Shape
from graphopt.ir.surgery import Scope, new_constant, replace
from graphopt.pass_base import Context, Edit, Pass, Skip

from ._integer_operands import opset


@dataclass(frozen=True)
class MaterializeReshape(Pass):
    """Computed targets of Reshape and Expand become constants."""

    name = "materialize-reshape"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        for node in context.nodes(graph, "Reshape", "Expand"):
            if len(node.inputs) < 2 or isinstance(node.inputs[1], Constant):
                continue
            wanted = context.facts.shape(node.outputs[0])
            source = context.facts.shape(node.inputs[0])
            if wanted is None:
                continue
            entries = (reshape_target if node.op == "Reshape" else _expand_target)(source, wanted)
            if entries is None:
                yield Skip(node, "too many dims of its target are known by name only")
                continue
            target = new_constant(
                graph, f"{node.name or node.op}/shape", np.array(entries, np.int64)
            )
            replace(node, node.op, [node.inputs[0], target])
            yield Edit(node, f"its target is always {entries}")


def reshape_target(source: Shape | None, wanted: Shape) -> list[int] | None:
    """A constant target that reshapes ``source`` to ``wanted``; None where there is none.

    Args:
        source: the dims of the data, None when the rank is unknown.
        wanted: the dims of the result, which has as many elements.
    """
    entries: list[int] = []
    for index, dim in enumerate(wanted):
        same = source is not None and index < len(source) and source[index] == dim
        if isinstance(dim, int) and (dim or same):
            entries.append(dim)
        elif isinstance(dim, int):
            return None
        else:
            entries.append(0 if same else -1)
    empty = any(dim == 0 for dim in wanted if isinstance(dim, int))
    return None if entries.count(-1) > (0 if empty else 1) else entries


def reshaped(node: Node, source: Shape | None, wanted: Shape) -> Constant | None:
    """The constant target of ``reshape_target`` for a new Reshape beside ``node``, or None."""
    entries = reshape_target(source, wanted)
    if entries is None or opset(node) < 5 or node.graph is None:
        return None
    return new_constant(node.graph, f"{node.name or node.op}/shape", np.array(entries, np.int64))


def _expand_target(source: Shape | None, wanted: Shape) -> list[int] | None:
    if source is None:
        source = ()
    aligned: Shape = (1,) * (len(wanted) - len(source)) + source
    entries: list[int] = []
    for old, dim in zip(aligned, wanted, strict=True):
        if isinstance(dim, int):
            entries.append(dim)
        elif old == dim:
            entries.append(1)
        else:
            return None
    return entries
