"""Reading what a few nodes with scalar constants compute: products, polynomials, limits.

All functions walk from a tensor up to what it is made of. They go through a node only where nothing
outside of the expression reads it, and through constants of one element only;
``Expression.keeps_shape`` tells whether these may raise the rank of what they meet.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.graph import Constant, Node
from graphopt.ir.surgery import input_or_none, insert, new_constant, new_tensor, producer, replace
from graphopt.pass_base import Context

MAX_DEGREE = 8
MAX_NODES = 24
RELATIVE = {"float16": 2e-3, "bfloat16": 2e-2, "float32": 1e-6, "float64": 1e-6}
"""How far a written-out constant may lie from the one meant: a few units of the element type's last
place; for doubles of float32's, in which exporters often write it."""

Polynomial = dict[int, float]


@dataclass
class Expression:
    """What was gone through so far.

    Attributes:
        nodes: the nodes of the expression, its last one first.
        rank: the highest rank of a constant in it.
    """

    nodes: list[Node] = field(default_factory=list)
    rank: int = 0

    def scalar(self, tensor: gs.Tensor) -> float | None:
        """The value of a constant of one element; None for anything else."""
        if not isinstance(tensor, Constant) or tensor.dtype.kind not in "fViu":
            return None
        if int(np.prod(tensor.shape)) != 1:
            return None
        self.rank = max(self.rank, len(tensor.shape))
        return float(tensor.values.reshape(-1)[0])

    def inner(self, tensor: gs.Tensor, reader: Node | None) -> Node | None:
        """The node that computes a tensor, if ``reader`` alone reads it, or is None."""
        node = producer(tensor)
        if node is None or not node.standard or len(self.nodes) >= MAX_NODES:
            return None
        if reader is not None and (tensor.is_output or node.graph is not reader.graph):
            return None
        if reader is not None and any(user is not reader for user in tensor.outputs):
            return None
        if any(isinstance(value, gs.Node.AttributeRef) for value in node.attrs.values()):
            return None
        return node

    def enter(self, node: Node) -> None:
        """Take up a node."""
        if node not in self.nodes:
            self.nodes.append(node)

    def keeps_shape(self, source: gs.Tensor, context: Context) -> bool:
        """Whether the constants certainly leave the shape of ``source`` as it is."""
        rank = context.facts.rank(source)
        return self.rank == 0 or (rank is not None and self.rank <= rank)


def outermost_first(nodes: Iterable[Node]) -> Iterator[Node]:
    """The nodes from the last to the first, so that whole expressions come before parts of them."""
    for node in reversed(list(nodes)):
        if not node.dead:
            yield node


def close(value: float, wanted: float, dtype: np.dtype) -> bool:
    """Whether a constant is the one meant, up to the rounding of its type."""
    return math.isclose(value, wanted, rel_tol=RELATIVE.get(dtype.name, 0.0))


ACTIVATION_TYPES = frozenset({"float16", "float32"})
"""Element types that runtimes have kernels of activations for."""


@dataclass(frozen=True)
class Factor:
    """A number to multiply a result by; none where it is 1."""

    value: float
    dtype: np.dtype

    @property
    def nodes(self) -> int:
        """Nodes that the multiplication takes."""
        return int(self.value != 1.0)


def factor_of(value: float, dtype: np.dtype) -> Factor:
    """A factor, taken for 1 where it is 1 up to the rounding of its type."""
    return Factor(1.0 if close(value, 1.0, dtype) else value, dtype)


def become(
    node: Node, op: str, inputs: list[gs.Tensor], attrs: dict[str, object], factor: Factor
) -> None:
    """Let ``factor * op(inputs)`` stand in the place of the last node of an expression."""
    graph = node.graph
    assert graph is not None
    if not factor.nodes:
        replace(node, op, inputs, attrs)
        return
    inner = new_tensor(graph, f"{node.outputs[0].name}/{op}")
    insert(node, op, inputs, [inner], attrs)
    values = np.asarray(factor.value).astype(factor.dtype)
    replace(node, "Mul", [inner, new_constant(graph, f"{inner.name}/factor", values)])


def polynomial(
    tensor: gs.Tensor, variable: gs.Tensor, reader: Node, seen: Expression
) -> Polynomial | None:
    """A tensor as coefficients by power of ``variable``; None where it is no polynomial of it.

    Args:
        tensor: what to read.
        variable: the tensor that it may depend on.
        reader: the node of the expression that reads ``tensor``.
        seen: takes up the nodes and constants.
    """
    if tensor is variable:
        return {1: 1.0}
    value = seen.scalar(tensor)
    if value is not None:
        return {0: value}
    node = seen.inner(tensor, reader)
    if node is None or node.op not in ("Add", "Sub", "Mul", "Div", "Neg", "Pow"):
        return None
    seen.enter(node)
    parts = [polynomial(t, variable, node, seen) for t in node.inputs]
    known = [part for part in parts if part is not None]
    return _combined(node.op, known) if len(known) == len(parts) else None


def _combined(op: str, parts: list[Polynomial]) -> Polynomial | None:
    if op == "Neg":
        return _times(parts[0], {0: -1.0})
    left, right = parts
    if op in ("Add", "Sub"):
        sign = 1.0 if op == "Add" else -1.0
        powers = left.keys() | right.keys()
        return {p: left.get(p, 0.0) + sign * right.get(p, 0.0) for p in sorted(powers)}
    if op == "Mul":
        return _times(left, right)
    if set(right) != {0}:
        return None
    value = right[0]
    if op == "Div":
        return _times(left, {0: 1.0 / value}) if value else None
    if value not in (1.0, 2.0, 3.0):
        return None
    result = left
    for _ in range(int(value) - 1):
        product = _times(result, left)
        if product is None:
            return None
        result = product
    return result


def _times(left: Polynomial, right: Polynomial) -> Polynomial | None:
    result: Polynomial = {}
    for p, a in left.items():
        for q, b in right.items():
            result[p + q] = result.get(p + q, 0.0) + a * b
    return result if max(result) <= MAX_DEGREE else None


def factors(
    tensor: gs.Tensor, reader: Node | None, seen: Expression
) -> tuple[float, list[tuple[gs.Tensor, Node | None]]]:
    """A product as one number and what is multiplied: tensors, each with the node that reads it.

    Args:
        tensor: what to read.
        reader: the node that reads it; None for the expression's own result.
        seen: takes up the nodes and constants.
    """
    value = seen.scalar(tensor)
    if value is not None:
        return value, []
    node = seen.inner(tensor, reader)
    if node is None or node.op not in ("Mul", "Div", "Neg"):
        return 1.0, [(tensor, reader)]
    parts = list(node.inputs)
    value = -1.0 if node.op == "Neg" else 1.0
    if node.op == "Div":
        divisor = seen.scalar(parts.pop())
        if not divisor:
            return 1.0, [(tensor, reader)]
        value = 1.0 / divisor
    seen.enter(node)
    leaves = []
    for part in parts:
        factor, more = factors(part, node, seen)
        value *= factor
        leaves += more
    return value, leaves


def line(
    tensor: gs.Tensor, reader: Node | None, seen: Expression
) -> tuple[gs.Tensor, Node | None, float, float]:
    """A tensor as ``slope x + offset`` of the tensor farthest up: x, its reader, slope, offset.

    Args:
        tensor: what to read.
        reader: the node that reads it.
        seen: takes up the nodes and constants.
    """
    slope, offset = 1.0, 0.0
    while True:
        node = seen.inner(tensor, reader)
        if node is None or node.op not in ("Add", "Sub", "Mul", "Div") or len(node.inputs) != 2:
            return tensor, reader, slope, offset
        left, right = (seen.scalar(t) for t in node.inputs)
        if (left is None) == (right is None) or (node.op == "Div" and not right):
            return tensor, reader, slope, offset
        value = right if right is not None else left
        assert value is not None
        if node.op in ("Mul", "Div"):
            slope *= value if node.op == "Mul" else 1.0 / value
        else:
            offset += slope * (-value if node.op == "Sub" and left is None else value)
            slope = -slope if node.op == "Sub" and right is None else slope
        seen.enter(node)
        tensor, reader = node.inputs[0 if left is None else 1], node


def clamped(
    tensor: gs.Tensor, reader: Node | None, seen: Expression
) -> tuple[gs.Tensor, Node, float, float] | None:
    """What a chain of Clip, Relu, Min and Max limits, its first node, and the limits.

    Args:
        tensor: what to read.
        reader: the node that reads it; None for the expression's own result.
        seen: takes up the nodes and constants.
    """
    low, high, last = -math.inf, math.inf, None
    while True:
        node = seen.inner(tensor, reader)
        found = None if node is None else _bounds(node, seen)
        if node is None or found is None:
            break
        data, inner_low, inner_high = found
        low, high = min(max(inner_low, low), high), max(min(inner_high, high), low)
        seen.enter(node)
        tensor, reader, last = data, node, node
    return None if last is None else (tensor, last, low, high)


def _bounds(node: Node, seen: Expression) -> tuple[gs.Tensor, float, float] | None:
    if node.op == "Relu":
        return node.inputs[0], 0.0, math.inf
    if node.op in ("Min", "Max") and len(node.inputs) == 2:
        for data, other in (node.inputs, node.inputs[::-1]):
            value = None if isinstance(data, Constant) else seen.scalar(other)
            if value is not None:
                return (data, -math.inf, value) if node.op == "Min" else (data, value, math.inf)
        return None
    if node.op != "Clip":
        return None
    bounds = []
    for index, name, default in ((1, "min", -math.inf), (2, "max", math.inf)):
        tensor = input_or_none(node, index)
        if tensor is None:
            bounds.append(float(node.attrs.get(name, default)))
            continue
        value = seen.scalar(tensor)
        if value is None:
            return None
        bounds.append(value)
    return (node.inputs[0], bounds[0], bounds[1]) if bounds[0] <= bounds[1] else None
