"""How far each layer of a changed model is from the original's, for its own part.

In a copy of the model each layer is computed a second time, with the constants that the original has in its
place, on the same input before that was rounded; the moments of both and of their difference are observed.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.errors import NativeError
from graphopt.ir.graph import Constant, Node
from graphopt.ir.model import Model
from graphopt.ir.surgery import input_or_none, insert, new_constant, new_tensor, producer, tidy
from graphopt.numerics.affine_correction import Deviation
from graphopt.numerics.streaming import Moments, MomentsSpec
from graphopt.pass_base import Context, Observe
from graphopt.runtime.observing import Request

from ..pruning._fitting.layers import LAYERS
from ._bias_slots import dequantized

Parts = tuple[Deviation, Deviation]
"""A deviation on some samples, and on the others."""

Three = tuple[Request[Moments], Request[Moments], Request[Moments]]


def layers_of(model: Model) -> dict[str, Node]:
    """The layers of the main graph, by the names of their outputs, in order."""
    return {
        node.outputs[0].name: node
        for node in model.graph.nodes
        if node.standard and node.op in LAYERS and len(node.inputs) > 1
    }


def deviations_of(
    context: Context, original: Model, observe: Observe, first: int
) -> tuple[dict[str, Parts], dict[str, str]]:
    """The deviations of all layers that may have changed.

    Args:
        context: holds the changed model.
        original: the model before, whose nodes have the same numbers.
        observe: gives statistics of tensors.
        first: samples of the first part.

    Returns:
        Deviations on the first samples and on the others, by the name of the layer's output; reasons by the
        label of the layer where there are none.
    """
    twins = {node.uid: node for node in layers_of(original).values()}
    refused: dict[str, str] = {}
    bench = _Bench(context.model.copy())
    for node in layers_of(context.model).values():
        twin = twins.get(node.uid)
        why = _objection(node, twin, context)
        if why:
            refused[node.label] = why
        elif twin is not None and isinstance(twin.inputs[1], Constant):
            bench.add(node, twin)
    found: dict[str, Parts] = {}
    labels = {where: node.label for where, node in layers_of(context.model).items()}
    for where, parts in bench.deviations(observe, first).items():
        if isinstance(parts, str):
            refused[labels[where]] = parts
        elif not parts[1].gap.count.any():
            refused[labels[where]] = "no samples are left to judge a correction on"
        elif not (parts[0].known and parts[1].known):
            refused[labels[where]] = "what it gives is not finite on the data"
        elif not parts[1].spread > 0:
            refused[labels[where]] = "what the original gives does not vary"
        else:
            found[where] = parts
    return found, refused


def _objection(node: Node, twin: Node | None, context: Context) -> str:
    """Why a layer has no counterpart in the original, or nothing."""
    if twin is None or twin.op != node.op or twin.attrs != node.attrs:
        return "the original has no such layer"
    weight, bias = twin.inputs[1], input_or_none(twin, 2)
    if not isinstance(weight, Constant):
        return ""
    if context.facts.shape(node.inputs[1]) != tuple(weight.shape):
        return "it has other channels than the original's"
    return "" if bias is None or isinstance(bias, Constant) else "its bias is computed"


class _Bench:
    """A copy of the model in which layers are computed a second time as the original has them."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.nodes = {node.uid: node for node in model.graph.nodes}
        self.asked: dict[str, Three] = {}

    def add(self, node: Node, twin: Node) -> None:
        """Compute a layer as the original has it, too, unless it is as it was."""
        own = self.nodes[node.uid]
        source = _before_rounding(own.inputs[0])
        if source is own.inputs[0] and _same(own, twin):
            return
        graph = self.model.graph
        held = [new_constant(graph, t.name, t.values) for t in twin.inputs[1:] if t.name]
        was, gap = (new_tensor(graph, f"{own.label}/{what}") for what in ("original", "gap"))
        insert(own, own.op, [source, *held], [was], dict(twin.attrs)).order += 0.25
        insert(own, "Sub", [was, own.outputs[0]], [gap]).order += 0.5
        spec = MomentsSpec(-1 if own.op in ("MatMul", "Gemm") else 1)
        whole = own.outputs[0].name
        asked = (Request(was.name, spec), Request(whole, spec), Request(gap.name, spec))
        self.asked[whole] = asked

    def deviations(self, observe: Observe, first: int) -> dict[str, Parts | str]:
        """The deviations on the first samples and on the others, or why there are none."""
        tidy(self.model.graph)
        every = [request for three in self.asked.values() for request in three]
        if not every:
            return {}
        try:
            parts = [use(self.model, every) for use in (observe.first(first), observe)]
        except NativeError as error:
            return dict.fromkeys(self.asked, str(error))
        found: dict[str, Parts | str] = {}
        for where, three in self.asked.items():
            answers = [[part[request] for request in three] for part in parts]
            missing = [a.why for part in answers for a in part if a.value is None]
            if missing:
                found[where] = missing[0]
                continue
            some, whole = (Deviation(*(a.value for a in part)) for part in answers)
            seen = all(m.count.size for d in (some, whole) for m in (d.was, d.now, d.gap))
            found[where] = (some, whole.without(some)) if seen else "the data is empty there"
        return found


def _before_rounding(tensor: gs.Tensor) -> gs.Tensor:
    """What an activation was before it was quantized and dequantized."""
    back = dequantized(tensor)
    made = None if back is None else producer(back.inputs[0])
    return made.inputs[0] if made is not None and made.op == "QuantizeLinear" else tensor


def _same(node: Node, twin: Node) -> bool:
    """Whether a layer multiplies and adds the same constants as before."""
    if len(node.inputs) != len(twin.inputs):
        return False
    return all(
        isinstance(a, Constant) and isinstance(b, Constant) and np.array_equal(a.values, b.values)
        for a, b in zip(node.inputs[1:], twin.inputs[1:], strict=True)
        if a.name or b.name
    )
