"""A scatter plot with error bars: what a candidate costs against what it keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from graphopt.report.html.svg import Scale, decimals, element, extent, image, path, ticks

WIDTH, HEIGHT = 400, 296
LEFT, RIGHT, TOP, BOTTOM = 52, 392, 26, 252
LETTER = 7.0
"""Pixels of a letter at the size of labels: an upper estimate over the usual system fonts."""

FAR = 2.0
"""Times the largest cost up to which its interval is drawn; one that goes on ends in an arrow."""

Kind = Literal["original", "accepted", "rejected", "result"]


@dataclass(frozen=True)
class Estimate:
    """A value with its interval; both ends are the value where nothing is known of them."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Point:
    """A model in the plot.

    Attributes:
        kind: what became of it; chooses the mark.
        label: written beside it.
        across: its cost.
        up: its value.
    """

    kind: Kind
    label: str
    across: Estimate
    up: Estimate


@dataclass(frozen=True)
class Axis:
    """An axis.

    Attributes:
        title: what it measures, in which unit, and which way is better.
        unit: what the values are divided by before they are written.
    """

    title: str
    unit: float


def scatter(
    label: str, points: list[Point], across: Axis, up: Axis, limit: float | None, higher: bool
) -> Markup:
    """Draw models as points.

    Args:
        label: the plot in words.
        points: in the order drawn.
        across: the horizontal axis; it starts at zero.
        up: the vertical axis.
        limit: the value at which the budget ends; None where there is none.
        higher: whether larger values are better, so that below the limit is over the budget.
    """
    middles = max([point.across.value for point in points], default=0.0)
    highest = min(max([point.across.high for point in points], default=0.0), FAR * middles) or 1.0
    x = Scale(0.0, highest * 1.08, LEFT, RIGHT)
    heights = [value for point in points for value in (point.up.low, point.up.high)]
    low, high = extent([*heights, limit], 0.1, 0.1)
    y = Scale(low, high, BOTTOM, TOP)
    return image(
        "scatter",
        label,
        WIDTH,
        HEIGHT,
        *_limit(points, x, y, limit, higher),
        *_horizontal(x, across),
        *_vertical(y, up),
        *(_bars(point, x, y) for point in points),
        *(mark(point.kind, x(point.across.value), y(point.up.value)) for point in points),
        *_labels(points, x, y),
    )


def _limit(
    points: list[Point], x: Scale, y: Scale, limit: float | None, higher: bool
) -> list[Markup]:
    """The line of the limit, and a shade over what lies beyond it."""
    if limit is None:
        return []
    at = y(limit)
    top, height = (at, BOTTOM - at) if higher else (TOP, at - TOP)
    base = at + 14 if higher else at - 6
    right = (RIGHT - 92, base - 20, RIGHT, base + 12)
    free = not any(_overlap(_around(point, x, y), right) for point in points)
    place, anchor = (RIGHT - 6, "end") if free else (LEFT + 6, "start")
    words = element(
        "text", "over the limit", class_="tick over", x=place, y=base, text_anchor=anchor
    )
    return [
        element("rect", class_="beyond", x=LEFT, y=top, width=RIGHT - LEFT, height=height),
        element("line", class_="limit", x1=LEFT, x2=RIGHT, y1=at, y2=at),
        words,
    ]


def _around(point: Point, x: Scale, y: Scale) -> tuple[float, float, float, float]:
    """The place that a mark takes."""
    left, top = x(point.across.value), y(point.up.value)
    return (left - 7, top - 7, left + 7, top + 7)


def _steps(scale: Scale, axis: Axis, most: int) -> tuple[list[float], int]:
    """Tick values in the axis' unit, and the digits that they need."""
    values = ticks(scale.low / axis.unit, scale.high / axis.unit, most)
    return values, decimals(values[1] - values[0]) if len(values) > 1 else 2


def _horizontal(x: Scale, axis: Axis) -> list[Markup]:
    values, digits = _steps(x, axis, 5)
    parts = [element("line", class_="axis", x1=LEFT, x2=RIGHT, y1=BOTTOM, y2=BOTTOM)]
    for value in values:
        at = x(value * axis.unit)
        parts.append(element("line", class_="axis", x1=at, x2=at, y1=BOTTOM, y2=BOTTOM + 4))
        text = f"{value:.{digits}f}"
        parts.append(
            element("text", text, class_="tick", x=at, y=BOTTOM + 18, text_anchor="middle")
        )
    middle = (LEFT + RIGHT) / 2
    parts.append(
        element("text", axis.title, class_="title", x=middle, y=HEIGHT - 8, text_anchor="middle")
    )
    return parts


def _vertical(y: Scale, axis: Axis) -> list[Markup]:
    values, digits = _steps(y, axis, 5)
    parts = []
    for value in values:
        at = y(value * axis.unit)
        parts.append(element("line", class_="grid-line", x1=LEFT, x2=RIGHT, y1=at, y2=at))
        text = f"{value:.{digits}f}"
        parts.append(element("text", text, class_="tick", x=LEFT - 8, y=at + 4, text_anchor="end"))
    parts.append(element("text", axis.title, class_="title", x=4, y=13))
    return parts


def _bars(point: Point, x: Scale, y: Scale) -> Markup:
    """The intervals of a point."""
    at_x, at_y = x(point.across.value), y(point.up.value)
    arrow = "m-5 -3l5 3l-5 3" if point.across.high > x.high else ""
    return path(
        f"error {point.kind}",
        f"M{at_x:.1f} {y(point.up.low):.1f}V{y(point.up.high):.1f}"
        f"M{x(point.across.low):.1f} {at_y:.1f}H{x(point.across.high):.1f}{arrow}",
    )


def mark(kind: Kind, x: float, y: float) -> Markup:
    """The mark of a kind of model; the shapes differ, so colour is not needed to tell them apart."""
    shapes = {
        "original": f"M{x - 5:.1f} {y - 5:.1f}h10v10h-10z",
        "accepted": f"M{x - 5:.1f} {y:.1f}a5 5 0 1 0 10 0a5 5 0 1 0-10 0z",
        "rejected": f"M{x - 4.5:.1f} {y - 4.5:.1f}l9 9m0-9l-9 9",
        "result": f"M{x:.1f} {y - 7.5:.1f}l7.5 7.5l-7.5 7.5l-7.5-7.5z",
    }
    return path(f"mark {kind}", shapes[kind])


def key(kind: Kind) -> Markup:
    """A mark alone, for the legend."""
    return element(
        "svg",
        mark(kind, 9, 9),
        class_="key",
        width=18,
        height=18,
        viewBox="0 0 18 18",
        aria_hidden="true",
    )


def _labels(points: list[Point], x: Scale, y: Scale) -> list[Markup]:
    """Labels where nothing is in their way; those that find no place are left to the table."""
    taken = [_around(point, x, y) for point in points]
    parts = []
    order = sorted(
        range(len(points)), key=lambda index: points[index].kind in ("accepted", "rejected")
    )
    for index in order:
        point = points[index]
        width = LETTER * len(point.label)
        for left, base in _places(x(point.across.value), y(point.up.value), width):
            box = (left, base - 10, left + width, base + 3)
            inside = box[0] > LEFT and box[2] < RIGHT + 8 and box[1] > TOP - 8 and box[3] < BOTTOM
            if inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                parts.append(element("text", point.label, class_="label", x=left, y=base))
                break
    return parts


def _places(x: float, y: float, width: float) -> list[tuple[float, float]]:
    """Where a label may stand: left end and baseline, the best place first."""
    return [
        (x + 10, y - 6),
        (x - 10 - width, y - 6),
        (x + 10, y + 14),
        (x - 10 - width, y + 14),
        (x - width / 2, y - 14),
        (x - width / 2, y + 22),
    ]


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
