"""What a model costs at other widths of its groups.

    cost = sum over constants of   c * prod over its axes of (1 - sum over groups of share * units gone)

A constant that several layers read counts once; a layer's multiply-accumulates go with its first weight.
"""

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
        self._arrange([term for term in terms if any(term.axes)])

    def _arrange(self, terms: Sequence[_Term]) -> None:
        """Lay the terms out as arrays: shares of shape ``(terms, axes, groups)``."""
        most = max((len(term.axes) for term in terms), default=0)
        self._cost = np.array([term.cost for term in terms])
        self._share = np.zeros((len(terms), most, len(self.full)))
        for t, term in enumerate(terms):
            for a, axis in enumerate(term.axes):
                for g, share in axis.items():
                    self._share[t, a, g] = share

    def savings(self, widths: np.ndarray, others: np.ndarray) -> np.ndarray:
        """What changing each group alone from its width to its other one saves."""
        kept = 1.0 - self._share @ (self.full - widths)
        changed = kept[:, :, None] - self._share * (widths - others)
        now = self._cost * np.maximum(kept, 0.0).prod(axis=1)
        then = self._cost[:, None] * np.maximum(changed, 0.0).prod(axis=1)
        return np.asarray((now[:, None] - then).sum(axis=0))


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
