"""A histogram of an activation with the grid that it is rounded to: what is kept, and what is clipped."""

from __future__ import annotations

import math

from markupsafe import Markup

from graphopt.report.html.histogram import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    drawable,
    ground,
    outline,
    rebinned,
    shares,
)
from graphopt.report.html.svg import Scale, element, finite, image, path
from graphopt.report.models import HistogramInfo
from graphopt.report.quantized import RangeInfo

APART = 3.0
"""Pixels between two marks of the grid at least."""


def has_picture(found: RangeInfo | None) -> bool:
    """Whether an activation's histogram and grid can be drawn."""
    return (
        found is not None
        and drawable(found.histogram)
        and len(finite([found.low, found.high, found.scale])) == 3
        and found.low < found.high
        and found.scale > 0
        and math.isfinite(_end(found, 1) - _end(found, 0))
    )


def picture(found: RangeInfo, label: str) -> Markup:
    """Draw an activation; the height of a bin is the square root of its share.

    Args:
        found: with a histogram and a grid that can be drawn.
        label: the chart in words.
    """
    assert found.histogram is not None
    histogram = rebinned(found.histogram)
    x = Scale(_end(found, 0), _end(found, 1), LEFT, RIGHT)
    y = Scale(0.0, math.sqrt(max(shares(histogram.counts))), BOTTOM, TOP)
    low, high = x(found.low), x(found.high)
    shapes = [
        element("rect", class_="beyond", x=left, y=TOP, width=right - left, height=BOTTOM - TOP)
        for left, right in ((LEFT, low), (high, RIGHT))
        if right - left > 0.5
    ]
    for kind, a, b in (
        ("hist-clipped", -math.inf, found.low),
        ("hist-after", found.low, found.high),
        ("hist-clipped", found.high, math.inf),
    ):
        edges, parts = _between(histogram, a, b)
        shapes += [path(kind, outline(edges, parts, x, y))] if parts else []
    shapes += [
        element("line", class_="range-end", x1=at, x2=at, y1=TOP, y2=BOTTOM + 11)
        for at in (low, high)
    ]
    return image("histogram", label, WIDTH, HEIGHT, *shapes, *ground(x), *_marks(found, x))


def steps_a_mark(found: RangeInfo) -> int:
    """How many steps of the grid lie between two marks: a power of two, so that the marks are told apart."""
    span = max(_end(found, 1) - _end(found, 0), found.scale)
    pixels = found.scale * (RIGHT - LEFT) / span
    return int(2 ** max(0, math.ceil(math.log2(APART / pixels)))) if pixels > 1e-9 else 1 << 40


def _end(found: RangeInfo, place: int) -> float:
    """An end of the axis: of what was seen and of the grid the further one."""
    assert found.histogram is not None
    edges = found.histogram.edges
    return max(edges[-1], found.high) if place else min(edges[0], found.low)


def _between(histogram: HistogramInfo, low: float, high: float) -> tuple[list[float], list[float]]:
    """The edges and shares of the bins between two ends; bins that an end passes through are cut."""
    edges = histogram.edges
    bins = zip(edges, edges[1:], shares(histogram.counts), strict=False)
    inside = [(max(a, low), min(b, high), part) for a, b, part in bins if b > low and a < high]
    if not inside:
        return [], []
    return [inside[0][0], *(b for _, b, _ in inside)], [part for *_, part in inside]


def _marks(found: RangeInfo, x: Scale) -> list[Markup]:
    """Marks of the grid under the axis; the one of 0 is longer."""
    step = found.scale * steps_a_mark(found)
    first, last = math.ceil(found.low / step - 1e-6), math.floor(found.high / step + 1e-6)
    if not 0 < last - first < 2 * (RIGHT - LEFT):
        return []
    marks = "".join(
        f"M{x(place * step):.1f} {BOTTOM + 3}v{8 if place == 0 else 5}"
        for place in range(first, last + 1)
    )
    return [path("code", marks)]
