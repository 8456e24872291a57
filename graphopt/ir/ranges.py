"""Between which numbers the elements of a tensor lie, told from the operators that compute it.

A range says nothing of NaN, which any tensor of floats may hold. Ends are inclusive; rounding may
carry an element beyond an end by a unit of its last place.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.graph import Constant, Node
from graphopt.ir.inference.facts import Facts
from graphopt.ir.surgery import input_or_none, producer, splat

Range = tuple[float, float]

EVERYTHING: Range = (-math.inf, math.inf)
POSITIVE: Range = (0.0, math.inf)
UNIT: Range = (0.0, 1.0)
SIGNED_UNIT: Range = (-1.0, 1.0)

RANGES: dict[str, Range] = {
    **dict.fromkeys(("Sigmoid", "HardSigmoid", "Softmax", "Hardmax"), UNIT),
    **dict.fromkeys(("Tanh", "Erf", "Sin", "Cos", "Softsign", "Sign"), SIGNED_UNIT),
    **dict.fromkeys(("Exp", "Relu", "Softplus", "Sqrt", "ReduceL2"), POSITIVE),
    "LogSoftmax": (-math.inf, 0.0),
}
"""What an operator's results lie between, whatever it reads."""

FLOAT_RANGES: dict[str, Range] = dict.fromkeys(("Abs", "ReduceL1", "ReduceSumSquare"), POSITIVE)
"""The same for floats only: integers wrap around."""

MOVING = frozenset(
    {
        *("DepthToSpace", "Expand", "Flatten", "Gather", "GlobalAveragePool", "GlobalMaxPool"),
        *("Identity", "MaxPool", "Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile"),
        *("Transpose", "Unsqueeze"),
    }
)
"""Operators whose results lie between the ends of their first input."""

MAX_DEPTH = 6
MAX_ELEMENTS = 4096


def value_range(tensor: gs.Tensor, facts: Facts, depth: int = MAX_DEPTH) -> Range:
    """The range of a tensor's elements; from minus to plus infinity where nothing is known."""
    if isinstance(tensor, Constant):
        return _of_constant(tensor)
    low, high = EVERYTHING
    dtype = facts.dtype(tensor)
    if dtype is not None and dtype.kind in "ub":
        low = 0.0
    node = producer(tensor)
    if node is None or not node.standard or depth == 0 or dtype is None or _is_open(node):
        return low, high
    if node.outputs[0] is not tensor and node.op != "Split":
        return low, high
    known = _of_node(node, dtype, facts, depth)
    return max(low, known[0]), min(high, known[1])


def bounds(node: Node, dtype: np.dtype, opset: int) -> Range | None:
    """The bounds of a Clip, None where not known; one left out is the end of the type."""
    limits = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    if opset < 11:
        low, high = (float(limits.min), float(limits.max))
        found = float(node.attrs.get("min", low)), float(node.attrs.get("max", high))
        return None if dtype != np.float32 or any(map(math.isnan, found)) else found
    ends: list[float] = []
    for index, end in ((1, limits.min), (2, limits.max)):
        given = input_or_none(node, index)
        value = end if given is None else splat(given)
        if value is None:
            return None
        ends.append(value.item() if isinstance(value, np.generic) else value)
    return ends[0], ends[1]


def _is_open(node: Node) -> bool:
    return any(isinstance(value, gs.Node.AttributeRef) for value in node.attrs.values())


def _of_constant(tensor: Constant) -> Range:
    if int(np.prod(tensor.shape)) > MAX_ELEMENTS or tensor.dtype.kind not in "fiub":
        return EVERYTHING
    values = tensor.values
    if not values.size or (values.dtype.kind == "f" and bool(np.isnan(values).any())):
        return EVERYTHING
    return values.min().item(), values.max().item()


def _of_node(node: Node, dtype: np.dtype, facts: Facts, depth: int) -> Range:
    if node.op in RANGES:
        return RANGES[node.op]
    if node.op in FLOAT_RANGES:
        return FLOAT_RANGES[node.op] if dtype.kind == "f" else EVERYTHING
    if node.op in MOVING:
        return value_range(node.inputs[0], facts, depth - 1)
    if node.op == "AveragePool":
        low, high = value_range(node.inputs[0], facts, depth - 1)
        return min(low, 0.0), max(high, 0.0)
    if node.op in ("Max", "Min"):
        found = [value_range(t, facts, depth - 2) for t in node.inputs[:4]] if depth > 1 else []
        if len(found) < len(node.inputs):
            return EVERYTHING
        pick = max if node.op == "Max" else min
        return pick(low for low, _ in found), pick(high for _, high in found)
    if node.op == "Clip" and dtype.kind in "fiu":
        graph = node.graph
        ends = None if graph is None else bounds(node, dtype, int(graph.opset))
        return EVERYTHING if ends is None or ends[0] > ends[1] else ends
    if node.op == "Mul" and node.inputs[0] is node.inputs[1] and dtype.kind == "f":
        return POSITIVE
    return EVERYTHING
