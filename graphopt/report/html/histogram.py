"""A histogram before and after, with the values of a codebook as ticks under it."""

from __future__ import annotations

import math

from markupsafe import Markup

from graphopt.report.html.figures import plain
from graphopt.report.html.svg import Scale, element, finite, image, path
from graphopt.report.models import HistogramInfo, LayerInfo

WIDTH, HEIGHT = 230, 126
LEFT, RIGHT, TOP, BOTTOM = 4, 226, 6, 92
BINS = 64


def distance(layer: LayerInfo) -> float:
    """How much the distribution of a layer's weights changed, from 0 to 1 (total variation)."""
    if layer.parameters_after is None:
        return 1.0
    if layer.after is None:
        return 0.0
    before, after = shares(layer.before.counts), shares(layer.after.counts)
    return 0.5 * sum(abs(a - b) for a, b in zip(before, after, strict=False))


def shares(counts: list[int]) -> list[float]:
    """Counts as parts of their sum."""
    total = sum(counts)
    return [count / total if total else 0.0 for count in counts]


def rebinned(histogram: HistogramInfo) -> HistogramInfo:
    """A histogram of few enough bins to see: neighbours are added up."""
    step = math.ceil(len(histogram.counts) / BINS)
    if step <= 1:
        return histogram
    starts = range(0, len(histogram.counts), step)
    counts = [sum(histogram.counts[start : start + step]) for start in starts]
    return HistogramInfo([*histogram.edges[:-1:step], histogram.edges[-1]], counts)


def drawable(histogram: HistogramInfo | None) -> bool:
    """Whether a histogram has bins of finite, rising edges and anything in them."""
    return (
        histogram is not None
        and len(histogram.edges) == len(histogram.counts) + 1 > 1
        and len(finite(histogram.edges)) == len(histogram.edges)
        and histogram.edges[-1] > histogram.edges[0]
        and sum(histogram.counts) > 0
    )


def histogram(layer: LayerInfo, label: str) -> Markup:
    """Draw the weights of a layer; the height of a bin is the square root of its share.

    Args:
        layer: with a histogram that can be drawn.
        label: the chart in words.
    """
    parts = [rebinned(found) for found in (layer.before, layer.after) if found and drawable(found)]
    x = Scale(parts[0].edges[0], parts[0].edges[-1], LEFT, RIGHT)
    highest = max(max(shares(part.counts)) for part in parts)
    y = Scale(0.0, math.sqrt(highest), BOTTOM, TOP)
    shapes = [
        path(kind, outline(part.edges, shares(part.counts), x, y))
        for part, kind in zip(parts, ("hist-before", "hist-after"), strict=False)
    ]
    return image(
        "histogram", label, WIDTH, HEIGHT, *shapes[::-1], *ground(x), *_codebook(layer.codebook, x)
    )


def outline(edges: list[float], parts: list[float], x: Scale, y: Scale) -> str:
    """The outline of bins that hold so large parts, as the data of a path."""
    line = [f"M{x(edges[0]):.1f} {BOTTOM}"]
    for right, part in zip(edges[1:], parts, strict=True):
        line.append(f"V{y(math.sqrt(part)):.1f}H{x(right):.1f}")
    return "".join([*line, f"V{BOTTOM}z"])


def ground(x: Scale) -> list[Markup]:
    """The axis with both ends, and zero where it does not collide with them."""
    parts = [element("line", class_="axis", x1=LEFT, x2=RIGHT, y1=BOTTOM, y2=BOTTOM)]
    ends: list[tuple[float, float, str]] = [(x.low, LEFT, "start"), (x.high, RIGHT, "end")]
    if x.low < 0 < x.high and 70 < x(0.0) < RIGHT - 66:
        ends.append((0.0, x(0.0), "middle"))
    for value, at, anchor in ends:
        text = plain(value, 3)
        parts.append(element("text", text, class_="tick", x=at, y=HEIGHT - 6, text_anchor=anchor))
    return parts


def _codebook(codebook: list[float] | None, x: Scale) -> list[Markup]:
    """One tick for each value."""
    values = [value for value in finite(codebook or []) if x.low <= value <= x.high]
    if not values:
        return []
    marks = "".join(f"M{x(value):.1f} {BOTTOM + 3}v8" for value in values[:256])
    return [path("code", marks)]
