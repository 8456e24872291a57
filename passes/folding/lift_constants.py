"""Turn Constant nodes into initializers.

    y = Constant<value = c>()   =>   y is the initializer c

The value is the same message, moved. An initializer costs no node, can be shared and can live in external
data.

Refuses: a local function, which may hold no initializers; a constant that a graph returns directly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from graphopt.ir.graph import Constant, Graph, Node, Stored
from graphopt.ir.surgery import Scope, redirect, remove
from graphopt.pass_base import Context, Edit, Pass, Skip


@dataclass(frozen=True)
class LiftConstants(Pass):
    """Constant nodes become initializers."""

    name = "lift-constants"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        if not isinstance(graph, Graph):
            return
        for node in context.nodes(graph, "Constant"):
            output = node.outputs[0]
            values = constant_values(node)
            if values is None:
                yield Skip(node, "its value is of a kind that no initializer can hold")
            elif output.is_output:
                yield Skip(node, "a graph returns it directly")
            else:
                constant = Constant(output.name, values)
                redirect(output, constant)
                remove(node)
                yield Edit(node, "became an initializer")


def constant_values(node: Node) -> np.ndarray | Stored | None:
    """The value of a Constant node, as stored where it is a tensor; None where it has none."""
    attrs = node.attrs
    if isinstance(attrs.get("value"), Constant):
        tensor = attrs["value"]
        return tensor.stored if tensor.stored is not None else np.asarray(tensor.values)
    for name, dtype in (
        ("value_float", np.float32),
        ("value_floats", np.float32),
        ("value_int", np.int64),
        ("value_ints", np.int64),
    ):
        if name in attrs:
            return np.asarray(attrs[name], dtype)
    for name in ("value_string", "value_strings"):
        if name in attrs:
            texts = attrs[name]
            return np.array(texts, dtype=object)
    sparse = attrs.get("sparse_value")
    return None if sparse is None else Stored(sparse.sparse_tensor)
