"""Take whole layers out of a model: branches of sums, and chains that keep the shape of what they read.

    y = x + f(x)   becomes   y = x        z = f(x), of the shape of x,   becomes   z = x

Which blocks there are follows from the graph alone (``graphopt.ir.blocks``). What is lost without one is
measured on the calibration data (``_block_losses``): the error at the model's outputs of the model without
that block, or beyond ``MEASURED`` blocks the error at the block's own exit. Blocks are taken that lose least
for what they save, until enough is saved: a knapsack problem in which some things exclude each other, solved
by taking the best ratio (Dantzig, 1957) of what is won by taking a block and giving back those that overlap
with it. Then the layers that are left are refitted to what they gave in the original. What several blocks
lose together is not foreseen; the gate judges it.

Sources: Veit, Wilber and Belongie, "Residual networks behave like ensembles of relatively shallow networks",
2016; Men et al., "ShortGPT: layers in large language models are more redundant than you expect", 2024.

Refuses: blocks whose ends are not proven to have one shape; blocks inside of which a tensor is an output of
the model, is captured by a body, or has its shape read from outside; nodes that draw random numbers. Layers
in the bodies of control flow are left alone.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from graphopt.errors import printable
from graphopt.ir.blocks import Block, find_blocks
from graphopt.ir.bypassing import bypass_blocks
from graphopt.ir.costs import macs_within
from graphopt.ir.frames import Frame
from graphopt.ir.graph import Constant
from graphopt.ir.model import Model
from graphopt.lossy_pass import Choice, LossyPass
from graphopt.pass_base import Context, Edit, Skip

from ._block_losses import local_losses, output_losses
from ._fitting.refit import refit

MEASURED = 40
"""Blocks up to which a run of the model for each measures what its outputs lose."""

MOST = 256
"""Blocks that are considered: those that save most."""

ROUNDING = 1e-9
"""What an exchange must win at least, as a share of what is taken, to be more than rounding."""

Objective = Literal["macs", "params", "size"]


@dataclass(frozen=True)
class Removal(Choice):
    """A block that goes.

    Args:
        source: the name of the tensor that is read instead of the one named ``where``.
    """

    source: str = ""


@dataclass(frozen=True)
class RemoveLayers(LossyPass):
    """Whole blocks of layers leave the model, and the rest makes up for them."""

    name = "remove-layers"
    needs = frozenset({"data"})

    objective: Objective = field(default="macs", metadata={"help": "what is to be saved"})
    amount: float = field(default=0.2, metadata={"help": "the share of it to be saved"})
    refit: bool = field(default=True, metadata={"help": "whether layers are refitted on the data"})

    def __post_init__(self) -> None:
        """Refuse an amount that is no share.

        Raises:
            ValueError: so it is.
        """
        if not 0 <= self.amount < 1:
            raise ValueError("amount is a share, from 0 and below 1")

    def milder(self, strength: float) -> RemoveLayers:
        """The same with a part of the amount."""
        return replace(self, amount=self.amount * strength)

    def propose(self, context: Context) -> Iterator[Choice | Skip]:
        """See the module's docstring."""
        blocks = find_blocks(context.model, context.facts)
        yield from (Skip(where, why) for where, why in blocks.refused.items())
        if context.observe is None:
            yield Skip("the model", "there is no data to measure on what is lost without a block")
            return
        costs = yield from _costs(context, self.objective)
        sets = []
        for alternatives, saving in zip(blocks.found, blocks.sums(costs), strict=True):
            if saving > 0:
                sets.append((saving, alternatives))
            else:
                why = f"without it the model has no fewer {self.objective}"
                yield Skip(alternatives[0].where, why)
        if not sets:
            yield Skip("the model", "it has no block of layers that may be taken out")
            return
        if len(sets) > MOST:
            yield Skip(
                "its other blocks", f"only the {MOST} of {len(sets)} that save most are considered"
            )
            sets = heapq.nlargest(MOST, sets, key=lambda entry: entry[0])
        yield from self._chosen((yield from _measured(sets, context)), sum(costs.values()))

    def _chosen(self, measured: Sequence[Measured], total: float) -> Iterator[Choice | Skip]:
        target = self.amount * total
        found = [removal for _, removal in measured]
        overlaps = np.array([[a.overlaps(b) for b, _ in measured] for a, _ in measured], bool)
        chosen = choose(
            np.array([removal.loss for removal in found]),
            np.array([removal.saving for removal in found]),
            overlaps.reshape(len(found), len(found)),
            target,
        )
        saved = sum(found[place].saving for place in chosen)
        if saved < target:
            most = 100 * saved / total
            yield Skip("the model", f"only {most:.3g} % of its {self.objective} can be saved")
        for place in chosen:
            block, removal = measured[place]
            share = f"{100 * removal.saving / total:.3g} % of the {self.objective}"
            what = f"a {block.kind} of {block.nodes} nodes, {share}, was taken out"
            yield replace(removal, what=what)

    def commit(self, chosen: Sequence[Choice], context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        removals = [choice for choice in chosen if isinstance(choice, Removal)]
        dense = context.model.copy()
        bypass_blocks(context.model, {removal.where: removal.source for removal in removals})
        for removal in removals:
            yield Edit(removal.where, removal.what)
        if removals and self.refit and context.observe is not None:
            yield from refit(context.model, dense, {}, context)


Measured = tuple[Block, Removal]


def _measured(
    sets: Sequence[tuple[float, Sequence[Block]]], context: Context
) -> Generator[Skip, None, list[Measured]]:
    """Of each set of alternatives the one that loses least at its exit, and what its removal loses."""
    assert context.observe is not None
    every = [block for _, alternatives in sets for block in alternatives]
    local = dict(zip(every, local_losses(context.model, every, context.observe), strict=True))
    best = [min(alternatives, key=local.__getitem__) for _, alternatives in sets]
    losses = None
    if len(best) <= MEASURED:
        losses = output_losses(context.model, context.facts, best, context.observe)
    losses = losses or [local[block] for block in best]
    found = []
    for block, loss, (saving, _) in zip(best, losses, sets, strict=True):
        if math.isinf(loss):
            yield Skip(block.where, "what is lost without it cannot be measured")
        else:
            found.append((block, Removal(block.where, 1.0, "", loss, saving, block.source)))
    return found


def choose(
    losses: np.ndarray, savings: np.ndarray, overlaps: np.ndarray, target: float
) -> list[int]:
    """Blocks that do not overlap, save enough where that can be, and lose little.

    Args:
        losses: of each block.
        savings: of each block, positive.
        overlaps: which exclude each other, bool of shape ``(blocks, blocks)``.
        target: what is to be saved at least.

    Returns:
        Their numbers, in ascending order.
    """
    chosen = np.zeros(len(losses), bool)
    while (missing := target - float(savings[chosen].sum())) > 0:
        given_back = overlaps & chosen
        gains = savings - given_back @ savings
        usable = ~chosen & (gains > ROUNDING * savings)
        if not usable.any():
            break
        prices = np.maximum(losses - given_back @ losses, 0.0)
        prices[usable] /= np.minimum(gains[usable], missing)
        best = int(np.where(usable, prices, np.inf).argmin())
        chosen &= ~overlaps[best]
        chosen[best] = True
    for place in np.argsort(-losses, kind="stable"):
        if chosen[place] and float(savings[chosen].sum() - savings[place]) >= target:
            chosen[place] = False
    return [int(place) for place in np.flatnonzero(chosen)]


def _costs(context: Context, objective: Objective) -> Generator[Skip, None, dict[int, float]]:
    """What each node of the main graph costs with its bodies, by ``uid``, and the rest under -1."""
    if objective == "macs":
        return (yield from _macs(context))
    return _stored(context.model, objective == "size")


def _macs(context: Context) -> Generator[Skip, None, dict[int, float]]:
    """Multiply-accumulates of one run, as far as they are proven."""
    frame = Frame.of(context.model, context.facts, context.sizes)
    nodes = [node for node in context.model.graph.nodes if not node.dead]
    found = {node: macs_within(node, frame) for node in nodes}
    unproven = [node for node, products in found.items() if products.unknown]
    if unproven:
        yield Skip(unproven[0], _uncounted(len(unproven) - 1, found[unproven[0]].why))
    return {node.uid: products.known for node, products in found.items()}


def _uncounted(others: int, why: str) -> str:
    """What it means that the macs of a node and of some others are not proven."""
    more = f", and those of {others} more node{'s' if others > 1 else ''}," if others else ""
    return f"its macs{more} count only as far as they are proven: {printable(why)}"


def _stored(model: Model, in_bytes: bool) -> dict[int, float]:
    """Elements of constants, or their bytes; those that several nodes read go under -1."""
    holders: dict[int, int] = {}
    readers: dict[int, tuple[Constant, set[int]]] = {}
    for scope in model.scopes():
        for node in scope.nodes:
            holder = holders.get(id(scope), node.uid)
            holders.update((id(body), holder) for body in node.bodies())
            for tensor in (*node.inputs, *node.attrs.values()):
                if isinstance(tensor, Constant):
                    readers.setdefault(id(tensor), (tensor, set()))[1].add(holder)
    found: dict[int, float] = {}
    for tensor, uids in readers.values():
        cost = tensor.nbytes if in_bytes else math.prod(tensor.shape)
        owner = next(iter(uids)) if len(uids) == 1 else -1
        found[owner] = found.get(owner, 0.0) + cost
    return found
