"""The page of ``graphopt sensitivity``: what each layer bears."""

from __future__ import annotations

from markupsafe import Markup

from graphopt.report.html import heat, judgement, provenance
from graphopt.report.html.blocks import Block, Facts, Limits, Note, Section
from graphopt.report.html.figures import counted, plain, points
from graphopt.report.html.page import Page, warnings
from graphopt.report.html.text import base, compose, name
from graphopt.report.judgement import SensitivityInfo, SensitivityReport


def page(report: SensitivityReport, limits: Limits) -> Page:
    """The page, with as much in it as the limits allow.

    Args:
        report: the report.
        limits: how much fits.
    """
    sections = [
        _what(report),
        heat.section(report.rows, report.metric, None, limits),
        _again(report, limits),
    ]
    return Page(
        f"graphopt sensitivity: {base(report.model) or 'report'}",
        name(base(report.model) or "a model in memory", 60),
        None,
        [],
        "How much of the metric is lost when one layer alone is made sparse, coarse or clustered, or what it "
        "reads is rounded. "
        "Layers that lose much are best left out of a lossy pass.",
        warnings(report.warnings, limits),
        [section for section in sections if section is not None],
        " ".join(report.tool.values()),
    )


def _what(report: SensitivityReport) -> Section:
    facts = [
        ("Metric", name(report.metric)),
        ("Why this metric", report.chosen or "asked for"),
        ("Value of the original", plain(report.before)),
        ("Judged on", counted(report.samples, "sample")),
        *judgement.data_facts(report.data),
    ]
    methods = sorted({row.ranges for row in report.rows if row.ranges})
    if methods:
        facts.append(("Ranges of activations", ", ".join(methods)))
    worst = max(report.rows, key=lambda row: row.drop, default=None)
    blocks: list[Block] = [Facts(facts)]
    if worst is None:
        blocks.append(Note("No layer was measured."))
    else:
        blocks.append(Note(_largest(worst)))
    return Section("measured", "What was measured", "", blocks)


def _largest(row: SensitivityInfo) -> Markup:
    strength = heat.strength_text(row.kind, row.strength, row.activations)
    said = "The largest drop, {}, is that of {} with {}."
    return compose(said, points(row.drop), name(row.layer), strength)


def _again(report: SensitivityReport, limits: Limits) -> Section:
    facts: list[provenance.Fact] = [
        ("Model", name(report.model, 72)),
        ("Model, SHA-256", provenance.digest(report.sha256)),
        *provenance.data_digest(report.data),
    ]
    blocks = provenance.reproduction(report.command, report.tool, report.environment, facts, limits)
    return Section("reproduce", "Reproduce it", "", blocks)
