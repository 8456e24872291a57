"""The loss that each layer causes alone, by strength: a heat map that is a table."""

from __future__ import annotations

import math
from dataclasses import dataclass

from markupsafe import Markup

from graphopt.report.format import number
from graphopt.report.html.blocks import (
    Block,
    Cell,
    Column,
    Details,
    Heading,
    Limits,
    Note,
    Row,
    Section,
    Table,
    cut,
)
from graphopt.report.html.figures import interval, plain, points
from graphopt.report.html.svg import finite
from graphopt.report.html.text import METRIC, compose, middle, name
from graphopt.report.judgement import SensitivityInfo

SHADES = 7
"""Steps of the colour scale, from no loss to the largest."""

_KINDS = {
    "sparsity": ("Sparsity: a share of the weights set to zero", "zero"),
    "bits": ("Bits: the weights rounded to fewer bits", "bits"),
    "activations": ("Activations: what a node reads rounded to fewer bits", "bits"),
    "both": ("Weights (w) and what a node reads (a) rounded together", ""),
    "clusters": ("Clusters: the weights reduced to a few values", "values"),
}


@dataclass(frozen=True)
class _Shading:
    """Drops to shades, by the square root, so that small losses are told apart beside large ones."""

    most: float

    def __call__(self, drop: float) -> int:
        if self.most <= 0 or drop <= 0:
            return 0
        return min(SHADES - 1, 1 + int((SHADES - 1) * math.sqrt(drop / self.most) * 0.9999))

    def edges(self) -> list[float]:
        """The drops at which the next shade begins, from the second shade on."""
        return [self.most * (step / (SHADES - 1)) ** 2 for step in range(SHADES)]


def section(
    rows: list[SensitivityInfo], metric: str, limit: float | None, limits: Limits
) -> Section | None:
    """One map for each kind of change, and all measurements as a table."""
    drawable = [row for row in rows if len(finite([row.drop, row.strength])) == 2]
    if not drawable:
        return None
    shading = _Shading(max(row.drop for row in drawable))
    blocks: list[Block] = [Note(_legend(shading), "legends")]
    kinds = [kind for kind in _KINDS if any(row.kind == kind for row in drawable)]
    for kind in kinds:
        found = [row for row in drawable if row.kind == kind]
        blocks += [Heading(_KINDS[kind][0]), _map(found, kind, shading, limit, limits)]
    blocks.append(Details("All measurements with their intervals", [_table(rows, limits)]))
    over = (
        f" A ring marks a drop of more than {points(limit)}, the limit of the budget."
        if limit is not None
        else ""
    )
    lead = (
        "One layer is changed, the rest of the model stays as it is, and the drop of the metric is measured. "
        f"The figures are drops in points of {middle(metric, METRIC) or 'the metric'}, in per cent.{over}"
    )
    return Section("sensitivity", "How sensitive each layer is", lead, blocks)


def _legend(shading: _Shading) -> Markup:
    edges = shading.edges()
    words = ["none"] + [f"to {_figure(edge)} %" for edge in edges[1:]]
    if shading.most <= 0:
        words = words[:1]
    parts = [
        compose('<span class="legend"><span class="swatch heat h{}"></span>{}</span>', shade, word)
        for shade, word in enumerate(words)
    ]
    return Markup('<span class="legend muted">Drop</span>') + Markup("").join(parts)


def strength_text(kind: str, strength: float, activations: int | None = None) -> str:
    """What was done to a layer, as in ``4 bits`` or ``w8a8``."""
    if kind not in _KINDS:
        return plain(strength)
    if kind == "both":
        return f"w{strength:.4g}a{activations}"
    text = f"{100 * strength:.4g} %" if kind == "sparsity" else f"{strength:.4g}"
    return f"{text} {_KINDS[kind][1]}"


def _figure(drop: float) -> str:
    """A drop in per cent, without the sign of per cent, as short as can be."""
    scaled = 100 * drop
    if scaled and abs(scaled) < 0.005:
        return "<0.01" if scaled > 0 else "0.00"
    return (
        f"{scaled:.2f}"
        if abs(scaled) < 10
        else f"{scaled:.1f}"
        if abs(scaled) < 100
        else f"{scaled:.0f}"
    )


def _map(
    rows: list[SensitivityInfo], kind: str, shading: _Shading, limit: float | None, limits: Limits
) -> Table:
    """Layers by strengths, the mildest first."""
    strengths = sorted({_place(row) for row in rows}, reverse=kind != "sparsity")
    strengths, hidden = cut(strengths, 12)
    layers: dict[str, dict[tuple[float, int], SensitivityInfo]] = {}
    for row in rows:
        layers.setdefault(row.layer, {})[_place(row)] = row
    worst = sorted(layers, key=lambda layer: -max(row.drop for row in layers[layer].values()))
    kept = set(worst[: limits.heat])
    left_out = len(layers) - len(kept)
    lines = [
        _line(layer, layers[layer], strengths, shading, limit) for layer in layers if layer in kept
    ]
    columns = [Column("Layer", "name"), Column("Operator"), Column("Weights", "number")]
    columns += [Column(strength_text(kind, *strength), "heat") for strength in strengths]
    caption = f"{hidden} more strengths are in the JSON." if hidden else ""
    if left_out:
        caption = f"The most sensitive {len(kept)} layers, in the order of the model. {caption}"
    label = f"Drop by layer and strength: {_KINDS[kind][0]}"
    return Table(label, tuple(columns), lines, left_out, caption)


def _place(row: SensitivityInfo) -> tuple[float, int]:
    """What tells the columns of a map apart."""
    return row.strength, row.activations or 0


def _line(
    layer: str,
    cells: dict[tuple[float, int], SensitivityInfo],
    strengths: list[tuple[float, int]],
    shading: _Shading,
    limit: float | None,
) -> Row:
    first = next(iter(cells.values()))
    shown: list[Cell] = [name(layer, 36), name(first.op, 20), number(first.parameters)]
    classes: dict[int, str] = {}
    for strength in strengths:
        found = cells.get(strength)
        if found is None:
            shown.append("")
            continue
        over = " ring" if limit is not None and found.drop > limit else ""
        classes[len(shown)] = f"h{shading(found.drop)}{over}"
        hover = f"{interval(found.low, found.high)}"
        shown.append(compose('<span title="{}">{}</span>', hover, _figure(found.drop)))
    return Row(tuple(shown), classes=classes)


def _table(rows: list[SensitivityInfo], limits: Limits) -> Table:
    shown, left_out = cut(rows, 2 * limits.rows)
    columns = (
        Column("Layer", "name"),
        Column("Strength"),
        Column("Drop", "number"),
        Column("Interval", "number"),
        Column("Outputs' SQNR", "number"),
    )
    lines = [
        Row(
            (
                name(row.layer, 36),
                strength_text(row.kind, row.strength, row.activations),
                points(row.drop),
                interval(row.low, row.high),
                "equal" if row.sqnr_db is None else f"{row.sqnr_db:.1f} dB",
            )
        )
        for row in shown
    ]
    return Table("All measurements", columns, lines, left_out)
