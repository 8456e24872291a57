"""Operators that select or join elements (ONNX operator spec: Slice, Gather, Concat, ...)."""

from __future__ import annotations

import numpy as np

from graphopt.ir.inference.call import INT64, Call, axis_of
from graphopt.ir.inference.facts import Fact, Shape, static
from graphopt.ir.inference.registry import rule
from graphopt.numerics.dims import (
    Dim,
    ceil_div,
    is_non_negative,
    is_positive,
    maximum,
    minimum,
)

INFINITY = 2**31 - 1
"""Exporters write this or more for "to the end"; no axis is that long."""


@rule("Slice")
def slices(call: Call) -> Fact:
    """A Python slice of some axes; bounds as attributes below opset 10."""
    dtype, shape, value = call.dtype(0), call.shape(0), call.value(0)
    if shape is None:
        return Fact(dtype)
    rank = len(shape)
    starts, ends, axes, steps = _bounds(call)
    if starts is None or ends is None:
        if axes is not None:
            touched = {axis_of(axis, rank) for axis in axes}
            kept = (call.fresh() if i in touched else dim for i, dim in enumerate(shape))
            return Fact(dtype, tuple(kept))
        return Fact(dtype, call.fresh_shape(rank))
    if axes is None or steps is None:
        return Fact(dtype, call.fresh_shape(rank))
    dims = list(shape)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        index = axis_of(axis, rank)
        length = slice_length(shape[index], start, end, step)
        dims[index] = call.fresh() if length is None else length
        value = _sliced(value, index, start, end, step)
    return call.result(dtype, tuple(dims), None if value is None else value.flat)


def _bounds(
    call: Call,
) -> tuple[list[Dim] | None, list[Dim] | None, list[int] | None, list[int] | None]:
    """Starts, ends, axes and steps; None what is not known."""
    if "starts" in call.node.attrs:
        starts: list[Dim] | None = [*(call.integers("starts") or [])]
        ends: list[Dim] | None = [*(call.integers("ends") or [])]
        axes = call.integers("axes")
        steps: list[int] | None = None
        given = axes is not None, False
    else:
        starts, ends = call.elements(1), call.elements(2)
        axes, steps = call.ints(3), call.ints(4)
        given = call.has(3), call.has(4)
    known = starts if starts is not None else ends if ends is not None else axes
    if known is not None:
        axes = axes if given[0] else list(range(len(known)))
        steps = steps if given[1] else [1] * len(known)
    return starts, ends, axes, steps


def slice_length(dim: Dim, start: Dim, end: Dim, step: int) -> Dim | None:
    """How many elements a slice takes of an axis, None when not expressible."""
    if step > 0:
        first, last = _place(start, dim), _place(end, dim)
        if first is None or last is None:
            return None
        return last if first == 0 and step == 1 else maximum(ceil_div(last - first, step), 0)
    if step < 0:
        first, last = _last_place(start, dim), _clamped(end, dim)
        if first is None or last is None:
            return None
        return maximum(ceil_div(first - last, -step), 0)
    raise ValueError("the step of a slice is 0")


def _place(bound: Dim, dim: Dim) -> Dim | None:
    """A bound counted from the front and held between 0 and dim, which is not negative."""
    if isinstance(bound, int):
        if bound == 0 or bound <= -INFINITY:
            return 0
        if bound >= INFINITY:
            return dim
    if is_non_negative(bound):
        return dim if bound == dim else minimum(bound, dim)
    return maximum(bound + dim, 0) if is_positive(-bound) else None


def _last_place(start: Dim, dim: Dim) -> Dim | None:
    """Where a backward slice starts; None before the first element, where runtimes disagree."""
    if isinstance(start, int) and start >= INFINITY:
        return dim - 1
    if is_non_negative(start):
        return minimum(start, dim - 1)
    return dim + start if start == -1 or is_non_negative(dim + start) else None


def _clamped(end: Dim, dim: Dim) -> Dim | None:
    """Where a backward slice ends, not included: from -1 to dim - 1."""
    if isinstance(end, int) and end <= -INFINITY:
        return -1
    if is_non_negative(end):
        return minimum(end, dim - 1)
    return maximum(end + dim, -1) if is_positive(-end) else None


def _sliced(
    value: np.ndarray | None, axis: int, start: Dim, end: Dim, step: int
) -> np.ndarray | None:
    if value is None or not isinstance(start, int) or not isinstance(end, int):
        return None
    if step < 0 and start < -value.shape[axis]:
        return None
    cut = [slice(None)] * value.ndim
    cut[axis] = slice(start, end, step)
    return value[tuple(cut)]


@rule("Gather")
def gather(call: Call) -> Fact:
    """The indexed axis is replaced by the axes of the indices."""
    dtype, data, indices = call.dtype(0), call.shape(0), call.shape(1)
    if data is None or indices is None:
        return Fact(dtype)
    axis = axis_of(call.integer("axis", 0), len(data))
    shape = data[:axis] + indices + data[axis + 1 :]
    value, wanted = call.value(0), call.ints(1)
    size = static(indices)
    if value is None or wanted is None or size is None:
        return Fact(dtype, shape)
    taken = np.take(value, np.array(wanted, dtype=np.int64).reshape(size), axis=axis)
    return call.result(dtype, shape, np.asarray(taken, dtype=object).flat)


@rule("GatherElements")
def gather_elements(call: Call) -> Fact:
    """One element of the data for each index."""
    dtype, shape = call.dtype(0), call.shape(1)
    value, wanted = call.value(0), call.ints(1)
    if value is None or wanted is None or value.ndim != 1:
        return Fact(dtype, shape)
    return call.result(dtype, shape, [value[index] for index in wanted])


@rule("GatherND")
def gather_nd(call: Call) -> Fact:
    """Index tuples stand along the last axis of the indices."""
    dtype, data, indices = call.dtype(0), call.shape(0), call.shape(1)
    if data is None or not indices or not isinstance(indices[-1], int):
        return Fact(dtype)
    used = call.integer("batch_dims", 0) + indices[-1]
    if used > len(data):
        raise IndexError(used)
    return Fact(dtype, indices[:-1] + data[used:])


@rule("TopK")
def top_k(call: Call) -> list[Fact]:
    """The k best along an axis, and where they stood; k is an attribute below opset 10."""
    shape = call.shape(0)
    if shape is None:
        return [Fact(call.dtype(0)), Fact(INT64)]
    axis = axis_of(call.integer("axis", -1), len(shape))
    k: Dim
    if "k" in call.node.attrs:
        k = call.integer("k", 0)
    else:
        wanted = call.elements(1)
        k = wanted[0] if wanted and is_non_negative(wanted[0]) else call.fresh()
    best = (*shape[:axis], k, *shape[axis + 1 :])
    return [Fact(call.dtype(0), best), Fact(INT64, best)]


@rule("Compress")
def compress(call: Call) -> Fact:
    """A data-dependent number of slices along an axis, or of elements."""
    shape, axis = call.shape(0), call.attribute("axis")
    if axis is None:
        return Fact(call.dtype(0), (call.fresh(),))
    if shape is None:
        return Fact(call.dtype(0))
    index = axis_of(call.integer("axis", 0), len(shape))
    return Fact(call.dtype(0), (*shape[:index], call.fresh(), *shape[index + 1 :]))


@rule("Unique")
def unique(call: Call) -> list[Fact]:
    """A data-dependent number of slices along an axis, or of elements, with their indices."""
    shape, axis = call.shape(0), call.attribute("axis")
    count, total = call.fresh(), call.fresh()
    found: Shape | None = (count,)
    length: Dim = total
    if axis is None and shape is not None:
        length = _product(shape)
    elif axis is not None:
        found = None
        if shape is not None:
            index = axis_of(call.integer("axis", 0), len(shape))
            found, length = (*shape[:index], count, *shape[index + 1 :]), shape[index]
    each, inverse = Fact(INT64, (count,)), Fact(INT64, (length,))
    return [Fact(call.dtype(0), found), each, inverse, each]


def _product(shape: Shape) -> Dim:
    total: Dim = 1
    for dim in shape:
        total = total * dim
    return total


@rule("NonZero")
def nonzero(call: Call) -> Fact:
    """One row for each axis; the number of columns depends on the data."""
    shape, value = call.shape(0), call.value(0)
    if not shape:
        return Fact(INT64, (call.fresh(), call.fresh()))
    if value is None or call.ints(0) is None:
        return Fact(INT64, (len(shape), call.fresh()))
    places = np.array(np.nonzero(value != 0))
    return call.result(INT64, places.shape, (int(entry) for entry in places.flat))


@rule("OneHot")
def one_hot(call: Call) -> Fact:
    """A new axis as long as the depth."""
    shape, depth = call.shape(0), call.elements(1)
    if shape is None:
        return Fact(call.dtype(2))
    axis = axis_of(call.integer("axis", -1), len(shape) + 1)
    size = depth[0] if depth and is_non_negative(depth[0]) else call.fresh()
    return Fact(call.dtype(2), (*shape[:axis], size, *shape[axis:]))


@rule("NonMaxSuppression")
def suppression(call: Call) -> Fact:
    """A data-dependent number of (batch, class, box) triples."""
    return Fact(INT64, (call.fresh(), 3))
