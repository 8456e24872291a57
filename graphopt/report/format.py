"""Figures as people read them: the same on the terminal and in the HTML report."""

from __future__ import annotations


def size(count: float) -> str:
    """Bytes for people, in powers of 1024."""
    for unit in ("B", "KiB", "MiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.2f} GiB"


def number(count: float | None) -> str:
    """A large number for people; a word for what is not known."""
    if count is None:
        return "not known"
    for unit in ("", " k", " M", " G"):
        if abs(count) < 1000:
            return f"{count:.0f}" if not unit else f"{count:.2f}{unit}"
        count /= 1000
    return f"{count:.2f} T"


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
    return f"{100 * (after - before) / before:+.1f} %" if before else "new"


def signed(count: float, show: str) -> str:
    """The text of an amount with the sign of a change; empty where nothing changed."""
    return "" if count == 0 else (f"-{show}" if count < 0 else f"+{show}")
