"""The layers one by one: what their weights were and are, and how far their outputs moved."""

from __future__ import annotations

from collections.abc import Callable

from graphopt.report.format import change, number, size
from graphopt.report.html import strips
from graphopt.report.html.blocks import (
    Block,
    Column,
    Figure,
    Heading,
    Limits,
    Note,
    Row,
    Section,
    Table,
    cut,
)
from graphopt.report.html.gallery import gallery
from graphopt.report.html.histogram import distance, drawable, histogram
from graphopt.report.html.svg import finite
from graphopt.report.html.text import name, safe
from graphopt.report.models import LayerInfo
from graphopt.report.tree import Report


def section(report: Report, limits: Limits) -> Section | None:
    """Histograms of the weights that changed most, and a table of all layers."""
    layers = report.layers
    if not layers:
        return None
    changed = [layer for layer in layers if drawable(layer.before) and drawable(layer.after)]
    changed.sort(key=lambda layer: -distance(layer))
    blocks: list[Block] = _histograms(changed, limits)
    blocks += [Heading("All layers"), _table(layers, limits)]
    lead = (
        "The layers that have weights. SQNR, the signal-to-quantization-noise ratio, compares the output of "
        "a layer with the original's: more decibels mean less noise."
    )
    return Section("layers", "Weights of each layer", lead, blocks)


def _histograms(changed: list[LayerInfo], limits: Limits) -> list[Block]:
    """Small histograms, the most changed first."""
    if not changed:
        return [Note("No layer's weights take other values than before.")]
    return [
        Heading("How the values of the weights moved"),
        Note(
            "The grey outline is before, blue after. Ticks under the axis are the values that the weights "
            "take, where these are few. Heights are square roots, so that rare values are seen. The most "
            "changed layers come first.",
            "quiet",
        ),
        *gallery(changed, _figure, limits, "layers"),
    ]


def _figure(layer: LayerInfo) -> Figure:
    kept = "gone" if layer.parameters_after is None else number(layer.parameters_after)
    words = [f"{number(layer.parameters)} weights"]
    if layer.parameters_after != layer.parameters:
        words = [f"{number(layer.parameters)} weights to {kept}"]
    if layer.codebook is not None:
        words.append("1 value" if len(layer.codebook) == 1 else f"{len(layer.codebook)} values")
    if layer.weight_bytes_after is not None and layer.weight_bytes_after != layer.weight_bytes:
        words.append(change(layer.weight_bytes, layer.weight_bytes_after) + " bytes")
    label = (
        f"Histogram of the weights of {safe(layer.name, 80)} before and after: "
        f"{100 * distance(layer):.0f} % of the distribution moved"
    )
    return Figure(name(layer.name, 56), layer.name, histogram(layer, label), ", ".join(words))


def _table(layers: list[LayerInfo], limits: Limits) -> Table:
    """A row for each layer in the model's order; where there are too many, the most changed ones."""
    order = sorted(range(len(layers)), key=lambda index: _harm(layers[index]))
    kept, left_out = cut(order, limits.layers)
    noise = [value for layer in layers for value in finite([layer.sqnr_db])]
    most = max([*noise, 1.0])
    columns = [
        Column("Layer", "name"),
        Column("Operator"),
        Column("Weights", "number"),
        Column("after", "number"),
        Column("Bytes", "number"),
        Column("after", "number"),
        Column("Values", "number"),
    ]
    if noise:
        columns += [Column("Output's SQNR", "chart"), Column("dB", "number")]
    rows = [_row(layers[index], bool(noise), most) for index in sorted(kept)]
    caption = "The layers that changed most, in the order of the model." if left_out else ""
    return Table("Layers before and after", tuple(columns), rows, left_out, caption)


def _harm(layer: LayerInfo) -> tuple[float, float]:
    """Sorts the noisiest layers first, then the most changed."""
    noise = finite([layer.sqnr_db])
    return (noise[0] if noise else float("inf"), -distance(layer))


def _row(layer: LayerInfo, noise: bool, most: float) -> Row:
    gone = layer.parameters_after is None
    cells = [
        name(layer.name),
        name(layer.op, 20),
        number(layer.parameters),
        "gone" if gone else _if_changed(layer.parameters, layer.parameters_after, number),
        size(layer.weight_bytes),
        "gone"
        if layer.weight_bytes_after is None
        else _if_changed(layer.weight_bytes, layer.weight_bytes_after, size),
        f"{len(layer.codebook):,}" if layer.codebook is not None else "",
    ]
    if noise:
        found = finite([layer.sqnr_db])
        cells += [strips.bar(layer.sqnr_db, most), f"{found[0]:.1f}" if found else ""]
    return Row(tuple(cells))


def _if_changed(before: int, after: int | None, show: Callable[[float], str]) -> str:
    return "=" if before == after or after is None else show(after)
