"""Replace an Einsum by the operator that it writes out.

    "...ik,...kj->...ij"    MatMul          "ik,jk->ij"    Gemm, also with both transposed
    "ij->ji"                Transpose       "ij->i"        ReduceSum
    "ij,ij->ij"             Mul

A constant operand of MatMul is stored with its axes in the order that is needed.

Refuses: repeated subscripts in one operand; orders that would take a Transpose beside the MatMul;
summed axes whose sizes are not provably equal, which Einsum may broadcast; an ellipsis of unknown
rank.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.arguments import dims, with_axes
from graphopt.ir.graph import Constant, Node
from graphopt.ir.surgery import Scope, bypass, new_constant, replace
from graphopt.pass_base import Context, Edit, Pass, Skip


@dataclass(frozen=True)
class EinsumToMatmul(Pass):
    """Einsum becomes MatMul, Gemm, Transpose, ReduceSum or Mul."""

    name = "einsum-to-matmul"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        for node in context.nodes(graph, "Einsum"):
            terms = _terms(node, context)
            if terms is None:
                continue
            made = _of_one(node, *terms) if len(terms) == 2 else _of_two(node, terms, context)
            if made is not None:
                yield Edit(node, "without effect" if made is node else f"written out as {made.op}")


def _terms(node: Node, context: Context) -> list[str] | None:
    """The subscripts of each operand and of the result; digits stand for an ellipsis."""
    equation = node.attrs.get("equation", b"")
    text = (equation.decode() if isinstance(equation, bytes) else str(equation)).replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    if len(terms) != len(node.inputs) or len(terms) > 2:
        return None
    widths = set()
    for term, tensor in zip(terms, node.inputs, strict=True):
        if "..." in term:
            shape = dims(tensor, context.facts)
            if shape is None:
                return None
            widths.add(len(shape) - len(term) + 3)
    if len(widths) > 1 or any(not 0 <= width <= 9 for width in widths):
        return None
    ellipsis = "0123456789"[: widths.pop()] if widths else ""
    if not arrow:
        letters = "".join(terms).replace(".", "")
        right = ("..." if "..." in left else "") + "".join(
            sorted(letter for letter in set(letters) if letters.count(letter) == 1)
        )
    found = [term.replace("...", ellipsis) for term in (*terms, right)]
    return None if any(len(set(term)) < len(term) for term in found) else found


def _of_one(node: Node, term: str, result: str) -> Node | None:
    """A permutation or a sum of one operand."""
    source, graph = node.inputs[0], node.graph
    assert graph is not None
    if sorted(term) == sorted(result):
        if term == result:
            return node if bypass(node) else None
        return replace(node, "Transpose", [source], {"perm": [term.index(s) for s in result]})
    kept = [subscript for subscript in term if subscript in result]
    if "".join(kept) != result:
        return None
    axes = [axis for axis, subscript in enumerate(term) if subscript not in result]
    inputs, attrs = with_axes(graph, "ReduceSum", source, axes)
    return replace(node, "ReduceSum", inputs, {**attrs, "keepdims": 0})


def _of_two(node: Node, terms: list[str], context: Context) -> Node | None:
    """A product of two operands."""
    a, b, result = terms
    if a == b == result:
        return replace(node, "Mul", list(node.inputs))
    if not _same_sums(node, terms, context):
        return None
    for first, second in ((0, 1), (1, 0)):
        operands = [(node.inputs[index], terms[index]) for index in (first, second)]
        made = _matmul(node, operands, result) or _gemm(node, operands, result, context)
        if made is not None:
            return made
    return None


def _same_sums(node: Node, terms: list[str], context: Context) -> bool:
    """Whether the summed axes provably have the same size in both operands.

    Einsum would broadcast an axis of size 1, MatMul does not.
    """
    a, b = (dims(tensor, context.facts) for tensor in node.inputs)
    if a is None or b is None or len(a) != len(terms[0]) or len(b) != len(terms[1]):
        return False
    summed = [s for s in terms[0] if s in terms[1] and s not in terms[2]]
    return all(a[terms[0].index(s)] == b[terms[1].index(s)] for s in summed)


def _matmul(node: Node, operands: list[tuple[gs.Tensor, str]], result: str) -> Node | None:
    """A MatMul of two operands in this order."""
    (left, a), (right, b) = operands
    summed = [subscript for subscript in a if subscript in b and subscript not in result]
    if len(summed) != 1:
        return None
    row = [s for s in a if s not in b]
    column = [s for s in b if s not in a]
    batch = "".join(s for s in a if s in b and s in result)
    if len(row) > 1 or len(column) > 1 or result != batch + "".join(row + column):
        return _with_free_batch(node, operands, result, summed[0])
    if batch and not (row and column):
        return None
    wanted = batch + "".join(row) + summed[0], batch + summed[0] + "".join(column)
    inputs = [_ordered(node, left, a, wanted[0]), _ordered(node, right, b, wanted[1])]
    if inputs[0] is None or inputs[1] is None:
        return None
    return replace(node, "MatMul", inputs)


def _with_free_batch(
    node: Node, operands: list[tuple[gs.Tensor, str]], result: str, summed: str
) -> Node | None:
    """A MatMul of a stack of matrices, or of rows, with one matrix or vector."""
    (left, a), (right, b) = operands
    rows = [s for s in a if s != summed]
    column = [s for s in b if s != summed]
    if len(b) > 2 or set(rows) & set(column) or result != "".join(rows + column):
        return None
    second = _ordered(node, right, b, summed + "".join(column))
    if second is None or a != "".join(rows) + summed:
        return None
    return replace(node, "MatMul", [left, second])


def _ordered(node: Node, tensor: gs.Tensor, term: str, wanted: str) -> gs.Tensor | None:
    """A tensor with its axes in another order, which only a constant can have."""
    if term == wanted:
        return tensor
    if not isinstance(tensor, Constant) or len(tensor.outputs) != 1 or tensor.is_output:
        return None
    values = np.ascontiguousarray(tensor.values.transpose([term.index(s) for s in wanted]))
    graph = node.graph
    assert graph is not None
    return new_constant(graph, tensor.name, values)


def _gemm(
    node: Node, operands: list[tuple[gs.Tensor, str]], result: str, context: Context
) -> Node | None:
    """A Gemm of two matrices, of which one or both are transposed."""
    (left, a), (right, b) = operands
    dtype = context.facts.dtype(node.outputs[0])
    if dtype is None or dtype.kind != "f" or not len(a) == len(b) == len(result) == 2:
        return None
    row, column = result[0], result[1]
    if row not in a or column not in b or {*a} - {row} != {*b} - {column} or row in b:
        return None
    attrs = {"transA": int(a[0] != row), "transB": int(b[1] != column)}
    return replace(node, "Gemm", [left, right], {key: 1 for key, on in attrs.items() if on})
