"""The table of everything before and after."""

from __future__ import annotations

from collections.abc import Callable

from markupsafe import Markup

from graphopt.report.format import duration, number, quotient, size
from graphopt.report.html import strips
from graphopt.report.html.badges import CLAIM_TONES, VERDICT_TONES
from graphopt.report.html.blocks import Cell, Column, Row, Section, Table, Tone
from graphopt.report.html.figures import MetricScale, counted, interval, points
from graphopt.report.html.summary import changed, tone_of
from graphopt.report.html.text import METRIC, hinted, middle
from graphopt.report.tree import Report

_CHANGE = 5
"""The position of the column that tells the change."""


def section(report: Report, scale: MetricScale) -> Section:
    """A row for each figure that is known of one model at least."""
    a, b = report.input, report.output
    macs = "multiply-accumulates of one run"
    rows = [
        _cost("File size", "", a.disk_bytes, b.disk_bytes, size),
        *_packed(report),
        _cost("Weights", "bytes of all constants", a.weight_bytes, b.weight_bytes, size),
        _cost(
            "Run-time bytes", "constants and activations", a.runtime_bytes, b.runtime_bytes, size
        ),
        _cost("Parameters", "", a.parameters, b.parameters, number),
        _cost("Nodes", "", a.nodes, b.nodes, number),
        _cost("MACs", macs, a.macs, b.macs, number),
        _timed(report),
        _judged(report, scale),
        _rate("Sparse rate", "zero weights / weights", a.sparse_rate, b.sparse_rate),
        _rate("Shared rate", "shared weights / weights", a.shared_rate, b.shared_rate),
    ]
    if report.simplification is not None:
        title = hinted("Simplification", "simplified size / original size")
        rows.append(_row(title, ("", ""), ratio=f"{report.simplification:.3f}"))
    columns = (
        Column("Figure", "wide"),
        Column("Original", "number"),
        Column("Result", "number"),
        Column("Original above result", "chart"),
        Column("Result / original", "number"),
        Column("Change", "number"),
    )
    table = Table("All figures before and after", columns, [row for row in rows if row])
    return Section("before-after", "Before and after", "", [table])


def _packed(report: Report) -> list[Row | None]:
    """What is sent or kept instead of the files: the archive, and what symbols by frequency come to."""
    if report.packing is None:
        return []
    a, b = report.packing.before, report.packing.after
    bound = "order-0 entropy of each tensor's symbols"
    return [
        _cost("Packed", "in one file, without loss", a.packed_bytes, b.packed_bytes, size),
        _cost("Entropy bound", bound, a.bound_bytes, b.bound_bytes, size),
    ]


def _row(
    title: Markup,
    values: tuple[str, str],
    chart: Markup | None = None,
    ratio: str = "",
    change: Cell = "",
    tone: Tone = "",
) -> Row:
    cells = (title, *values, chart or Markup(""), ratio, change)
    return Row(cells, classes={_CHANGE: tone})


def _both(
    before: float | None, after: float | None, show: Callable[[float], str]
) -> tuple[str, str]:
    unknown = "not known"
    return (
        unknown if before is None else show(before),
        unknown if after is None else show(after),
    )


def _cost(
    title: str, hint: str, before: int | None, after: int | None, show: Callable[[float], str]
) -> Row | None:
    """A figure of which less is better."""
    if before is None and after is None:
        return None
    values = _both(before, after, show)
    ratio = quotient(before, after)
    chart = strips.pair(before, after)
    return _row(
        hinted(title, hint), values, chart, ratio, changed(before, after), tone_of(before, after)
    )


def _rate(title: str, hint: str, before: float | None, after: float | None) -> Row | None:
    """A share of the weights."""
    if before is None and after is None:
        return None
    values = _both(before, after, lambda rate: f"{100 * rate:.2f} %")
    moved = ""
    if before is not None and after is not None:
        moved = "no change" if before == after else f"{100 * (after - before):+.2f} points"
    return _row(hinted(title, hint), values, strips.pair(before, after, 1.0), change=moved)


def _timed(report: Report) -> Row | None:
    found = report.latency
    if found is None:
        return None
    threads = counted(found.threads, "thread")
    title = hinted("Latency", f"median on {middle(found.provider, METRIC)}, {threads}")
    medians = found.before.p50, found.after.p50
    tone = CLAIM_TONES.get(found.claim, "")
    known = f"{found.ratio.low:.3f} to {found.ratio.high:.3f}"
    claim = hinted(found.claim, f"ratio {known}")
    chart = strips.pair(*medians)
    values = _both(*medians, duration)
    return _row(title, values, chart, f"{found.ratio.median:.3f}", claim, tone)


def _judged(report: Report, scale: MetricScale) -> Row | None:
    gate = report.gate
    if gate is None:
        return None
    better = "higher is better" if scale.higher else "lower is better"
    title = hinted(f"Metric {middle(gate.metric, METRIC)}", better)
    moved = hinted(f"drop {points(gate.drop)}", interval(gate.low, gate.high))
    across = strips.drop_scale([gate.low, gate.drop, gate.high, gate.limit])
    tone = VERDICT_TONES.get(gate.verdict, "")
    chart = strips.interval(gate.low, gate.drop, gate.high, across, gate.limit, tone)
    values = scale.value(gate.before), scale.value(gate.after)
    return _row(title, values, chart, change=moved, tone=tone)
