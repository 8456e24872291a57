"""Arithmetic and comparisons, contents followed (ONNX operator spec: Add, Div, Equal, ...)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphopt.ir.inference.broadcasting import broadcast
from graphopt.ir.inference.call import BOOL, Call
from graphopt.ir.inference.constants import is_integer
from graphopt.ir.inference.facts import MAX_ELEMENTS, Fact, Shape, object_array
from graphopt.ir.inference.registry import rule
from graphopt.numerics.dims import (
    Dim,
    exact_div,
    floor_div,
    is_non_negative,
    is_positive,
    maximum,
    minimum,
)

Scalar = Callable[[Dim, Dim], "Dim | None"]


@rule("Abs", "Ceil", "Floor", "Neg", "Relu", "Round", "Sign")
def unary(call: Call) -> Fact:
    """One output like the first input, contents followed."""
    value = call.value(0)
    if value is None:
        return Fact(call.dtype(0), call.shape(0))
    if call.node.op == "Neg" and not is_integer(call.dtype(0)):
        return Fact(call.dtype(0), call.shape(0))
    apply = _UNARY[call.node.op]
    entries = [apply(entry) for entry in value.flat]
    if any(entry is None for entry in entries):
        entries = [call.any_integer(call.dtype(0)) if e is None else e for e in entries]
    return call.result(call.dtype(0), call.shape(0), [e for e in entries if e is not None])


def _sign(x: Dim) -> Dim | None:
    if isinstance(x, int):
        return (x > 0) - (x < 0)
    return 1 if is_positive(x) else None


def _absolute(x: Dim) -> Dim | None:
    return x if is_non_negative(x) else -x if is_non_negative(-x) else None


_UNARY: dict[str, Callable[[Dim], Dim | None]] = {
    "Abs": _absolute,
    "Ceil": lambda x: x,
    "Floor": lambda x: x,
    "Neg": lambda x: -x,
    "Relu": lambda x: maximum(x, 0),
    "Round": lambda x: x,
    "Sign": _sign,
}


@rule("Not")
def negation(call: Call) -> Fact:
    """Logical not."""
    value = call.value(0)
    return call.result(BOOL, call.shape(0), None if value is None else [1 - e for e in value.flat])


@rule("Pow")
def power(call: Call) -> Fact:
    """The result has the type of the base."""
    return Fact(call.dtype(0), _shape(call, 2))


@rule("Add", "Sub", "Mul", "Div", "Mod")
def arithmetic(call: Call) -> Fact:
    """Arithmetic; integer division truncates toward zero."""
    dtype = call.common_dtype(0, 1)
    apply: Scalar = _ARITHMETIC[call.node.op]
    if call.node.op == "Div":
        apply = _truncated_div if is_integer(dtype) else exact_div
    elif call.node.op == "Mod" and (call.integer("fmod", 0) or not is_integer(dtype)):
        apply = _remainder
    fact = _combine(call, dtype, 2, apply)
    if fact.value is not None and not is_integer(dtype) and 0 in fact.value.flat:
        return Fact(dtype, fact.shape)  # it may be a negative zero
    return fact


@rule("Max", "Min", "Sum", "Mean")
def variadic(call: Call) -> Fact:
    """Any number of inputs of one type."""
    dtype = call.common_dtype()
    if call.node.op == "Mean":
        return Fact(dtype, _shape(call, len(call.inputs)))
    return _combine(call, dtype, len(call.inputs), _ARITHMETIC[call.node.op])


@rule(*["And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Or", "Xor"])
def comparison(call: Call) -> Fact:
    """A bool from two inputs, followed where it is provable."""
    return _combine(call, BOOL, 2, _COMPARISON[call.node.op])


def _shape(call: Call, count: int) -> Shape | None:
    """Below opset 7 the second input was broadcast to the first."""
    return call.shape(0) if call.opset < 7 and count == 2 else broadcast(call, *range(count))


def _combine(call: Call, dtype: np.dtype | None, count: int, apply: Scalar) -> Fact:
    """Combine inputs from left to right, following contents."""
    shape = _shape(call, count)
    first = call.value(0)
    if first is None or call.opset < 7:
        return Fact(dtype, shape)
    result: np.ndarray = first
    known = True
    for index in range(1, count):
        other = call.value(index)
        if other is None or result.size * other.size > 256 * 256:
            return Fact(dtype, shape)
        pairs = np.broadcast(result, other)
        if pairs.size > MAX_ELEMENTS:
            return Fact(dtype, shape)
        entries = [apply(a, b) for a, b in pairs]
        known = any(entry is not None for entry in entries) or not entries
        filled = [call.any_integer(dtype) if e is None else e for e in entries]
        result = object_array(filled, pairs.shape)
    return call.result(dtype, shape, result.flat if known else None)


def _truncated_div(a: Dim, b: Dim) -> Dim | None:
    if isinstance(a, int) and isinstance(b, int):
        quotient = abs(a) // abs(b)
        return quotient if (a < 0) == (b < 0) else -quotient
    if is_non_negative(a) and is_non_negative(b):
        return floor_div(a, b)
    return exact_div(a, b)


def _modulo(a: Dim, b: Dim) -> Dim | None:
    if isinstance(b, int) and b != 0:
        return a % b
    return a - b * floor_div(a, b) if is_non_negative(a) and is_non_negative(b) else None


def _remainder(a: Dim, b: Dim) -> Dim | None:
    quotient = _truncated_div(a, b)
    return None if quotient is None else a - b * quotient


def _equal(a: Dim, b: Dim) -> Dim | None:
    if a == b:
        return 1
    return 0 if is_positive(a - b) or is_positive(b - a) else None


def _less(a: Dim, b: Dim) -> Dim | None:
    return 1 if is_positive(b - a) else 0 if is_non_negative(a - b) else None


def _and(a: Dim, b: Dim) -> Dim | None:
    if a == 0 or b == 0:
        return 0
    return b if a == 1 or a == b else a if b == 1 else None


def _or(a: Dim, b: Dim) -> Dim | None:
    if a == 1 or b == 1:
        return 1
    return b if a == 0 or a == b else a if b == 0 else None


def _xor(a: Dim, b: Dim) -> Dim | None:
    return a + b - 2 * a * b if isinstance(a, int) or isinstance(b, int) else None


_ARITHMETIC: dict[str, Scalar] = {
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Div": exact_div,
    "Mod": _modulo,
    "Max": maximum,
    "Min": minimum,
    "Sum": lambda a, b: a + b,
}

_COMPARISON: dict[str, Scalar] = {
    "And": _and,
    "Equal": _equal,
    "Greater": lambda a, b: _less(b, a),
    "GreaterOrEqual": lambda a, b: _less(b - 1, a),
    "Less": _less,
    "LessOrEqual": lambda a, b: _less(a, b + 1),
    "Or": _or,
    "Xor": _xor,
}
