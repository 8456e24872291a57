"""Operators that move axes and keep the elements (ONNX operator spec: Reshape, ...)."""

from __future__ import annotations

import numpy as np

from graphopt.ir.inference.broadcasting import broadcast_shapes
from graphopt.ir.inference.call import INT64, Call, axes_of
from graphopt.ir.inference.facts import MAX_ELEMENTS, Fact, Shape, static
from graphopt.ir.inference.registry import rule
from graphopt.numerics.dims import (
    Dim,
    exact_div,
    floor_div,
    is_non_negative,
    is_positive,
    product,
)


@rule("Identity")
def identity(call: Call) -> Fact:
    """The same, contents, sequences and all."""
    return call.fact(0)


@rule("Shape")
def shape_of(call: Call) -> Fact:
    """The dims as contents; start and end as in Python slices (opset 15)."""
    shape = call.shape(0)
    start, end = call.integer("start", 0), call.attribute("end")
    if shape is None:
        return Fact(INT64, call.fresh_shape(1))
    dims = shape[start : call.integer("end", 0) if end is not None else None]
    return call.result(INT64, (len(dims),), dims)


@rule("Size")
def size_of(call: Call) -> Fact:
    """The number of elements."""
    shape = call.shape(0)
    return call.result(INT64, (), None if shape is None else [product(shape)])


@rule("Reshape")
def reshape(call: Call) -> Fact:
    """Dims from contents: 0 copies a dim (unless allowzero), -1 is what remains."""
    dtype, data = call.dtype(0), call.shape(0)
    target: list[Dim] | None
    if call.opset < 5 and "shape" in call.node.attrs:
        target = [*(call.integers("shape") or [])]
    else:
        target = call.elements(1)
    if target is None:
        wanted = call.shape(1)
        return Fact(dtype, call.fresh_shape(wanted[0]) if wanted else None)
    shape = _reshaped(call, data, target, bool(call.integer("allowzero", 0)))
    value = call.value(0)
    return call.result(dtype, shape, None if value is None else value.flat)


def _reshaped(call: Call, data: Shape | None, target: list[Dim], allowzero: bool) -> Shape:
    total = None if data is None else product(data)
    dims: list[Dim | None] = []
    for index, entry in enumerate(target):
        old = data[index] if data is not None and index < len(data) else None
        dims.append(_entry(entry, old, total, allowzero))
    open_axis = target.index(-1) if -1 in target else None
    if open_axis is not None:
        known = [dim for index, dim in enumerate(dims) if index != open_axis and dim is not None]
        if total is not None and len(known) == len(dims) - 1:
            rest = product(known)
            quotient = exact_div(total, rest)
            if quotient is None and isinstance(total, int) and isinstance(rest, int):
                raise ValueError("the elements do not fit the shape")
            dims[open_axis] = floor_div(total, rest) if quotient is None else quotient
    return tuple(call.fresh() if dim is None else dim for dim in dims)


def _entry(entry: Dim, old: Dim | None, total: Dim | None, allowzero: bool) -> Dim | None:
    """The dim that one entry of the target stands for, or None; an empty tensor is left aside."""
    if isinstance(entry, int):
        return entry if entry > 0 or (entry == 0 and allowzero) else old if entry == 0 else None
    if entry == old or is_positive(entry):
        return entry
    if not is_non_negative(entry):
        return None
    divides = total is not None and exact_div(total, entry) is not None
    return entry if allowzero or divides else None


@rule("Flatten")
def flatten(call: Call) -> Fact:
    """Two axes: those before `axis` and those from it on."""
    shape, axis = call.shape(0), call.integer("axis", 1)
    if shape is None:
        return Fact(call.dtype(0), call.fresh_shape(2))
    axis = axis + len(shape) if axis < 0 else axis
    if not 0 <= axis <= len(shape):
        raise IndexError(axis)
    value = call.value(0)
    flat = (product(shape[:axis]), product(shape[axis:]))
    return call.result(call.dtype(0), flat, None if value is None else value.flat)


@rule("Transpose")
def transpose(call: Call) -> Fact:
    """Axes in another order, reversed by default."""
    shape, order, value = call.shape(0), call.integers("perm"), call.value(0)
    if shape is None:
        return Fact(call.dtype(0), None if order is None else call.fresh_shape(len(order)))
    order = list(range(len(shape)))[::-1] if order is None else axes_of(order, len(shape))
    if len(order) != len(shape):
        raise ValueError(order)
    moved = None if value is None else value.transpose(order).flat
    return call.result(call.dtype(0), tuple(shape[axis] for axis in order), moved)


@rule("Squeeze")
def squeeze(call: Call) -> Fact:
    """Drop axes of size 1: those named, else all of them."""
    shape, dtype, value = call.shape(0), call.dtype(0), call.value(0)
    given, axes = call.list_of("axes", 1)
    if shape is None:
        return Fact(dtype)
    if not given:
        if not all(isinstance(dim, int) or is_positive(dim - 1) for dim in shape):
            return Fact(dtype)
        axes = [axis for axis, dim in enumerate(shape) if dim == 1]
    if axes is None:
        count = call.shape(1)
        known = count is not None and len(count) == 1 and isinstance(count[0], int)
        return Fact(dtype, call.fresh_shape(len(shape) - count[0]) if known and count else None)
    gone = axes_of(axes, len(shape))
    kept = tuple(dim for axis, dim in enumerate(shape) if axis not in gone)
    return call.result(dtype, kept, None if value is None else value.flat)


@rule("Unsqueeze")
def unsqueeze(call: Call) -> Fact:
    """Insert axes of size 1 at positions of the result."""
    shape, dtype, value = call.shape(0), call.dtype(0), call.value(0)
    _, axes = call.list_of("axes", 1)
    if shape is None:
        return Fact(dtype)
    if axes is None:
        count = call.shape(1)
        return Fact(dtype, call.fresh_shape(len(shape) + count[0]) if count else None)
    rank = len(shape) + len(axes)
    new = axes_of(axes, rank)
    dims = iter(shape)
    grown = tuple(1 if axis in new else next(dims) for axis in range(rank))
    return call.result(dtype, grown, None if value is None else value.flat)


@rule("DepthToSpace")
def depth_to_space(call: Call) -> Fact:
    """[N, C, H, W] to [N, C / b^2, H b, W b]."""
    shape, block = call.shape(0), call.integer("blocksize", 0)
    if shape is None:
        return Fact(call.dtype(0), call.fresh_shape(4))
    n, c, h, w = shape
    return Fact(call.dtype(0), (n, floor_div(c, block * block), h * block, w * block))


@rule("SpaceToDepth")
def space_to_depth(call: Call) -> Fact:
    """[N, C, H, W] to [N, C b^2, H / b, W / b]."""
    shape, block = call.shape(0), call.integer("blocksize", 0)
    if shape is None:
        return Fact(call.dtype(0), call.fresh_shape(4))
    n, c, h, w = shape
    return Fact(call.dtype(0), (n, c * (block * block), floor_div(h, block), floor_div(w, block)))


@rule("Col2Im")
def col2im(call: Call) -> Fact:
    """[N, C * prod(block), L] to [N, C, *image]."""
    shape, image, block = call.shape(0), call.elements(1), call.ints(2)
    if image is None:
        return Fact(call.dtype(0))
    n, c = (call.fresh(), call.fresh()) if shape is None or block is None else shape[:2]
    channels = c if shape is None or block is None else floor_div(c, product(block))
    return Fact(call.dtype(0), (n, channels, *(_dim(call, entry) for entry in image)))


def _dim(call: Call, entry: Dim) -> Dim:
    return entry if is_non_negative(entry) else call.fresh()


@rule("Expand")
def expand(call: Call) -> Fact:
    """The data broadcast together with the wanted shape."""
    dtype, shape, target = call.dtype(0), call.shape(0), call.elements(1)
    if target is None or shape is None:
        wanted = call.shape(1)
        if shape is None or not wanted or not isinstance(wanted[0], int):
            return Fact(dtype)
        target = [call.fresh() for _ in range(wanted[0])] if wanted[0] <= 64 else None
        if target is None:
            return Fact(dtype)
    grown = broadcast_shapes([shape, tuple(_dim(call, entry) for entry in target)], call.fresh)
    value, fixed = call.value(0), None if grown is None else _fixed(grown)
    if value is None or fixed is None:
        return Fact(dtype, grown)
    return call.result(dtype, grown, np.broadcast_to(value, fixed).flat)


def _fixed(shape: Shape) -> tuple[int, ...] | None:
    ints = static(shape)
    return ints if ints is not None and int(np.prod(ints, dtype=object)) <= MAX_ELEMENTS else None


@rule("Tile")
def tile(call: Call) -> Fact:
    """Each axis repeated; below opset 6 one axis was named by inputs."""
    dtype, shape, repeats, value = call.dtype(0), call.shape(0), call.elements(1), call.value(0)
    if shape is None or repeats is None or call.opset < 6 or len(repeats) != len(shape):
        return Fact(dtype, None if shape is None else call.fresh_shape(len(shape)))
    grown = tuple(dim * times for dim, times in zip(shape, repeats, strict=True))
    counts = [times for times in repeats if isinstance(times, int)]
    if value is None or len(counts) != len(repeats) or _fixed(grown) is None:
        return Fact(dtype, grown)
    return call.result(dtype, grown, np.tile(value, counts).flat)
