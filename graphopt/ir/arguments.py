"""What a node is given, wherever its operator set puts it, and what follows for its shape.

Reductions, Squeeze and Unsqueeze take their axes as an attribute in old operator sets and as an
input in new ones; these functions read and write both forms.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.graph import Constant, Node
from graphopt.ir.inference.facts import Facts, Shape
from graphopt.ir.surgery import Scope, input_or_none, new_constant, producer, sole_user

AXES_INPUT_SINCE = {"ReduceSum": 13, "Squeeze": 13, "Unsqueeze": 13}
"""The operator set since which axes are an input; 18 for the other reductions."""


def feeding(tensor: gs.Tensor, reader: Node, *ops: str, shared: bool = False) -> Node | None:
    """The node that computes a tensor as its first output, if it may be fused with its reader.

    It must be of one of the given operators of the standard domain, stand in the scope of
    ``reader``, and have no attribute that a function's caller decides.

    Args:
        tensor: what ``reader`` reads.
        reader: the node below.
        ops: the operators wanted.
        shared: whether others may read the tensor too.
    """
    made = producer(tensor)
    if made is None or made.op not in ops or not made.standard or made.graph is not reader.graph:
        return None
    if made.outputs[0] is not tensor or not (shared or sole_user(tensor) is reader):
        return None
    if any(isinstance(value, gs.Node.AttributeRef) for value in made.attrs.values()):
        return None
    return made


def dims(tensor: gs.Tensor, facts: Facts) -> Shape | None:
    """The proven shape of a tensor, constants included; None when the rank is unknown."""
    return tuple(tensor.shape) if isinstance(tensor, Constant) else facts.shape(tensor)


def keeps_shape(tensor: gs.Tensor, others: Iterable[gs.Tensor], facts: Facts) -> bool:
    """Whether broadcasting ``tensor`` with the others provably gives its own shape."""
    own = dims(tensor, facts)
    for other in others:
        shape = dims(other, facts)
        if shape is None:
            return False
        if not shape:
            continue
        if own is None or len(shape) > len(own):
            return False
        pairs = zip(own[len(own) - len(shape) :], shape, strict=True)
        if not all(dim == 1 or dim == mine for mine, dim in pairs):
            return False
    return True


def same_shape(a: gs.Tensor, b: gs.Tensor, facts: Facts) -> bool:
    """Whether two tensors provably have the same shape."""
    shape = dims(a, facts)
    return shape is not None and shape == dims(b, facts)


def integers(tensor: gs.Tensor | None, facts: Facts) -> list[int] | None:
    """The contents of a small integer tensor; None when they are not known."""
    if tensor is None:
        return None
    values = tensor.values if isinstance(tensor, Constant) else facts.constant_value(tensor)
    if values is None or values.dtype.kind not in "iub":
        return None
    return [int(value) for value in values.reshape(-1)]


def axes_given(node: Node, facts: Facts) -> tuple[bool, list[int] | None]:
    """Whether a node has axes at all, and which, as written; None for axes that are not known."""
    if "axes" in node.attrs:
        return True, [int(axis) for axis in node.attrs["axes"]]
    tensor = input_or_none(node, 1)
    return tensor is not None, integers(tensor, facts)


def reduced_axes(node: Node, facts: Facts) -> list[int] | None:
    """The axes that a reduction works on, sorted and not negative; None when they are not known.

    The list is empty where it works element by element (``noop_with_empty_axes``) or on a scalar.
    """
    shape = dims(node.inputs[0], facts)
    given, axes = axes_given(node, facts)
    if (given and axes is None) or shape is None:
        return None
    if not axes:
        return [] if node.attrs.get("noop_with_empty_axes") else list(range(len(shape)))
    if any(not -len(shape) <= axis < len(shape) for axis in axes):
        return None
    return sorted({axis % len(shape) for axis in axes})


def with_axes(
    graph: Scope, op: str, tensor: gs.Tensor, axes: Sequence[int], name: str = "axes"
) -> tuple[list[gs.Tensor], dict[str, object]]:
    """Inputs and attributes of a reduction, Squeeze or Unsqueeze in the scope's operator set."""
    if int(graph.opset) < AXES_INPUT_SINCE.get(op, 18):
        return [tensor], {"axes": list(axes)}
    return [tensor, new_constant(graph, name, np.array(axes, np.int64))], {}
