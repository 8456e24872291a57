"""Multidirectional broadcasting of symbolic shapes, and their meet (ONNX, Broadcasting.md).

In a run that succeeds, two dims that are broadcast together are equal or one of them is 1. So a dim
that is provably not 1 is the result, and the result of two positive dims is their maximum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest

from graphopt.ir.inference.call import Call
from graphopt.ir.inference.facts import Fact, Shape, value_of
from graphopt.numerics.dims import Dim, Expr, is_positive, maximum

Fresh = Callable[[int | None, int | None], Expr]


def broadcast_dims(a: Dim, b: Dim, fresh: Fresh) -> Dim:
    """The dim of two that are broadcast together.

    Raises:
        ValueError: two numbers that do not fit.
    """
    if a == b or b == 1:
        return a
    if a == 1:
        return b
    if isinstance(a, int):
        if isinstance(b, int):
            raise ValueError(f"{a} and {b} do not broadcast")
        return a
    if isinstance(b, int) or is_positive(b - 1):
        return b
    if is_positive(a - 1):
        return a
    return maximum(a, b) if is_positive(a) and is_positive(b) else fresh(0, None)


def broadcast_shapes(shapes: Sequence[Shape | None], fresh: Fresh) -> Shape | None:
    """The shape of tensors broadcast together, None when a rank is unknown."""
    result: Shape = ()
    for shape in shapes:
        if shape is None:
            return None
        if result != shape:
            pairs = zip_longest(reversed(result), reversed(shape), fillvalue=1)
            result = tuple(broadcast_dims(a, b, fresh) for a, b in pairs)[::-1]
    return result


def broadcast(call: Call, *indices: int) -> Shape | None:
    """The shape of these inputs broadcast together."""
    return broadcast_shapes([call.shape(index) for index in indices], call.fresh)


def meet(a: Fact, b: Fact, fresh: Fresh) -> Fact:
    """What holds of a tensor that is either of two."""
    dtype = a.dtype if a.dtype == b.dtype else None
    kind = a.kind if a.kind == b.kind else "unknown"
    if a.shape is None or b.shape is None or len(a.shape) != len(b.shape) or kind == "unknown":
        return Fact(dtype, kind=kind)
    if kind != "tensor":
        return Fact(dtype, a.shape if a.shape == b.shape else None, kind=kind)
    shape = tuple(x if x == y else fresh(0, None) for x, y in zip(a.shape, b.shape, strict=True))
    if a.value is None or b.value is None or a.value.shape != b.value.shape or dtype is None:
        return Fact(dtype, shape)
    if dtype.kind not in "bi":
        same = all(x == y for x, y in zip(a.value.flat, b.value.flat, strict=True))
        return Fact(dtype, shape, a.value if same else None)
    low, high = (0, 1) if dtype.kind == "b" else (None, None)
    entries = [
        x if x == y else fresh(low, high) for x, y in zip(a.value.flat, b.value.flat, strict=True)
    ]
    return Fact(dtype, shape, value_of(entries, a.value.shape))
