"""Operators that slide a window: convolutions and pools (ONNX operator spec: Conv, MaxPool, ...).

With extent k' = d (k - 1) + 1 of a dilated kernel:

    explicit padding        floor((in + p - k') / s) + 1
    SAME_UPPER, SAME_LOWER  ceil(in / s)
    VALID                   as explicit, p = 0
    ceil_mode               ceil((in + p - k') / s) + 1, less one window that would start in the end
                            padding: runtimes differ in this, so it is told only where it cannot be
    ConvTranspose           s (in - 1) + output padding + k' - p
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphopt.ir.inference.call import INT64, Call
from graphopt.ir.inference.facts import Fact, Shape, static
from graphopt.ir.inference.registry import rule
from graphopt.numerics.dims import Dim, ceil_div, floor_div, is_non_negative

INT32 = np.dtype(np.int32)


@dataclass(frozen=True)
class Window:
    """The attributes of a window along one axis."""

    kernel: int
    stride: int
    dilation: int
    before: int
    after: int

    @property
    def extent(self) -> int:
        """How far the dilated kernel reaches."""
        return (self.kernel - 1) * self.dilation + 1


def windows(call: Call, kernel: list[int]) -> list[Window]:
    """The window along each spatial axis.

    Raises:
        ValueError: lists of different length, a stride or kernel below 1.
    """
    rank = len(kernel)
    strides = call.integers("strides") or [1] * rank
    dilations = call.integers("dilations") or [1] * rank
    pads = call.integers("pads") or [0] * (2 * rank)
    if len(pads) != 2 * rank or min([*strides, *kernel, *dilations], default=1) < 1:
        raise ValueError(pads)
    return [
        Window(*entry)
        for entry in zip(kernel, strides, dilations, pads[:rank], pads[rank:], strict=True)
    ]


def slide(call: Call, dim: Dim, window: Window, auto_pad: str, ceil_mode: bool) -> Dim:
    """How many windows fit along an axis."""
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        if window.dilation != 1 and call.node.op.endswith("Pool"):
            return call.fresh()  # runtimes leave the dilation out of the padding
        return ceil_div(dim, window.stride)
    before, after = (0, 0) if auto_pad == "VALID" else (window.before, window.after)
    free = dim + (before + after - window.extent)
    if isinstance(free, int) and free < 0:
        return call.fresh()
    if not ceil_mode:
        return floor_div(free, window.stride) + 1
    count = ceil_div(free, window.stride) + 1
    if auto_pad == "VALID" and window.stride > 1:
        valid = floor_div(free, window.stride) + 1
        return count if valid == count else call.fresh()
    if after + window.stride <= window.extent:
        return count
    if isinstance(dim, int) and isinstance(count, int):
        return count if (count - 1) * window.stride < dim + before else call.fresh()
    return call.fresh()


def slid(call: Call, spatial: Shape, kernel: list[int] | None) -> Shape:
    """The spatial dims that sliding a kernel leaves."""
    if kernel is None or len(kernel) != len(spatial):
        return tuple(call.fresh() for _ in spatial)
    auto_pad = call.text("auto_pad", "NOTSET")
    ceil_mode = bool(call.integer("ceil_mode", 0))
    pairs = zip(spatial, windows(call, kernel), strict=True)
    return tuple(slide(call, dim, window, auto_pad, ceil_mode) for dim, window in pairs)


def kernel_of(call: Call, weight: Shape | None) -> list[int] | None:
    """The kernel's spatial dims: an attribute, else those of the weight."""
    given = call.integers("kernel_shape")
    if given is not None:
        return given
    fixed = static(weight[2:]) if weight is not None else None
    return None if fixed is None else list(fixed)


def convolved(call: Call, dtype: np.dtype | None, data: Shape | None, weight: Shape | None) -> Fact:
    """[N, C, *spatial] by [M, C / group, *kernel]."""
    if data is None:
        return Fact(dtype, None if weight is None else call.fresh_shape(len(weight)))
    channels = weight[0] if weight is not None else call.fresh()
    return Fact(dtype, (data[0], channels, *slid(call, data[2:], kernel_of(call, weight))))


@rule("Conv", "DeformConv")
def conv(call: Call) -> Fact:
    """A convolution of floats."""
    return convolved(call, call.common_dtype(0, 1), call.shape(0), call.shape(1))


@rule("ConvInteger")
def conv_integer(call: Call) -> Fact:
    """A convolution of bytes into int32."""
    return convolved(call, INT32, call.shape(0), call.shape(1))


@rule("QLinearConv")
def conv_quantized(call: Call) -> Fact:
    """A convolution of bytes; the result has the type of its zero point."""
    return convolved(call, call.dtype(7), call.shape(0), call.shape(3))


@rule("ConvTranspose")
def conv_transpose(call: Call) -> Fact:
    """[N, C, *spatial] by [C, M / group, *kernel]."""
    data, weight, dtype = call.shape(0), call.shape(1), call.common_dtype(0, 1)
    if data is None:
        return Fact(dtype, None if weight is None else call.fresh_shape(len(weight)))
    channels = call.fresh() if weight is None else weight[1] * call.integer("group", 1)
    return Fact(dtype, (data[0], channels, *_spread(call, data[2:], kernel_of(call, weight))))


def _spread(call: Call, spatial: Shape, kernel: list[int] | None) -> Shape:
    given = call.integers("output_shape")
    if given:
        return tuple(given[-len(spatial) :])
    if kernel is None or len(kernel) != len(spatial):
        return tuple(call.fresh() for _ in spatial)
    extra = call.integers("output_padding") or [0] * len(kernel)
    auto_pad = call.text("auto_pad", "NOTSET")
    dims: list[Dim] = []
    for dim, window, more in zip(spatial, windows(call, kernel), extra, strict=True):
        if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            fits = more == 0 and window.extent >= window.stride
            dims.append(dim * window.stride if fits else call.fresh())
            continue
        pads = 0 if auto_pad == "VALID" else window.before + window.after
        dims.append((dim - 1) * window.stride + (more + window.extent - pads))
    return tuple(dims)


@rule("MaxPool", "AveragePool", "LpPool")
def pool(call: Call) -> list[Fact]:
    """A pool; MaxPool may also return where the maxima stood."""
    shape = call.shape(0)
    if shape is None:
        kernel = call.integers("kernel_shape")
        rank = None if kernel is None else call.fresh_shape(len(kernel) + 2)
        return [Fact(call.dtype(0), rank), Fact(INT64, rank)]
    pooled = (*shape[:2], *slid(call, shape[2:], call.integers("kernel_shape")))
    return [Fact(call.dtype(0), pooled), Fact(INT64, pooled)]


@rule("GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool")
def global_pool(call: Call) -> Fact:
    """One number for each channel."""
    shape = call.shape(0)
    ones = None if shape is None else (*shape[:2], *([1] * len(shape[2:])))
    return Fact(call.dtype(0), ones)


@rule("MaxUnpool")
def unpool(call: Call) -> Fact:
    """The inverse of MaxPool, or a shape that is given."""
    shape, dtype = call.shape(0), call.dtype(0)
    if call.has(2):
        wanted, size = call.elements(2), call.shape(2)
        if wanted is None:
            return Fact(dtype, call.fresh_shape(size[0]) if size else None)
        return Fact(dtype, tuple(w if is_non_negative(w) else call.fresh() for w in wanted))
    kernel = call.integers("kernel_shape")
    if shape is None or kernel is None:
        return Fact(dtype)
    pairs = zip(shape[2:], windows(call, kernel), strict=True)
    dims = ((dim - 1) * w.stride + (w.kernel - w.before - w.after) for dim, w in pairs)
    return Fact(dtype, (*shape[:2], *dims))


@rule("MaxRoiPool")
def max_roi_pool(call: Call) -> Fact:
    """[rois, C, *pooled]."""
    shape, rois, pooled = call.shape(0), call.shape(1), call.integers("pooled_shape")
    if pooled is None:
        return Fact(call.dtype(0), call.fresh_shape(4))
    count = rois[0] if rois else call.fresh()
    return Fact(call.dtype(0), (count, shape[1] if shape else call.fresh(), *pooled))


@rule("RoiAlign")
def roi_align(call: Call) -> Fact:
    """[rois, C, height, width]."""
    shape, rois = call.shape(0), call.shape(1)
    count = rois[0] if rois else call.fresh()
    size = (call.integer("output_height", 1), call.integer("output_width", 1))
    return Fact(call.dtype(0), (count, shape[1] if shape else call.fresh(), *size))
