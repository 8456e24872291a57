"""Fold a Pad of the spatial axes into the convolution or pooling behind it.

    Conv<pads = p>(Pad<q>(x, 0))        = Conv<pads = p + q>(x)
    AveragePool(Pad<q>(x, 0))           = AveragePool<pads = q, count_include_pad = 1>(x)
    MaxPool<pads = p>(Pad<q>(x, low))   = MaxPool<pads = p + q>(x)

``low`` is the least value of the element type, -inf for floats; 0 where ``x`` is never negative, as
every window sees some of ``x``. Runtimes want the pads of a pooling to be smaller than its kernel,
which also makes that so. Source: ONNX Pad-2, -11, -18, Conv, AveragePool-7, MaxPool.

Refuses: another mode or value; pads on the batch or channel axis, negative or not constant;
``auto_pad = SAME_*``; for poolings ceil_mode, dilations, pads as large as the kernel; for
AveragePool pads that are not counted; for MaxPool indices; a second user.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.graph import Constant, Node
from graphopt.ir.surgery import (
    Scope,
    bypass,
    input_or_none,
    is_used,
    producer,
    sole_user,
    splat,
)
from graphopt.pass_base import Context, Edit, Pass, Skip

NEVER_NEGATIVE = frozenset({"Relu", "Sigmoid", "HardSigmoid", "Softplus", "Softmax", "Abs", "Exp"})


@dataclass(frozen=True)
class FoldPad(Pass):
    """A Pad goes into the pads of Conv, AveragePool or MaxPool."""

    name = "fold-pad"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        if int(graph.opset) < 7:
            return
        for node in context.nodes(graph, "Pad"):
            user = sole_user(node.outputs[0])
            if user is None or not user.standard or user.inputs[0] is not node.outputs[0]:
                continue
            if user.op not in ("Conv", "AveragePool", "MaxPool") or _refers(user):
                continue
            pads = _spatial_pads(node, context)
            if pads is None:
                continue
            why = _obstacle(node, user, pads, context)
            if why:
                yield Skip(node, why)
                continue
            _move(node, user, pads)
            yield Edit(node, f"went into the pads of {user.label}")


def _refers(node: Node) -> bool:
    return any(isinstance(value, gs.Node.AttributeRef) for value in node.attrs.values())


def _spatial_pads(node: Node, context: Context) -> list[int] | None:
    """Begins and ends per spatial axis; None where other axes are padded or nothing is."""
    rank = context.facts.rank(node.inputs[0])
    if rank is None or rank < 3:
        return None
    given = _integers(node, 1, "pads", context)
    axes: list[int] | None = list(range(rank))
    if input_or_none(node, 3) is not None:
        axes = _integers(node, 3, "axes", context)
    if given is None or axes is None or len(given) != 2 * len(axes):
        return None
    pads = [0] * (2 * rank)
    for index, axis in enumerate(axes):
        pads[axis % rank] = given[index]
        pads[rank + axis % rank] = given[index + len(axes)]
    outside = (*pads[:2], *pads[rank : rank + 2])
    if any(outside) or not any(pads) or min(pads) < 0:
        return None
    return [*pads[2:rank], *pads[rank + 2 :]]


def _integers(node: Node, index: int, attribute: str, context: Context) -> list[int] | None:
    if attribute in node.attrs:
        return [int(value) for value in node.attrs[attribute]]
    tensor = input_or_none(node, index)
    if tensor is None:
        return None
    if isinstance(tensor, Constant):
        return [int(value) for value in tensor.values.reshape(-1)]
    known = context.facts.constant_value(tensor)
    return None if known is None else [int(value) for value in known.reshape(-1)]


def _value(node: Node) -> float | None:
    """What is padded with; None where it is not known."""
    if int(node.graph.opset) < 11:  # type: ignore[union-attr]
        return float(node.attrs.get("value", 0.0))
    tensor = input_or_none(node, 2)
    if tensor is None:
        return 0.0
    found = splat(tensor)
    return None if found is None else float(found)


def _obstacle(node: Node, user: Node, pads: list[int], context: Context) -> str:
    """Why a Pad cannot go into its user; empty where it can."""
    value = _value(node)
    own = list(user.attrs.get("pads") or [0] * len(pads))
    if node.attrs.get("mode", "constant") != "constant":
        return f"it pads in mode {node.attrs['mode']}"
    if value is None:
        return "the value that it pads with is not constant"
    if user.attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return f"{user.label} pads by {user.attrs['auto_pad']}"
    if len(own) != len(pads):
        return f"{user.label} has pads for another number of axes"
    if user.op == "Conv":
        return "" if value == 0 else f"it pads with {value:g}, a convolution with 0"
    if user.attrs.get("ceil_mode", 0) or any(d != 1 for d in user.attrs.get("dilations") or ()):
        return f"{user.label} has ceil_mode or dilations"
    kernel = list(user.attrs["kernel_shape"]) * 2
    if any(p + q >= k for p, q, k in zip(own, pads, kernel, strict=True)):
        return f"the pads of {user.label} would be as large as its kernel"
    if user.op == "AveragePool":
        if value != 0:
            return f"it pads with {value:g}, an average pooling with 0"
        counted = user.attrs.get("count_include_pad", 0) or not any(own)
        return "" if counted else f"{user.label} does not count its own pads"
    if len(user.outputs) > 1 and user.outputs[1].name and is_used(user.outputs[1]):
        return f"{user.label} returns indices"
    if value == _least(context.facts.dtype(node.inputs[0])):
        return ""
    made = producer(node.inputs[0])
    if value == 0 and made is not None and made.standard and made.op in NEVER_NEGATIVE:
        return ""
    return f"it pads with {value:g}, a max pooling with the least value"


def _least(dtype: np.dtype | None) -> float | None:
    if dtype is None:
        return None
    return float(np.iinfo(dtype).min) if dtype.kind in "iu" else -np.inf


def _move(node: Node, user: Node, pads: list[int]) -> None:
    own = user.attrs.get("pads") or [0] * len(pads)
    bypass(node)
    user.attrs.pop("auto_pad", None)
    user.attrs["pads"] = [int(p) + q for p, q in zip(own, pads, strict=True)]
    if user.op == "AveragePool":
        user.attrs["count_include_pad"] = 1
