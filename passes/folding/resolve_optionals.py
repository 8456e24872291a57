"""Compute without optionals where it is known what they hold.

    getelement(optional(x)) = x
    haselement(optional(x)) = true        haselement(optional()) = false

Since operator set 18 both operators also take what is no optional, which always has an element.

Refuses: an optional that is a graph input or comes out of a body.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.arguments import feeding
from graphopt.ir.graph import Node
from graphopt.ir.surgery import Scope, bypass, input_or_none, remove
from graphopt.pass_base import Context, Edit, Pass, Skip

from .fold_constants import become_constant


@dataclass(frozen=True)
class ResolveOptionals(Pass):
    """Questions about optionals whose answer is known are answered."""

    name = "resolve-optionals"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        for node in context.nodes(graph, "OptionalHasElement", "OptionalGetElement"):
            known, element = _content(node, context)
            if not known:
                continue
            if node.op == "OptionalHasElement":
                value = element is not None
                become_constant(node, node.outputs[0], np.array(value))
                remove(node)
                yield Edit(node, f"always {value}".lower())
            elif element is not None:
                if bypass(node, element):
                    yield Edit(node, "its element is known")
                else:
                    yield Skip(node, "a graph returns it directly")


def _content(node: Node, context: Context) -> tuple[bool, gs.Tensor | None]:
    """Whether it is known what a node's input holds, and the element, if any."""
    tensor = input_or_none(node, 0)
    if tensor is None:
        return True, None
    if context.facts.fact(tensor).kind in ("tensor", "sequence"):
        return True, tensor
    made = feeding(tensor, node, "Optional", shared=True)
    return made is not None, None if made is None else input_or_none(made, 0)
