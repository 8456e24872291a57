"""Operators that pad, crop or resample (ONNX operator spec: Pad, Resize, GridSample, ...)."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from graphopt.ir.inference.call import Call, axes_of
from graphopt.ir.inference.facts import Fact, Shape
from graphopt.ir.inference.registry import rule
from graphopt.numerics.dims import Dim, floor_div, is_non_negative


@rule("Pad")
def pad(call: Call) -> Fact:
    """Pads before and after each axis, all axes or those named (opset 18)."""
    dtype, shape = call.dtype(0), call.shape(0)
    if shape is None:
        return Fact(dtype)
    rank = len(shape)
    pads: list[Dim] | None
    for name in ("pads", "paddings"):
        if name in call.node.attrs:
            pads = [*(call.integers(name) or [])]
            break
    else:
        pads = call.elements(1)
    axes = call.ints(3) if call.has(3) else list(range(rank))
    if pads is None or axes is None:
        return Fact(dtype, call.fresh_shape(rank))
    places = axes_of(axes, rank)
    if len(pads) != 2 * len(places):
        raise ValueError(pads)
    dims = list(shape)
    for index, axis in enumerate(places):
        dims[axis] = shape[axis] + pads[index] + pads[index + len(places)]
    return Fact(dtype, tuple(dims))


def scaled(call: Call, dim: Dim, scale: float) -> Dim:
    """Return floor(dim * scale) as computed in float32, a fresh symbol where that may round."""
    exact = Fraction(scale)
    if exact <= 0:
        raise ValueError(scale)
    if isinstance(dim, int):
        rounded = int(np.floor(np.float32(dim) * np.float32(scale)))
        return rounded if rounded == (dim * exact) // 1 else call.fresh()
    if exact.denominator == 1 or exact.numerator < 16:
        return floor_div(dim * exact.numerator, exact.denominator)
    return call.fresh()


def _scaled_shape(call: Call, shape: Shape, scales: list[float], axes: list[int]) -> Shape:
    dims = list(shape)
    for axis, scale in zip(axes, scales, strict=True):
        dims[axis] = scaled(call, shape[axis], scale)
    return tuple(dims)


@rule("Upsample")
def upsample(call: Call) -> Fact:
    """Scales as an attribute (opset 7) or an input (opset 9)."""
    dtype, shape = call.dtype(0), call.shape(0)
    given = call.attribute("scales")
    scales = [float(x) for x in given] if isinstance(given, (list, tuple)) else call.floats(1)
    if shape is None:
        return Fact(dtype, None if scales is None else call.fresh_shape(len(scales)))
    if scales is None:
        return Fact(dtype, call.fresh_shape(len(shape)))
    return Fact(dtype, _scaled_shape(call, shape, scales, list(range(len(shape)))))


@rule("Resize")
def resize(call: Call) -> Fact:
    """Sizes, or scales; opset 10 has neither the region nor the sizes."""
    dtype, shape = call.dtype(0), call.shape(0)
    if shape is None:
        return Fact(dtype)
    rank = len(shape)
    named = call.integers("axes")
    axes = list(range(rank)) if named is None else axes_of(named, rank)
    unknown = tuple(call.fresh() if axis in axes else dim for axis, dim in enumerate(shape))
    if call.has(3) and call.shape(3) != (0,):
        sizes = call.elements(3)
        if sizes is None or call.text("keep_aspect_ratio_policy", "stretch") != "stretch":
            return Fact(dtype, unknown)
        dims = list(shape)
        for axis, size in zip(axes, sizes, strict=True):
            dims[axis] = size if is_non_negative(size) else call.fresh()
        return Fact(dtype, tuple(dims))
    cropped = call.text("coordinate_transformation_mode", "") == "tf_crop_and_resize"
    scales = call.floats(1 if call.opset < 11 else 2)
    if scales is None or not scales or cropped:
        return Fact(dtype, unknown)
    return Fact(dtype, _scaled_shape(call, shape, scales, axes))


@rule("CenterCropPad")
def center_crop_pad(call: Call) -> Fact:
    """Some axes become as long as wanted."""
    dtype, shape, sizes = call.dtype(0), call.shape(0), call.elements(1)
    if shape is None:
        return Fact(dtype)
    named = call.integers("axes")
    axes = list(range(len(shape))) if named is None else axes_of(named, len(shape))
    dims = list(shape)
    if sizes is None:
        sizes = [call.fresh() for _ in axes]
    for axis, size in zip(axes, sizes, strict=True):
        dims[axis] = size if is_non_negative(size) else call.fresh()
    return Fact(dtype, tuple(dims))


@rule("AffineGrid")
def affine_grid(call: Call) -> Fact:
    """[N, *spatial, number of spatial axes] for the size [N, C, *spatial]."""
    size, dtype = call.elements(1), call.dtype(0)
    if size is None:
        return Fact(dtype)
    dims = [entry if is_non_negative(entry) else call.fresh() for entry in size]
    return Fact(dtype, (dims[0], *dims[2:], len(dims) - 2))


@rule("GridSample")
def grid_sample(call: Call) -> Fact:
    """[N, C, *positions of the grid]."""
    shape, grid, dtype = call.shape(0), call.shape(1), call.dtype(0)
    if shape is None or grid is None:
        return Fact(dtype, None if shape is None else call.fresh_shape(len(shape)))
    return Fact(dtype, (*shape[:2], *grid[1:-1]))
