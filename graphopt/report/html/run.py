"""The page of a run: which sections it has, in which order."""

from __future__ import annotations

from graphopt.report.html import (
    comparison,
    graph,
    heat,
    judgement,
    latency,
    layers,
    passes,
    provenance,
    quantized,
    summary,
    tradeoff,
)
from graphopt.report.html.blocks import Limits
from graphopt.report.html.figures import metric_scale
from graphopt.report.html.page import Page, warnings
from graphopt.report.html.text import base, name
from graphopt.report.tree import Report


def page(report: Report, limits: Limits) -> Page:
    """The page, with as much in it as the limits allow.

    Args:
        report: the report.
        limits: how much fits.
    """
    judged = [*report.gates, *([report.gate] if report.gate else [])]
    scale = metric_scale(report.budget, judged, report.measures)
    limit = report.gate.limit if report.gate else report.budget.max_drop if report.budget else None
    metric = report.budget.metric if report.budget else ""
    sections = [
        comparison.section(report, scale),
        judgement.section(report, scale, limits),
        tradeoff.section(report, scale, limits),
        passes.section(report, scale, limits),
        quantized.section(report, limits),
        layers.section(report, limits),
        heat.section(report.sensitivity, metric, limit, limits),
        latency.section(report, limits),
        graph.section(report, limits),
        judgement.equality(report, limits),
        provenance.section(report, limits),
    ]
    shown = summary.model_name(report)
    return Page(
        f"graphopt: {base(report.input.path) or 'report'}",
        name(shown, 60),
        summary.banner(report),
        [summary.cards(report, scale)],
        summary.lead(report),
        warnings(report.warnings, limits),
        [section for section in sections if section is not None],
        " ".join(report.tool.values()),
    )
