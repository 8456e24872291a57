"""In which numbers nodes compute, on a terminal: how many, and the worst of those that changed."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.text import Text

from graphopt.errors import printable
from graphopt.report.quantized import QuantizedInfo, in_words, worst
from graphopt.report.terminal.tables import table_of
from graphopt.report.tree import StepReport

WORST = 5
"""Nodes that are listed."""


def render_quantized(step: StepReport, wide: bool) -> list[RenderableType]:
    """A line for a pass that quantized something, and its worst nodes.

    Args:
        step: what the pass did.
        wide: whether there is room for the reasons.
    """
    if not step.quantized:
        return []
    line = Text(f"{step.name}: {in_words(step.quantized)}")
    changed = [row for row in step.quantized if row.computes != "floats" and not row.moves]
    known = [row for row in changed if row.sqnr_db is not None or row.loss is not None]
    if not known:
        return [line]
    return [line, _table(worst(known)[:WORST], wide)]


def _table(rows: Sequence[QuantizedInfo], wide: bool) -> RenderableType:
    """Some nodes, with the columns in which any of them says something."""
    ends = [None if row.output is None else (row.output.low, row.output.high) for row in rows]
    columns = {
        "  worst nodes": [f"  {printable(row.node, 40)}" for row in rows],
        "in": [printable(row.precision, 40) for row in rows],
        "SQNR": ["" if row.sqnr_db is None else f"{row.sqnr_db:.1f} dB" for row in rows],
        "loss": ["" if row.loss is None else f"{row.loss:.1e}" for row in rows],
        "range": [
            "" if pair is None or not wide else "{:.3g} to {:.3g}".format(*pair) for pair in ends
        ],
        "before": [_microseconds(row.seconds_before) for row in rows],
        "after": [_microseconds(row.seconds_after) for row in rows],
    }
    filled = {name: cells for name, cells in columns.items() if any(cells)}
    table = table_of(*filled)
    for cells in zip(*filled.values(), strict=True):
        table.add_row(*cells)
    return table


def _microseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{1e6 * seconds:.3g} µs"
