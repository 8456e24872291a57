"""Operators on data whose axes stand in another order.

    f(Transpose(x, p); a)   =   Transpose(f(x; a'), p)

Axis i of Transpose(x, p) is axis p[i] of x, so each axis that an operator names is mapped by p,
each list with one entry per axis is put in the order of x, and a constant operand c becomes
Transpose(c, inverse p) after axes of size 1 were added in front. This module is no pass: it is
what ``sink-transposes`` knows of operators.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from graphopt.ir.graph import Constant, Node
from graphopt.pass_base import Context

from ._integer_operands import from_front, integers, is_given, opset
from .eliminate_reshape_around_elementwise import BINARY, SCALAR_OPERANDS, UNARY, data_index

SHARED_BYTES = 256
"""A constant up to this size may be copied although something else reads it too."""

VARIADIC = frozenset({"Sum", "Mean", "Min", "Max", "Where"})
"""Operators of several broadcast operands."""

SOFTMAX = frozenset({"Softmax", "LogSoftmax", "Hardmax"})
ARGUMENT = frozenset({"ArgMax", "ArgMin"})


@dataclass
class Permuted:
    """How an operator works on the data in the other order.

    Attributes:
        attrs: its attributes.
        data: which of its inputs have permuted axes; the others are left as they are.
        lists: inputs that become other lists of integers.
    """

    attrs: dict[str, object]
    data: tuple[int, ...] = (0,)
    lists: dict[int, list[int]] = field(default_factory=dict)


def permuted(node: Node, perm: list[int], context: Context) -> Permuted | None:
    """How a node whose result has the same axes works on the other order; None for others."""
    if node.op in UNARY or node.op in SCALAR_OPERANDS:
        return Permuted(dict(node.attrs)) if data_index(node, context) == 0 else None
    if node.op in BINARY or node.op in VARIADIC:
        return _broadcast(node, len(perm))
    if node.op == "Concat":
        axis = _mapped(node.attrs.get("axis"), perm)
        data = tuple(range(len(node.inputs)))
        fits = all(not isinstance(t, Constant) or _permutable(t, len(perm)) for t in node.inputs)
        return None if axis is None or not fits else Permuted({**node.attrs, "axis": axis}, data)
    if node.op in SOFTMAX and opset(node) >= 13:
        axis = _mapped(node.attrs.get("axis", -1), perm)
        return None if axis is None else Permuted({**node.attrs, "axis": axis})
    if node.op == "Split" and opset(node) >= 2:
        axis = _mapped(node.attrs.get("axis", 0), perm)
        return None if axis is None else Permuted({**node.attrs, "axis": axis})
    if node.op == "Tile" and opset(node) >= 6:
        repeats = integers(node, "repeats", 1)
        if repeats is None or len(repeats) != len(perm):
            return None
        moved = [repeats[perm.index(axis)] for axis in range(len(perm))]
        return Permuted(dict(node.attrs), (0,), {1: moved})
    if node.op == "Slice":
        return _slice(node, perm)
    if node.op == "Pad" and opset(node) >= 2:
        return _pad(node, perm)
    if node.op.startswith("Reduce") and node.attrs.get("keepdims", 1) == 1:
        return _reduce(node, perm)
    return None


def dropping(node: Node, perm: list[int], context: Context) -> Permuted | None:
    """How a node that drops axes gives the very same result from the other order; None for others.

    That is so when the axes that stay have the same order before and after the Transpose.
    """
    given = is_given(node, "axes", 1)
    if node.op in ARGUMENT and node.attrs.get("keepdims", 1) == 0:
        axis = _mapped(node.attrs.get("axis", 0), perm)
        changed = None if axis is None else Permuted({**node.attrs, "axis": axis})
        gone = None if axis is None else [perm.index(axis)]
    elif node.op == "Squeeze" and given:
        changed = _reduce(node, perm)
        gone = _axes(node, len(perm))
    elif node.op.startswith("Reduce") and node.attrs.get("keepdims", 1) == 0:
        if not given and node.attrs.get("noop_with_empty_axes"):
            return None
        changed = _reduce(node, perm)
        gone = _axes(node, len(perm)) if given else list(range(len(perm)))
    else:
        return None
    if changed is None or not gone:
        return None
    kept = [axis for index, axis in enumerate(perm) if index not in gone]
    return changed if kept == sorted(kept) else None


def permuted_constant(values: np.ndarray, perm: list[int]) -> np.ndarray:
    """A constant operand as it meets data in the other order."""
    if values.size == 1:
        return values
    grown = values.reshape((1,) * (len(perm) - values.ndim) + values.shape)
    return np.ascontiguousarray(grown.transpose(np.argsort(perm)))


def _broadcast(node: Node, rank: int) -> Permuted | None:
    since = 8 if node.op in VARIADIC else 7
    if opset(node) < since:
        return None
    if not all(_permutable(t, rank) for t in node.inputs if isinstance(t, Constant)):
        return None
    return Permuted(dict(node.attrs), tuple(range(len(node.inputs))))


def _permutable(constant: Constant, rank: int) -> bool:
    if len(constant.shape) > rank:
        return False
    return len(constant.outputs) == 1 or constant.nbytes <= SHARED_BYTES


def _mapped(axis: object, perm: list[int]) -> int | None:
    if not isinstance(axis, int) or not -len(perm) <= axis < len(perm):
        return None
    return perm[axis]


def _axes(node: Node, rank: int) -> list[int] | None:
    axes = integers(node, "axes", 1)
    return None if axes is None else from_front(axes, rank)


def _reduce(node: Node, perm: list[int]) -> Permuted | None:
    if not is_given(node, "axes", 1):
        return Permuted(dict(node.attrs))
    axes = _axes(node, len(perm))
    if axes is None:
        return None
    mapped = sorted(perm[axis] for axis in axes)
    if "axes" in node.attrs:
        return Permuted({**node.attrs, "axes": mapped})
    return Permuted(dict(node.attrs), (0,), {1: mapped})


def _slice(node: Node, perm: list[int]) -> Permuted | None:
    starts = integers(node, "starts", 1)
    axes = integers(node, "axes", 3)
    if not is_given(node, "axes", 3):
        axes = None if starts is None else list(range(len(starts)))
    axes = None if axes is None else from_front(axes, len(perm))
    if axes is None:
        return None
    mapped = [perm[axis] for axis in axes]
    if "starts" in node.attrs:
        return Permuted({**node.attrs, "axes": mapped})
    return Permuted(dict(node.attrs), (0,), {3: mapped})


def _pad(node: Node, perm: list[int]) -> Permuted | None:
    if is_given(node, "axes", 3):
        axes = integers(node, "axes", 3)
        axes = None if axes is None else from_front(axes, len(perm))
        if axes is None:
            return None
        return Permuted(dict(node.attrs), (0,), {3: [perm[axis] for axis in axes]})
    pads = integers(node, "pads", 1)
    if pads is None or len(pads) != 2 * len(perm):
        return None
    moved = list(pads)
    for index, axis in enumerate(perm):
        moved[axis], moved[axis + len(perm)] = pads[index], pads[index + len(perm)]
    if "pads" in node.attrs:
        return Permuted({**node.attrs, "pads": moved})
    return Permuted(dict(node.attrs), (0,), {1: moved})
