"""Take whole channels, neurons and heads out of a model, and let least squares make up for them.

Which channels of which tensors leave together follows from the graph alone (``graphopt.ir.channels``). For
each group the order in which its units can go, and what that costs, is that of the Optimal Brain Surgeon on
the calibration data (``graphopt.numerics.obs``; ZipLM, Kurtic et al. 2023): the error of the layers that
read them, relative to the energy of their outputs, and so comparable between layers. Groups are narrowed
where that loses least for what it saves, until enough is saved (``graphopt.numerics.widths``). Widths are
multiples of 8 channels where enough can be saved so, for kernels work in such blocks. Then the weights are
sliced, and each layer is refitted by ridge regression to what it gave in the original.

Without data all of that is measured on drawn inputs (``graphopt.quality.synthetic``): a much weaker promise.
Where the model runs on none, units go by the L2 norm of their weights, and nothing is refitted.

Refuses: groups that are locked, each with its reason; groups that no product, sum or recurrent
layer reads in a way that tells what is lost.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from graphopt.ir.channel_slicing import slice_groups
from graphopt.ir.channels import ChannelGroup, find_groups
from graphopt.ir.graph import Node
from graphopt.ir.model import Model
from graphopt.lossy_pass import Choice, LossyPass
from graphopt.numerics.allocation import UnreachableError
from graphopt.numerics.surfaces import BLOCK
from graphopt.numerics.widths import allocate_widths
from graphopt.pass_base import Context, Edit, Skip

from ._channels.costs import Costs
from ._channels.latency import UnmeasuredError
from ._channels.objectives import Objective, costs_of, multiples_of
from ._channels.ranking import Candidate, Importance, candidate_of, removals
from ._fitting.layers import layers_of
from ._fitting.refit import METHODS, Refit, refit


@dataclass(frozen=True)
class Cut(Choice):
    """Units of one group that stay."""

    keep: tuple[int, ...] = ()


@dataclass(frozen=True)
class PruneChannels(LossyPass):
    """Channels, neurons and heads leave the model, and the rest makes up for them."""

    name = "prune-channels"

    objective: Objective = field(default="macs", metadata={"help": "what is to be saved"})
    amount: float = field(default=0.3, metadata={"help": "the share of it to be saved"})
    multiple: int | None = field(
        default=None,
        metadata={
            "help": "what widths shall be multiples of, in channels; none: 8 where enough can be saved so"
        },
    )
    floor: float = field(
        default=0.08, metadata={"help": "the share of its width that a group keeps"}
    )
    importance: Importance = field(
        default="obs",
        metadata={"help": "by what units are ranked; obs and activation look at data"},
    )
    refit: Refit = field(
        default="least-squares",
        metadata={"help": "how layers are refitted to the original on the data"},
    )

    def __post_init__(self) -> None:
        """Refuse options that make no sense.

        Raises:
            ValueError: so it is.
        """
        whole = self.multiple is None or self.multiple >= 1
        if not (0 <= self.amount < 1 and 0 < self.floor <= 1 and whole):
            raise ValueError("amount and floor are shares, multiple a whole number from 1")

    @property
    def promises_speed(self) -> bool:
        """Where a latency is to be lowered, it is."""
        return self.objective == "latency"

    @property
    def advice_if_slower(self) -> str:
        """Widths that are no multiples leave the layouts that kernels are fast in."""
        if (self.multiple or BLOCK) % BLOCK == 0 or self.promises_speed:
            return ""
        return f"widths in multiples of {BLOCK} (prune-channels:multiple={BLOCK}) usually mend that"

    def milder(self, strength: float) -> PruneChannels:
        """The same with a part of the amount."""
        return replace(self, amount=self.amount * strength)

    def propose(self, context: Context) -> Iterator[Choice | Skip]:
        """See the module's docstring."""
        candidates: list[Candidate] = []
        nodes = {node.uid: node for node in context.model.nodes()}
        for group in find_groups(context.model, context.facts):
            found = candidate_of(group, nodes) if not group.locked else group.locked
            if isinstance(found, str):
                yield Skip(group.name, found)
            else:
                candidates.append(found)
        if not candidates:
            yield Skip("the model", "no group of channels may be cut")
            return
        if not self.amount:
            yield Skip("the model", "an amount of 0 asks for nothing to be cut")
            return
        groups = [candidate.group for candidate in candidates]
        try:
            costs = costs_of(self.objective, groups, context)
        except UnmeasuredError as error:
            yield Skip("the model", str(error))
            return
        if costs.unproven:
            yield Skip(costs.unproven[0], _uncounted(costs.unproven, self.objective))
        ranked = yield from removals(candidates, self.importance, context)
        least = np.maximum(np.ceil(costs.full * self.floor), 1).astype(np.int64)
        gains = costs.savings(costs.full, least)
        choices = [multiples_of(context.model, groups, self.multiple)]
        if self.multiple is None:  # what was asked for counts for more than what kernels like
            choices.append(multiples_of(context.model, groups, 1))
        for group, fewest, multiple, gain in zip(groups, least, choices[-1], gains, strict=True):
            if -(-fewest // multiple) * multiple >= group.size:
                yield Skip(group.name, _whole(group, fewest, multiple))
            elif gain <= 0:
                yield Skip(group.name, f"without it the model takes no less {self.objective}")
        choices = [  # a group that saves nothing keeps its width
            [n if gain > 0 else g.size for n, gain, g in zip(multiples, gains, groups, strict=True)]
            for multiples in choices
        ]
        widths = yield from self._allocated([errors for _, errors in ranked], costs, choices)
        saved = costs.in_turn(np.asarray(widths)) / max(costs.total, 1e-30)
        for group, (order, errors), width, part in zip(groups, ranked, widths, saved, strict=True):
            yield from _cut(group, order, errors, int(width), float(part))

    def _allocated(
        self, losses: Sequence[np.ndarray], costs: Costs, choices: Sequence[Sequence[int]]
    ) -> Generator[Skip, None, tuple[int, ...]]:
        """The widths of all groups, in the first multiples in which enough can be saved."""
        target = self.amount * costs.total
        for number, multiples in enumerate(choices, 1):
            try:
                found = allocate_widths(losses, costs.savings, target, multiples, self.floor)
            except UnreachableError as error:
                most = 100 * error.most / costs.total if costs.total else 0.0
                if number < len(choices):
                    why = f"widths that kernels like save only {most:.3g} % of its {self.objective}"
                    yield Skip("the model", f"{why}; others are taken")
                    continue
                yield Skip("the model", f"only {most:.3g} % of its {self.objective} can be saved")
                target = error.most * (1 - 1e-9)
                found = allocate_widths(losses, costs.savings, target, multiples, self.floor)
            return found.levels
        raise AssertionError("there is always a last choice")

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
        yield from refit(model, dense, kept, context, METHODS[self.refit])


def _uncounted(nodes: Sequence[Node], objective: str) -> str:
    """What it means that the cost of some nodes is not known."""
    more = f" and of {len(nodes) - 1} more nodes" if len(nodes) > 1 else ""
    return (
        f"its {objective}{more} do not follow from the sizes of the inputs, and count for nothing"
    )


def _whole(group: ChannelGroup, fewest: int, multiple: int) -> str:
    """Why no width below its full one may be taken."""
    if fewest >= group.size:
        return f"the floor keeps all of its {group.size} {group.unit}s"
    return f"no width from {fewest} to below its {group.size} {group.unit}s is a multiple of {multiple}"


def _cut(
    group: ChannelGroup, order: np.ndarray, errors: np.ndarray, width: int, saved: float
) -> Iterator[Choice]:
    gone = group.size - width
    if gone <= 0:
        return
    keep = tuple(int(unit) for unit in np.sort(order[gone:]))
    what = f"{gone} of {group.size} {group.unit}s of {', '.join(group.producers[:2])} were cut"
    yield Cut(group.name, gone / group.size, what, float(errors[gone - 1]), saved, keep)


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
