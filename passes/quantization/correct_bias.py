"""Give the outputs of changed layers their means back, and their spread.

    y' = g y + t,    g, t per output channel so that  E (y_original - y')^2  is least

What lossy passes before it in the same run did to a layer, such as rounding, zeroing or clustering its
weights and rounding what it reads, moves the mean of each of its outputs, and all behind it sees that. Here
each layer is computed twice on the calibration data: as it is, and with the weights of the original on the
same input before that was rounded. So a layer answers for its own error only, and all are corrected at once.
The mean alone goes into the bias (Nagel et al., "Data-free quantization through weight equalization and bias
correction", 2019); a gain, into the weights or their scales. What is stored as integers stays so: a bias of
int32 moves by steps of its scale s_x s_w, a gain goes into s_w. Weights that are computed from codes get a
factor behind, which a runtime folds with them. A layer without a bias gets one; a MatMul
takes none, and needs an Add behind it.

A mean that was restored alone can make things worse where much was lost. So two checks come before:

- Corrections are fitted to half of the calibration samples and judged on the other half: the mean alone or
  with a gain, whichever serves better there, and only where it takes a hundredth of the layer's error at
  least. The reasons give both errors as shares of the variance of what the original layer gives.
- All together are then judged at the model's outputs, on all calibration samples. Where these do not come
  closer to the original's, the means alone are tried, and where they do not help either, nothing is done.

Passes that refit a layer to what the original gave, as ``prune-channels`` and ``sparsify-weights`` do, have
let it make up for the layers before it already. Its own error is then not all, and the outputs have the last
word.

``gain`` off: means alone.

Refuses: a run in which nothing lossy came before, or exact passes came between; fewer than 8 samples; layers
that were sliced, so that they have other channels than the original's; a bias or weights that are shared or
computed at run time; bodies of control flow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from graphopt.ir.graph import Node
from graphopt.ir.model import Model
from graphopt.lossy_pass import Choice, LossyPass
from graphopt.numerics.affine_correction import Correction, Deviation
from graphopt.pass_base import Context, Edit, Observe, Skip

from ._bias_slots import Slot, slot_of
from ._channel_scaling import share
from ._layer_deviations import deviations_of, layers_of
from ._output_gaps import output_gap

SAMPLES = 8
"""Without so many, half of them say nothing of the other half."""

LEAST = 0.01
"""Of a layer's error, what a correction must take."""


@dataclass(frozen=True)
class _Found:
    """How a layer is corrected.

    Attributes:
        correction: what is done to its outputs.
        gains: whether there is more to it than shifts.
        before: the layer's error on samples held back, as a share.
        left: what is left of it.
    """

    correction: Correction
    gains: bool
    before: float
    left: float

    @property
    def what(self) -> str:
        """What was done, in words."""
        told = f"its error on samples held back, {share(self.before)}, is {share(self.left)}"
        return f"{told} since its {'means and spread' if self.gains else 'means'} were restored"

    def apply(self, node: Node) -> None:
        """Correct the layer, in any copy of the model."""
        slot = slot_of(node, self.correction.shift.size)
        assert isinstance(slot, Slot)
        if self.gains and slot.gain is not None:
            slot.gain(self.correction.gain)
        slot.shift(self.correction.gain, self.correction.shift)


@dataclass(frozen=True)
class _Study:
    """What is known of a model: corrections by the name of the layer's output, and refusals by label."""

    found: dict[str, _Found]
    refused: dict[str, str]


@dataclass(frozen=True)
class CorrectBias(LossyPass):
    """Means and spread of what changed layers give are restored."""

    name = "correct-bias"

    gain: bool = field(
        default=True, metadata={"help": "restore the spread, too; false: the means alone"}
    )

    def propose(self, context: Context) -> Iterator[Choice | Skip]:
        """See the module's docstring."""
        study = self._study(context)
        yield from (Skip(label, why) for label, why in study.refused.items())
        for where, entry in study.found.items():
            level = 2 if entry.gains else 1
            yield Choice(where, level, entry.what, entry.left - entry.before)

    def commit(self, chosen: Sequence[Choice], context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        found, nodes = self._study(context).found, layers_of(context.model)
        for choice in chosen:
            found[choice.where].apply(nodes[choice.where])
            yield Edit(nodes[choice.where], choice.what)

    def _study(self, context: Context) -> _Study:
        return context.once((self.name, self.gain), lambda: self._studied(context))

    def _studied(self, context: Context) -> _Study:
        original, observe, data = context.original, context.observe, context.data
        if original is None:
            return _Study({}, {"the model": "no lossy pass changed it just before"})
        count = 0 if data is None else data.count("calibration")
        if observe is None or count < SAMPLES:
            why = f"judging a correction takes {SAMPLES} samples, and there are {count}"
            return _Study({}, {"the model": why})
        known, refused = deviations_of(context, original, observe, count // 2)
        nodes = layers_of(context.model)
        means: dict[str, _Found] = {}
        best: dict[str, _Found] = {}
        for where, pair in known.items():
            label = nodes[where].label
            slot = slot_of(nodes[where], int(pair[0].gap.mean.size))
            if isinstance(slot, str):
                refused[label] = slot
                continue
            tried = _fits(*pair, with_gain=self.gain and slot.gain is not None)
            if tried[0].left <= (1.0 - LEAST) * tried[0].before:
                means[where] = tried[0]
            entry = min(tried, key=lambda fit: fit.left)
            if entry.left <= (1.0 - LEAST) * entry.before:
                best[where] = entry
            else:
                told = f"its error on samples held back, {share(entry.before)}, would be"
                refused[label] = f"{told} {share(entry.left)} with its mean restored"
        return _helping(context.model, original, observe, (best, means), refused)


def _fits(fitted: Deviation, held: Deviation, with_gain: bool) -> list[_Found]:
    """Corrections that were fitted to some samples, judged on others: of the mean, and with a gain."""
    corrections = [fitted.shifting(), *([fitted.scaling()] if with_gain else [])]
    before = held.error() / held.spread
    return [
        _Found(correction, number > 0, before, held.error(correction) / held.spread)
        for number, correction in enumerate(corrections)
    ]


def _helping(
    model: Model,
    original: Model,
    observe: Observe,
    plans: Sequence[dict[str, _Found]],
    refused: dict[str, str],
) -> _Study:
    """The first of some sets of corrections with which the outputs come closer to the original's."""
    plain = output_gap(model, original, observe)
    reached: list[float] = []
    for plan in filter(None, plans):
        changed = model.copy()
        nodes = layers_of(changed)
        for where, entry in plan.items():
            entry.apply(nodes[where])
        reached.append(output_gap(changed, original, observe))
        if reached[-1] < plain:
            return _Study(plan, refused)
    if not reached:
        return _Study({}, refused)
    why = f"the outputs lose {share(plain)} without corrections and {share(min(reached))} with"
    return _Study({}, {**refused, "the model": why})
