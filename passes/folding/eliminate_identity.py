"""Remove nodes that hand their input on.

    Identity(x) = x        Dropout(x) = x outside of training        Cast(x, to = dtype of x) = x

Dropout does nothing when it has no ``training_mode`` (operator sets 7 to 11, or the input is absent
or false), or when its ratio is 0.

Refuses: a graph output that would become an alias of a graph input, a constant, another output or
an outer tensor; a Dropout whose mask is used or which may run in training mode; a type that is not
known.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from graphopt.ir.graph import Node
from graphopt.ir.inference.constants import numpy_type
from graphopt.ir.surgery import Scope, bypass, input_or_none, is_used, splat
from graphopt.pass_base import Context, Edit, Pass, Skip


@dataclass(frozen=True)
class EliminateIdentity(Pass):
    """Identity, Dropout in inference and Cast to the same type are removed."""

    name = "eliminate-identity"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        for node in context.nodes(graph, "Identity", "Dropout", "Cast", "CastLike"):
            if node.op == "Dropout":
                why = _active(node, int(graph.opset))
                if why:
                    yield Skip(node, why)
                    continue
            elif node.op != "Identity" and not _same_type(node, context):
                continue
            if bypass(node):
                yield Edit(node, f"{node.op} without effect")
            else:
                yield Skip(node, "a graph returns it directly")


def _active(node: Node, opset: int) -> str:
    """Why a Dropout may have an effect; empty where it has none."""
    if opset < 7:
        return "operator sets before 7 have no inference form"
    if any(is_used(tensor) for tensor in node.outputs[1:]):
        return "its mask is used"
    training, ratio = input_or_none(node, 2), input_or_none(node, 1)
    if opset < 12 or training is None or splat(training) == np.False_:
        return ""
    return "" if ratio is not None and splat(ratio) == 0 else "it may run in training mode"


def _same_type(node: Node, context: Context) -> bool:
    dtype = context.facts.dtype(node.inputs[0])
    if node.op == "CastLike":
        wanted = context.facts.dtype(node.inputs[1])
    else:
        wanted = numpy_type(int(node.attrs.get("to", 0)))
    return dtype is not None and dtype == wanted
