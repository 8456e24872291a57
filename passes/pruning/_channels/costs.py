"""What a model costs at other widths of its groups.

    cost = sum over terms of   c * prod over axes of (1 - sum over groups of share * units gone)

A term is what scales with the axes of one tensor: a constant that several layers read counts once; a layer's
multiply-accumulates go with its first weight.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphopt.ir.channels import ChannelGroup
from graphopt.ir.costs import macs_by_node
from graphopt.ir.frames import Frame
from graphopt.ir.graph import Constant, Node
from graphopt.ir.model import Model


class Costs(abc.ABC):
    """The cost of a model as a function of the widths of groups.

    Attributes:
        full: the widths as they are, int64 of shape ``(groups,)``.
        total: the cost at these.
        unproven: nodes whose cost is not known, and is left out.
    """

    full: np.ndarray
    total: float
    unproven: Sequence[Node] = ()

    @abc.abstractmethod
    def savings(self, widths: np.ndarray, others: np.ndarray) -> np.ndarray:
        """What changing each group alone from its width to its other one saves.

        Args:
            widths: of all groups, int64 of shape ``(groups,)``.
            others: the same.

        Returns:
            float64 of shape ``(groups,)``.
        """

    def in_turn(self, widths: np.ndarray) -> np.ndarray:
        """What changing one group after the other from its full width to another saves.

        Returns:
            float64 of shape ``(groups,)``; the sum is what all of them save together.
        """
        found = np.zeros(len(self.full))
        now = self.full
        for group, width in enumerate(widths):
            then = now.copy()
            then[group] = width
            found[group] = self.savings(now, then)[group]
            now = then
        return found


@dataclass(frozen=True)
class Term:
    """A cost at full width, and for each axis the share of it that a unit of each group is."""

    cost: float
    axes: tuple[dict[int, float], ...]


class ProductCosts(Costs):
    """A sum of products of widths.

    Args:
        full: the widths as they are.
        terms: what is summed.
        unproven: nodes whose cost is not known, and is left out.
    """

    def __init__(
        self, full: np.ndarray, terms: Sequence[Term], unproven: Sequence[Node] = ()
    ) -> None:
        self.full = full
        self.unproven = unproven
        self.total = sum(term.cost for term in terms)
        self._arrange([term for term in terms if any(term.axes)])

    def _arrange(self, terms: Sequence[Term]) -> None:
        """Lay the terms out as arrays: shares of shape ``(terms, axes, groups)``."""
        most = max((len(term.axes) for term in terms), default=0)
        self._cost = np.array([term.cost for term in terms])
        self._share = np.zeros((len(terms), most, len(self.full)))
        for t, term in enumerate(terms):
            for a, axis in enumerate(term.axes):
                for g, share in axis.items():
                    self._share[t, a, g] = share

    def savings(self, widths: np.ndarray, others: np.ndarray) -> np.ndarray:
        """See ``Costs``."""
        kept = 1.0 - self._share @ (self.full - widths)
        changed = kept[:, :, None] - self._share * (widths - others)
        now = self._cost * np.maximum(kept, 0.0).prod(axis=1)
        then = self._cost[:, None] * np.maximum(changed, 0.0).prod(axis=1)
        return np.asarray((now[:, None] - then).sum(axis=0))


def widths_of(groups: Sequence[ChannelGroup]) -> np.ndarray:
    """How many units groups have."""
    return np.array([group.size for group in groups], np.int64)


Places = dict[tuple[int, int], dict[int, dict[int, int]]]
"""By node and input or output: by axis, by group, how many places along the axis one unit has."""


def places_of(groups: Sequence[ChannelGroup], read: bool) -> Places:
    """Where units lie: in the constants that nodes read, or in what nodes compute."""
    found: Places = {}
    for number, group in enumerate(groups):
        for slot in group.members:
            if slot.read == read:
                axes = found.setdefault((slot.node, slot.index), {})
                axes.setdefault(slot.axis, {})[number] = slot.indices.shape[1]
    return found


def shares(axes: dict[int, dict[int, int]], shape: Sequence[int]) -> tuple[dict[int, float], ...]:
    """By axis, by group, the share of a tensor's axis that one unit is."""
    return tuple(
        {number: count / shape[axis] for number, count in found.items()}
        for axis, found in axes.items()
    )


def macs_terms(
    model: Model, frame: Frame, groups: Sequence[ChannelGroup]
) -> tuple[list[Term], list[Node]]:
    """Multiply-accumulates of what runs, and the nodes of which they are not proven."""
    places = places_of(groups, read=True)
    found, unproven = [], []
    for node, cost in macs_by_node(model.graph, frame):
        weights = [
            shares(places[node.uid, index], node.inputs[index].shape)
            for index in (1, 2, 0)
            if (node.uid, index) in places
        ]
        if cost.known:
            found.append(Term(cost.known, weights[0] if weights else ()))
        if cost.unknown:
            unproven.append(node)
    return found, unproven


def stored_terms(model: Model, groups: Sequence[ChannelGroup], in_bytes: bool) -> list[Term]:
    """Elements of constants, or their bytes."""
    places = places_of(groups, read=True)
    found: dict[int, Term] = {}
    for node in model.nodes():
        for index, tensor in enumerate(node.inputs):
            if isinstance(tensor, Constant):
                cost = tensor.nbytes if in_bytes else math.prod(tensor.shape)
                axes = shares(places.get((node.uid, index), {}), tensor.shape)
                if id(tensor) not in found or axes:
                    found[id(tensor)] = Term(cost, axes)
    return list(found.values())
