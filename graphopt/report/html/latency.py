"""Measured time: of the whole, by operator, and the dearest nodes."""

from __future__ import annotations

from markupsafe import Markup

from graphopt.numerics.statistics import Ratio
from graphopt.report.format import change, duration
from graphopt.report.html import strips
from graphopt.report.html.badges import claim_badge
from graphopt.report.html.blocks import (
    Block,
    Column,
    Details,
    Facts,
    Heading,
    Limits,
    Note,
    Row,
    Section,
    Table,
    cut,
)
from graphopt.report.html.text import compose, name, safe
from graphopt.report.models import LatencyInfo, NodeTime
from graphopt.report.tree import Report

FAR = 2.5
"""Times the median up to which a spread is drawn, so that a few outliers do not hide the medians."""


def section(report: Report, limits: Limits) -> Section | None:
    """The latency of both models, and where the time goes."""
    found = report.latency
    if found is None:
        return None
    blocks: list[Block] = [
        Note(_claim(found)),
        _whole(found),
        Facts(_facts(found)),
    ]
    if found.operators_before or found.operators_after:
        blocks += [Heading("Time by operator"), _operators(found, limits)]
    dearest = [
        _nodes(title, nodes, limits)
        for title, nodes in (
            ("Dearest nodes of the original", found.nodes_before),
            ("Dearest nodes of the result", found.nodes_after),
        )
        if nodes
    ]
    blocks += dearest
    lead = (
        "Original and result ran in turns on the same machine. A difference counts where it is "
        "larger than that of the original from itself."
    )
    return Section("latency", "Latency", lead, blocks)


def _claim(found: LatencyInfo) -> Markup:
    ratio = 100 * found.ratio.median
    low, high = 100 * found.ratio.low, 100 * found.ratio.high
    said = f"Measured at {ratio:.0f} % of the original's time ({low:.0f} to {high:.0f} % at 95 %)."
    return compose("{} {}", claim_badge(found.claim), said)


def _whole(found: LatencyInfo) -> Table:
    medians = max(found.before.p50, found.after.p50, 0.0)
    most = min(max(found.before.p90, found.after.p90, 0.0), FAR * medians)
    rows = [
        Row(
            (
                title,
                strips.spread(part.p10, part.p50, part.p90, most, kind),
                *(duration(value) for value in (part.p10, part.p50, part.p90)),
            )
        )
        for title, part, kind in (
            ("Original", found.before, "before"),
            ("Result", found.after, "after"),
        )
    ]
    columns = (
        Column("Model"),
        Column("Median, with p10 to p90", "chart"),
        *(Column(title, "number") for title in ("p10", "p50", "p90")),
    )
    return Table("Latency of original and result", columns, rows)


def _ratio(found: Ratio) -> str:
    return f"{found.median:.3f}, 95 % interval {found.low:.3f} to {found.high:.3f}"


def _facts(found: LatencyInfo) -> list[tuple[str, str]]:
    shapes = ", ".join(f"{safe(key, 60)} {value}" for key, value in list(found.shapes.items())[:20])
    threads = "1 thread" if found.threads == 1 else f"{found.threads} threads"
    facts = [
        ("Result / original", _ratio(found.ratio)),
        ("Original / original", f"{_ratio(found.control)} (what this is off 1 is noise)"),
        ("Ran on", f"{safe(found.provider, 60)}, {threads}, {found.rounds:,} rounds"),
    ]
    return [*facts, ("Input shapes", shapes)] if shapes else facts


def _operators(found: LatencyInfo, limits: Limits) -> Table:
    """Both models' operators in one table, the dearest first."""
    before = {entry.op: entry for entry in found.operators_before}
    after = {entry.op: entry for entry in found.operators_after}
    nothing = NodeTime("", "", 0.0, 0.0, 0)
    pairs = [
        (op, before.get(op, nothing), after.get(op, nothing))
        for op in dict.fromkeys([*before, *after])
    ]
    pairs.sort(key=lambda entry: (-max(entry[1].seconds, entry[2].seconds), entry[0]))
    most = max((max(a.seconds, b.seconds) for _, a, b in pairs), default=0.0)
    shown, left_out = cut(pairs, limits.rows // 2 or 1)
    rows = [
        Row(
            (
                name(op, 32),
                strips.pair(a.seconds, b.seconds, most),
                duration(a.seconds) if a.count else "none",
                duration(b.seconds) if b.count else "none",
                change(a.seconds, b.seconds) if a.count and b.count else "",
                f"{a.count} to {b.count}",
            )
        )
        for op, a, b in shown
    ]
    columns = (
        Column("Operator", "name"),
        Column("Original above result", "chart"),
        *(Column(title, "number") for title in ("Original", "Result", "Change", "Nodes")),
    )
    caption = (
        "From a run of each model under the profiler, which says where the time goes; what may be said "
        "of the whole is measured without it. Operators are those that the runtime ran, after fusions of "
        "its own."
    )
    return Table("Time by operator before and after", columns, rows, left_out, caption)


def _nodes(title: str, nodes: list[NodeTime], limits: Limits) -> Details:
    most = max(entry.seconds for entry in nodes)
    shown, left_out = cut(nodes, limits.rows // 4 or 1)
    rows = [
        Row(
            (
                name(entry.name),
                name(entry.op, 24),
                strips.bar(entry.seconds, most),
                duration(entry.seconds),
                f"{100 * entry.share:.1f} %",
            )
        )
        for entry in shown
    ]
    columns = (
        Column("Node", "name"),
        Column("Operator"),
        Column("Time", "chart"),
        Column("", "number"),
        Column("Share", "number"),
    )
    return Details(title, [Table(title, columns, rows, left_out)])
