"""The top of the page: what came of the run, in words and in a few figures."""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.report.format import change, duration, number, size
from graphopt.report.html import strips
from graphopt.report.html.badges import CLAIM_TONES, MARKS, VERDICT_TONES
from graphopt.report.html.blocks import Card, Cards, Tone
from graphopt.report.html.figures import MetricScale, counted, interval, plain, points
from graphopt.report.html.text import METRIC, base, middle
from graphopt.report.tree import WITHIN, Report


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
    WITHIN: ("", "Outputs within tolerances"),
    "different": ("bad", "Outputs differ"),
    "unproven": ("warn", "Equality not proven"),
}


def banner(report: Report) -> Banner:
    """The verdict on the result: equal where it is, else that of the gate, else how it differs."""
    gate, verdict = report.gate, report.verdict
    judged = ""
    if gate is not None:
        why = gate.why or f"drop {points(gate.drop)}"
        judged = f"{middle(gate.metric, METRIC)}: {why}"
    equal = report.equality == "equal"
    if gate is not None and not (equal and gate.verdict == "pass"):
        tone, words = _GATE.get(gate.verdict, ("warn", gate.verdict))
        return Banner(tone, words, judged + _exit(report))
    tone, words = _EQUAL.get(report.equality, ("warn", report.equality))
    why = verdict.why
    if equal:
        why = (
            f"the same outputs on {counted(verdict.samples, 'set')} of inputs; the largest difference is "
            f"{plain(verdict.largest_difference, 2)}, within what rounding explains"
        )
    elif report.equality == WITHIN:
        why = (
            f"a lossy pass moved the outputs by up to {plain(verdict.largest_difference, 2)} on "
            f"{counted(verdict.samples, 'set')} of inputs, and no budget judged that"
        )
    return Banner(tone, words, "; ".join(part for part in (why, judged) if part) + _exit(report))


def _exit(report: Report) -> str:
    return f"; the command ended with exit code {report.exit_code}" if report.exit_code else ""


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
        _size("File", before.disk_bytes, after.disk_bytes),
        *_packed(report),
        _size("Weights", before.weight_bytes, after.weight_bytes),
        _count("Nodes", before.nodes, after.nodes),
    ]
    if before.macs is not None or after.macs is not None:
        note = "multiply-accumulates of one run"
        found.append(_count("MACs", before.macs, after.macs, note))
    found += _latency(report)
    found += _accuracy(report, scale)
    return Cards(found)


def tone_of(before: float | None, after: float | None) -> Tone:
    """Whether a change of a cost is welcome."""
    if before is None or after is None or before == after:
        return ""
    return "good" if after < before else "warn"


def changed(before: float | None, after: float | None) -> str:
    """How much a figure changed, in words."""
    text = change(before, after)
    return "no change" if text == "=" else text


def _size(title: str, before: int, after: int) -> Card:
    chart = strips.pair(before, after)
    return Card(
        title, size(after), size(before), changed(before, after), chart, tone_of(before, after)
    )


def _packed(report: Report) -> list[Card]:
    """The result's archive against the original's."""
    if report.packing is None:
        return []
    return [_size("Packed", report.packing.before.packed_bytes, report.packing.after.packed_bytes)]


def _count(title: str, before: int | None, after: int | None, note: str = "") -> Card:
    chart = strips.pair(before, after)
    tone = tone_of(before, after)
    return Card(title, number(after), number(before), changed(before, after), chart, tone, note)


def _latency(report: Report) -> list[Card]:
    found = report.latency
    if found is None:
        return []
    ratio = 100 * found.ratio.median
    note = f"measured at {ratio:.0f} % of the time, which cannot be told from noise"
    if found.claim in CLAIM_TONES:
        low, high = 100 * found.ratio.low, 100 * found.ratio.high
        note = f"takes {ratio:.0f} % of the time, {low:.0f} to {high:.0f} % (95 % interval)"
    return [
        Card(
            "Latency (median)",
            duration(found.after.p50),
            duration(found.before.p50),
            found.claim,
            strips.pair(found.before.p50, found.after.p50),
            CLAIM_TONES.get(found.claim, ""),
            note,
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
            f"Metric {middle(gate.metric, METRIC)}",
            scale.value(gate.after),
            scale.value(gate.before),
            f"drop {points(gate.drop)}",
            strips.interval(gate.low, gate.drop, gate.high, across, gate.limit, tone),
            tone,
            f"interval {interval(gate.low, gate.high)}, {limit}",
        )
    ]
