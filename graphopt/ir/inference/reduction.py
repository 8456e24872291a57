"""Reductions along axes, normalizations and losses (ONNX operator spec: ReduceSum, ArgMax, ...)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphopt.ir.inference.call import BOOL, FLOAT, INT64, Call, axes_of, axis_of
from graphopt.ir.inference.constants import is_integer, numpy_type
from graphopt.ir.inference.facts import Fact, Shape
from graphopt.ir.inference.registry import rule
from graphopt.numerics.dims import Dim, maximum, minimum

_FOLDS: dict[str, Callable[[Dim, Dim], Dim]] = {
    "ReduceProd": lambda a, b: a * b,
    "ReduceSum": lambda a, b: a + b,
    "ReduceMax": maximum,
    "ReduceMin": minimum,
}


@rule(
    *[
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSum",
        "ReduceLogSumExp",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
    ],
    *["ReduceProd", "ReduceSum", "ReduceSumSquare"],
)
def reduce(call: Call) -> Fact:
    """Axes as an attribute or an input; none given means all, or none by `noop_with_empty_axes`."""
    shape, dtype = call.shape(0), call.dtype(0)
    keep = bool(call.integer("keepdims", 1))
    given, axes = call.list_of("axes", 1)
    if shape is None:
        every = not given and not call.integer("noop_with_empty_axes", 0)
        return Fact(dtype, () if every and not keep else None)
    if given and axes is None:
        return Fact(dtype, _unknown_axes(call, shape, keep))
    if not axes:
        if call.integer("noop_with_empty_axes", 0):
            return Fact(dtype, shape)
        axes = list(range(len(shape)))
    gone = set(axes_of(axes, len(shape)))
    result = tuple(
        1 if axis in gone else dim for axis, dim in enumerate(shape) if keep or axis not in gone
    )
    return call.result(dtype, result, _folded(call, gone))


def _unknown_axes(call: Call, shape: Shape, keep: bool) -> Shape | None:
    """The shape after reducing axes that are not known; an empty list may mean all or none."""
    if keep:
        return tuple(dim if dim == 1 else call.fresh() for dim in shape)
    count = call.shape(1)
    if count and isinstance(count[0], int) and count[0] > 0:
        return call.fresh_shape(len(shape) - count[0])
    return None


def _folded(call: Call, gone: set[int]) -> list[Dim] | None:
    fold, value = _FOLDS.get(call.node.op), call.value(0)
    if fold is None or value is None or not value.size or not is_integer(call.dtype(0)):
        return None
    if len(gone) < value.ndim:
        return None
    total: Dim = value.flat[0]
    for entry in list(value.flat)[1:]:
        total = fold(total, entry)
    return [total]


@rule("ArgMax", "ArgMin")
def arg(call: Call) -> Fact:
    """Where the extreme stands along one axis."""
    shape = call.shape(0)
    if shape is None:
        return Fact(INT64)
    axis = axis_of(call.integer("axis", 0), len(shape))
    kept = (1,) if call.integer("keepdims", 1) else ()
    return Fact(INT64, shape[:axis] + kept + shape[axis + 1 :])


@rule("BatchNormalization")
def batch_normalization(call: Call) -> list[Fact]:
    """The data's shape, then statistics of one number for each channel."""
    shape = call.shape(0)
    channels = call.shape(1) or call.shape(3) or ((shape[1],) if shape and len(shape) > 1 else None)
    statistics = Fact(call.common_dtype(3, 4), channels)
    old = Fact(call.dtype(0), channels)
    rest = statistics if call.opset >= 14 else old
    return [Fact(call.dtype(0), shape), rest, rest, rest, rest]


@rule("LayerNormalization")
def layer_normalization(call: Call) -> list[Fact]:
    """The data's shape, then mean and inverse deviation with reduced axes of size 1."""
    shape = call.shape(0)
    dtype = numpy_type(call.integer("stash_type", 1))
    reduced: Shape | None = None
    if shape is not None:
        axis = axis_of(call.integer("axis", -1), len(shape))
        reduced = (*shape[:axis], *([1] * (len(shape) - axis)))
    statistics = Fact(dtype, reduced)
    return [Fact(call.dtype(0), shape), statistics, statistics]


@rule("RMSNormalization")
def rms_normalization(call: Call) -> Fact:
    """The data's shape, the scale's type."""
    return Fact(call.dtype(1), call.shape(0))


@rule("Dropout")
def dropout(call: Call) -> list[Fact]:
    """The data's shape, twice; the mask is a bool since opset 10."""
    data, mask = call.dtype(0), BOOL if call.opset >= 10 else call.dtype(0)
    return [Fact(data, call.shape(0)), Fact(mask, call.shape(0))]


@rule("NegativeLogLikelihoodLoss")
def negative_log_likelihood(call: Call) -> Fact:
    """A loss for each target, or their mean or sum."""
    each = call.text("reduction", "mean") == "none"
    return Fact(call.dtype(0), call.shape(1) if each else ())


@rule("SoftmaxCrossEntropyLoss")
def cross_entropy(call: Call) -> list[Fact]:
    """A loss for each label, or their mean or sum; then log probabilities."""
    each = call.text("reduction", "mean") == "none"
    dtype = call.dtype(0)
    return [Fact(dtype, call.shape(1) if each else ()), Fact(dtype, call.shape(0))]


@rule("DequantizeLinear")
def dequantize(call: Call) -> Fact:
    """Floats of the scale's type, or of the one named (opset 23)."""
    named = call.integer("output_dtype", 0)
    return Fact(numpy_type(named) if named else call.dtype(1), call.shape(0))


@rule("QuantizeLinear")
def quantize(call: Call) -> Fact:
    """Integers of the zero point's type, or of the one named (opset 21), else uint8."""
    named = call.integer("output_dtype", 0)
    if call.has(2):
        return Fact(call.dtype(2), call.shape(0))
    return Fact(numpy_type(named) if named else np.dtype(np.uint8), call.shape(0))


@rule("DynamicQuantizeLinear")
def dynamic_quantize(call: Call) -> list[Fact]:
    """Bytes, their scale and zero point."""
    byte = np.dtype(np.uint8)
    return [Fact(byte, call.shape(0)), Fact(FLOAT, ()), Fact(byte, ())]
