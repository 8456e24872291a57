"""Operators that join tensors and take them apart (ONNX operator spec: Concat, Split)."""

from __future__ import annotations

import numpy as np

from graphopt.ir.inference.call import Call, axis_of
from graphopt.ir.inference.facts import Fact, object_array, static
from graphopt.ir.inference.registry import rule
from graphopt.numerics.dims import Dim, ceil_div, floor_div, is_non_negative


@rule("Concat")
def concat(call: Call) -> Fact:
    """Inputs joined along one axis; the others agree."""
    shapes = [call.shape(index) for index in range(len(call.inputs))]
    known = [shape for shape in shapes if shape is not None]
    dtype = call.common_dtype()
    if not known:
        return Fact(dtype)
    rank = len(known[0])
    axis = axis_of(call.integer("axis", 1 if call.opset < 4 else 0), rank)
    dims = [_agreed([shape[i] for shape in known]) for i in range(rank)]
    dims[axis] = call.fresh()
    if len(known) == len(shapes):
        dims[axis] = sum((shape[axis] for shape in known[1:]), start=known[0][axis])
    shape = tuple(dims)
    if (
        static(shape) is None
        or rank > 2
        or all(call.value(index) is None for index in range(len(shapes)))
    ):
        return Fact(dtype, shape)
    parts = []
    for index, part in enumerate(shapes):
        entries, fixed = call.elements(index), static(part)
        if entries is None or fixed is None:
            return Fact(dtype, shape)
        parts.append(object_array(entries, fixed))
    return call.result(dtype, shape, np.concatenate(parts, axis=axis).flat)


def _agreed(dims: list[Dim]) -> Dim:
    """One of dims that are equal in every run: a number where there is one."""
    return next((dim for dim in dims if isinstance(dim, int)), dims[0])


@rule("Split")
def split(call: Call) -> list[Fact]:
    """Parts along an axis: given sizes, else equal ones, the last smaller (opset 18)."""
    dtype, shape, value = call.dtype(0), call.shape(0), call.value(0)
    count = len(call.node.outputs)
    if shape is None:
        return [Fact(dtype)] * count
    axis = axis_of(call.integer("axis", 0), len(shape))
    sizes = _part_sizes(call, shape[axis], count)
    facts, offset = [], 0
    for size in sizes:
        part = (*shape[:axis], size, *shape[axis + 1 :])
        entries = None
        if value is not None and isinstance(size, int):
            cut = [slice(None)] * value.ndim
            cut[axis] = slice(offset, offset + size)
            entries = value[tuple(cut)].flat
            offset += size
        else:
            value = None
        facts.append(call.result(dtype, part, entries))
    return facts


def _part_sizes(call: Call, dim: Dim, count: int) -> list[Dim]:
    sizes: list[Dim] | None
    if "split" in call.node.attrs:
        sizes = [*(call.integers("split") or [])]
    elif call.has(1):
        sizes = call.elements(1)
    elif call.opset < 18:
        return [floor_div(dim, count)] * count
    else:
        parts = call.integer("num_outputs", count)
        size = ceil_div(dim, parts)
        sizes = [size] * (parts - 1) + [dim - size * (parts - 1)]
        if isinstance(sizes[-1], int) and sizes[-1] < 0:
            return [call.fresh() for _ in range(count)]
    if sizes is None or len(sizes) < count:
        return [call.fresh() for _ in range(count)]
    return [size if is_non_negative(size) else call.fresh() for size in sizes[:count]]
