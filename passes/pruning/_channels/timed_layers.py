"""Layers with weights at other widths, as excerpts to be timed.

What a layer takes depends on how many channels it reads (its inner width) and makes (its outer width):

    Conv, ConvTranspose     inner: channels read; outer: filters
    depthwise Conv          outer: filters, each with its own channel
    Gemm, MatMul            inner: the axis that is summed over; outer: columns
    RNN, GRU, LSTM          inner: width of the input; outer: hidden units

Sizes that go with a width are scaled in proportion to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphopt.ir.excerpts import Excerpt, Operand
from graphopt.ir.frames import Frame
from graphopt.ir.graph import Constant, Node
from graphopt.ir.surgery import input_or_none

Shape = tuple[int, ...]
Slots = tuple[tuple[int, int], ...]

RECURRENT = frozenset({"RNN", "GRU", "LSTM"})


@dataclass(frozen=True)
class Layout:
    """Which axes of which inputs are as wide as a layer, the first one being that of a weight.

    Attributes:
        inner: pairs of an input and an axis; empty where there is but the outer width.
        outer: the same.
        attrs: attributes that count what the outer width counts.
    """

    inner: Slots
    outer: Slots
    attrs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Width:
    """One of the two widths of a layer.

    Attributes:
        full: as it is.
        places: how much narrower it is without one unit of each group, int64 of shape ``(groups,)``.
        least: with one unit left in every group.
    """

    full: int
    places: np.ndarray
    least: int


@dataclass(frozen=True)
class TimedLayer:
    """A layer that is timed at several widths.

    Attributes:
        node: it.
        whole: it as it is.
        layout: where its widths are.
        inner: the width that it reads; 1 where there is none.
        outer: the width that it makes.
    """

    node: Node
    whole: Excerpt
    layout: Layout
    inner: Width
    outer: Width

    def sized(self, inner: int, outer: int) -> Excerpt:
        """The layer at other widths."""
        shapes = [None if o is None else list(o.shape) for o in self.whole.operands]
        for slots, width, full in (
            (self.layout.inner, inner, self.inner.full),
            (self.layout.outer, outer, self.outer.full),
        ):
            for index, axis in slots:
                shape = shapes[index] if index < len(shapes) else None
                if shape is not None and shape[axis] % full == 0:
                    shape[axis] = shape[axis] // full * width
        attrs = dict(self.whole.attrs)
        attrs |= dict.fromkeys(self.layout.attrs, outer)
        operands = [
            None if o is None or shape is None else Operand(o.dtype, tuple(shape), o.constant)
            for o, shape in zip(self.whole.operands, shapes, strict=True)
        ]
        return Excerpt.of(self.whole.op, self.whole.opset, tuple(operands), attrs)


def timed_layer(
    node: Node, frame: Frame, places: Mapping[int, Mapping[int, Mapping[int, int]]], sizes: Shape
) -> TimedLayer | None:
    """A node as a layer to be timed; None where it is none, or goes by no two widths.

    Args:
        node: the node.
        frame: shapes and sizes of one run.
        places: by input, by axis, by group, how many places one unit has.
        sizes: units of all groups.

    Raises:
        UnprovenError: a shape is not known.
    """
    weight = input_or_none(node, 1)
    if not node.standard or not isinstance(weight, Constant) or weight.dtype.kind != "f":
        return None
    shapes = [None if _omitted(node, i) else frame.shape(t) for i, t in enumerate(node.inputs)]
    layout = _layout(node, shapes)
    if layout is None:
        return None
    used = {index for index, _ in (*layout.inner, *layout.outer)}
    operands: list[Operand | None] = []
    for index, shape in enumerate(shapes):
        if shape is None or index not in used:
            operands.append(None)
            continue
        constant = isinstance(node.inputs[index], Constant)
        operands.append(Operand(weight.dtype.name, shape, constant))
    while operands[-1] is None:
        operands.pop()
    attrs: dict[str, Any] = dict(node.attrs)
    if node.op in RECURRENT:
        attrs.setdefault("hidden_size", (shapes[2] or (0,))[-1])
    whole = Excerpt.of(node.op, frame.opset, tuple(operands), attrs)
    inner, outer = (_width(slots, shapes, places, sizes) for slots in (layout.inner, layout.outer))
    return TimedLayer(node, whole, layout, inner, outer)


def _omitted(node: Node, index: int) -> bool:
    return input_or_none(node, index) is None


def _width(
    slots: Slots,
    shapes: list[Shape | None],
    places: Mapping[int, Mapping[int, Mapping[int, int]]],
    sizes: Shape,
) -> Width:
    counts = np.zeros(len(sizes), np.int64)
    if not slots:
        return Width(1, counts, 1)
    index, axis = slots[0]
    shape = shapes[index]
    assert shape is not None
    for group, count in places.get(index, {}).get(axis % len(shape), {}).items():
        counts[group] = count
    gone = sum(int(count) * (size - 1) for count, size in zip(counts, sizes, strict=True))
    return Width(shape[axis], counts, max(shape[axis] - gone, 1))


def _layout(node: Node, shapes: list[Shape | None]) -> Layout | None:
    """Where the widths of a node are; None where it is timed at its own only."""
    data, weight = shapes[0], shapes[1]
    assert weight is not None
    if data is None or 0 in data or 0 in weight:
        return None
    group = int(node.attrs.get("group", 1))
    if node.op == "Conv" and group == 1:
        return Layout(((1, 1), (0, 1)), ((1, 0), (2, 0)))
    if node.op == "Conv" and weight[1] == 1 and group == weight[0]:
        return Layout((), ((1, 0), (0, 1), (2, 0)), ("group",))
    if node.op == "ConvTranspose" and group == 1:
        return Layout(((1, 0), (0, 1)), ((1, 1), (2, 0)))
    if node.op == "MatMul" and len(weight) == 2:
        return Layout(((1, 0), (0, -1)), ((1, 1),))
    if node.op == "Gemm":
        rows = 0 if node.attrs.get("transA", 0) else 1
        columns = 0 if node.attrs.get("transB", 0) else 1
        bias = ((2, -1),) if len(shapes) > 2 and shapes[2] else ()
        return Layout(((1, 1 - columns), (0, rows)), ((1, columns), *bias))
    if node.op in RECURRENT and len(shapes) > 2 and not node.attrs.get("layout", 0):
        return Layout(((1, 2), (0, 2)), ((2, 2), (2, 1), (1, 1), (3, 1)), ("hidden_size",))
    return None
