"""In which numbers the nodes of a quantized model compute: how many, on which grids, at what cost, why."""

from __future__ import annotations

from markupsafe import Markup

from graphopt.report.html import strips
from graphopt.report.html.blocks import (
    Block,
    Cell,
    Column,
    Details,
    Figure,
    Heading,
    Limits,
    Note,
    Row,
    Section,
    Table,
    cut,
)
from graphopt.report.html.figures import plain, points
from graphopt.report.html.gallery import gallery
from graphopt.report.html.ranges import has_picture, picture, steps_a_mark
from graphopt.report.html.svg import finite
from graphopt.report.html.text import compose, hinted, name, safe
from graphopt.report.quantized import QuantizedInfo, RangeInfo, in_words, worst
from graphopt.report.tree import Report, StepReport

SHOWN = 20
"""Rows of a table that are seen at once."""

_BADGES = {"integers": ("good", "integers"), "stored": ("warn", "stored"), "floats": ("", "floats")}


def section(report: Report, limits: Limits) -> Section | None:
    """The nodes of each pass that quantized something."""
    steps = [step for step in report.steps if step.quantized]
    if not steps:
        return None
    blocks: list[Block] = []
    shown, left_out = cut(steps, limits.groups)
    for step in shown:
        if len(steps) > 1:
            blocks.append(Heading(name(step.name)))
        blocks += _step(step, limits)
    if left_out:
        blocks.append(Note(f"{left_out:,} more passes are left out here.", "quiet"))
    lead = (
        "Every node that could compute on integers or has its weights stored in few bits, and why it does. "
        "SQNR compares what a node gives with what the original gives: it holds the noise of all nodes "
        "before it, too, so a node on floats can be noisy. The predicted loss is that of the node alone, as "
        "a share of the outputs' variance."
    )
    return Section("quantized", "In which numbers it computes", lead, blocks)


def _step(step: StepReport, limits: Limits) -> list[Block]:
    rows = worst(step.quantized)
    blocks: list[Block] = [Note(_overview(rows), "legends"), *_pictures(rows, limits)]
    shown, rest = rows[:SHOWN], rows[SHOWN : SHOWN + limits.layers]
    left_out = max(0, len(rows) - SHOWN - limits.layers)
    blocks += [Heading("Node by node, the worst first"), _table(rows, shown, 0)]
    if rest:
        more = _table(rows, rest, left_out)
        blocks.append(Details(f"{len(rest):,} more nodes", [more]))
    return blocks


def _overview(rows: list[QuantizedInfo]) -> Markup:
    """How many nodes are of each kind, with the marks that the table has for them."""
    parts = [compose("<strong>{}</strong>", in_words(rows))]
    parts += [
        compose('<span class="legend">{} {}</span>', _badge(kind), text)
        for kind, text in (
            ("integers", "on 8-bit integers"),
            ("stored", "on floats, weights in few bits"),
            ("floats", "on floats as before"),
        )
        if any(row.computes == kind for row in rows)
    ]
    return Markup(" ").join(parts)


def _badge(kind: str) -> Markup:
    tone, word = _BADGES[kind]
    return compose('<span class="badge {}">{}</span>', tone, word)


def _pictures(rows: list[QuantizedInfo], limits: Limits) -> list[Block]:
    """The activations that are rounded, those that lose most first."""
    found: dict[str, RangeInfo] = {}
    for row in rows:
        if row.computes == "integers":
            for entry in (row.output, *row.inputs):
                if entry is not None and has_picture(entry):
                    found.setdefault(entry.tensor, entry)
    order = sorted(found.values(), key=_harm)
    if not order:
        return []
    return [
        Heading("Activations and the grids that they are rounded to"),
        Note(
            "Blue lies within the range of the grid, red is clipped to its ends. Marks under the axis are "
            "steps of the grid, the longer one is 0. Heights are square roots; zeros are left out, for every "
            "grid has them. What loses most comes first.",
            "quiet",
        ),
        *gallery(order, _figure, limits, "activations"),
    ]


def _harm(found: RangeInfo) -> tuple[float, float]:
    loss, clipped = finite([found.loss]), finite([found.clipped])
    return (-loss[0] if loss else 1.0, -clipped[0] if clipped else 1.0)


def _figure(found: RangeInfo) -> Figure:
    words = [f"{plain(found.low, 3)} to {plain(found.high, 3)} ({safe(found.method, 20)})"]
    words.append(f"a mark: {_steps(steps_a_mark(found))} of {plain(found.scale, 2)}")
    words.append(_clipped(found.clipped))
    if found.zeros > 0:
        words.append(f"{points(found.zeros)} zeros")
    if found.loss is not None:
        words.append(f"loses {plain(found.loss, 3)}")
    label = (
        f"Histogram of {safe(found.tensor, 80)}, seen from {plain(found.minimum, 3)} to "
        f"{plain(found.maximum, 3)}, with the grid from {plain(found.low, 3)} to {plain(found.high, 3)}"
    )
    return Figure(name(found.tensor, 56), found.tensor, picture(found, label), ", ".join(words))


def _clipped(share: float) -> str:
    if share <= 0:
        return "nothing clipped"
    return f"{'less than 0.01 %' if share < 1e-4 else points(share)} clipped"


def _steps(count: int) -> str:
    return "1 step" if count == 1 else f"{count:,} steps"


def _table(every: list[QuantizedInfo], rows: list[QuantizedInfo], left_out: int) -> Table:
    """Some rows; there is a column for what any row knows."""
    most = max([*finite(row.sqnr_db for row in every), 1.0])  # the same in each part of the list
    columns = [Column("Node", "name"), Column("Computes on")]
    noise = bool(finite(row.sqnr_db for row in every))
    lost = bool(finite(row.loss for row in every))
    timed = bool(finite(row.seconds_before for row in every))
    gridded = any(row.output is not None or row.inputs for row in every)
    weighted = any(row.weights for row in every)
    columns += [Column("Output's SQNR", "chart"), Column("dB", "number")] if noise else []
    columns += [Column("Predicted loss", "number")] if lost else []
    columns += [Column("µs before", "number"), Column("after", "number")] if timed else []
    columns += [Column("Weights", "number")] if weighted else []
    columns.append(Column("Why", "wide"))
    columns += [Column("Gives", "wide"), Column("Reads", "number")] if gridded else []
    lines = []
    for row in rows:
        cells: list[Cell] = [hinted(name(row.node), row.op), _computes(row)]
        if noise:
            known = finite([row.sqnr_db])
            cells += [strips.bar(row.sqnr_db, most), f"{known[0]:.1f}" if known else ""]
        cells += [_loss(row.loss)] if lost else []
        if timed:
            cells += [_time(row.seconds_before), _time(row.seconds_after)]
        cells += [_weights(row)] if weighted else []
        cells.append(safe(row.why, 200))
        if gridded:
            cells += ["" if row.output is None else _grid(row.output), _ranges(row.inputs)]
        lines.append(Row(tuple(cells)))
    label = "Nodes that could compute on integers, the worst first"
    return Table(label, tuple(columns), lines, left_out)


def _computes(row: QuantizedInfo) -> Markup:
    return compose('{} <span class="hint">{}</span>', _badge(row.computes), safe(row.precision, 60))


def _loss(loss: float | None) -> str:
    return "" if loss is None else plain(loss, 3)


def _time(seconds: float | None) -> str:
    known = finite([seconds])
    return plain(1e6 * known[0], 3) if known else ""


def _grid(found: RangeInfo) -> Markup:
    """The range of an activation, and how fine its grid is."""
    said = (
        '<span title="{}">{} to {}</span><span class="hint">step {}, zero point {}, {} kept</span>'
    )
    return compose(
        said,
        found.tensor,
        plain(found.low, 3),
        plain(found.high, 3),
        plain(found.scale, 2),
        found.zero_point,
        _kept(found.kept),
    )


def _ranges(found: list[RangeInfo]) -> Markup:
    """The ranges of some activations, a line for each."""
    said = '<span class="hint" title="{}">{} to {}</span>'
    return Markup("").join(
        compose(said, entry.tensor, plain(entry.low, 3), plain(entry.high, 3))
        for entry in found[:3]
    )


def _kept(kept: float) -> str:
    known = finite([kept])
    return f"{100 * known[0]:.0f} %" if known and abs(known[0]) < 1e6 else plain(kept, 2)


def _weights(row: QuantizedInfo) -> Markup:
    """Weights in few bits, and how noisy these are."""
    lines = []
    for weight in row.weights[:3]:
        known = finite([weight.sqnr_db])
        noise = f"{known[0]:.1f} dB" if known else "equal"
        block = f", {weight.block:,} to a scale" if weight.block > 0 else ""
        said = f"{weight.bits} {'bit' if weight.bits == 1 else 'bits'}{block}"
        lines.append(compose('{}<span class="hint">{}</span>', noise, said))
    return Markup("").join(lines)
