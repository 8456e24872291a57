"""The budget and what was judged by it: the candidates, the result, the metrics, equality."""

from __future__ import annotations

import dataclasses

from markupsafe import Markup

from graphopt.report.format import size
from graphopt.report.html import strips
from graphopt.report.html.badges import VERDICT_TONES, verdict_badge
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
from graphopt.report.html.figures import MetricScale, counted, interval, plain, points
from graphopt.report.html.svg import Scale
from graphopt.report.html.text import compose, hinted, name
from graphopt.report.judgement import BudgetInfo, DataInfo, GateInfo, MeasureInfo
from graphopt.report.tree import Report

_RUNTIMES = {"ort": "ONNX Runtime", "reference": "the reference evaluator of onnx"}


def section(report: Report, scale: MetricScale, limits: Limits) -> Section | None:
    """What was allowed, what was measured, and the verdicts."""
    facts = [*_asked(report.budget), *_judged(report), *data_facts(report.data)]
    blocks: list[Block] = [Facts(facts)] if facts else []
    if report.gates or report.gate:
        blocks += [Heading("Every candidate that was judged"), _gates(report, scale, limits)]
    if report.measures:
        blocks += [Heading("Metrics of the result"), _measures(report.measures, scale, limits)]
    if not blocks:
        return None
    lead = (
        "Every lossy step is compared with the original model on the evaluation samples. It passes where "
        "the whole interval of its drop keeps to the limit. Where too few samples leave that open, it is "
        "kept if the drop itself keeps to the limit, and a warning says so."
    )
    return Section("budget", "Budget and verdict", lead, blocks)


def _asked(budget: BudgetInfo | None) -> list[tuple[str, Markup | str]]:
    if budget is None:
        return []
    asked = []
    if budget.max_drop is not None:
        asked.append(f"lose at most {points(budget.max_drop)}")
    if budget.floor is not None:
        edge = "stay at or above" if budget.higher_is_better else "stay at or below"
        asked.append(f"{edge} {plain(budget.floor)}")
    better = "higher is better" if budget.higher_is_better else "lower is better"
    facts: list[tuple[str, Markup | str]] = [
        ("Asked for", " and ".join(asked) or "no limit"),
        (
            "Metric",
            compose('{} <span class="muted">({})</span>', name(budget.metric), better),
        ),
    ]
    if budget.chosen:
        facts.append(("Why this metric", budget.chosen))
    facts.append(("Confidence", f"{100 * budget.confidence:.4g} % over all candidates together"))
    return facts


def _judged(report: Report) -> list[tuple[str, Markup | str]]:
    gate = report.gate
    if gate is None:
        return [("Verdict", "no lossy change is in the result")] if report.gates else []
    return [("Verdict", compose("{} {}", verdict_badge(gate.verdict), gate.why))]


def data_facts(data: DataInfo | None) -> list[tuple[str, Markup | str]]:
    """The data in words."""
    if data is None:
        return []
    parts = (
        f"{data.samples:,} samples: {data.calibration:,} for passes to look at, "
        f"{data.evaluation:,} others to judge with"
    )
    labels = compose("labels {}", name(data.labels)) if data.labels else "no labels"
    return [("Data", compose("{} <br>{}, {}", name(data.source, 72), parts, labels))]


def _gates(report: Report, scale: MetricScale, limits: Limits) -> Table:
    whole = report.gate and dataclasses.replace(
        report.gate, step="", weight_bytes=report.output.weight_bytes
    )
    gates = [*report.gates, *([whole] if whole else [])]
    values = [value for gate in gates for value in (gate.low, gate.drop, gate.high, gate.limit)]
    across = strips.drop_scale(values)
    limit = gates[-1].limit
    shown, left_out = cut(report.gates, limits.rows)
    rows = [_gate(str(index), gate, scale, across) for index, gate in enumerate(shown, 1)]
    if whole:
        rows.append(_gate("", whole, scale, across))
    columns = (
        Column("Candidate", "wide"),
        Column("Verdict", "wide"),
        Column(compose("Drop and its interval{}", strips.drop_axis(across, limit)), "chart"),
        Column("Drop", "number"),
        Column("Metric", "number"),
        Column("Weights", "number"),
        Column("Samples", "number"),
    )
    bound = "not set" if limit is None else points(limit)
    caption = (
        f"A drop is how much worse than the original; below 0 is better. The limit is {bound}. Each end of "
        f"the last interval holds with a confidence of {100 * gates[-1].confidence:.4g} %."
    )
    label = "Candidates judged, with drop, interval and verdict"
    return Table(label, columns, rows, left_out, caption)


def _gate(number: str, gate: GateInfo, scale: MetricScale, across: Scale) -> Row:
    of_all = not gate.step
    title = compose("Result as a whole") if of_all else compose("{}. {}", number, name(gate.step))
    words = verdict_badge(gate.verdict)
    if not of_all:
        words += compose(" {}", "kept" if gate.accepted else "dropped")
    if gate.more is not None:
        words += compose('<span class="hint">{} more samples would tell</span>', f"{gate.more:,}")
    tone = VERDICT_TONES.get(gate.verdict, "warn")
    return Row(
        (
            hinted(title, "" if of_all else gate.what),
            words,
            strips.interval(gate.low, gate.drop, gate.high, across, gate.limit, tone),
            hinted(points(gate.drop), interval(gate.low, gate.high)),
            scale.value(gate.after),
            size(gate.weight_bytes) if gate.weight_bytes else "",
            f"{gate.samples:,}",
        ),
        tone="strong" if of_all else "",
    )


def _measures(measures: list[MeasureInfo], scale: MetricScale, limits: Limits) -> Table:
    shown, left_out = cut(measures, limits.rows)
    columns = (
        Column("Metric", "name"),
        Column("Output", "name"),
        Column("Original", "number"),
        Column("Result", "number"),
        Column("Better"),
    )
    return Table(
        "Metrics by output",
        columns,
        [_measure(entry, scale) for entry in shown],
        left_out,
        "Of a measure of likeness to the original, the original's value is the perfect one.",
    )


def _measure(entry: MeasureInfo, scale: MetricScale) -> Row:
    def show(value: float) -> str:
        if entry.metric == scale.name:
            return scale.value(value)
        return f"{plain(value)} {entry.unit[:12]}".rstrip()

    output = name(entry.output) if entry.output else "all"
    better = "higher" if entry.higher_is_better else "lower"
    before = "infinite" if entry.before is None else show(entry.before)
    after = "not finite" if entry.after is None else show(entry.after)
    return Row((name(entry.metric), output, before, after, better))


def equality(report: Report, limits: Limits) -> Section:
    """The comparison of the outputs, number by number."""
    found = report.verdict
    facts: list[tuple[str, Markup | str]] = [("Verdict", f"outputs {report.equality}")]
    if found.why:
        facts.append(("Why", found.why))
    facts += [
        ("Largest difference", plain(found.largest_difference, 3)),
        ("In units of the output's size", plain(found.relative_difference, 3)),
        ("Compared on", counted(found.samples, "set") + " of inputs"),
        ("Run by", _RUNTIMES.get(found.runtime, found.runtime) or "nothing"),
    ]
    rows = [Row((name(key, 60), plain(value, 3))) for key, value in found.outputs.items()]
    shown, left_out = cut(rows, limits.rows)
    blocks: list[Block] = [Facts(facts)]
    if rows:
        columns = (Column("Output", "name"), Column("Largest difference", "number"))
        table = Table("Largest difference by output", columns, shown, left_out)
        blocks.append(table if len(rows) <= 8 else Details(counted(len(rows), "output"), [table]))
    else:
        blocks.append(Note("No outputs were compared.", "quiet"))
    lead = "The outputs of both models, number by number, with the runtime's own optimizations off."
    if report.gate is not None:
        lead += " Lossy passes move them; whether by too much is what the budget above decides."
    return Section("equality", "Are the outputs equal?", lead, blocks)
