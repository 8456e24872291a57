"""Merge reductions with each other and with what stands around them.

    unsqueeze(reduce(x, A, keepdims=0), A) = reduce(x, A, keepdims=1)      squeeze: the reverse
    reduce(reduce(x, A), B)                = reduce(x, A + B)
    sum(|x|) = l1(x)    sqrt(sumsquare(x)) = l2(x)
    sum(x x) = sumsquare(x)    log(sum(x)) = logsum(x)

Nesting holds for Sum, Mean, Max, Min, Prod, L1 and L2: a mean of means is the mean of all, since
all groups have the same size.

Refuses: axes that are not known; an inner result that is used elsewhere; integers where they would
be rounded; Log(ReduceSum(Exp(x))), since ReduceLogSumExp may overflow elsewhere; a sum of squares
from which something is subtracted, as in mean(x x) - mean(x)^2, where cancellation magnifies
another rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from graphopt.ir.arguments import (
    axes_given,
    dims,
    feeding,
    keeps_shape,
    reduced_axes,
    with_axes,
)
from graphopt.ir.graph import Node
from graphopt.ir.surgery import Scope, producer, replace, splat, users
from graphopt.pass_base import Context, Edit, Pass, Skip

NESTING = (
    "ReduceSum",
    "ReduceMean",
    "ReduceMax",
    "ReduceMin",
    "ReduceProd",
    "ReduceL1",
    "ReduceL2",
)
ROUNDING = frozenset({"ReduceMean", "ReduceL2"})
REDUCTIONS = (*NESTING, "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare", "ArgMax", "ArgMin")
ROOTS = {"Sqrt": ("ReduceSumSquare", "ReduceL2"), "Log": ("ReduceSum", "ReduceLogSum")}


@dataclass(frozen=True)
class MergeReductions(Pass):
    """Reductions merge with each other and with Squeeze, Unsqueeze, Abs, Mul, Sqrt and Log."""

    name = "merge-reductions"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        for node in context.nodes(graph, "Squeeze", "Unsqueeze", "Sqrt", "Log", *NESTING):
            if node.op in ("Squeeze", "Unsqueeze"):
                edit = _keepdims(node, context)
            elif node.op in ROOTS:
                edit = _root(node, context)
            else:
                edit = _nested(node, context) or _operand(node, context)
            if edit is not None:
                yield edit


def _keepdims(node: Node, context: Context) -> Edit | None:
    """Squeeze or Unsqueeze after a reduction: only its ``keepdims`` changes."""
    inner = feeding(node.inputs[0], node, *REDUCTIONS)
    kept = int(node.op == "Squeeze")
    if inner is None or int(inner.attrs.get("keepdims", 1)) != kept:
        return None
    _, outer_axes = axes_given(node, context.facts)
    axes = _axes(inner, context)
    if not outer_axes or not axes:
        return None
    shape = dims(inner.inputs[0], context.facts)
    if sorted(axes) != sorted(outer_axes):
        if shape is None:
            return None
        rank = len(shape)
        if {axis % rank for axis in axes} != {axis % rank for axis in outer_axes}:
            return None
    replace(node, inner.op, list(inner.inputs), {**inner.attrs, "keepdims": 1 - kept})
    return Edit(node, f"{node.op} merged into {inner.op}")


def _axes(node: Node, context: Context) -> list[int] | None:
    """The axes of a reduction as written, or all; None when not known or when there are none."""
    if node.op in ("ArgMax", "ArgMin"):
        return [int(node.attrs.get("axis", 0))]
    given, axes = axes_given(node, context.facts)
    if given and axes:
        return axes
    return reduced_axes(node, context.facts)


def _nested(node: Node, context: Context) -> Edit | None:
    """A reduction of a reduction of the same kind."""
    inner = feeding(node.inputs[0], node, node.op)
    if inner is None:
        return None
    dtype = context.facts.dtype(inner.inputs[0])
    if node.op in ROUNDING and (dtype is None or dtype.kind != "f"):
        return None
    first, second = reduced_axes(inner, context.facts), reduced_axes(node, context.facts)
    shape = dims(inner.inputs[0], context.facts)
    if not first or not second or shape is None:
        return None
    kept = int(inner.attrs.get("keepdims", 1)), int(node.attrs.get("keepdims", 1))
    if kept == (1, 1):
        axes = sorted({*first, *second})
    elif kept == (0, 0):
        left = [axis for axis in range(len(shape)) if axis not in first]
        axes = sorted({*first, *(left[axis] for axis in second)})
    elif kept == (1, 0) and set(first) <= set(second):
        axes = second
    else:
        return None
    graph = node.graph
    assert graph is not None
    inputs, attrs = with_axes(graph, node.op, inner.inputs[0], axes)
    replace(node, node.op, inputs, {**attrs, "keepdims": kept[1]})
    return Edit(node, "merged with the reduction before it")


def _operand(node: Node, context: Context) -> Edit | None:
    """A sum of absolute values or of squares."""
    inner = feeding(node.inputs[0], node, "Abs")
    if inner is not None and node.op == "ReduceSum":
        return _renamed(node, node, "ReduceL1", inner, context)
    made = producer(node.inputs[0])
    if node.op != "ReduceSum" or made is None or made.op not in ("Mul", "Pow"):
        return None
    inner = feeding(node.inputs[0], node, made.op)
    if inner is None:
        return None
    if inner.op == "Mul":
        square = inner.inputs[0] is inner.inputs[1]
    else:
        exponent = inner.inputs[1]
        square = splat(exponent) == 2 and keeps_shape(inner.inputs[0], [exponent], context.facts)
    if not square or _is_subtracted_from(node):
        return None
    return _renamed(node, node, "ReduceSumSquare", inner, context)


def _is_subtracted_from(node: Node) -> bool:
    """Whether a Sub reads a result, or reads it scaled."""
    readers = users(node.outputs[0])
    scaled = [t for reader in readers if reader.op in ("Mul", "Div") for t in reader.outputs]
    return any(user.op == "Sub" for user in (*readers, *(u for t in scaled for u in users(t))))


def _root(node: Node, context: Context) -> Edit | None:
    """A square root or a logarithm of a sum."""
    op, merged = ROOTS[node.op]
    inner = feeding(node.inputs[0], node, op)
    if inner is None:
        return None
    exp = producer(inner.inputs[0])
    if node.op == "Log" and exp is not None and exp.op == "Exp":
        return None
    return _renamed(node, inner, merged, inner, context)


def _renamed(node: Node, reduction: Node, op: str, inner: Node, context: Context) -> Edit | None:
    """Put a reduction of another kind in the place of ``node`` and of the node before it."""
    source = inner.inputs[0]
    dtype = context.facts.dtype(source)
    given, axes = axes_given(reduction, context.facts)
    empty = not axes and bool(reduction.attrs.get("noop_with_empty_axes"))
    if dtype is None or dtype.kind != "f" or (given and axes is None) or empty:
        return None
    graph = node.graph
    assert graph is not None
    inputs, attrs = with_axes(graph, op, source, axes) if axes else ([source], {})
    attrs["keepdims"] = int(reduction.attrs.get("keepdims", 1))
    what = f"{node.op} and {inner.op} are one {op}"
    replace(node, op, inputs, attrs)
    return Edit(node, what)
