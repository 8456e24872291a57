"""The top of the page: what came of the run, in words, in figures, and before against after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from graphopt.report.format import change, duration, number, size
from graphopt.report.html import strips
from graphopt.report.html.badges import CLAIM_TONES, MARKS, VERDICT_TONES
from graphopt.report.html.blocks import Card, Cards, Column, Row, Section, Table, Tone
from graphopt.report.html.figures import MetricScale, interval, plain, points
from graphopt.report.html.text import base, hinted
from graphopt.report.tree import Report


@dataclass(frozen=True)
class Banner:
    """The verdict in a few words, and in a sentence.

    Attributes:
        tone: good, bad or warn.
        words: the verdict.
        why: what it rests on.
    """

    tone: Tone
    words: str
    why: str

    @property
    def mark(self) -> str:
        """The verdict as a sign."""
        return MARKS.get(self.tone, "!")


_GATE: dict[str, tuple[Tone, str]] = {
    "pass": ("good", "Within the budget"),
    "fail": ("bad", "Over the budget"),
    "unsure": ("warn", "Too few samples to tell"),
}
_EQUAL: dict[str, tuple[Tone, str]] = {
    "equal": ("good", "Outputs equal"),
    "different": ("bad", "Outputs differ"),
    "unproven": ("warn", "Equality not proven"),
}


def banner(report: Report) -> Banner:
    """The verdict on the result: of the gate where anything lossy is in it, of equality otherwise."""
    gate, verdict = report.gate, report.verdict
    if gate is not None:
        tone, words = _GATE.get(gate.verdict, ("warn", gate.verdict))
        return Banner(tone, words, gate.why or f"{gate.metric}: drop {points(gate.drop)}")
    tone, words = _EQUAL.get(verdict.verdict, ("warn", verdict.verdict))
    if verdict.verdict == "equal":
        sets = "set" if verdict.samples == 1 else "sets"
        why = (
            f"original and result give the same outputs on {verdict.samples} {sets} of inputs; the "
            f"largest difference is {plain(verdict.largest_difference, 2)}, which is rounding"
        )
        return Banner(tone, words, why)
    return Banner(tone, words, verdict.why)


def model_name(report: Report) -> str:
    """What the model is called."""
    return base(report.input.path) or "a model in memory"


def lead(report: Report) -> str:
    """What the page is about, for a reader who is new to it."""
    busy = sum(step.status != "unchanged" for step in report.steps)
    return (
        "What graphopt changed in this model, what that gained and what it cost. "
        f"{busy:,} of {len(report.steps):,} passes found something to do."
    )


def cards(report: Report, scale: MetricScale) -> Cards:
    """The few figures that matter most."""
    before, after = report.input, report.output
    found = [
        _size("File", before.file_bytes, after.file_bytes),
        _size("Weights", before.weight_bytes, after.weight_bytes),
        _count("Nodes", before.nodes, after.nodes),
    ]
    if before.macs is not None or after.macs is not None:
        note = "multiply-accumulates of one run"
        found.append(_count("MACs", before.macs, after.macs, note))
    found += _latency(report)
    found += _accuracy(report, scale)
    return Cards(found)


def _tone(before: float | None, after: float | None) -> Tone:
    if before is None or after is None or before == after:
        return ""
    return "good" if after < before else "warn"


def _changed(before: float | None, after: float | None) -> str:
    text = change(before, after)
    return "no change" if text == "=" else text


def _size(title: str, before: int, after: int) -> Card:
    chart = strips.pair(before, after)
    return Card(
        title, size(after), size(before), _changed(before, after), chart, _tone(before, after)
    )


def _count(title: str, before: int | None, after: int | None, note: str = "") -> Card:
    chart = strips.pair(before, after)
    tone = _tone(before, after)
    return Card(title, number(after), number(before), _changed(before, after), chart, tone, note)


def _latency(report: Report) -> list[Card]:
    found = report.latency
    if found is None:
        return []
    return [
        Card(
            "Latency (median)",
            duration(found.after.p50),
            duration(found.before.p50),
            found.claim,
            strips.pair(found.before.p50, found.after.p50),
            CLAIM_TONES.get(found.claim, ""),
            f"takes {100 * found.ratio.median:.0f} % of the time, "
            f"{100 * found.ratio.low:.0f} to {100 * found.ratio.high:.0f} % (95 % interval)",
        )
    ]


def _accuracy(report: Report, scale: MetricScale) -> list[Card]:
    gate = report.gate
    if gate is None:
        return []
    tone = VERDICT_TONES.get(gate.verdict, "")
    across = strips.drop_scale([gate.low, gate.drop, gate.high, gate.limit])
    limit = "no limit" if gate.limit is None else f"limit {points(gate.limit)}"
    return [
        Card(
            f"Metric {gate.metric}",
            scale.value(gate.after),
            scale.value(gate.before),
            f"drop {points(gate.drop)}",
            strips.interval(gate.low, gate.drop, gate.high, across, gate.limit, tone),
            tone,
            f"interval {interval(gate.low, gate.high)}, {limit}",
        )
    ]


def section(report: Report, scale: MetricScale) -> Section:
    """The table of everything before and after."""
    a, b = report.input, report.output
    rows = [
        _row("File size", a.file_bytes, b.file_bytes, size),
        _row("Weights", a.weight_bytes, b.weight_bytes, size, "bytes of all constants"),
        _row(
            "Run-time bytes",
            a.runtime_bytes,
            b.runtime_bytes,
            size,
            "peak of constants and activations",
        ),
        _row("Parameters", a.parameters, b.parameters, number),
        _row("Nodes", a.nodes, b.nodes, number),
        _row("MACs", a.macs, b.macs, number, "multiply-accumulates of one run"),
        *_timed(report),
        *_judged(report, scale),
        _rate("Sparse rate", a.sparse_rate, b.sparse_rate, "zero weights / weights"),
        _rate("Shared rate", a.shared_rate, b.shared_rate, "shared weights / weights"),
    ]
    if report.simplification is not None:
        hint = hinted("Simplification", "simplified size / original size")
        rows.append(Row((hint, "", "", f"{report.simplification:.3f}", "")))
    columns = (
        Column("Figure", "wide"),
        *(
            Column(title, "number")
            for title in ("Original", "Result", "Result / original", "Change")
        ),
    )
    table = Table("All figures before and after", columns, [row for row in rows if row])
    return Section("before-after", "Before and after", "", [table])


def _row(
    title: str,
    before: float | None,
    after: float | None,
    show: Callable[[float], str],
    hint: str = "",
) -> Row | None:
    if before is None and after is None:
        return None
    values = tuple("not known" if value is None else show(value) for value in (before, after))
    quotient = f"{after / before:.3f}" if before and after is not None else ""
    moved = _changed(before, after)
    return Row((hinted(title, hint), *values, quotient, moved), classes={4: _tone(before, after)})


def _rate(title: str, before: float | None, after: float | None, hint: str) -> Row | None:
    if before is None and after is None:
        return None
    shown = ("not known" if rate is None else f"{100 * rate:.2f} %" for rate in (before, after))
    moved = ""
    if before is not None and after is not None:
        moved = "no change" if before == after else f"{100 * (after - before):+.2f} points"
    return Row((hinted(title, hint), *shown, "", moved))


def _timed(report: Report) -> list[Row | None]:
    found = report.latency
    if found is None:
        return []
    hint = f"median on {found.provider}, {found.threads} thread" + (
        "" if found.threads == 1 else "s"
    )
    ratio = f"{found.ratio.median:.3f} ({found.ratio.low:.3f} to {found.ratio.high:.3f})"
    tone = CLAIM_TONES.get(found.claim, "")
    cells = (
        hinted("Latency", hint),
        duration(found.before.p50),
        duration(found.after.p50),
        ratio,
        found.claim,
    )
    return [Row(cells, classes={4: tone})]


def _judged(report: Report, scale: MetricScale) -> list[Row | None]:
    gate = report.gate
    if gate is None:
        return []
    better = "higher is better" if scale.higher else "lower is better"
    tone = VERDICT_TONES.get(gate.verdict, "")
    drop = f"drop {points(gate.drop)} ({interval(gate.low, gate.high)})"
    title = hinted(f"Metric {gate.metric}", better)
    return [
        Row((title, scale.value(gate.before), scale.value(gate.after), "", drop), classes={4: tone})
    ]
