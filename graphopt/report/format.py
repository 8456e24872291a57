"""Figures as people read them: the same on the terminal and in the HTML report."""

from __future__ import annotations

_LARGEST = 1e300
"""No figure is written as larger than this; one of a hostile model may not even fit a float."""


def size(count: float) -> str:
    """Bytes for people, in powers of 1024."""
    count = _bounded(count)
    for unit in ("B", "KiB", "MiB"):
        if abs(round(count, 1)) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.2f} GiB"


def number(count: float | None) -> str:
    """A large number for people; a word for what is not known."""
    if count is None:
        return "not known"
    count = _bounded(count)
    for unit in ("", " k", " M", " G"):
        if abs(round(count, 2)) < 1000:
            return f"{count:.0f}" if not unit else f"{count:.2f}{unit}"
        count /= 1000
    return f"{count:.2f} T" if abs(count) < 1e6 else f"{count:.2e} T"


def duration(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1e3:.2f} ms" if seconds < 1 else f"{seconds:.2f} s"


def change(before: float | None, after: float | None) -> str:
    """How much a figure changed, in per cent of what it was; empty where either is not known."""
    if before is None or after is None:
        return ""
    if before == after:
        return "="
    if not before:
        return "new"
    return f"{100 * _bounded((_bounded(after) - _bounded(before)) / _bounded(before)):+.1f} %"


def quotient(before: float | None, after: float | None) -> str:
    """How many times as much is left; empty where that is not known."""
    if not before or after is None:
        return ""
    return f"{_bounded(after) / _bounded(before):.3f}"


def times(before: float, after: float) -> str:
    """How many times smaller or larger something is, to follow a size; empty where that says nothing."""
    if not before or not after or before == after:
        return ""
    ratio = _bounded(before / after)
    factor, word = (ratio, "smaller") if ratio > 1 else (1 / ratio, "larger")
    return f", {factor:.1f} times {word} than the original" if factor >= 1.05 else ""


def signed(count: float, show: str) -> str:
    """The text of an amount with the sign of a change; empty where nothing changed."""
    return "" if count == 0 else (f"-{show}" if count < 0 else f"+{show}")


def _bounded(count: float) -> float:
    return max(-_LARGEST, min(_LARGEST, count))
