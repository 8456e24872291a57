"""Give the outputs of changed layers their means back, and their spread.

    y' = g y + t,    g, t per output channel so that  E (y_original - y')^2  is least

What lossy passes before it in the same run did to a layer, such as rounding, zeroing or clustering its
weights and rounding what it reads, moves the mean of each of its outputs, and all behind it sees that. Here
each layer is computed twice on the calibration data: as it is, and with the weights of the original on the
same input before that was rounded. So a layer answers for its own error only, and all can be corrected at
once. The mean alone goes into the bias (Nagel et al., "Data-free quantization through weight equalization and bias
correction", 2019); a gain, into the weights or their scales. What is stored as integers stays so: a bias of
int32 moves by steps of its scale s_x s_w, a gain goes into s_w. A layer without a bias gets one; a MatMul
takes none, and needs an Add behind it.

A mean that was restored alone can make things worse where much was lost. So corrections are fitted to half of
the calibration samples and judged on the other half: what serves better there, mean alone or with a gain, is
taken, and only where it takes at least a hundredth of the layer's error. The reasons give both errors as
shares of the variance of what the original layer gives.

``gain`` off: means alone.

Refuses: a run in which nothing lossy came before, or exact passes came between; fewer than 8 samples; layers
that were sliced, so that they have other channels than the original's; a bias or weights that are shared or
computed at run time; bodies of control flow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.errors import NativeError
from graphopt.ir.graph import Constant, Node
from graphopt.ir.model import Model
from graphopt.ir.surgery import input_or_none, insert, new_constant, new_tensor, producer, tidy
from graphopt.lossy_pass import Choice, LossyPass
from graphopt.numerics.affine_correction import Correction, Deviation
from graphopt.numerics.streaming import Moments, MomentsSpec
from graphopt.pass_base import Context, Edit, Observe, Skip
from graphopt.runtime.observing import Request

from ..pruning._fitting.layers import LAYERS
from ._bias_slots import Slot, dequantized, slot_of
from ._channel_scaling import share

SAMPLES = 8
"""Without so many, half of them say nothing of the other half."""

LEAST = 0.01
"""Of a layer's error, what a correction must take."""


@dataclass(frozen=True)
class _Found:
    """What is known of a layer: how it is corrected, or why it is not."""

    where: str
    correction: Correction | None = None
    gains: bool = False
    what: str = ""
    loss: float = 0.0


@dataclass(frozen=True)
class CorrectBias(LossyPass):
    """Means and spread of what changed layers give are restored."""

    name = "correct-bias"

    gain: bool = field(
        default=True, metadata={"help": "restore the spread, too; false: the means alone"}
    )

    def propose(self, context: Context) -> Iterator[Choice | Skip]:
        """See the module's docstring."""
        for found in self._study(context):
            if isinstance(found, Skip):
                yield found
            elif found.correction is None:
                yield Skip(found.where, found.what)
            else:
                yield Choice(found.where, 2 if found.gains else 1, found.what, found.loss)

    def commit(self, chosen: Sequence[Choice], context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        known = {f.where: f for f in self._study(context) if isinstance(f, _Found)}
        nodes = {node.outputs[0].name: node for node in _layers(context.model)}
        for choice in chosen:
            correction, node = known[choice.where].correction, nodes[choice.where]
            assert correction is not None
            slot = slot_of(node, correction.shift.size)
            assert isinstance(slot, Slot)
            if known[choice.where].gains and slot.gain is not None:
                slot.gain(correction.gain)
            slot.shift(correction.gain, correction.shift)
            yield Edit(node, choice.what)

    def _study(self, context: Context) -> list[_Found | Skip]:
        return context.once((self.name, self.gain), lambda: self._studied(context))

    def _studied(self, context: Context) -> list[_Found | Skip]:
        original, observe, data = context.original, context.observe, context.data
        if original is None:
            return [Skip("the model", "no lossy pass changed it just before, so nothing moved")]
        count = 0 if data is None else data.count("calibration")
        if observe is None or count < SAMPLES:
            why = f"it takes {SAMPLES} samples of data to judge a correction, and there are {count}"
            return [Skip("the model", why)]
        found: list[_Found | Skip] = []
        bench = _Bench(context.model.copy(), original)
        for node in _layers(context.model):
            why = bench.add(node)
            if why:
                found.append(Skip(node, why))
        for where, deviations in bench.deviations(observe, count // 2).items():
            node = next(n for n in _layers(context.model) if n.outputs[0].name == where)
            if isinstance(deviations, str):
                found.append(Skip(node, deviations))
            else:
                found.append(self._judged(node, *deviations))
        return found

    def _judged(self, node: Node, fitted: Deviation, held: Deviation) -> _Found | Skip:
        """A correction that was fitted to some samples, judged on others."""
        if not (fitted.known and held.known):
            return Skip(node, "it is not finite on the data")
        slot = slot_of(node, int(fitted.gap.mean.size))
        if isinstance(slot, str):
            return Skip(node, slot)
        before, spread = held.error(), held.spread
        tried = [(fitted.shifting(), False)]
        if self.gain and slot.gain is not None:
            tried.append((fitted.scaling(), True))
        best, gains = min(tried, key=lambda entry: held.error(entry[0]))
        after = held.error(best)
        told = f"its error on samples held back, {_part(before, spread)}, "
        if not after <= (1.0 - LEAST) * before:
            return Skip(node, f"{told}would be {_part(after, spread)} with its mean restored")
        what = "means and spread were" if gains else "means were"
        what = f"{told}is {_part(after, spread)} since its {what} restored"
        return _Found(node.outputs[0].name, best, gains, what, -(before - after) / (spread or 1.0))


def _part(error: float, spread: float) -> str:
    return share(error / spread) if spread > 0 else f"{error:.3g}"


def _layers(model: Model) -> list[Node]:
    """The layers of the main graph."""
    return [
        node
        for node in model.graph.nodes
        if node.standard and node.op in LAYERS and len(node.inputs) > 1
    ]


class _Bench:
    """A copy of the model in which layers are computed a second time as the original has them."""

    def __init__(self, model: Model, original: Model) -> None:
        self.model = model
        self.nodes = {node.uid: node for node in model.graph.nodes}
        self.twins = {node.uid: node for node in _layers(original)}
        self.asked: dict[str, tuple[Request[Moments], Request[Moments], Request[Moments]]] = {}

    def add(self, node: Node) -> str:
        """Compute a layer as the original has it, too; why that cannot be, or nothing.

        Nothing is done about a layer that is as it was.
        """
        own, twin = self.nodes[node.uid], self.twins.get(node.uid)
        if twin is None or twin.op != own.op or twin.attrs != own.attrs:
            return "the original has no such layer"
        if not isinstance(twin.inputs[1], Constant):
            return ""
        source = _before_rounding(own.inputs[0])
        if source is own.inputs[0] and _same(own, twin):
            return ""
        held = input_or_none(twin, 2)
        if held is not None and not isinstance(held, Constant):
            return "its bias is computed"
        graph = self.model.graph
        inputs = [
            source,
            *(new_constant(graph, t.name, t.values) for t in twin.inputs[1:] if t.name),
        ]
        was, gap = (new_tensor(graph, f"{own.label}/{what}") for what in ("original", "gap"))
        insert(own, own.op, inputs, [was], dict(twin.attrs)).order += 0.25
        insert(own, "Sub", [was, own.outputs[0]], [gap]).order += 0.5
        axis = -1 if own.op in ("MatMul", "Gemm") else 1
        names = (was.name, own.outputs[0].name, gap.name)
        was_, now_, gap_ = (Request(name, MomentsSpec(axis)) for name in names)
        self.asked[own.outputs[0].name] = was_, now_, gap_
        return ""

    def deviations(
        self, observe: Observe, first: int
    ) -> dict[str, tuple[Deviation, Deviation] | str]:
        """How far each layer is from the original's: on the first samples, and on the others."""
        tidy(self.model.graph)
        every = [request for three in self.asked.values() for request in three]
        if not every:
            return {}
        try:
            parts = [use(self.model, every) for use in (observe.first(first), observe)]
        except NativeError as error:
            return dict.fromkeys(self.asked, str(error))
        found: dict[str, tuple[Deviation, Deviation] | str] = {}
        for where, three in self.asked.items():
            missing = [a.why for p in parts for r in three if (a := p[r]).value is None]
            if missing:
                found[where] = f"it has other channels than the original's: {missing[0]}"
                continue
            some, whole = (Deviation(*(answers[r].value for r in three)) for answers in parts)
            found[where] = some, whole.without(some)
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
    pairs = zip(node.inputs[1:], twin.inputs[1:], strict=True)
    return all(
        isinstance(a, Constant) and isinstance(b, Constant) and np.array_equal(a.values, b.values)
        for a, b in pairs
        if a.name or b.name
    )
