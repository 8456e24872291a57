"""Operators that work element by element, with broadcasting (ONNX operator spec)."""

from __future__ import annotations

import numpy as np

from graphopt.ir.inference.broadcasting import broadcast
from graphopt.ir.inference.call import BOOL, Call
from graphopt.ir.inference.constants import is_integer, numpy_type
from graphopt.ir.inference.facts import MAX_ELEMENTS, Fact, Value, object_array, static
from graphopt.ir.inference.registry import rule
from graphopt.numerics.dims import (
    Dim,
    is_non_negative,
    is_positive,
    maximum,
    minimum,
)


@rule(
    *[
        "Acos",
        "Acosh",
        "Asin",
        "Asinh",
        "Atan",
        "Atanh",
        "Celu",
        "Cos",
        "Cosh",
        "CumProd",
        "CumSum",
        "Elu",
        "Erf",
        "Exp",
        "Gelu",
    ],
    *[
        "HardSigmoid",
        "HardSwish",
        "Hardmax",
        "LRN",
        "LeakyRelu",
        "Log",
        "LogSoftmax",
        "LpNormalization",
    ],
    *["MeanVarianceNormalization", "Mish", "Reciprocal", "ReverseSequence", "RotaryEmbedding"],
    *[
        "Scatter",
        "ScatterElements",
        "ScatterND",
        "Selu",
        "Shrink",
        "Sigmoid",
        "Sin",
        "Sinh",
        "Softmax",
        "Softplus",
    ],
    *["Softsign", "Sqrt", "Swish", "Tan", "Tanh", "TensorScatter", "ThresholdedRelu", "Trilu"],
    *["InstanceNormalization", "GroupNormalization", "BitwiseNot"],
)
def same(call: Call) -> Fact:
    """One output like the first input."""
    return Fact(call.dtype(0), call.shape(0))


@rule("IsNaN", "IsInf", "RegexFullMatch")
def test(call: Call) -> Fact:
    """A bool for each element."""
    return Fact(BOOL, call.shape(0))


@rule("Clip")
def clip(call: Call) -> Fact:
    """Clip, bounds as attributes or as inputs; contents followed for integers."""
    value, dtype = call.value(0), call.common_dtype()
    if (
        value is None
        or not is_integer(dtype)
        or "min" in call.node.attrs
        or "max" in call.node.attrs
    ):
        return Fact(dtype, call.shape(0))
    entries = list(value.flat)
    for index, bound in ((1, maximum), (2, minimum)):
        if call.has(index):
            limit = call.value(index)
            if limit is None or limit.size != 1:
                return Fact(dtype, call.shape(0))
            entries = [bound(entry, limit.flat[0]) for entry in entries]
    return call.result(dtype, call.shape(0), entries)


@rule("PRelu")
def prelu(call: Call) -> Fact:
    """The slope is broadcast to the data, never the other way."""
    return Fact(call.common_dtype(0, 1), call.shape(0))


@rule(*["BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "StringConcat"])
def same_types(call: Call) -> Fact:
    """Two inputs of one type."""
    return Fact(call.common_dtype(0, 1), broadcast(call, 0, 1))


@rule("Where")
def where(call: Call) -> Fact:
    """Elements of one input or the other."""
    dtype, shape = call.common_dtype(1, 2), broadcast(call, 0, 1, 2)
    condition, yes, no = call.value(0), _array(call, 1), _array(call, 2)
    if condition is None or yes is None or no is None:
        return Fact(dtype, shape)
    triples = np.broadcast(condition, yes, no)
    if triples.size > MAX_ELEMENTS:
        return Fact(dtype, shape)
    entries: list[Dim] = []
    for c, a, b in triples:
        known = a if a == b else None if not isinstance(c, int) else a if c else b
        entries.append(call.any_integer(dtype) if known is None else known)
    return call.result(dtype, shape, entries)


def _array(call: Call, index: int) -> Value | None:
    shape, entries = static(call.shape(index)), call.elements(index)
    return None if shape is None or entries is None else object_array(entries, shape)


@rule("Cast", "CastLike", "BitCast")
def cast(call: Call) -> Fact:
    """Another type; contents are followed where the new type holds them exactly."""
    dtype = call.dtype(1) if call.node.op == "CastLike" else numpy_type(call.integer("to", 0))
    value = call.value(0)
    if value is None or dtype is None or call.node.op == "BitCast":
        return Fact(dtype, call.shape(0))
    entries = [_converted(call, entry, dtype) for entry in value.flat]
    return call.result(dtype, call.shape(0), entries)


def _converted(call: Call, entry: Dim, dtype: np.dtype) -> Dim:
    """An element in another type; what might wrap around there becomes any element."""
    if isinstance(entry, int):
        return int(entry != 0) if dtype.kind == "b" else entry
    old = call.dtype(0)
    if dtype.kind == "b" and (old is None or old.kind != "b"):
        return 1 if is_positive(entry) or is_positive(-entry) else call.fresh(0, 1)
    wider = old is not None and old.kind == dtype.kind and dtype.itemsize >= old.itemsize
    return entry if wider or is_non_negative(entry) else call.any_integer(dtype)
