"""The waterfall: what each pass took from, or added to, the nodes, bytes and operations of the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from markupsafe import Markup

from graphopt.report.format import duration, number, signed, size
from graphopt.report.html import strips
from graphopt.report.html.badges import status_badge
from graphopt.report.html.blocks import Cell, Column, Limits, Row, Table, cut
from graphopt.report.html.figures import MetricScale, points
from graphopt.report.html.text import compose, name
from graphopt.report.judgement import GateInfo
from graphopt.report.tree import Report, StepReport


@dataclass(frozen=True)
class _Track:
    """One figure on its way from the original to the result.

    Attributes:
        title: of its column.
        before: at the start.
        after: at the end.
        steps: its change in each pass.
        show: writes it.
    """

    title: str
    before: int
    after: int
    steps: list[int]
    show: Callable[[float], str]

    def cells(self) -> list[tuple[Markup, str]]:
        """A bar and its figure for the original, each pass and the result."""
        levels = [self.before]
        for step in self.steps:
            levels.append(levels[-1] + step)
        most = max([*levels, self.after])
        moves = [
            (strips.waterfall(start, start + step, most), signed(step, self.show(abs(step))))
            for start, step in zip(levels, self.steps, strict=False)
        ]
        first = (strips.bar(self.before, most, "before"), self.show(self.before))
        last = (strips.bar(self.after, most, "after"), self.show(self.after))
        return [first, *moves, last]


def _tracks(report: Report, steps: list[StepReport]) -> list[_Track]:
    a, b = report.input, report.output
    found = [
        _Track("Nodes", a.nodes, b.nodes, [step.nodes for step in steps], number),
        _Track(
            "Weights", a.weight_bytes, b.weight_bytes, [step.weight_bytes for step in steps], size
        ),
    ]
    if a.macs is not None and b.macs is not None:
        found.append(_Track("MACs", a.macs, b.macs, [step.macs for step in steps], number))
    return found


def _metric(gate: GateInfo, scale: MetricScale) -> Markup:
    """The metric after a pass, and its drop since the original."""
    hint = compose('<span class="hint">drop {}</span>', points(gate.drop))
    return compose("{} {}", scale.value(gate.after), hint)


def _notable(steps: list[StepReport]) -> tuple[list[StepReport], list[StepReport]]:
    """The passes that moved a figure or did not go as asked, and the rest."""
    moved = [s for s in steps if s.nodes or s.weight_bytes or s.macs or s.status != "applied"]
    return moved, [step for step in steps if step not in moved]


def waterfall(report: Report, steps: list[StepReport], scale: MetricScale, limits: Limits) -> Table:
    """A row for each pass that changed something, between the original and the result.

    Args:
        report: the report.
        steps: its passes that had something to do.
        scale: of the metric, whose value after a pass is shown where it was judged.
        limits: how much fits.
    """
    shown, quiet = _notable(steps)
    tracks = _tracks(report, shown)
    moving = [track for track in tracks if any(track.steps) or track.before != track.after]
    still = [track.title for track in tracks if track not in moving]
    judged = {gate.step: gate for gate in report.gates if gate.accepted}
    cells = [track.cells() for track in moving]

    def row(index: int, title: Cell, state: Cell, metric: Cell, time: str) -> Row:
        charts = [part for track in cells for part in track[index]]
        values = (title, state, *charts, *((metric,) if judged else ()), time)
        return Row(values, tone="strong" if index in (0, len(shown) + 1) else "")

    first = scale.value(report.gates[0].before) if judged else ""
    rows = [row(0, "Original", "", first, "")]
    listed, left_out = cut(list(enumerate(shown, 1)), limits.rows)
    for index, step in listed:
        gate = judged.get(step.name)
        metric = _metric(gate, scale) if gate else ""
        rows.append(
            row(index, name(step.name), status_badge(step.status), metric, duration(step.seconds))
        )
    last = scale.value(report.gate.after) if report.gate else ""
    rows.append(row(len(shown) + 1, "Result", "", last, duration(report.seconds)))
    columns = [Column("Pass", "name"), Column("Status")]
    for track in moving:
        columns += [
            Column(track.title, "chart"),
            Column("change", "number"),
        ]
    columns += [Column("Metric after", "number")] if judged else []
    caption = f"No pass changed the {' and '.join(still)}. " if still else ""
    if quiet:
        caption += f"{len(quiet):,} more changed none of these figures; below is what they did."
    return Table(
        "What each pass changed, from the original to the result",
        (*columns, Column("Time", "number")),
        rows,
        left_out,
        caption,
    )
