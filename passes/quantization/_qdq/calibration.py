"""Where the grid of every activation lies: ranges of what the calibration data gives.

    minmax          the smallest and the largest element: the dynamic range
    wide            a quarter more on both sides: room for what other data brings
    percentile      all but one in ten thousand
    entropy         least Kullback-Leibler divergence of the rounded histogram
    mse             least squared error of rounding and clipping
    auto            of all these the one that loses least at the model's outputs: see ``study``

    channels        minmax for each channel, where its factor can go into weights and into the scales at which
                    floats become integers: see ``insertion``

An operator that only moves elements gives them on the grid it reads them on. Behind an absorbed Relu or Clip
the grid ends within its bounds, or the runtime could not leave the activation out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.graph import Constant
from graphopt.ir.model import Model
from graphopt.numerics import ranges
from graphopt.numerics.streaming import Histogram, HistogramSpec, RangeSpec
from graphopt.pass_base import Observe
from graphopt.runtime.observing import Request

from .scales import Scale
from .targets import Target
from .units import Unit, bounds

Method = Literal["auto", "minmax", "wide", "percentile", "entropy", "mse", "channels"]

METHODS: tuple[Method, ...] = ("minmax", "wide", "mse", "percentile", "entropy")
"""The ways to choose a range, first the one that is taken where nothing speaks for another."""

CHANNELS: Method = "channels"
"""The way that not every activation allows."""

COVERING: tuple[Method, ...] = ("minmax", "wide", "channels")
"""Those that leave out nothing that was seen."""

LEAST_REACH = 0.01
"""The least reach of a channel, as a share of the widest one's."""

ROOM = 1.1
"""How much further the range of a channel reaches than what was seen of it."""

WIDER = 1.25
"""How much further a wide range reaches."""

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
    methods: Mapping[str, Method],
    channels: Mapping[str, Channels],
) -> tuple[dict[str, Scale], dict[str, str]]:
    """The grid of every activation of some units.

    Args:
        units: in topological order.
        known: their distributions.
        target: its grid.
        methods: how ranges are chosen, by name; ``METHODS[0]`` for others.
        channels: the ranges of channels, of activations that allow a factor for each.

    Returns:
        Scales by name, and the reasons by name where there is none.
    """
    found: dict[str, Scale] = {}
    refused: dict[str, str] = {}
    for name, entry in channels.items():
        if methods.get(name) == CHANNELS:
            found[name] = entry.scale(target)
    for unit in units:
        for tensor in unit.inputs:
            _place(tensor.name, (-math.inf, math.inf), known, target, methods, found, refused)
        if unit.kind == "movement" and unit.inputs[0].name in found:
            found[unit.output.name] = found[unit.inputs[0].name]
        else:
            _place(unit.output.name, bounds(unit), known, target, methods, found, refused)
    return found, refused


def _place(
    name: str,
    limits: tuple[float, float],
    known: Histograms,
    target: Target,
    methods: Mapping[str, Method],
    found: dict[str, Scale],
    refused: dict[str, str],
) -> None:
    if name in found or name in refused:
        return
    histogram = known.get(name, "it is a constant")
    if isinstance(histogram, str):
        refused[name] = histogram
        return
    found[name] = scale_of(histogram, limits, target, methods.get(name, METHODS[0]))


def scale_of(
    histogram: Histogram, limits: tuple[float, float], target: Target, method: Method
) -> Scale:
    """The grid of one activation.

    Args:
        histogram: its distribution.
        limits: between which its elements lie for certain.
        target: whose grid it is.
        method: how the range is chosen.
    """
    grid, symmetric = target.activations, target.symmetric
    method = METHODS[0] if method == CHANNELS else method
    ways: dict[str, Callable[[], tuple[float, float]]] = {
        "minmax": lambda: ranges.covering(histogram),
        "wide": lambda: (WIDER * histogram.minimum, WIDER * histogram.maximum),
        "percentile": lambda: ranges.percentile(histogram),
        "entropy": lambda: ranges.entropy(histogram, grid, symmetric),
        "mse": lambda: ranges.least_squares(histogram, grid, symmetric),
    }
    low, high = ways[method]()
    low, high = max(low, limits[0]), min(high, limits[1])
    scale, zero = grid.parameters(low, high, symmetric)
    above, below = (grid.high - zero) * scale, (grid.low - zero) * scale
    excess = max(
        float(above) / limits[1] if limits[1] > 0 else 1.0,
        float(below) / limits[0] if limits[0] < 0 else 1.0,
    )
    if excess > 1.0:
        scale = np.nextafter(np.float32(scale / excess), np.float32(0))
    return Scale(np.asarray(scale, np.float32), np.asarray(zero))


@dataclass(frozen=True)
class Channels:
    """The ranges of the channels of an activation.

    Attributes:
        axis: of the channels.
        minimum: of each, float64.
        maximum: of each.
    """

    axis: int
    minimum: np.ndarray
    maximum: np.ndarray

    def scale(self, target: Target) -> Scale:
        """One grid for all channels, each divided by its largest magnitude."""
        reach = np.maximum(np.abs(self.minimum), np.abs(self.maximum))
        reach = np.maximum(reach, LEAST_REACH * float(reach.max()))
        middle = float(np.exp(np.log(reach).mean()))
        spread = (reach / middle).astype(np.float32)
        low = float((self.minimum / spread).min())
        high = float((self.maximum / spread).max())
        grid = target.activations.parameters(ROOM * low, ROOM * high, target.symmetric)
        return Scale(*grid, spread, self.axis)


def channel_ranges(model: Model, axes: Mapping[str, int], observe: Observe) -> dict[str, Channels]:
    """The ranges of channels of some activations, by name, as far as they are known.

    Args:
        model: the model.
        axes: of the channels, by the name of the activation.
        observe: gives statistics of tensors.
    """
    asked = {name: Request(name, RangeSpec(axis)) for name, axis in sorted(axes.items())}
    answers = observe(model, list(asked.values()))
    found = {}
    for name, request in asked.items():
        value = answers[request].value
        if value is None or not value.count.size or not value.count.all() or value.rejected.any():
            continue
        if value.absolute.any():
            found[name] = Channels(axes[name], value.minimum, value.maximum)
    return found


def channel_axes(units: Sequence[Unit]) -> dict[str, int]:
    """The activations for which every channel may have a factor, by name, with the axis of the channels.

    Units that read one must be able to take the factor into their weights, and a unit that gives it too.
    """
    makers = {id(unit.output): unit for unit in units}
    readers: dict[int, tuple[gs.Tensor, list[Unit]]] = {}
    for unit in units:
        for tensor in (*unit.inputs, unit.output):
            readers.setdefault(id(tensor), (tensor, []))
        for tensor in unit.inputs:
            readers[id(tensor)][1].append(unit)
    found = {}
    for key, (tensor, reading) in readers.items():
        maker = makers.get(key)
        if isinstance(tensor, Constant) or (maker is not None and not _gives_channels(maker)):
            continue
        axes = {_read_axis(unit) for unit in reading} | ({1} if maker is not None else set())
        if len(axes) == 1 and (axis := axes.pop()) is not None:
            found[str(tensor.name)] = axis
    return found


def _gives_channels(unit: Unit) -> bool:
    """Whether each channel of what a unit gives can be divided by a factor of its own."""
    absorbed = unit.absorbed is None or unit.absorbed.op == "Relu"
    return unit.node.op == "Conv" and absorbed


def _read_axis(unit: Unit) -> int | None:
    """The axis of what a unit reads that its weights have factors for; None where there is none."""
    if unit.node.op == "Conv":
        return 1
    if unit.node.op in ("Gemm", "MatMul") and unit.weight == 1 and unit.channel_axis() is not None:
        return -1
    return None
