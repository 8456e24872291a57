"""Fold a transposed matrix into the product that reads or makes it.

    Gemm(A^T, B) = Gemm<transA>(A, B)            MatMul(A^T, B) = Gemm<transA>(A, B)
    Gemm(A, B)^T = Gemm<transA, transB>(B, A)    MatMul(A, B)^T = Gemm<transA, transB>(B, A)

``transA`` and ``transB`` are flipped where they are set. A Gemm without C exists from opset 11 on,
so a MatMul becomes one only there. Source: ONNX Gemm-11, Transpose-1.

Refuses: a MatMul of anything not proven to be two matrices, or of whole numbers; a transposed
result to which a C is added; a tensor with a second user, where the Transpose would have to stay;
a product of dequantized matrices, which runtimes compute on whole numbers as it stands.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from graphopt.ir.graph import Node
from graphopt.ir.surgery import Scope, input_or_none, producer, replace, sole_user
from graphopt.pass_base import Context, Edit, Pass, Skip
from graphopt.passes.folding._linear_layers import multiplies_matrices

OPTIONAL_C_OPSET = 11


@dataclass(frozen=True)
class FoldTransposeIntoGemm(Pass):
    """A Transpose before or behind a product of matrices becomes an attribute of a Gemm."""

    name = "fold-transpose-into-gemm"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        for node in context.nodes(graph, "Transpose"):
            outcome = _into_reader(node, context) or _into_maker(node, context)
            if outcome is not None:
                yield outcome


def _into_reader(node: Node, context: Context) -> Edit | None:
    product = sole_user(node.outputs[0])
    if product is None or not _foldable(product, context) or not _swaps(node):
        return None
    attrs = dict(product.attrs)
    inputs = list(product.inputs)
    for position, key in enumerate(("transA", "transB")):
        if inputs[position] is node.outputs[0]:
            inputs[position] = node.inputs[0]
            _flip(attrs, key)
            gemm = replace(product, "Gemm", inputs, attrs)
            return Edit(node, f"became {key} of {gemm.label}")
    return None


def _into_maker(node: Node, context: Context) -> Edit | None:
    product = producer(node.inputs[0])
    if product is None or sole_user(node.inputs[0]) is not node or not _swaps(node):
        return None
    if not _foldable(product, context) or input_or_none(product, 2) is not None:
        return None
    if int(product.graph.opset) < OPTIONAL_C_OPSET:  # type: ignore[union-attr]
        return None
    attrs = {k: v for k, v in product.attrs.items() if k not in ("transA", "transB", "beta")}
    for key, other in (("transA", "transB"), ("transB", "transA")):
        if not product.attrs.get(other, 0):
            attrs[key] = 1
    label = product.label
    replace(node, "Gemm", [product.inputs[1], product.inputs[0]], attrs)
    return Edit(node, f"{label} computes the transposed product")


def _flip(attrs: dict[str, object], key: str) -> None:
    if attrs.pop(key, 0) == 0:
        attrs[key] = 1


def _swaps(node: Node) -> bool:
    """Whether a Transpose of a matrix swaps its two axes; the default reverses them."""
    return list(node.attrs.get("perm", [1, 0])) == [1, 0]


def _foldable(node: Node, context: Context) -> bool:
    if node.op == "MatMul" and int(node.graph.opset) < OPTIONAL_C_OPSET:  # type: ignore[union-attr]
        return False
    return multiplies_matrices(node, context)
