"""Charts that fit in a cell: bars, floating bars, intervals. Each is as wide as its cell."""

from __future__ import annotations

from markupsafe import Markup

from graphopt.report.html.svg import Scale, element, extent, finite, share, strip

HEIGHT = 18
MIDDLE = HEIGHT / 2


def _rect(left: float, right: float, top: float, height: float, kind: str) -> Markup:
    """A bar between two shares of the width; one that is too short to see keeps a hair of width."""
    width = share(right - left)
    if right - left < 0.006:
        left, width = min(left, 0.994), "0.6%"
    return element("rect", class_=kind, x=share(left), y=top, width=width, height=height, rx=1.5)


def _tall(at: float, kind: str) -> Markup:
    return element("line", class_=kind, x1=share(at), x2=share(at), y1=0, y2=HEIGHT)


def _whisker(low: float, high: float, kind: str) -> Markup:
    """An interval: a level line with a cap at both ends."""
    lines = [(low, high, MIDDLE, MIDDLE), *((at, at, MIDDLE - 3, MIDDLE + 3) for at in (low, high))]
    return Markup("").join(
        element("line", class_=f"whisker {kind}", x1=share(a), x2=share(b), y1=top, y2=bottom)
        for a, b, top, bottom in lines
    )


def bar(value: float | None, most: float, kind: str = "after") -> Markup:
    """A bar from zero."""
    if value is None or not finite([value]) or most <= 0:
        return strip(HEIGHT)
    return strip(HEIGHT, _rect(0, value / most, 4, HEIGHT - 8, kind))


def pair(before: float | None, after: float | None, most: float | None = None) -> Markup:
    """The original's bar above the result's, from zero.

    Args:
        before: of the original.
        after: of the result.
        most: the value that fills the width; the larger of both where it is None.
    """
    most = max(finite([before, after]), default=0.0) if most is None else most
    if most <= 0:
        return Markup("")
    bars = [
        _rect(0, value / most, top, 6, kind)
        for value, top, kind in ((before, 1, "before"), (after, 10, "after"))
        if value is not None and finite([value])
    ]
    return strip(HEIGHT, *bars)


def waterfall(start: float, end: float, most: float) -> Markup:
    """The part between what there was and what is left; green less, red more, with a sign beside it."""
    if most <= 0:
        return strip(HEIGHT)
    low, high = sorted((start / most, end / most))
    if start == end:
        return strip(HEIGHT, _tall(end / most, "level"))
    return strip(
        HEIGHT,
        _rect(low, high, 4, HEIGHT - 8, "less" if end < start else "more"),
        _tall(end / most, "level"),
    )


def drop_scale(values: list[float | None]) -> Scale:
    """A scale for drops: it holds zero and all of the values, and has room for words at its right."""
    low, high = extent([0.0, *values], 0.06, 0.3)
    return Scale(low, high)


def drop_axis(scale: Scale, limit: float | None) -> Markup:
    """What stands over a column of intervals: where no drop and the limit are."""
    zero = scale(0.0)
    parts = [element("text", "0", class_="tick", x=share(zero), y=13, text_anchor="middle")]
    if limit is not None and finite([limit]):
        at = scale(limit)
        if abs(at - zero) < 0.06:
            parts = []
        parts.append(element("text", "limit", class_="tick over", x=share(at), dx=-4, y=13))
    return strip(HEIGHT, *parts)


def interval(
    low: float | None,
    value: float | None,
    high: float | None,
    scale: Scale,
    limit: float | None,
    kind: str,
) -> Markup:
    """An estimate with its interval, against no drop and against the limit."""
    parts = [_tall(scale(0.0), "zero")]
    if limit is not None and finite([limit]):
        parts.append(_tall(scale(limit), "limit"))
    if (
        len(finite([low, value, high])) == 3
        and low is not None
        and value is not None
        and high is not None
    ):
        parts += [
            _whisker(scale(low), scale(high), kind),
            element("circle", class_=f"dot {kind}", cx=share(scale(value)), cy=MIDDLE, r=4),
        ]
    return strip(HEIGHT, *parts)


def spread(p10: float, p50: float, p90: float, most: float, kind: str) -> Markup:
    """A median as a bar from zero, with its 10th and 90th percentile."""
    if most <= 0 or len(finite([p10, p50, p90])) < 3:
        return strip(HEIGHT)
    return strip(
        HEIGHT,
        _rect(0, p50 / most, 4, HEIGHT - 8, kind),
        _whisker(p10 / most, p90 / most, "ink"),
    )
