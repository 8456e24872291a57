"""Which units run on integers: a minimum cut between floats and integers.

    minimise   sum over units on floats  f_u  +  sum over units on integers  (q_u + w c_u)
             + sum over activations that are rounded  w l_t
             + Q_t for each activation t that floats give and integers read
             + D_t for each activation t that integers give and floats read
             + e_v for each node v on floats that reads from integers

f and q are seconds, l and c losses, w the price of a loss; e is what a node takes that is fused into the one
before it as long as that runs on floats. Every term of several units is paid when they differ, so a minimum
cut of a graph with one vertex for each unit, and one more for each term, finds the best of all 2^n choices
(Kolmogorov and Zabih, "What energy functions can be minimized via graph cuts?", 2004). Prices in
ascending order give a path from the fastest choice to none. Without movement each choice is a part of the one
before; what moves elements may join at a higher price, where rounding in front of it loses less.

Prices find the choices on the convex hull of time and loss. Between two of these units are given up one after
another, the one first whose loss costs least time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import networkx as nx
from networkx.algorithms.flow import boykov_kolmogorov

UNIT = 1e-10
"""Seconds that one unit of flow stands for: capacities are whole numbers, so that sums are exact."""

STEPS = 8
"""Steps between two choices that are best at some price."""

FLOATS, INTEGERS = "floats", "integers"

PRICES = 72
"""Prices of a loss that are tried: 0, and then each twice the one before."""

DEAREST = 1e6
"""Seconds that nothing is worth."""

LOWEST_PRICE = 1e-2
"""The first price above 0, as the share of a run's time that a loss of all the signal is worth."""


@dataclass(frozen=True)
class Tensor:
    """An activation between units.

    Attributes:
        name: its name.
        maker: the number of the unit that gives it rounded when on integers; None where floats give it.
        readers: numbers of the units that read it.
        quantize: seconds to quantize it.
        dequantize: seconds to dequantize it.
        read_by_floats: whether something that is no unit, or the caller, reads it.
        unfused: seconds that each unit takes more on floats where this comes from integers, by number.
        rest: the same, of nodes that are no units.
        loss: what rounding it loses.
        moved: whether its maker only moves elements, and gives them on the grid on which it reads them: then
            it is rounded where floats give it only.
    """

    name: str
    maker: int | None
    readers: tuple[int, ...]
    quantize: float
    dequantize: float
    read_by_floats: bool
    unfused: Mapping[int, float] = field(default_factory=dict)
    rest: float = 0.0
    loss: float = 0.0
    moved: bool = False


@dataclass(frozen=True)
class Problem:
    """What there is to choose.

    Attributes:
        floats: seconds of each unit on floats, by number.
        integers: seconds of each unit on integers.
        losses: what rounding the constants of each unit loses.
        tensors: the activations that connect them.
        total: seconds of a run on floats.
    """

    floats: Mapping[int, float]
    integers: Mapping[int, float]
    losses: Mapping[int, float]
    tensors: Sequence[Tensor]
    total: float

    def choose(self, price: float) -> frozenset[int]:
        """The units, by number, that run on integers at a price of losses in seconds for all the signal."""
        graph = nx.DiGraph()
        _arc(graph, INTEGERS, FLOATS, 0)
        for uid, seconds in self.floats.items():
            _arc(graph, INTEGERS, uid, _whole(seconds))
            _arc(graph, uid, FLOATS, _whole(self.integers[uid]))
            _arc(graph, uid, FLOATS, _paid(price, self.losses.get(uid, 0.0)))
        for number, tensor in enumerate(self.tensors):
            _connect(graph, number, tensor, price)
        _, (chosen, _) = nx.minimum_cut(graph, INTEGERS, FLOATS, flow_func=boykov_kolmogorov)
        return frozenset(uid for uid in self.floats if uid in chosen)

    def path(self) -> list[frozenset[int]]:
        """Choices from the fastest to none, each of which loses less than the one before."""
        hull = self._hull()
        found: list[frozenset[int]] = []
        for before, after in pairwise(hull):
            found += [before, *self._between(before, after)]
        return [*found, hull[-1]]

    def _hull(self) -> list[frozenset[int]]:
        """The choices that are best at some price, by rising prices."""
        found = [self.choose(0.0)]
        price = LOWEST_PRICE * self.total
        for _ in range(PRICES):
            if not found[-1]:
                break
            chosen = self.choose(price)
            if self.loss(chosen) < self.loss(found[-1]):
                found.append(chosen)
            price *= 2.0
        if found[-1]:
            found.append(frozenset())
        return found

    def _between(self, before: frozenset[int], after: frozenset[int]) -> list[frozenset[int]]:
        """Choices that lose less than one and more than another, those in between that none beats in both."""
        found = [before]
        last, rest = before, before - after
        share = -(-len(rest) // STEPS)
        while len(rest) > share:
            worth = sorted(rest, key=lambda uid: (-self._worth(last, uid), uid))
            last, rest = last - set(worth[:share]), rest - set(worth[:share])
            while len(found) > 1 and self.seconds(last) <= self.seconds(found[-1]):
                found.pop()
            within = self.seconds(found[-1]) < self.seconds(last) < self.seconds(after)
            if within and self.loss(after) < self.loss(last) < self.loss(found[-1]):
                found.append(last)
        return found[1:]

    def _worth(self, chosen: frozenset[int], uid: int) -> float:
        """The loss that giving up one unit takes away, for each second that it costs."""
        rest = chosen - {uid}
        won = self.loss(chosen) - self.loss(rest)
        return won / max(self.seconds(rest) - self.seconds(chosen), UNIT)

    def seconds(self, chosen: frozenset[int]) -> float:
        """What a run takes, as predicted, compared with all on floats: the difference in seconds."""
        found = 0.0
        for uid in chosen:
            found += self.integers[uid] - self.floats[uid]
        for tensor in self.tensors:
            made = tensor.maker in chosen
            if made:
                if tensor.read_by_floats or any(uid not in chosen for uid in tensor.readers):
                    found += tensor.dequantize
                found += tensor.rest
                found += sum(s for uid, s in tensor.unfused.items() if uid not in chosen)
            elif any(uid in chosen for uid in tensor.readers):
                found += tensor.quantize
        return found

    def loss(self, chosen: frozenset[int]) -> float:
        """What a choice loses, as predicted."""
        found = sum(self.losses.get(uid, 0.0) for uid in chosen)
        for tensor in self.tensors:
            made = tensor.maker in chosen
            read = any(uid in chosen for uid in tensor.readers)
            if (read and not made) or (made and not tensor.moved):
                found += tensor.loss
        return found


def _connect(graph: nx.DiGraph, number: int, tensor: Tensor, price: float) -> None:
    """What is paid for one activation."""
    maker = FLOATS if tensor.maker is None else tensor.maker
    makers = () if tensor.maker is None else (tensor.maker,)
    entered, lost = ("quantized", number), _paid(price, tensor.loss)
    for uid in tensor.readers:
        _arc(graph, uid, entered, None)
    _arc(graph, entered, maker, _whole(tensor.quantize))
    if tensor.moved:
        _arc(graph, entered, maker, lost)
    else:
        _any_of(graph, (*makers, *tensor.readers), ("rounded", number), lost)
    if tensor.maker is None:
        return
    _arc(graph, maker, FLOATS, _whole(tensor.rest))
    left = ("dequantized", number)
    _arc(graph, maker, left, _whole(tensor.dequantize))
    for uid in (*tensor.readers, *((FLOATS,) if tensor.read_by_floats else ())):
        _arc(graph, left, uid, None)
    for uid, seconds in tensor.unfused.items():
        _arc(graph, maker, uid, _whole(seconds))


def _any_of(graph: nx.DiGraph, units: Sequence[int], vertex: object, capacity: int | None) -> None:
    """A price that is paid once where any of some units runs on integers."""
    for uid in units:
        _arc(graph, uid, vertex, None)
    _arc(graph, vertex, FLOATS, capacity)


def _arc(graph: nx.DiGraph, tail: Any, head: Any, capacity: int | None) -> None:
    """Add capacity to an arc; None for one that is never cut."""
    if tail == head or capacity == 0:
        graph.add_nodes_from((tail, head))
        return
    data = graph.get_edge_data(tail, head)
    if capacity is None or (data is not None and "capacity" not in data):
        graph.add_edge(tail, head)
        if data is not None:
            graph[tail][head].pop("capacity", None)
        return
    graph.add_edge(tail, head, capacity=capacity + (data["capacity"] if data else 0))


def _whole(seconds: float) -> int | None:
    """Seconds as a capacity; None, and so never cut, where they are infinite."""
    return round(max(seconds, 0.0) / UNIT) if math.isfinite(seconds) else None


def _paid(price: float, loss: float) -> int | None:
    """The capacity of a loss; None, and so never chosen, where it is infinite."""
    if not math.isfinite(loss) or price * loss > DEAREST:
        return None
    return _whole(price * loss)
