"""What the report tells of every node that could run on integers: its grids, times and losses, and why.

Nothing is measured here: it is all in the study that the choice was made by. The noise of weights is that of
the integers as they stand in the model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from graphopt.ir.graph import Constant
from graphopt.ir.surgery import producer
from graphopt.numerics.decibels import sqnr_db
from graphopt.numerics.streaming import Histogram
from graphopt.pass_base import Finding
from graphopt.report import HistogramInfo, QuantizedInfo, RangeInfo, StoredInfo

from .insertion import Scale
from .study import Study
from .targets import Target
from .units import Unit

BINS = 64
"""Of a histogram in the report."""

BORDERS = "alone it is faster on integers, but not with going to them and back"


@dataclass(frozen=True)
class Telling:
    """Rows of the report for one choice.

    Attributes:
        study: what the choice was made by.
        target: whose grids they are.
        method: how ranges were chosen.
        strength: of the pass.
        chosen: the names of what the units on integers give.
        weights: the units on integers in the model as it became, with their weights as they were, by the name
            of what they give.
    """

    study: Study
    target: Target
    method: str
    strength: float
    chosen: frozenset[str]
    weights: Mapping[str, tuple[Unit, Constant]] = field(default_factory=dict)

    def findings(self, stored: Mapping[int, Finding]) -> Iterator[Finding]:
        """Every unit once, and every other node of which weights are stored.

        Args:
            stored: what is told of nodes with stored weights, by their numbers.
        """
        rest, drawn = dict(stored), set[str]()
        for unit in self.study.evidence.units:
            row = self._row(unit)
            known = rest.pop(unit.uid, None)
            if known is not None and isinstance(known.row, QuantizedInfo) and not row.weights:
                row = replace(
                    row,
                    computes=known.row.computes,
                    precision=known.row.precision,
                    weights=known.row.weights,
                )
            yield Finding(unit.node, _drawn_once(row, drawn))
        yield from rest.values()

    def _row(self, unit: Unit) -> QuantizedInfo:
        name, problem = str(unit.output.name), self.study.evidence.times
        on_integers = name in self.chosen
        before, after = (
            _seconds(seconds.get(unit.uid), problem.total)
            for seconds in (problem.floats, problem.integers)
        )
        weights = [self._weights(name)] if name in self.weights else []
        return QuantizedInfo(
            unit.node.label,
            str(unit.node.op),
            "integers" if on_integers else "floats",
            self._precision(unit) if on_integers else "float",
            self._why(unit, before, after),
            name,
            unit.kind == "movement",
            self._range(name),
            [found for t in unit.inputs if (found := self._range(str(t.name))) is not None],
            weights,
            self._loss(unit),
            before if self.study.seconds else None,
            after if self.study.seconds else None,
        )

    def _precision(self, unit: Unit) -> str:
        """Types of what a unit on integers reads, as in ``u8s8``, and how many scales its weights have."""
        bits = 8 * self.target.activations.dtype.itemsize
        own, width = f"{'s' if self.target.activations.low < 0 else 'u'}{bits}", f"int{bits}"
        if unit.kind != "linear":
            return f"{own} {width}"
        if unit.weight is None:
            return f"{own}{own} {width}"
        if unit.weight == 0:
            return f"{own}{own} {width} per tensor"
        weights = "u8" if self.target.unsigned_weights else "s8"
        each = "tensor" if unit.channel_axis() is None else "channel"
        return f"{own}{weights} {width} per {each}"

    def _why(self, unit: Unit, before: float | None, after: float | None) -> str:
        study, name = self.study, str(unit.output.name)
        if name in self.chosen:
            if unit.kind == "movement":
                return "it moves what is on integers beside it"
            if before is None or after is None or not study.seconds:
                return f"the kernels of {self.target.name} take it, and it loses little enough"
            if after < before:
                return "it is faster on integers, and loses little enough for that"
            return "alone it is not faster, but it spares going back to floats beside it"
        if unit.node.label in study.refused:
            return study.refused[unit.node.label]
        if not self.strength:
            return "nothing was to run on integers"
        if unit.uid not in study.path[0]:
            alone = before is not None and after is not None and after < before
            return BORDERS if alone else "on integers it is not faster here"
        return "what rounding it loses is dear for the time that it saves"

    def _loss(self, unit: Unit) -> float | None:
        """What the constants of a unit lose, and what it gives where that is rounded."""
        problem, name = self.study.problem, unit.output.name
        if unit.uid not in problem.floats:
            return None
        makes = [tensor for tensor in problem.tensors if tensor.name == name and not tensor.moved]
        rounds = [t.loss for t in makes if t.maker == unit.uid or set(t.readers) & self._uids()]
        return _finite(problem.losses.get(unit.uid, 0.0) + sum(rounds))

    def _uids(self) -> set[int]:
        return {unit.uid for unit in self.study.units if unit.output.name in self.chosen}

    def _range(self, name: str) -> RangeInfo | None:
        scale, histogram = (
            self.study.scales.get(name),
            self.study.evidence.known.get(name),
        )
        if scale is None or histogram is None or isinstance(histogram, str):
            return None
        losses = [t.loss for t in self.study.problem.tensors if t.name == name]
        loss = _finite(losses[0]) if losses else None
        method = f"{self.method}, no data" if self.study.evidence.basis else self.method
        return range_info(name, scale, self.target, histogram, method, loss)

    def _weights(self, name: str) -> StoredInfo:
        """The weights of a unit on integers, as the DequantizeLinear before it gives them."""
        unit, weight = self.weights[name]
        assert unit.weight is not None
        made = producer(unit.node.inputs[unit.weight])
        assert made is not None
        steps, scale, zero = (tensor.values for tensor in made.inputs)
        shape = [-1 if n == made.attrs.get("axis") else 1 for n in range(steps.ndim)]
        stored = (steps.astype(np.float64) - zero.reshape(shape)) * scale.reshape(shape)
        what = f"{steps.dtype} per {'channel' if scale.ndim else 'tensor'}"
        return StoredInfo(str(weight.name), 8, 0, what, sqnr_db(weight.values, stored))


def range_info(
    name: str, scale: Scale, target: Target, histogram: Histogram, method: str, loss: float | None
) -> RangeInfo:
    """The grid of one activation beside what was seen of it."""
    grid, step, zero = target.activations, float(scale.scale), int(scale.zero_point)
    low, high = (grid.low - zero) * step, (grid.high - zero) * step
    seen = max(histogram.maximum, 0.0) - min(histogram.minimum, 0.0)
    edges, counts = _filled(histogram)
    whole = int(counts.sum())
    below, above = np.interp([low, high], edges, np.concatenate([[0], np.cumsum(counts)]))
    return RangeInfo(
        name,
        low,
        high,
        step,
        zero,
        grid.steps + 1,
        histogram.minimum,
        histogram.maximum,
        (high - low) / seen if seen > 0 else 1.0,
        float(below + whole - above) / whole if whole else 0.0,
        histogram.zeros / histogram.count,
        method,
        loss,
        _histogram(edges, counts),
    )


def _filled(histogram: Histogram) -> tuple[np.ndarray, np.ndarray]:
    """Edges and counts from the first to the last bin that holds more than zeros, cut at the extremes."""
    counts = histogram.counts.copy()
    counts[counts.size // 2] -= histogram.zeros
    places = np.flatnonzero(counts)
    if not places.size:
        return np.array([histogram.minimum, histogram.maximum]), np.zeros(1, np.int64)
    first, last = int(places[0]), int(places[-1]) + 1
    edges = np.clip(histogram.edges[first : last + 1], histogram.minimum, histogram.maximum)
    return edges, counts[first:last]


def _histogram(edges: np.ndarray, counts: np.ndarray) -> HistogramInfo | None:
    """The same in fewer bins; None where nothing could be drawn."""
    if not counts.any() or not edges[-1] > edges[0]:
        return None
    step = -(-counts.size // BINS)
    starts = range(0, counts.size, step)
    joined = [int(counts[start : start + step].sum()) for start in starts]
    kept = [*edges[:-1:step], edges[-1]]
    return HistogramInfo([float(f"{edge:.6g}") for edge in kept], joined)


def _drawn_once(row: QuantizedInfo, drawn: set[str]) -> QuantizedInfo:
    """A row without the histograms that rows before it have shown."""

    def once(found: RangeInfo) -> RangeInfo:
        if found.tensor in drawn:
            return replace(found, histogram=None)
        drawn.add(found.tensor)
        return found

    output = None if row.output is None else once(row.output)
    return replace(row, output=output, inputs=[once(found) for found in row.inputs])


def _seconds(seconds: float | None, total: float) -> float | None:
    return seconds if seconds is not None and math.isfinite(seconds) and total else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
