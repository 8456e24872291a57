"""Let layers of nearly equal weights share one tensor.

    |B - A|^2 <= distance |B|^2   =>   what reads B reads A

Tied weights that training let drift apart, or that were rounded apart, and repeated blocks are stored once.
Those of equal bytes are so already: ``merge-duplicate-initializers`` is exact and comes before. A is the
nearest of the tensors of B's shape and type that come before it and keep their own; it stays as it is, so
each choice stands alone. What is lost: with data, the share of the squares of the outputs of B's layer on
what that reads; else of the squares of B. A sample of the elements is compared before whole tensors are.

Layers that share a tensor are not refitted one after the other by later passes. So it pays where B is large.

Each B is a place with one level, judged by the gate and taken back where it costs too much.

Refuses what ``quantize-weights`` refuses: tensors that are not floats, or hold NaN or infinity; those that a
graph returns, or that several scopes read. Biases and normalizations are left alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from graphopt.ir.surgery import discard, redirect
from graphopt.lossy_pass import Choice, LossyPass
from graphopt.pass_base import Context, Edit, Skip

from ..quantization._layer_moments import Moments, loss_of, observed
from ..quantization._weight_places import Place, places_of, refusal

SAMPLE = 4096
"""Elements that are compared first, evenly spaced."""

SLACK = 4.0
"""Times the distance asked for that a sample may lie apart where the whole tensors are still compared."""


class _Twin(NamedTuple):
    """A tensor and the one that could stand for it."""

    place: Place
    leader: Place
    distance: float


@dataclass(frozen=True)
class ShareWeights(LossyPass):
    """Layers of nearly equal weights share one tensor."""

    name = "share-weights"

    distance: float = field(
        default=0.05, metadata={"help": "squares of the difference, as a share of the weights'"}
    )
    smallest: int = field(
        default=256, metadata={"help": "elements of the smallest tensor to look at"}
    )

    def __post_init__(self) -> None:
        """Refuse options that make no sense.

        Raises:
            ValueError: so it is.
        """
        if not (0 <= self.distance < 1 and self.smallest >= 1):
            raise ValueError(
                f"distance is 0 up to below 1, smallest a whole number from 1; "
                f"not {self.distance} and {self.smallest}"
            )

    def propose(self, context: Context) -> Iterator[Choice | Skip]:
        """See the module's docstring."""
        twins, refused = self._twins(context)
        yield from refused
        known = _moments(list(twins.values()), context)
        for name, twin in twins.items():
            values = twin.leader.weight.values
            lost = loss_of(values, twin.place, known.get(name))
            what = (
                f"becomes {twin.leader.name}, which differs by {twin.distance:.2g} of its squares"
            )
            yield Choice(name, 1, what, lost, twin.place.weight.nbytes)

    def commit(self, chosen: Sequence[Choice], context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        twins, _ = self._twins(context)
        for choice in chosen:
            place, leader, _ = twins[choice.where]
            redirect(place.weight, leader.weight)
            for scope in context.scopes():
                discard(scope, place.weight)
            yield Edit(place.reader, f"{choice.where} {choice.what}")

    def _twins(self, context: Context) -> tuple[dict[str, _Twin], list[Skip]]:
        """Tensors that another can stand for, by name, and those that are refused."""
        found: dict[str, _Twin] = {}
        refused, alike = [], dict[tuple[str, tuple[int, ...]], list[Place]]()
        for place in places_of(context, self.smallest).values():
            why = refusal(place.weight, context)
            if why:
                refused.append(Skip(place.name, why))
            else:
                kind = (place.weight.dtype.name, tuple(place.weight.shape))
                alike.setdefault(kind, []).append(place)
        for places in alike.values():
            leaders: list[Place] = []
            for place in places:
                near = [(self._apart(place, leader), n) for n, leader in enumerate(leaders)]
                least, number = min(near, default=(1.0, 0))
                if least <= self.distance:
                    found[place.name] = _Twin(place, leaders[number], least)
                else:
                    leaders.append(place)
        return found, refused

    def _apart(self, place: Place, leader: Place) -> float:
        """The distance of a tensor to another as a share of its squares; 1 where a sample says it is far."""
        flat, other = place.weight.values.reshape(-1), leader.weight.values.reshape(-1)
        if flat.size > SAMPLE:
            picked = np.linspace(0, flat.size - 1, SAMPLE).astype(np.int64)
            if _share(flat[picked], other[picked]) > SLACK * self.distance:
                return 1.0
        return _share(flat, other)


def _share(values: np.ndarray, other: np.ndarray) -> float:
    wide = values.astype(np.float64)
    whole, gap = float(np.square(wide).sum()), float(np.square(wide - other).sum())
    return gap / whole if whole else float(gap > 0)


def _moments(twins: Sequence[_Twin], context: Context) -> dict[str, Moments]:
    """What is known of what the layers of tensors read, by name."""
    if context.observe is None or context.data is None or not twins:
        return {}
    places = [twin.place for twin in twins]
    every = observed(places, context.model, context.observe)
    return {place.name: found for place, found in every if isinstance(found, Moments)}
