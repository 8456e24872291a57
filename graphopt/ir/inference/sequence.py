"""Sequences and optionals (ONNX operator spec: SequenceConstruct, SplitToSequence, Optional, ...).

The fact of a sequence tells what all its elements share. A dim in which they may differ is a symbol
that belongs to no element, so taking one out gives it a fresh symbol.
"""

from __future__ import annotations

from graphopt.ir.inference.call import BOOL, FLOAT, INT64, Call, axis_of
from graphopt.ir.inference.constants import numpy_type
from graphopt.ir.inference.facts import Fact, Shape
from graphopt.ir.inference.registry import rule
from graphopt.numerics.dims import Dim, symbol

VARYING = symbol("varying")


def _shared(shapes: list[Shape | None]) -> Shape | None:
    first = shapes[0] if shapes else None
    if first is None or any(shape is None or len(shape) != len(first) for shape in shapes):
        return None
    known = [shape for shape in shapes if shape is not None]
    return tuple(
        dim if all(shape[axis] == dim for shape in known) else VARYING
        for axis, dim in enumerate(first)
    )


def _element(call: Call, shape: Shape | None) -> Shape | None:
    return None if shape is None else tuple(call.fresh() if d == VARYING else d for d in shape)


def _elements(call: Call, index: int) -> Fact:
    fact = call.fact(index)
    return fact if fact.kind == "sequence" else Fact(kind="sequence")


@rule("SequenceConstruct")
def construct(call: Call) -> Fact:
    """A sequence of the inputs."""
    shapes = [call.shape(index) for index in range(len(call.inputs))]
    return Fact(call.common_dtype(), _shared(shapes), kind="sequence")


@rule("SequenceEmpty")
def empty(call: Call) -> Fact:
    """A sequence of nothing yet."""
    named = call.integer("dtype", 0)
    return Fact(numpy_type(named) if named else FLOAT, kind="sequence")


@rule("SequenceInsert")
def insert(call: Call) -> Fact:
    """One element more."""
    held = _elements(call, 0)
    return Fact(call.common_dtype(0, 1), _shared([held.shape, call.shape(1)]), kind="sequence")


@rule("SequenceErase")
def erase(call: Call) -> Fact:
    """One element less."""
    return _elements(call, 0)


@rule("SequenceAt")
def at(call: Call) -> Fact:
    """One element."""
    held = _elements(call, 0)
    return Fact(held.dtype, _element(call, held.shape))


@rule("SequenceLength")
def length(call: Call) -> Fact:
    """How many elements."""
    return call.result(INT64, (), [call.fresh()])


@rule("SplitToSequence")
def split(call: Call) -> Fact:
    """Parts along an axis; parts of one element lose it unless `keepdims`."""
    shape, dtype = call.shape(0), call.dtype(0)
    if shape is None:
        return Fact(dtype, kind="sequence")
    axis = axis_of(call.integer("axis", 0), len(shape))
    if not call.has(1):
        kept: Shape = (1,) if call.integer("keepdims", 1) else ()
        return Fact(dtype, (*shape[:axis], *kept, *shape[axis + 1 :]), kind="sequence")
    sizes = call.elements(1)
    size: Dim = VARYING
    if sizes and call.shape(1) != () and all(entry == sizes[0] for entry in sizes):
        size = sizes[0]
    return Fact(dtype, (*shape[:axis], size, *shape[axis + 1 :]), kind="sequence")


@rule("ConcatFromSequence")
def concat(call: Call) -> Fact:
    """All elements joined along an axis, new or old."""
    held = _elements(call, 0)
    shape = _element(call, held.shape)
    if shape is None:
        return Fact(held.dtype)
    new = call.integer("new_axis", 0)
    axis = axis_of(call.integer("axis", 0), len(shape) + new)
    return Fact(held.dtype, (*shape[:axis], call.fresh(), *shape[axis + 1 - new :]))


@rule("Optional")
def optional(call: Call) -> Fact:
    """A tensor that may be absent; of an optional sequence nothing is told."""
    fact = call.fact(0)
    if not call.has(0) or fact.kind != "tensor":
        return Fact(kind="optional")
    return Fact(fact.dtype, fact.shape, kind="optional")


@rule("OptionalGetElement")
def get_element(call: Call) -> Fact | None:
    """What the optional holds; since opset 18 a tensor or sequence passes through."""
    fact = call.fact(0)
    if fact.kind in ("tensor", "sequence"):
        return fact
    return Fact(fact.dtype, fact.shape) if fact.kind == "optional" and fact.dtype else None


@rule("OptionalHasElement")
def has_element(call: Call) -> Fact:
    """Whether there is something."""
    return Fact(BOOL, ())
