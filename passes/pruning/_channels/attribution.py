"""What each node of a model takes, from a profile of the whole model.

ONNX Runtime runs other nodes than the model has: it fuses, renames and adds nodes that reorder channels. So
the time of an operator in the profile is shared out among the model's nodes of that operator: to those that
were timed alone in proportion to that, to others by their multiply-accumulates or by the elements that they
read and write. Operators that no node of the model has, such as ReorderInput and fused ones, are shared out
among the nodes that the profile does not show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graphopt.runtime.profiling import NodeSeconds

KINDS = {
    "FusedConv": "Conv",
    "NhwcFusedConv": "Conv",
    "FusedGemm": "MatMul",
    "FusedMatMul": "MatMul",
    "Gemm": "MatMul",
}
"""What ONNX Runtime makes of an operator, or may make of it, with the operator."""


def kind_of(op: str) -> str:
    """The name under which a node's time is found."""
    return KINDS.get(op, op)


@dataclass(frozen=True)
class Work:
    """What a node does.

    Attributes:
        op: its operator.
        products: its multiply-accumulates.
        elements: what it reads and writes.
        alone: seconds that it took alone; None where it was not timed alone.
    """

    op: str
    products: int = 0
    elements: int = 0
    alone: float | None = None


@dataclass(frozen=True)
class Attribution:
    """The time of a profile by node.

    Attributes:
        seconds: of each node.
        rest: what is nobody's.
    """

    seconds: tuple[float, ...]
    rest: float

    @property
    def total(self) -> float:
        """Of a whole run."""
        return sum(self.seconds) + self.rest


def attribute(profile: Sequence[NodeSeconds], works: Sequence[Work]) -> Attribution:
    """Share the time of a profile out among nodes."""
    spent: dict[str, float] = {}
    for row in profile:
        spent[kind_of(row.op)] = spent.get(kind_of(row.op), 0.0) + row.seconds
    members: dict[str, list[int]] = {}
    for place, work in enumerate(works):
        members.setdefault(kind_of(work.op), []).append(place)
    seconds = [0.0] * len(works)
    rest = sum(spent[kind] for kind in spent.keys() - members.keys())
    hidden: list[int] = []
    for kind, places in members.items():
        if kind in spent:
            rest += _share(seconds, spent[kind], places, _weights([works[p] for p in places]))
        else:
            hidden += places
    for place in hidden:
        seconds[place] = min(works[place].alone or 0.0, rest)
        rest -= seconds[place]
    quiet = [place for place in hidden if works[place].alone is None]
    rest = _share(seconds, rest, quiet, [works[place].elements for place in quiet])
    return Attribution(tuple(seconds), rest)


def _share(
    seconds: list[float], spent: float, places: Sequence[int], weights: Sequence[float]
) -> float:
    """Share time out among some nodes; what nobody gets."""
    total = sum(weights)
    if total <= 0:
        return spent
    for place, weight in zip(places, weights, strict=True):
        seconds[place] = spent * weight / total
    return 0.0


def _weights(works: Sequence[Work]) -> list[float]:
    """How much of the time of their operator some nodes take, in any unit."""
    timed = [work for work in works if work.alone is not None]
    alone = sum(work.alone or 0.0 for work in timed)
    rate = _per(alone, sum(work.products for work in timed))
    if rate:
        return [work.products * rate if work.alone is None else work.alone for work in works]
    rate = _per(alone, sum(work.elements for work in timed))
    if rate:
        return [work.elements * rate if work.alone is None else work.alone for work in works]
    counted: Mapping[bool, list[float]] = {
        True: [float(work.products) for work in works],
        False: [float(work.elements) for work in works],
    }
    return counted[all(work.products for work in works)]


def _per(seconds: float, count: int) -> float:
    return seconds / count if count else 0.0
