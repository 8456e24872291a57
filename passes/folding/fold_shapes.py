"""Turn small integer tensors whose value follows from proven shapes into constants.

    Gather(Shape(x), 1)   =>   c        where dimension 1 of x is proven to be c

Shapes are followed symbolically through arithmetic, so ``(N * 4) / N`` counts as 4 and a dynamic batch
does not hide the other dimensions. Only the last node of a chain is replaced; the rest goes away with it.

Refuses: a value that a declared shape alone would give, for declarations are not believed; a value that
would make the constants outgrow their budget.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.graph import Node
from graphopt.ir.operators import NON_TENSOR, deterministic
from graphopt.ir.surgery import Scope, is_used, remove
from graphopt.pass_base import Context, Edit, Pass, Skip

from .fold_constants import become_constant


@dataclass(frozen=True)
class FoldShapes(Pass):
    """Values that follow from proven shapes become constants."""

    name = "fold-shapes"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        for node in reversed(list(context.nodes(graph))):
            if node.dead or not _foldable(node):
                continue
            value = _value(node, context)
            if value is None:
                continue
            if not context.afford(value.nbytes):
                yield Skip(node, f"the constants would grow by {value.nbytes} bytes")
                continue
            become_constant(node, node.outputs[0], value)
            remove(node)
            shown = ",".join(map(str, value.reshape(-1)[:8].tolist()))
            yield Edit(node, f"always {value.dtype.name}{list(value.shape)} {{{shown}}}")


def _foldable(node: Node) -> bool:
    if node.op in ("Constant", "Identity") or node.op in NON_TENSOR or not deterministic(node.op):
        return False
    return len(node.outputs) == 1 and is_used(node.outputs[0])


def _value(node: Node, context: Context) -> np.ndarray | None:
    output: gs.Tensor = node.outputs[0]
    dtype = context.facts.dtype(output)
    shape = context.facts.static_shape(output)
    if dtype is None or shape is None or dtype.kind not in "iub":
        return None
    value = context.facts.constant_value(output)
    if value is None or tuple(value.shape) != shape:
        return None
    if dtype.kind != "b" and value.size:
        info = np.iinfo(dtype)
        if int(value.min()) < info.min or int(value.max()) > info.max:
            return None
    return value.astype(dtype)
