"""SVG as text: elements, scales and ticks.

Positions are pixels, or shares of the width written as percentages, so that a chart keeps the size of its
text on every screen. There are no style attributes: a content security policy would drop them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from markupsafe import Markup, escape

from graphopt.report.html.text import TITLE, compose, safe

Value = str | float | int


def element(tag: str, *content: Markup | str, **attributes: Value) -> Markup:
    """One element.

    Args:
        tag: its name.
        content: elements, or text, which is made printable and escaped.
        attributes: by name; ``_`` stands for ``-``, one at the end is dropped, as in ``class_``.
    """
    said = Markup("").join(
        compose(' {}="{}"', key.rstrip("_").replace("_", "-"), _written(value))
        for key, value in attributes.items()
    )
    inside = Markup("").join(
        part if isinstance(part, Markup) else escape(safe(part, TITLE)) for part in content
    )
    return compose("<{0}{1}>{2}</{0}>", Markup(tag), said, inside)


def _written(value: Value) -> str:
    if isinstance(value, Markup):
        return value
    if isinstance(value, str):
        return safe(value, 2 * TITLE)
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def path(kind: str, d: str) -> Markup:
    """A path of numbers made here, however long."""
    return element("path", class_=kind, d=Markup(d))


def share(value: float) -> str:
    """A position as a share of the width, from 0 to 1."""
    return f"{100 * min(1.0, max(0.0, value)):.2f}%"


def image(kind: str, label: str, width: float, height: float, *content: Markup) -> Markup:
    """A chart of its own, with words for those who cannot see it.

    Args:
        kind: of the chart: the style knows how it fits a page.
        label: the words.
        width: in pixels.
        height: in pixels.
        content: what is drawn.
    """
    return element(
        "svg",
        *content,
        class_=f"chart {kind}",
        role="img",
        aria_label=label,
        viewBox=f"0 0 {width:g} {height:g}",
        width=width,
        height=height,
    )


def strip(height: int, *content: Markup) -> Markup:
    """A chart inside a cell, as wide as the cell; the figures beside it say the same."""
    return element("svg", *content, class_="strip", aria_hidden="true", width="100%", height=height)


@dataclass(frozen=True)
class Scale:
    """A linear map from values to positions.

    Attributes:
        low: the value at ``start``.
        high: the value at ``end``; more than ``low``.
        start: position of the lowest value.
        end: position of the highest value.
    """

    low: float
    high: float
    start: float = 0.0
    end: float = 1.0

    def __call__(self, value: float) -> float:
        """The position of a value; values beyond an end stay at it."""
        part = (min(self.high, max(self.low, value)) - self.low) / (self.high - self.low)
        return self.start + part * (self.end - self.start)


def finite(values: Iterable[float | None]) -> list[float]:
    """The values that can be drawn."""
    return [float(value) for value in values if value is not None and abs(value) < 1e300]


def extent(
    values: Iterable[float | None], before: float = 0.05, after: float = 0.05
) -> tuple[float, float]:
    """The range of some values, with room at both ends.

    Args:
        values: those that are not finite are ignored.
        before: room at the lower end, as a share of the range.
        after: room at the upper end.
    """
    found = finite(values) or [0.0]
    low, high = min(found), max(found)
    reach = high - low or abs(high) or 1.0
    return low - before * reach, high + after * reach


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round values within a range: multiples of 1, 2 or 5 times a power of ten."""
    span = high - low
    if not (math.isfinite(span) and span > 0):
        return [low]
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(power * times for times in (1, 2, 5, 10, 20) if span / (power * times) <= most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def decimals(step: float) -> int:
    """Digits behind the point that tell neighbouring ticks apart."""
    return max(0, min(9, -math.floor(math.log10(step) + 1e-9))) if step > 0 else 0
