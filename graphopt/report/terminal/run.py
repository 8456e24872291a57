"""A run on a terminal: what each pass did, before and after, the verdicts."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from graphopt.errors import printable
from graphopt.report.format import change, duration, number, signed, size, times
from graphopt.report.judgement import GateInfo
from graphopt.report.models import LatencyInfo
from graphopt.report.terminal.quantized import render_quantized
from graphopt.report.terminal.tables import STYLES, table_of
from graphopt.report.tree import Report, StepReport

REASONS = 2
"""Reasons that are told of a pass that did nothing."""

WIDE = 100
"""Columns from which on a table shows all that it has."""


def render_report(report: Report, verbose: bool = False, width: int = WIDE) -> RenderableType:
    """The summary of a run: what each pass did, before and after, the verdict.

    Args:
        report: the report.
        verbose: whether to show idle passes and the reasons of refusals too.
        width: columns of the terminal.
    """
    shown = report.steps if verbose else _folded(report.steps)
    parts: list[RenderableType] = [_steps(shown, report.gates, verbose, width >= WIDE)]
    idle = sum(step.status == "unchanged" and step.exact for step in report.steps)
    if idle and not verbose:
        parts.append(Text(f"{idle} passes found nothing to do", style="dim"))
    for step in report.steps:
        if verbose or not step.eased:
            parts += [
                Text(f"{step.name} took back {entry.node}: {entry.what}", style="yellow")
                for entry in step.taken_back
            ]
        if step.eased:
            what = "was left out" if step.status == "rolled back" else "was eased"
            parts.append(Text(f"{step.name} {what}: {printable(step.eased, 500)}", style="yellow"))
        if step.speed is not None and step.status != "rolled back":
            parts.append(Text(f"{step.name} is {printable(str(step.speed), 500)}"))
        if step.status == "unchanged" and not step.exact and not verbose:
            parts.append(Text(f"{step.name} changed nothing: {_refusals(step)}", style="yellow"))
        parts += render_quantized(step, width >= WIDE)
        if step.error:
            parts.append(
                Text(f"{step.name} failed and was left out: {printable(step.error)}", style="red")
            )
        if verbose:
            parts += [
                Text(f"  {step.name} skipped {s.node}: {s.why}", style="dim") for s in step.skips
            ]
    parts += [Text(""), _before_after(report)]
    if report.gate is None or report.equality == "equal":
        parts.append(_verdict_line(report))
    if report.gate is not None and report.budget is not None:
        parts.append(gate_line(report.gate, report.budget.chosen))
    if report.latency is not None:
        parts.append(_latency_line(report.latency))
    parts += [Text(f"warning: {printable(line, 500)}", style="yellow") for line in report.warnings]
    return Group(*parts)


def _refusals(step: StepReport) -> str:
    """Why a pass did nothing: its most frequent reasons."""
    reasons = Counter(skip.why for skip in step.skips).most_common(REASONS)
    said = [f"{printable(why, 200)} ({count} times)" for why, count in reasons]
    return "; ".join(said) or "there is nothing that it could change"


def _folded(steps: list[StepReport]) -> list[StepReport]:
    """The steps, with consecutive exact ones as one, where lossy ones are what a reader looks for."""
    if all(step.exact for step in steps):
        return steps
    found: list[StepReport] = []
    for exact, group in itertools.groupby(steps, key=lambda step: step.exact):
        run = list(group)
        found += [_as_one(run)] if exact and len(run) > 1 else run
    return found


def _as_one(steps: list[StepReport]) -> StepReport:
    """Exact steps as one row."""
    largest = [s.largest_difference for s in steps if s.largest_difference is not None]
    busy = [step for step in steps if step.status != "unchanged"]
    return StepReport(
        name=f"{len(steps)} exact passes",
        status="applied" if busy else "unchanged",
        exact=True,
        options={},
        edits=[edit for step in steps for edit in step.edits],
        skips=[skip for step in steps for skip in step.skips],
        nodes=sum(step.nodes for step in steps),
        weight_bytes=sum(step.weight_bytes for step in steps),
        macs=sum(step.macs for step in steps),
        seconds=sum(step.seconds for step in steps),
        largest_difference=max(largest, default=None),
    )


def _steps(steps: list[StepReport], gates: Sequence[GateInfo], verbose: bool, wide: bool) -> Table:
    """One row a pass; on a narrow terminal without what the JSON tells as well."""
    drops = {gate.step: gate.drop for gate in gates if gate.accepted}
    extra = ["MACs", "largest diff"] if wide else []
    extra += ["drop"] if drops else []
    table = table_of("pass", "edits", "skips", "nodes", "bytes", *extra, "time", "status")
    for step in steps:
        if step.status == "unchanged" and step.exact and not verbose:
            continue
        largest = step.largest_difference
        more = (
            signed(step.macs, number(abs(step.macs))),
            "" if largest is None else f"{largest:.1e}",
        )
        table.add_row(
            step.name,
            str(len(step.edits)),
            str(len(step.skips)) if step.skips else "",
            signed(step.nodes, str(abs(step.nodes))),
            signed(step.weight_bytes, size(abs(step.weight_bytes))),
            *(more if wide else ()),
            *((_drop(step, drops),) if drops else ()),
            duration(step.seconds),
            Text(step.status, style=STYLES[step.status]),
        )
    return table


def _drop(step: StepReport, drops: dict[str, float | None]) -> str:
    """What the model has lost when a pass is done; empty where it changed nothing."""
    drop = drops.get(step.name) if step.edits else None
    return "" if drop is None else f"{100 * drop:.2g} %"


def _before_after(report: Report) -> Table:
    before, after = report.input, report.output
    table = table_of("", "before", "after", "change")
    table.add_row("nodes", str(before.nodes), str(after.nodes), change(before.nodes, after.nodes))
    for name, a, b in (
        ("file", before.disk_bytes, after.disk_bytes),
        ("weights", before.weight_bytes, after.weight_bytes),
    ):
        table.add_row(name, size(a), size(b), change(a, b))
    if report.packing is not None:
        first, second = report.packing.before, report.packing.after
        for name, a, b in (
            ("packed", first.packed_bytes, second.packed_bytes),
            ("entropy bound", first.bound_bytes, second.bound_bytes),
        ):
            table.add_row(name, size(a), size(b), change(a, b))
    macs = before.macs, after.macs
    table.add_row("MACs", *map(number, macs), change(*macs))
    held = before.runtime_bytes, after.runtime_bytes
    if None not in held:
        table.add_row("held by a run", *(size(h or 0) for h in held), change(*held))
    if report.latency is not None:
        timed = report.latency
        p50 = timed.before.p50, timed.after.p50
        table.add_row("latency p50", *map(duration, p50), change(1.0, timed.ratio.median))
    gate = report.gate
    if gate is not None and gate.before is not None and gate.after is not None:
        values = (f"{gate.before:.6g}", f"{gate.after:.6g}")
        table.add_row(printable(gate.metric), *values, _points(gate.drop))
    return table


def render_written(report: Report, target: str) -> list[Text]:
    """The end of a run: where its results are, and how much smaller than the original's files.

    Args:
        report: the report.
        target: where the result was written to.
    """
    original, packing = report.input.disk_bytes, report.packing
    if packing is not None and packing.after.path == target:
        return [_written("wrote", target, packing.after.packed_bytes, original)]
    lines = [_written("wrote", target, report.output.disk_bytes, original)]
    if packing is not None and packing.after.path:
        after = packing.after
        lines.append(_written("packed", after.path, after.packed_bytes, original))
    return lines


def _written(what: str, path: str, now: int, original: int) -> Text:
    return Text(f"{what} {printable(path)}: {size(now)}{times(original, now)}")


def _points(drop: float | None) -> str:
    """A drop as a change of the value, in points of a percentage."""
    if drop is None:
        return ""
    return "=" if drop == 0 else f"{-100 * drop:+.2g} pt"


def gate_line(gate: GateInfo, chosen: str = "") -> Text:
    """The verdict on what was lost."""
    line = Text("budget ")
    line.append(gate.verdict, style=STYLES[gate.verdict])
    line.append(f" on {gate.samples} samples: {printable(gate.metric)} {printable(gate.why, 500)}")
    line.append(f" (each end at {100 * gate.confidence:.4g} % confidence)")
    if chosen:
        line.append(f"; metric chosen: {printable(chosen, 300)}", style="dim")
    return line


def _latency_line(timed: LatencyInfo) -> Text:
    """What the timings allow to say."""
    line = Text("latency ")
    line.append(timed.claim, style=STYLES[timed.claim])
    return line.append(
        f": {timed.ratio.median:.3f} of the original's "
        f"({timed.ratio.low:.3f} to {timed.ratio.high:.3f} at 95 % confidence; "
        f"{timed.provider}, {timed.threads} thread(s), {timed.rounds} interleaved rounds)"
    )


def _verdict_line(report: Report) -> Text:
    verdict = report.verdict
    line = Text("outputs ")
    line.append(report.equality, style=STYLES[report.equality])
    if verdict.verdict == "unproven":
        return line.append(f": {printable(verdict.why, 300)}")
    line.append(
        f" on {verdict.samples} sets of inputs, largest difference "
        f"{verdict.largest_difference:.1e} ({verdict.relative_difference:.0e} relative)"
    )
    if verdict.verdict == "different":
        line.append(f": {printable(verdict.why, 300)}")
    return line
