"""What each candidate costs against what it keeps: the metric against size, operations and latency."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from markupsafe import Markup

from graphopt.numerics.statistics import Spread
from graphopt.report.format import duration, number, size
from graphopt.report.html.blocks import (
    Block,
    Column,
    Details,
    Figure,
    Grid,
    Limits,
    Note,
    Row,
    Section,
    Table,
    cut,
)
from graphopt.report.html.figures import MetricScale, points
from graphopt.report.html.scatter import Axis, Estimate, Kind, Point, key, scatter
from graphopt.report.html.svg import finite
from graphopt.report.html.text import METRIC, compose, middle
from graphopt.report.judgement import GateInfo
from graphopt.report.tree import Report

_WORDS: dict[Kind, str] = {
    "original": "original",
    "accepted": "candidate that was kept",
    "rejected": "candidate that was dropped",
    "result": "result",
}
_BYTES = ("B", "KiB", "MiB", "GiB")
_COUNTS = ("MACs", "k MACs", "M MACs", "G MACs", "T MACs")
_SECONDS = ("µs", "ms", "s")


@dataclass(frozen=True)
class _Cost:
    """A cost that models are laid out by.

    Attributes:
        title: in a heading.
        unit: what values are divided by in the plot.
        word: for that unit.
        show: writes a value by itself.
        of: the cost of a candidate; None where it was not measured.
        before: the cost of the original.
        after: the cost of the result.
    """

    title: str
    unit: float
    word: str
    show: Callable[[float], str]
    of: Callable[[GateInfo], float | None]
    before: Estimate
    after: Estimate


def section(report: Report, scale: MetricScale, limits: Limits) -> Section | None:
    """The plots, where anything was judged."""
    judged = [gate for gate in [*report.gates, report.gate] if gate and _drawable(gate)]
    costs = _costs(report) if judged else []
    if not costs:
        return None
    legend = Markup("").join(
        compose('<span class="legend">{}{}</span>', key(kind), word)
        for kind, word in _WORDS.items()
    )
    lead = (
        "Each mark is a model. Upright lines are the interval of the metric, level ones the spread of the "
        "latency. The numbers are those of the candidates above."
    )
    blocks: list[Block] = [Note(legend, "legends")]
    blocks.append(Grid([_figure(report, judged, cost, scale, limits) for cost in costs]))
    rest = len(report.gates) - limits.points
    if rest > 0:
        blocks.append(
            Note(f"{rest:,} more candidates are left out here; the JSON has them.", "quiet")
        )
    return Section("tradeoff", "The metric against cost", lead, blocks)


def _drawable(gate: GateInfo) -> bool:
    return len(finite([gate.before, gate.drop, gate.low, gate.high])) == 4


def _exactly(value: float) -> Estimate:
    return Estimate(value, value, value)


def _costs(report: Report) -> list[_Cost]:
    """The costs that are known, and by which the models differ."""
    a, b = report.input, report.output
    found = []
    if a.weight_bytes and len(finite([a.weight_bytes, b.weight_bytes])) == 2:
        unit = _unit(a.weight_bytes, 1.0, 1024, _BYTES)
        ends = _exactly(a.weight_bytes), _exactly(b.weight_bytes)
        found.append(_Cost("weights", *unit, size, lambda gate: gate.weight_bytes or None, *ends))
    if a.macs and b.macs and a.macs != b.macs and len(finite([a.macs, b.macs])) == 2:
        unit = _unit(a.macs, 1.0, 1000, _COUNTS)
        ends = _exactly(a.macs), _exactly(b.macs)
        found.append(_Cost("operations", *unit, number, lambda gate: gate.macs, *ends))
    timed = report.latency
    if timed is not None and timed.before.p50 > 0 and _known(timed.before, timed.after):
        unit = _unit(timed.before.p50, 1e-6, 1000, _SECONDS)
        ends = _timed(timed.before), _timed(timed.after)
        found.append(_Cost("latency", *unit, duration, lambda gate: None, *ends))
    return found


def _known(*spreads: Spread) -> bool:
    return all(len(finite([part.p10, part.p50, part.p90])) == 3 for part in spreads)


def _timed(found: Spread) -> Estimate:
    return Estimate(found.p50, found.p10, found.p90)


def _unit(value: float, least: float, factor: int, words: tuple[str, ...]) -> tuple[float, str]:
    """The largest unit of which there is at least one."""
    power = int(math.log(max(1.0, value / least), factor) + 1e-9)
    power = min(len(words) - 1, power)
    return least * factor**power, words[power]


def _points(
    report: Report, judged: list[GateInfo], cost: _Cost, scale: MetricScale, limits: Limits
) -> list[Point]:
    """The original, the candidates and the result."""
    start = _exactly(_height(judged[0], 0.0, scale))
    found = [Point("original", "original", cost.before, start)]
    for index, gate in enumerate(cut(report.gates, limits.points)[0], 1):
        place = cost.of(gate)
        if place is not None and _drawable(gate):
            kind: Kind = "accepted" if gate.accepted else "rejected"
            found.append(Point(kind, str(index), _exactly(place), _kept(gate, scale)))
    if report.gate and _drawable(report.gate):
        found.append(Point("result", "result", cost.after, _kept(report.gate, scale)))
    return found


def _kept(gate: GateInfo, scale: MetricScale) -> Estimate:
    """What a candidate keeps of the metric."""
    ends = [_height(gate, drop or 0.0, scale) for drop in (gate.low, gate.high)]
    return Estimate(_height(gate, gate.drop or 0.0, scale), min(ends), max(ends))


def _height(gate: GateInfo, drop: float, scale: MetricScale) -> float:
    """Where a drop stands: at the metric's value where that is a share, else at the drop, worse lower."""
    return scale.after(gate.before or 0.0, drop) if scale.shares else -drop


def _figure(
    report: Report, judged: list[GateInfo], cost: _Cost, scale: MetricScale, limits: Limits
) -> Figure:
    found = _points(report, judged, cost, scale, limits)
    last = report.gate or judged[-1]
    limit = None if last.limit is None else _height(last, last.limit, scale)
    metric = middle(scale.name, METRIC)
    higher = scale.higher or not scale.shares
    better = "higher is better" if higher else "lower is better"
    title = f"{metric} in per cent, {better}" if scale.shares else f"change of {metric} in per cent"
    across = Axis(f"{cost.title} in {cost.word}, less is better", cost.unit)
    heading = f"{metric} against {cost.title}"
    label = f"Scatter plot of {heading}; the table below has its figures"
    chart = scatter(label, found, across, Axis(title, 0.01), limit, higher)
    return Figure(heading, heading, chart, text=(_table(heading, found, cost, scale),))


def _table(heading: str, found: list[Point], cost: _Cost, scale: MetricScale) -> Details:
    def height(value: float) -> str:
        return scale.value(value) if scale.shares else points(value, sign=True)

    rows = []
    for point in found:
        ends = point.kind in ("original", "result")
        label = point.label if ends else f"{point.label}, {_WORDS[point.kind]}"
        exact = point.up.low == point.up.high
        known = "" if exact else f"{height(point.up.low)} to {height(point.up.high)}"
        cells = (label, cost.show(point.across.value), height(point.up.value), known)
        rows.append(Row(cells))
    columns = (
        Column("Model"),
        Column(cost.title, "number"),
        Column(middle(scale.name, METRIC), "number"),
        Column("Interval", "number"),
    )
    return Details("The same as a table", [Table(heading, columns, rows)])
