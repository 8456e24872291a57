"""What pruning can save, and the widths that are worth trying for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from graphopt.ir.channels import ChannelGroup
from graphopt.ir.frames import Frame
from graphopt.ir.graph import Node
from graphopt.ir.model import Model
from graphopt.ir.operators import WEIGHTS
from graphopt.numerics.surfaces import BLOCK
from graphopt.pass_base import Context

from .costs import Costs, ProductCosts, macs_terms, stored_terms, widths_of
from .latency import LatencyCosts, UnmeasuredError

Objective = Literal["macs", "params", "size", "latency"]

STEPS = 256
"""Widths that a wide group is tried at."""


def costs_of(objective: Objective, groups: Sequence[ChannelGroup], context: Context) -> Costs:
    """The cost of ``context.model`` as a function of the widths of groups.

    Raises:
        UnmeasuredError: it is a latency, and that cannot be measured.
    """
    model = context.model
    if objective in ("params", "size"):
        terms = stored_terms(model, groups, objective == "size")
        return ProductCosts(widths_of(groups), terms)
    frame = Frame.of(model, context.facts, context.sizes)
    if objective == "macs":
        return ProductCosts(widths_of(groups), *macs_terms(model, frame, groups))
    if context.measure is None:
        raise UnmeasuredError("nothing here measures what nodes take")
    return LatencyCosts(model, frame, groups, context.measure)


def multiples_of(model: Model, groups: Sequence[ChannelGroup], asked: int | None) -> list[int]:
    """What the number of units of each group shall be a multiple of, where it is not the full one.

    What the kernels like are multiples in channels. So a unit that is several channels of every weight that
    makes or reads it, such as a head of attention, counts as these.

    Args:
        model: the model.
        groups: the groups.
        asked: a multiple in channels; None for the smallest block of the kernels, in groups that have at
            least two of it.
    """
    nodes = {node.uid: node for node in model.nodes()}
    found = []
    for group in groups:
        one = _channels(group, nodes)
        channels = asked or (BLOCK if one * group.size >= 2 * BLOCK else 1)
        multiple = channels // math.gcd(channels, one)
        found.append(max(multiple, multiple * (group.size // (STEPS * multiple))))
    return found


def _channels(group: ChannelGroup, nodes: dict[int, Node]) -> int:
    """The channels of a unit along the axis of a weight, the fewest of all weights."""
    counts = [
        slot.indices.shape[1]
        for slot in group.members
        if slot.read and slot.index in WEIGHTS.get(nodes[slot.node].op, {})
    ]
    return min(counts, default=1)
