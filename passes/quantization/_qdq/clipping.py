"""How much of its range each activation keeps: what loses least at the model's outputs.

A narrower range has finer steps and clips what lies outside. What that costs depends on what the model makes
of the outliers, which no histogram tells: in front of a maximum they are all that counts, in a spectrum they
count little. So parts of the covering range are tried, and the loss of each is measured. First of the
activations that most of the loss comes from some parts far from each other, each smaller one for as long as
the smallest does best; then one end alone, since what reads it may make nothing of one side, as a SiLU does
of what lies far below 0; then the parts beside the best one.

Ranges are taken from the first half of the samples and losses measured on the second half too: a range that
fits what was seen only would look too good otherwise. And other data reaches further still, so a range counts
as so much worse the less room it leaves (``risk``).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from graphopt.ir.inference import Facts
from graphopt.ir.model import Model
from graphopt.numerics.streaming import Histogram
from graphopt.pass_base import Observe

from .calibration import WHOLE, Histograms, Part, Way, scales_of
from .losses import measured_losses
from .targets import Target
from .units import Unit, quantized_tensors
from .variants import Key, Rounding

COARSE = (1.25, 0.5, 0.25)
"""Parts of the covering range that are tried beside the whole of it."""

SMALLEST = 2.0**-6
"""The smallest part of the covering range that is tried."""

ENDS = ((0.5, 1.0), (0.25, 1.0), (1.0, 0.5), (1.0, 0.25))
"""By what the ends of the best part are multiplied next, one alone."""

SIDE = 0.1
"""The share of a range from which an end is tried alone."""

FINE = 2.0**0.5
"""The ratio of the parts that are tried last, to the best of all before."""

DOUBTFUL = 0.95
"""The share of all losses whose activations have several ranges tried."""

SLIGHT, MANY = 1e-5, 16
"""A loss from which on others have them tried too, and how many at most: milder choices rest on these."""


def risk(part: Part) -> float:
    """How many times more a part of the covering range counts to lose than was measured."""
    least = min(part)
    if least > 1.0:
        return 1.0
    return 1.2 if least == 1.0 else 1.5


@dataclass(frozen=True)
class RangeSearch:
    """Measures what ranges lose.

    Attributes:
        model: not changed.
        facts: what is proven of its tensors.
        target: whose grids are meant.
        units: that are to run on integers.
        known: the distributions of activations.
        observe: gives statistics of tensors.
    """

    model: Model
    facts: Facts
    target: Target
    units: Sequence[Unit]
    known: Histograms
    observe: Observe

    @property
    def names(self) -> list[str]:
        """The activations that are rounded."""
        return [str(tensor.name) for tensor in quantized_tensors(self.units)]

    def fixed(self, way: Way) -> dict[Key, float]:
        """What rounding each activation loses, by name, with ranges that are all chosen in one way."""
        losses = self.measured({(name, way) for name in self.names})
        return {name: losses.get((name, way), 0.0) for name in self.names}

    def best(self) -> tuple[dict[str, Way], dict[Key, float]]:
        """The part of the covering range that each activation keeps, and what rounding it loses, by name."""
        tried = _Tried(self)
        tried.add((name, WHOLE) for name in self.names)
        doubtful = tried.dearest()
        tried.add((name, WHOLE.scaled(part, part)) for name in doubtful for part in COARSE)
        falling = doubtful
        while falling:
            falling = [name for name in falling if tried.falls(name)]
            tried.add((name, tried.best(name).scaled(0.5, 0.5)) for name in falling)
        tried.add(
            (name, tried.best(name).scaled(*ends)) for name in doubtful for ends in self._ends(name)
        )
        tried.add(
            (name, tried.best(name).scaled(step, step))
            for name in doubtful
            for step in (FINE, 1 / FINE)
        )
        parts: dict[str, Way] = {name: tried.best(name) for name in self.names}
        return parts, {name: tried.losses.get((name, parts[name]), 0.0) for name in self.names}

    def _ends(self, name: str) -> Sequence[tuple[float, float]]:
        """By what the ends of a range can be multiplied alone, where it reaches far on both sides of 0."""
        histogram = self.known.get(name)
        if self.target.symmetric or not isinstance(histogram, Histogram):
            return ()
        low, high = -histogram.minimum, histogram.maximum
        return ENDS if min(low, high) >= SIDE * (low + high) else ()

    def measured(self, wanted: Collection[tuple[str, Way]]) -> dict[Key, float]:
        """The losses of activations with ranges chosen in some ways."""
        roundings = []
        for way in sorted({way for _, way in wanted}, key=str):
            ways = dict.fromkeys(self.known, way)
            scales, _ = scales_of(self.units, self.known, self.target, ways)
            names = sorted({name for name, other in wanted if other == way} & scales.keys())
            roundings += [Rounding((name, way), name, scales[name]) for name in names]
        return measured_losses(self.model, self.facts, roundings, (), self.target, self.observe, {})


class _Tried:
    """The parts of ranges that were tried, and what they lose.

    Attributes:
        search: measures them.
        losses: by name and part.
        parts: by name.
    """

    def __init__(self, search: RangeSearch) -> None:
        self.search = search
        self.losses: dict[Key, float] = {}
        self.parts: dict[str, list[Part]] = {}

    def add(self, wanted: Iterable[tuple[str, Part]]) -> None:
        """Measure further parts."""
        new = dict.fromkeys(wanted)
        for name, part in new:
            self.parts.setdefault(name, []).append(part)
        if new:
            self.losses.update(self.search.measured(list(new)))

    def best(self, name: str) -> Part:
        """The part that counts to lose least."""
        return min(
            self.parts[name],
            key=lambda part: (self.losses.get((name, part), math.inf) * risk(part), -sum(part)),
        )

    def falls(self, name: str) -> bool:
        """Whether the smallest part of all does best."""
        best = self.best(name)
        return best == min(self.parts[name]) and min(best) > SMALLEST

    def dearest(self) -> list[str]:
        """The names that the losses of whole ranges come from, and would come from in milder choices."""
        losses = {name: self.losses.get((name, WHOLE), 0.0) for name in self.parts}
        total, found = DOUBTFUL * sum(losses.values()), list[str]()
        for name in sorted(losses, key=lambda name: (-losses[name], name)):
            if total <= 0 and (losses[name] < SLIGHT or len(found) >= MANY):
                break
            total -= losses[name]
            found.append(name)
        return found
