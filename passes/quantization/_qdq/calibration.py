"""Where the grid of every activation lies: ranges of what the calibration data gives.

    minmax          the smallest and the largest element: the dynamic range
    percentile      all but one in ten thousand
    entropy         least Kullback-Leibler divergence of the rounded histogram
    mse             least squared error of rounding and clipping
    auto            the parts of the dynamic range that lose least at the model's outputs: see ``clipping``

An operator that only moves elements gives them on the grid it reads them on. Behind an absorbed Relu or Clip
the grid ends within its bounds, or the runtime could not leave the activation out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from graphopt.ir.graph import Constant
from graphopt.ir.model import Model
from graphopt.numerics import ranges
from graphopt.numerics.streaming import Histogram, HistogramSpec
from graphopt.pass_base import Observe
from graphopt.runtime.observing import Request

from .insertion import Scale
from .targets import Target
from .units import Unit, bounds

Method = Literal["auto", "minmax", "percentile", "entropy", "mse"]


class Part(NamedTuple):
    """What is kept of the range that covers all that was seen.

    Attributes:
        low: the share of its part below 0.
        high: the share of its part above 0.
    """

    low: float = 1.0
    high: float = 1.0

    def scaled(self, low: float, high: float) -> Part:
        """So many times of both ends."""
        return Part(self.low * low, self.high * high)


WHOLE = Part()

Way = Method | Part
"""How a range is chosen: by a method, or as a part of the covering range."""

BINS = 2048
"""Of a histogram."""

Histograms = Mapping[str, "Histogram | str"]
"""The distribution of every activation, by name, or why it is not known."""


def histograms(model: Model, units: Sequence[Unit], observe: Observe) -> Histograms:
    """The distribution of every activation that units read or give, or why it is not known, by name."""
    names = {t.name for unit in units for t in (*unit.inputs, unit.output)}
    constants = {t.name for unit in units for t in unit.inputs if isinstance(t, Constant)}
    asked = {name: Request(name, HistogramSpec(BINS)) for name in sorted(names - constants)}
    answers = observe(model, list(asked.values()))
    found: dict[str, Histogram | str] = {}
    for name, request in asked.items():
        answer = answers[request]
        value = answer.value
        if value is None:
            found[name] = answer.why
        elif value.rejected or not value.count:
            found[name] = "the data makes it NaN or infinite" if value.rejected else "it is empty"
        else:
            found[name] = value
    return found


def scales_of(
    units: Sequence[Unit],
    known: Histograms,
    target: Target,
    ways: Mapping[str, Way],
) -> tuple[dict[str, Scale], dict[str, str]]:
    """The grid of every activation of some units.

    Args:
        units: in topological order.
        known: their distributions.
        target: its grid.
        ways: how ranges are chosen, by name; those of others cover all that was seen.

    Returns:
        Scales by name, and the reasons by name where there is none.
    """
    found: dict[str, Scale] = {}
    refused: dict[str, str] = {}
    for unit in units:
        for tensor in unit.inputs:
            _place(tensor.name, (-math.inf, math.inf), known, target, ways, found, refused)
        if unit.kind == "movement" and unit.inputs[0].name in found:
            found[unit.output.name] = found[unit.inputs[0].name]
        else:
            _place(unit.output.name, bounds(unit), known, target, ways, found, refused)
    return found, refused


def _place(
    name: str,
    limits: tuple[float, float],
    known: Histograms,
    target: Target,
    ways: Mapping[str, Way],
    found: dict[str, Scale],
    refused: dict[str, str],
) -> None:
    if name in found or name in refused:
        return
    histogram = known.get(name, "it is a constant")
    if isinstance(histogram, str):
        refused[name] = histogram
        return
    found[name] = scale_of(histogram, limits, target, ways.get(name, WHOLE))


def scale_of(histogram: Histogram, limits: tuple[float, float], target: Target, way: Way) -> Scale:
    """The grid of one activation.

    Args:
        histogram: its distribution.
        limits: between which its elements lie for certain.
        target: whose grid it is.
        way: how the range is chosen.
    """
    grid, symmetric = target.activations, target.symmetric
    low, high = _range(histogram, target, way)
    low, high = max(min(low, 0.0), limits[0]), min(max(high, 0.0), limits[1])
    scale, zero = grid.parameters(low, high, symmetric)
    above, below = (grid.high - zero) * scale, (grid.low - zero) * scale
    excess = max(
        float(above) / limits[1] if limits[1] > 0 else 1.0,
        float(below) / limits[0] if limits[0] < 0 else 1.0,
    )
    if excess > 1.0:
        scale = np.nextafter(np.float32(scale / excess), np.float32(0))
    return Scale(np.asarray(scale, np.float32), np.asarray(zero))


def _range(histogram: Histogram, target: Target, way: Way) -> tuple[float, float]:
    if isinstance(way, Part):
        return way.low * histogram.minimum, way.high * histogram.maximum
    method: ranges.Method = "minmax" if way == "auto" else way
    return ranges.chosen(histogram, method, target.activations, target.symmetric)
