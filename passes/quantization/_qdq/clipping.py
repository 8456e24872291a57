"""How much of its range each activation keeps: what loses least at the model's outputs.

A narrower range has finer steps and clips what lies outside. What that costs depends on what the model makes
of the outliers, which no histogram tells: in front of a maximum they are all that counts, in a spectrum they
count little. So parts of the covering range are tried, and the loss of each is measured. First of the
activations that most of the loss comes from some parts far from each other, each smaller one for as long as
the smallest does best; then those beside the best one.

Ranges are taken from the first half of the samples and losses measured on the second half too: a range that
fits what was seen only would look too good otherwise. And other data reaches further still, so a range counts
as so much worse the less room it leaves (``risk``).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from graphopt.ir.inference import Facts
from graphopt.ir.model import Model
from graphopt.pass_base import Observe

from .calibration import Histograms, Way, scales_of
from .losses import Key, Rounding, measured_losses
from .targets import Target
from .units import Unit, quantized_tensors

COARSE = (1.25, 0.5, 0.25)
"""Parts of the covering range that are tried beside the whole of it."""

SMALLEST = 2.0**-6
"""The smallest part of the covering range that is tried."""

FINE = 2.0**0.5
"""The ratio of the parts that are tried next, to the best of these."""

DOUBTFUL = 0.95
"""The share of all losses whose activations have several ranges tried."""


def risk(part: float) -> float:
    """How many times more a part of the covering range counts to lose than was measured."""
    if part > 1.0:
        return 1.0
    return 1.2 if part == 1.0 else 1.5


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
        losses = self._measured({(name, way) for name in self.names})
        return {name: losses.get((name, way), 0.0) for name in self.names}

    def best(self) -> tuple[dict[str, Way], dict[Key, float]]:
        """The part of the covering range that each activation keeps, and what rounding it loses, by name."""
        names = self.names
        losses = self._measured({(name, 1.0) for name in names})
        doubtful = _dearest({name: losses.get((name, 1.0), 0.0) for name in names})
        tried = {name: [1.0, *COARSE] for name in doubtful}
        losses |= self._measured({(name, part) for name in doubtful for part in COARSE})
        falling = doubtful
        while falling:
            falling = [n for n in falling if _least(n, tried[n], losses) == min(tried[n])]
            falling = [n for n in falling if min(tried[n]) > SMALLEST]
            losses |= self._tried(tried, {(n, min(tried[n]) / 2) for n in falling})
        nearer = {
            (n, _least(n, tried[n], losses) * step) for n in doubtful for step in (FINE, 1 / FINE)
        }
        losses |= self._tried(tried, nearer)
        parts: dict[str, Way] = dict.fromkeys(names, 1.0)
        parts.update((name, _least(name, tried[name], losses)) for name in doubtful)
        return parts, {name: losses.get((name, parts[name]), 0.0) for name in names}

    def _tried(
        self, tried: Mapping[str, list[float]], wanted: Collection[tuple[str, float]]
    ) -> dict[Key, float]:
        """The losses of further parts of ranges, which join those that were tried."""
        for name, part in sorted(wanted):
            tried[name].append(part)
        return self._measured(wanted) if wanted else {}

    def _measured(self, wanted: Collection[tuple[str, Way]]) -> dict[Key, float]:
        """The losses of activations with ranges chosen in some ways."""
        roundings = []
        for way in sorted({way for _, way in wanted}, key=str):
            ways = dict.fromkeys(self.known, way)
            scales, _ = scales_of(self.units, self.known, self.target, ways)
            names = sorted({name for name, other in wanted if other == way} & scales.keys())
            roundings += [Rounding((name, way), name, scales[name]) for name in names]
        return measured_losses(self.model, self.facts, roundings, (), self.target, self.observe, {})


def _least(name: str, parts: Sequence[float], losses: Mapping[Key, float]) -> float:
    """The part that counts to lose least."""
    return min(parts, key=lambda part: (losses.get((name, part), math.inf) * risk(part), -part))


def _dearest(losses: Mapping[str, float]) -> list[str]:
    """The names that most of the losses come from."""
    total, found = DOUBTFUL * sum(losses.values()), []
    for name in sorted(losses, key=lambda name: (-losses[name], name)):
        if total <= 0:
            break
        total -= losses[name]
        found.append(name)
    return found
