"""Products of matrices (ONNX operator spec: MatMul as numpy.matmul, Gemm, Einsum, Attention)."""

from __future__ import annotations

import numpy as np

from graphopt.ir.inference.broadcasting import broadcast_shapes
from graphopt.ir.inference.call import Call
from graphopt.ir.inference.facts import Fact, Shape
from graphopt.ir.inference.registry import rule
from graphopt.numerics.dims import Dim, exact_div

INT32 = np.dtype(np.int32)


def matmul_shape(call: Call, a: Shape | None, b: Shape | None) -> Shape | None:
    """The shape of numpy.matmul.

    Raises:
        ValueError: a scalar.
    """
    if a is None or b is None:
        return None
    if not a or not b:
        raise ValueError("MatMul of a scalar")
    left = a if len(a) > 1 else (1, *a)
    right = b if len(b) > 1 else (*b, 1)
    batch = broadcast_shapes([left[:-2], right[:-2]], call.fresh)
    if batch is None:
        return None
    rows = left[-2:-1] if len(a) > 1 else ()
    columns = right[-1:] if len(b) > 1 else ()
    return batch + rows + columns


@rule("MatMul")
def matmul(call: Call) -> Fact:
    """A product of stacks of matrices."""
    return Fact(call.common_dtype(0, 1), matmul_shape(call, call.shape(0), call.shape(1)))


@rule("MatMulInteger")
def matmul_integer(call: Call) -> Fact:
    """A product of bytes into int32."""
    return Fact(INT32, matmul_shape(call, call.shape(0), call.shape(1)))


@rule("QLinearMatMul")
def matmul_quantized(call: Call) -> Fact:
    """A product of bytes; the result has the type of its zero point."""
    return Fact(call.dtype(7), matmul_shape(call, call.shape(0), call.shape(3)))


@rule("Gemm")
def gemm(call: Call) -> Fact:
    """A' B' + C, with C broadcast to the product."""
    a, b = call.shape(0), call.shape(1)
    rows = a[1 if call.integer("transA", 0) else 0] if a else call.fresh()
    columns = b[0 if call.integer("transB", 0) else 1] if b else call.fresh()
    return Fact(call.common_dtype(0, 1, 2), (rows, columns))


@rule("Det")
def determinant(call: Call) -> Fact:
    """One number for each matrix."""
    shape = call.shape(0)
    return Fact(call.dtype(0), None if shape is None else shape[:-2])


@rule("Einsum")
def einsum(call: Call) -> Fact:
    """Einstein summation; the axes of an ellipsis are broadcast."""
    dtype = call.common_dtype()
    left, arrow, right = call.text("equation", "").replace(" ", "").partition("->")
    terms = left.split(",")
    sizes: dict[str, Dim] = {}
    ellipses: list[Shape] = []
    for index, term in enumerate(terms):
        shape = call.shape(index)
        if shape is None:
            return Fact(dtype)
        before, dots, after = term.partition("...")
        inner = shape[len(before) : len(shape) - len(after)]
        if len(before) + len(after) > len(shape) or (inner and not dots):
            raise ValueError(term)
        ellipses.append(inner)
        dims = (*shape[: len(before)], *shape[len(shape) - len(after) :])
        for letter, dim in zip(before + after, dims, strict=True):
            held = sizes.get(letter)
            if held is None or held == 1 or (isinstance(dim, int) and dim != 1):
                sizes[letter] = dim
            elif not isinstance(held, int) and held != dim and dim != 1:
                sizes[letter] = call.fresh()
    letters = "".join(terms).replace(".", "")
    if not arrow:
        once = sorted(letter for letter in set(letters) if letters.count(letter) == 1)
        right = ("..." if "..." in left else "") + "".join(once)
    before, dots, after = right.partition("...")
    spread = broadcast_shapes(ellipses, call.fresh) if dots else ()
    if spread is None:
        return Fact(dtype)
    return Fact(dtype, (*(sizes[x] for x in before), *spread, *(sizes[x] for x in after)))


@rule("Attention")
def attention(call: Call) -> list[Fact]:
    """Scaled dot product attention, heads packed (rank 3) or apart (rank 4)."""
    query, key, value = call.shape(0), call.shape(1), call.shape(2)
    dtype = call.dtype(0)
    if query is None:
        return [Fact(dtype)]
    heads, length = call.fresh(), call.fresh()
    scores: Shape = (query[0], heads, query[-2], length)
    if len(query) == 4:
        scores = (query[0], query[1], query[2], length)
        width = value[3] if value is not None and len(value) == 4 else call.fresh()
        shape: Shape = (*query[:3], width)
    else:
        q_heads, kv_heads = call.integer("q_num_heads", 0), call.integer("kv_num_heads", 0)
        per_head = None
        if value is not None and len(value) == 3 and q_heads > 0 and kv_heads > 0:
            per_head = exact_div(value[2], kv_heads)
            scores = (query[0], q_heads, query[1], length)
        packed = call.fresh() if per_head is None else per_head * q_heads
        shape = (query[0], query[1], packed)
    past = [call.shape(index) for index in (4, 5)]
    present = [
        Fact(call.dtype(index), _present(call, old, new))
        for index, old, new in zip((1, 2), past, (key, value), strict=True)
    ]
    return [Fact(dtype, shape), *present, Fact(dtype, scores)]


def _present(call: Call, past: Shape | None, new: Shape | None) -> Shape:
    """[batch, heads, past + new, width] of a cache; unknown where there is no past."""
    if past is None or new is None or len(past) != 4:
        return (call.fresh(), call.fresh(), call.fresh(), call.fresh())
    return (past[0], past[1], past[2] + new[-2], past[3])
