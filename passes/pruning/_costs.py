"""What a model costs at other widths: each cost is a product of the widths of the axes of a constant."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphopt.ir.channels import ChannelGroup
from graphopt.ir.costs import macs_of
from graphopt.ir.frames import Frame, UnprovenError
from graphopt.ir.graph import Constant
from graphopt.ir.model import Model


@dataclass(frozen=True)
class _Term:
    """A cost at full width, and for each axis the share of it that a unit of each group is."""

    cost: float
    axes: tuple[dict[int, float], ...]

    def at(self, gone: np.ndarray) -> float:
        """The cost where so many units of each group are gone."""
        kept = (1.0 - sum(share * gone[g] for g, share in axis.items()) for axis in self.axes)
        return self.cost * math.prod(max(k, 0.0) for k in kept)


class Costs:
    """The cost of a model as a function of the widths of groups.

    Args:
        model: the model.
        frame: shapes and sizes of one run.
        groups: the groups.
        objective: ``macs``, ``params`` or ``size`` (bytes of constants).
    """

    def __init__(
        self,
        model: Model,
        frame: Frame,
        groups: Sequence[ChannelGroup],
        objective: str,
    ) -> None:
        self.full = np.array([group.size for group in groups], np.int64)
        shares = _shares(model, groups)
        terms = (
            _macs(model, frame, shares)
            if objective == "macs"
            else _stored(model, shares, objective)
        )
        self.total = sum(term.cost for term in terms)
        self.terms = [term for term in terms if any(term.axes)]
        self.of_group: list[list[_Term]] = [[] for _ in groups]
        for term in self.terms:
            for g in {g for axis in term.axes for g in axis}:
                self.of_group[g].append(term)

    def savings(self, widths: np.ndarray, others: np.ndarray) -> np.ndarray:
        """What changing each group alone from its width to its other one saves."""
        found = np.zeros(len(self.full))
        gone = self.full - widths
        for g in np.flatnonzero(widths != others):
            changed = gone.copy()
            changed[g] = self.full[g] - others[g]
            found[g] = sum(term.at(gone) - term.at(changed) for term in self.of_group[g])
        return found


Shares = dict[tuple[int, int], dict[int, dict[int, float]]]
"""By node and input: by axis, by group, the share of the axis that one unit is."""


def _shares(model: Model, groups: Sequence[ChannelGroup]) -> Shares:
    sizes = {
        (node.uid, index): tensor.shape
        for node in model.nodes()
        for index, tensor in enumerate(node.inputs)
        if isinstance(tensor, Constant)
    }
    found: Shares = {}
    for number, group in enumerate(groups):
        for slot in group.members:
            shape = sizes.get((slot.node, slot.index)) if slot.read else None
            if shape:
                axes = found.setdefault((slot.node, slot.index), {})
                axes.setdefault(slot.axis, {})[number] = slot.indices.shape[1] / shape[slot.axis]
    return found


def _macs(model: Model, frame: Frame, shares: Shares) -> list[_Term]:
    found = []
    for node in model.graph.nodes:
        try:
            cost = macs_of(node, frame)
        except UnprovenError:
            continue
        weights = [shares[key] for key in ((node.uid, 1), (node.uid, 2)) if key in shares]
        if cost:
            found.append(_Term(cost, tuple(weights[0].values()) if weights else ()))
    return found


def _stored(model: Model, shares: Shares, objective: str) -> list[_Term]:
    found: dict[int, _Term] = {}
    for node in model.nodes():
        for index, tensor in enumerate(node.inputs):
            if isinstance(tensor, Constant):
                cost = tensor.nbytes if objective == "size" else math.prod(tensor.shape)
                axes = tuple(shares.get((node.uid, index), {}).values())
                if id(tensor) not in found or axes:
                    found[id(tensor)] = _Term(cost, axes)
    return list(found.values())
