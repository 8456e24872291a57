"""Fold an addition into the matrix product before it, which is a Gemm then.

    A B + C = Gemm(A, B, C)        A B - C = Gemm<beta = -1>(A, B, C)
    C - A B = Gemm<alpha = -1>(A, B, C)

Gemm multiplies matrices only, of floats only, and broadcasts C to the product, not the product to
C. A constant that is added to a Gemm with a constant C is added to that C. Source: ONNX Gemm-11.

Refuses: a rank that is not proven to be 2; a C that is not proven to broadcast to the product;
whole numbers; a product with a second user; a Gemm that has a C, unless both are constant; a
product of dequantized matrices, which runtimes compute on whole numbers as it stands.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from graphopt.ir.graph import Node
from graphopt.ir.surgery import Scope, input_or_none, producer, replace, sole_user
from graphopt.pass_base import Context, Edit, Pass, Skip
from graphopt.passes.folding._absorption import absorb_after
from graphopt.passes.folding._linear_layers import PRODUCTS, multiplies_matrices


@dataclass(frozen=True)
class FoldMatmulBias(Pass):
    """Add and Sub go into the product of matrices before them."""

    name = "fold-matmul-bias"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        if int(graph.opset) < 7:
            return
        for node in context.nodes(graph, "Add", "Sub"):
            outcome = absorb_after(node, PRODUCTS, context)
            if not isinstance(outcome, Edit):
                outcome = _fuse(node, context) or outcome
            if outcome is not None:
                yield outcome


def _fuse(node: Node, context: Context) -> Edit | None:
    """Let a product of matrices add what ``node`` adds, constant or not."""
    for position, product in enumerate(node.inputs):
        made = producer(product)
        if made is None or sole_user(product) is not node:
            continue
        if not multiplies_matrices(made, context) or input_or_none(made, 2) is not None:
            continue
        added = node.inputs[1 - position]
        if not _broadcasts(added, product, context):
            continue
        attrs = dict(made.attrs)
        if node.op == "Sub" and position == 0:
            attrs["beta"] = -1.0
        else:
            attrs.pop("beta", None)
        if node.op == "Sub" and position == 1:
            attrs["alpha"] = -float(made.attrs.get("alpha", 1.0))
        label = made.label
        replace(node, "Gemm", [*made.inputs[:2], added], attrs)
        return Edit(node, f"{node.op} went into {label}")
    return None


def _broadcasts(added: gs.Tensor, product: gs.Tensor, context: Context) -> bool:
    """Whether a tensor certainly broadcasts to a product without making it larger."""
    shape, target = context.facts.shape(added), context.facts.shape(product)
    if shape is None or target is None or len(shape) > 2 or len(target) != 2:
        return False
    aligned = target[2 - len(shape) :]
    return all(dim in (1, size) for dim, size in zip(shape, aligned, strict=True))
