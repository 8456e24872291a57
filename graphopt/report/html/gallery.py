"""Small figures side by side: as many as a page bears, some more behind a click, the rest in the JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from graphopt.report.html.blocks import Block, Details, Figure, Grid, Limits, Note

Item = TypeVar("Item")


def gallery(
    items: Sequence[Item], figure: Callable[[Item], Figure], limits: Limits, what: str
) -> list[Block]:
    """The figures of some items.

    Args:
        items: what there is to draw, the most telling first.
        figure: draws one.
        limits: of the page.
        what: several of them in words, as in "layers".
    """
    shown, rest = items[: limits.histograms], items[limits.histograms : 4 * limits.histograms]
    left_out = len(items) - len(shown) - len(rest)
    blocks: list[Block] = [Grid([figure(item) for item in shown], "small")]
    if rest:
        grid = Grid([figure(item) for item in rest], "small")
        blocks.append(Details(f"{len(rest)} more {what}", [grid]))
    if left_out:
        blocks.append(
            Note(f"{left_out:,} more histograms are left out here; the JSON has them.", "quiet")
        )
    return blocks
