"""Sensitivity and explanations on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from graphopt.errors import printable
from graphopt.report.format import number
from graphopt.report.judgement import SensitivityInfo, SensitivityReport
from graphopt.report.terminal.tables import LISTED, STYLES, table_of

if TYPE_CHECKING:
    from graphopt.explain import Explanation
    from graphopt.report.tree import StepReport

NOTABLE = 0.01
"""A drop from which on it is shown in red; half of it in yellow."""


def render_sensitivity(found: SensitivityReport) -> RenderableType:
    """One table for each kind: layers in rows, strengths in columns, the drop of the metric in points."""
    parts: list[RenderableType] = [
        Text(
            f"{printable(found.metric)} {found.before:.4g} on {found.samples} samples; "
            "drop in points when one layer alone is changed",
            style="dim",
        )
    ]
    for kind in ("sparsity", "bits", "activations", "both", "clusters"):
        rows = [row for row in found.rows if row.kind == kind]
        if rows:
            parts += [Text(""), _kind(kind, rows)]
    parts += [Text(f"warning: {printable(w, 500)}", style="yellow") for w in found.warnings]
    return Group(*parts)


_Column = tuple[float, int | None]
"""A strength, and the bits of activations where these are rounded as well."""


def _kind(kind: str, rows: Sequence[SensitivityInfo]) -> Table:
    columns: list[_Column] = list(dict.fromkeys((row.strength, row.activations) for row in rows))
    table = table_of(f"{_title(kind, rows)}: layer", "operator", "weights", *_heads(kind, columns))
    layers: dict[str, dict[_Column, SensitivityInfo]] = {}
    for row in rows:
        layers.setdefault(row.layer, {})[row.strength, row.activations] = row
    for name, cells in layers.items():
        first = next(iter(cells.values()))
        shown = [_drop(cells[c]) if c in cells else Text("") for c in columns]
        table.add_row(printable(name, 60), first.op, number(first.parameters), *shown)
    return table


def _title(kind: str, rows: Sequence[SensitivityInfo]) -> str:
    if kind not in ("activations", "both"):
        return kind
    what = "bits of activations" if kind == "activations" else "bits of weights and activations"
    return f"{what} ({printable(rows[0].ranges, 20)})"


def _heads(kind: str, columns: Sequence[_Column]) -> list[str]:
    if kind == "both":
        return [f"w{strength:g}a{bits}" for strength, bits in columns]
    return [
        f"{100 * strength:g} %" if kind == "sparsity" else f"{strength:g}"
        for strength, _ in columns
    ]


def _drop(row: SensitivityInfo) -> Text:
    style = "red" if row.drop > NOTABLE else ("yellow" if row.drop > NOTABLE / 2 else "")
    value = 100 * row.drop
    return Text(f"{value:.2f}" if abs(value) < 1000 else f"{value:.1e}", style=style)


def render_explanation(found: Explanation) -> RenderableType:
    """What happened to one node, pass by pass."""
    table = table_of("pass", "what", "")
    for column in table.columns:
        column.justify = "left"
    for event in found.events:
        table.add_row(
            event.step, Text(event.what, style=STYLES[event.what]), printable(event.detail)
        )
    return Group(Text(printable(found.node), style="bold"), table)


def render_story(steps: Sequence[StepReport]) -> RenderableType:
    """What all passes did, the first entries of each."""
    parts: list[RenderableType] = []
    for step in steps:
        if not (step.edits or step.skips or step.taken_back):
            continue
        parts.append(Text(f"{step.name} ({step.status})", style=STYLES[step.status]))
        lines = [f"  {printable(e.node)}: {printable(e.what)}" for e in step.edits]
        lines += [f"  refused {printable(s.node)}: {printable(s.why)}" for s in step.skips]
        lines += [f"  took back {printable(t.node)}: {printable(t.what)}" for t in step.taken_back]
        parts += [Text(line) for line in lines[:LISTED]]
        if len(lines) > LISTED:
            parts.append(Text(f"  and {len(lines) - LISTED} more", style="dim"))
    return Group(*parts) if parts else Text("no pass did anything")
