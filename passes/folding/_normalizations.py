"""Reading a normalization that is written out.

    d / sqrt(mean(d^2) + eps) * gamma + beta,    d = x - mean(x), or x itself

The square may be a Pow or a Mul, the division one by the root or a Mul by its reciprocal, and ``d``
may be computed twice. The means run over the last axes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.graph import Constant, Node
from graphopt.ir.surgery import input_or_none, new_constant, producer, sole_user
from graphopt.pass_base import Context
from graphopt.passes.folding._folded_constants import owned, spend
from graphopt.passes.folding._scalar_expressions import Expression


@dataclass
class Normalization:
    """A written-out normalization.

    Attributes:
        x: what is normalized.
        centered: whether the mean is subtracted.
        axis: the first normalized axis, negative.
        shape: the sizes of the normalized axes.
        epsilon: what is added to the mean of squares.
        last: the last node.
        gamma: what the result is multiplied by, or None.
        beta: what is added then, or None.
        nodes: all nodes.
    """

    x: gs.Tensor
    centered: bool
    axis: int
    shape: tuple[int, ...]
    epsilon: float
    last: Node
    gamma: gs.Tensor | None = None
    beta: gs.Tensor | None = None
    nodes: list[Node] = field(default_factory=list)

    def parameter(
        self, tensor: gs.Tensor | None, dtype: np.dtype, context: Context
    ) -> gs.Tensor | str:
        """``gamma`` or ``beta`` in the shape of the normalized axes; ones in the place of None.

        A reason where that would take too many bytes.
        """
        graph = self.last.graph
        assert graph is not None
        if tensor is None:
            ones = np.ones(self.shape, dtype)
            why = spend(context, ones.nbytes)
            return why or new_constant(graph, f"{self.last.outputs[0].name}/scale", ones)
        if not isinstance(tensor, Constant) or tuple(tensor.shape) == self.shape:
            return tensor
        why = spend(context, 0 if owned(tensor) else tensor.nbytes)
        return why or new_constant(graph, tensor.name, tensor.values.reshape(self.shape))


def normalization(node: Node, context: Context) -> Normalization | None:
    """Read the normalization whose division is ``node``, a Div or Mul."""
    for position in (1,) if node.op == "Div" else (0, 1):
        d, divisor = node.inputs[1 - position], node.inputs[position]
        seen = Expression([node])
        squares = _root(node, divisor, seen)
        mean = None if squares is None else _shifted(squares, seen)
        if mean is None:
            continue
        reduction, epsilon = mean
        axis, square = _first_axis(reduction, context), _square(reduction, seen)
        if axis is None or square is None:
            continue
        found = _source(d, square, axis, epsilon, seen, context)
        if found is not None and seen.keeps_shape(found.x, context):
            _take_parameters(found, context)
            return found
    return None


def _made(tensor: gs.Tensor, ops: tuple[str, ...], seen: Expression) -> Node | None:
    """The node that computes a tensor, if it is one of ``ops``; it joins the expression."""
    node = producer(tensor)
    if node is None or node.op not in ops or not node.standard:
        return None
    if node.graph is not seen.nodes[0].graph:
        return None
    if any(isinstance(value, gs.Node.AttributeRef) for value in node.attrs.values()):
        return None
    seen.enter(node)
    return node


def _root(node: Node, divisor: gs.Tensor, seen: Expression) -> gs.Tensor | None:
    """What the square root is taken of that ``node`` divides by."""
    if node.op == "Mul":
        made = _made(divisor, ("Reciprocal", "Div", "Pow"), seen)
        if made is None:
            return None
        if made.op == "Pow":
            return made.inputs[0] if seen.scalar(made.inputs[1]) == -0.5 else None
        if made.op == "Div" and seen.scalar(made.inputs[0]) != 1.0:
            return None
        divisor = made.inputs[-1]
    root = _made(divisor, ("Sqrt", "Pow"), seen)
    if root is None or (root.op == "Pow" and seen.scalar(root.inputs[1]) != 0.5):
        return None
    return root.inputs[0]


def _shifted(tensor: gs.Tensor, seen: Expression) -> tuple[Node, float] | None:
    """The mean, and the constant that is added to it."""
    added = _made(tensor, ("Add",), seen)
    if added is None:
        return None
    for mean, other in (added.inputs, added.inputs[::-1]):
        epsilon = seen.scalar(other)
        if epsilon is not None:
            reduction = _made(mean, ("ReduceMean",), seen)
            return None if reduction is None else (reduction, epsilon)
    return None


def _square(reduction: Node, seen: Expression) -> gs.Tensor | None:
    """What is squared before the mean is taken."""
    made = _made(reduction.inputs[0], ("Pow", "Mul"), seen)
    if made is None:
        return None
    left, right = made.inputs
    squared = left is right if made.op == "Mul" else seen.scalar(right) == 2.0
    return left if squared else None


def _source(
    d: gs.Tensor,
    square: gs.Tensor,
    axis: int,
    epsilon: float,
    seen: Expression,
    context: Context,
) -> Normalization | None:
    """What is normalized, once everything in between is seen to belong together."""
    node, whole = seen.nodes[0], Expression(list(seen.nodes))
    sources = [_centered(tensor, axis, whole, context) for tensor in (d, square)]
    if sources[0] is not None and sources[0] is sources[1]:
        found = Normalization(sources[0], True, axis, (), epsilon, node, nodes=whole.nodes)
    elif d is square:
        found = Normalization(d, False, axis, (), epsilon, node, nodes=seen.nodes)
    else:
        return None
    return _closed(found, context)


def _centered(tensor: gs.Tensor, axis: int, seen: Expression, context: Context) -> gs.Tensor | None:
    """``x``, where a tensor is x - mean(x) over the axes from ``axis`` on."""
    inside = Expression(list(seen.nodes))
    sub = _made(tensor, ("Sub",), inside)
    mean = None if sub is None else _made(sub.inputs[1], ("ReduceMean",), inside)
    if sub is None or mean is None or mean.inputs[0] is not sub.inputs[0]:
        return None
    if _first_axis(mean, context) != axis:
        return None
    seen.nodes[:] = inside.nodes
    return sub.inputs[0]


def _first_axis(reduction: Node, context: Context) -> int | None:
    """The first reduced axis, negative, where the last axes are reduced and kept with size 1."""
    rank = context.facts.rank(reduction.inputs[0])
    axes = reduction.attrs.get("axes")
    given = input_or_none(reduction, 1)
    if given is not None:
        axes = given.values.reshape(-1) if isinstance(given, Constant) else None
    if rank is None or axes is None or not reduction.attrs.get("keepdims", 1):
        return None
    found = sorted(int(axis) % rank for axis in axes)
    if not found or found != list(range(rank - len(found), rank)):
        return None
    return -len(found)


def _closed(found: Normalization, context: Context) -> Normalization | None:
    """Check that nothing outside reads an inner result, and fill in the sizes."""
    shape = context.facts.shape(found.x)
    for node in found.nodes:
        if node is found.last:
            continue
        output = node.outputs[0]
        if output.is_output or any(user not in found.nodes for user in output.outputs):
            return None
    sizes = () if shape is None else shape[found.axis :]
    found.shape = tuple(size for size in sizes if isinstance(size, int))
    return found if len(found.shape) == -found.axis else None


def _take_parameters(found: Normalization, context: Context) -> None:
    """Go on to the Mul and Add behind the division."""
    for op in ("Mul", "Add") if found.centered else ("Mul",):
        user = sole_user(found.last.outputs[0])
        if user is None or user.op != op or not user.standard or user.graph is not found.last.graph:
            continue
        other = next((t for t in user.inputs if t is not found.last.outputs[0]), None)
        if other is None or not _fits(other, found, context):
            continue
        found.last = user
        if op == "Mul":
            found.gamma = other
        else:
            found.beta = other


def _fits(tensor: gs.Tensor, found: Normalization, context: Context) -> bool:
    """Whether a parameter has the shape of the normalized axes, ones before them aside."""
    if isinstance(tensor, Constant):
        shape = tuple(tensor.shape)
        rank = context.facts.rank(found.x)
        ones = shape[: max(len(shape) - len(found.shape), 0)]
        fits = rank is not None and len(shape) <= rank and all(size == 1 for size in ones)
        return fits and shape[len(ones) :] == found.shape
    return context.facts.static_shape(tensor) == found.shape
