"""Take whole channels, neurons and heads out of a model, and let least squares make up for them.

Which channels of which tensors leave together follows from the graph alone (``graphopt.ir.channels``). For
each group the order in which its units can go, and what that costs, is that of the Optimal Brain Surgeon on
the calibration data (``graphopt.numerics.obs``; ZipLM, Kurtic et al. 2023): the error of the layers that
read them, relative to the energy of their outputs, and so comparable between layers. Groups are narrowed
where that loses least for what it saves, until enough is saved (``graphopt.numerics.widths``). Then the
weights are sliced, and each layer is refitted by ridge regression to what it gave in the original.

Without data units go by the L2 norm of their weights, and nothing is refitted: a much weaker promise.

Refuses: groups that are locked, each with its reason; groups that no Conv, Gemm or MatMul with weights of
its own reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from graphopt.ir.channel_slicing import slice_groups
from graphopt.ir.channels import ChannelGroup, find_groups
from graphopt.ir.frames import Frame
from graphopt.ir.model import Model
from graphopt.lossy_pass import Choice, LossyPass
from graphopt.numerics.allocation import UnreachableError
from graphopt.numerics.widths import allocate_widths
from graphopt.pass_base import Context, Edit, Skip

from ._costs import Costs
from ._layers import layers_of
from ._ranking import Candidate, Importance, candidate_of, removals
from ._refit import refit

STEPS = 256
"""Widths that a wide group is tried at."""


@dataclass(frozen=True)
class Cut(Choice):
    """Units of one group that stay."""

    keep: tuple[int, ...] = ()


@dataclass(frozen=True)
class PruneChannels(LossyPass):
    """Channels, neurons and heads leave the model, and the rest makes up for them."""

    name = "prune-channels"

    objective: Literal["macs", "params", "size"] = field(
        default="macs", metadata={"help": "what is to be saved"}
    )
    amount: float = field(default=0.3, metadata={"help": "the share of it to be saved"})
    multiple: int = field(default=1, metadata={"help": "what widths shall be multiples of"})
    floor: float = field(
        default=0.08, metadata={"help": "the share of its width that a group keeps"}
    )
    importance: Importance = field(
        default="obs", metadata={"help": "by what units are ranked; obs needs data"}
    )
    refit: bool = field(default=True, metadata={"help": "whether layers are refitted on the data"})

    def __post_init__(self) -> None:
        """Refuse options that make no sense.

        Raises:
            ValueError: so it is.
        """
        if not (0 <= self.amount < 1 and 0 < self.floor <= 1 and self.multiple >= 1):
            raise ValueError("amount and floor are shares, multiple a whole number from 1")

    def milder(self, strength: float) -> PruneChannels:
        """The same with a part of the amount."""
        return replace(self, amount=self.amount * strength)

    def propose(self, context: Context) -> Iterator[Choice | Skip]:
        """See the module's docstring."""
        candidates: list[Candidate] = []
        for group in find_groups(context.model, context.facts):
            found = candidate_of(group, context.model) if not group.locked else group.locked
            if isinstance(found, str):
                yield Skip(group.name, found)
            else:
                candidates.append(found)
        if not candidates:
            yield Skip("the model", "no group of channels may be cut")
            return
        ranked = removals(candidates, self.importance, context)
        groups = [candidate.group for candidate in candidates]
        frame = Frame.of(context.model, context.facts, context.sizes)
        costs = Costs(context.model, frame, groups, self.objective)
        gains = costs.savings(costs.full, np.maximum(np.ceil(costs.full * self.floor), 1))
        for group in (g for g, gain in zip(groups, gains, strict=True) if gain <= 0):
            yield Skip(group.name, f"without it the model has no fewer {self.objective}")
        multiples = [
            max(self.multiple, self.multiple * (group.size // (STEPS * self.multiple)))
            for group in groups
        ]
        target = self.amount * costs.total
        losses = [errors for _, errors in ranked]
        multiples = [  # a group that saves nothing keeps its width
            multiple if gain > 0 else group.size
            for multiple, gain, group in zip(multiples, gains, groups, strict=True)
        ]
        try:
            widths = allocate_widths(losses, costs.savings, target, multiples, self.floor).levels
        except UnreachableError as error:
            most = 100 * error.most / costs.total if costs.total else 0.0
            yield Skip("the model", f"only {most:.3g} % of its {self.objective} can be saved")
            target = error.most * (1 - 1e-9)
            widths = allocate_widths(losses, costs.savings, target, multiples, self.floor).levels
        for candidate, (order, errors), width in zip(candidates, ranked, widths, strict=True):
            yield from _cut(candidate.group, order, errors, int(width))

    def commit(self, chosen: Sequence[Choice], context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        model = context.model
        dense = model.copy()
        groups = {group.name: group for group in find_groups(model, context.facts)}
        cuts = [(groups[cut.where], cut.keep) for cut in chosen if isinstance(cut, Cut)]
        kept = _kept_outputs(model, cuts)
        slice_groups(model, cuts)
        for choice in chosen:
            yield Edit(choice.where, choice.what)
        if self.refit and context.observe is not None:
            yield from refit(model, dense, kept, context)


def _cut(
    group: ChannelGroup, order: np.ndarray, errors: np.ndarray, width: int
) -> Iterator[Choice]:
    gone = group.size - width
    if gone <= 0:
        return
    keep = tuple(int(unit) for unit in np.sort(order[gone:]))
    what = f"{gone} of {group.size} {group.unit}s of {', '.join(group.producers[:2])} were cut"
    yield Cut(group.name, gone / group.size, what, float(errors[gone - 1]), gone * group.macs, keep)


def _kept_outputs(
    model: Model, cuts: Sequence[tuple[ChannelGroup, Sequence[int]]]
) -> dict[int, np.ndarray]:
    """By layer, the outputs that stay, where some do not."""
    layers = layers_of(model)
    left: dict[int, np.ndarray] = {}
    for group, keep in cuts:
        gone = np.setdiff1d(np.arange(group.size), np.asarray(keep, np.int64))
        for slot in group.members:
            layer = layers.get(slot.node)
            if layer is None or not slot.read or slot.index != 1 or slot.axis != layer.output_axis:
                continue
            every = np.arange(layer.weight.shape[slot.axis])
            places = left.get(slot.node, every)
            left[slot.node] = np.setdiff1d(places, slot.indices[gone].ravel())
    return left
