"""Where the boxes of a layered graph stand and how its edges run.

After Sugiyama, Tagawa and Toda (1981): rows are given; an edge that passes rows gets a bend in each, which
takes room there; the order within rows follows the mean position of the neighbours; and the places are the
least-squares fit to these means that keeps order and distance (isotonic regression by pooling).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from graphopt.report.html.collapse import Box

BOX_WIDTH, BOX_HEIGHT = 172.0, 38.0
ROW = 72.0
GAP = 16.0
BEND = 4.0
SWEEPS = 8
BENDS = 3000
"""Bends in all; edges beyond run straight behind the boxes."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Layout:
    """A drawing without ink.

    Attributes:
        width: of the whole, in pixels.
        height: of the whole.
        places: middle of the upper edge of each box.
        edges: the points that each edge passes, from the box read to the box that reads.
    """

    width: float
    height: float
    places: list[Point]
    edges: list[list[Point]]


@dataclass
class _Item:
    """A box or a bend."""

    row: int
    half: float
    above: list[int]
    below: list[int]
    x: float = 0.0


def arrange(boxes: list[Box]) -> Layout:
    """Lay out boxes that stand in topological order."""
    items = [_Item(box.level, BOX_WIDTH / 2, [], []) for box in boxes]
    paths = _route(boxes, items)
    rows: list[list[int]] = [[] for _ in range(max((item.row for item in items), default=-1) + 1)]
    for index, item in enumerate(items):
        rows[item.row].append(index)
    for row in rows:
        _settle(items, row, [0.0] * len(row))
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        for row in rows if down else reversed(rows):
            _pull(items, row, down, reorder=sweep < SWEEPS - 2)
    left = min((item.x - item.half for item in items), default=0.0) - GAP
    right = max((item.x + item.half for item in items), default=0.0) + GAP
    places = [(items[index].x - left, items[index].row * ROW + GAP) for index in range(len(boxes))]
    edges = [_through(path, items, left) for path in paths]
    return Layout(right - left, (len(rows) - 1) * ROW + BOX_HEIGHT + 2 * GAP, places, edges)


def _route(boxes: list[Box], items: list[_Item]) -> list[list[int]]:
    """Put bends into edges that pass rows; the shortest edges first, as long as there are any to give."""
    spans = [
        (box.level - boxes[source].level, source, index)
        for index, box in enumerate(boxes)
        for source in box.inputs
    ]
    paths = []
    left = BENDS
    for span, source, target in sorted(spans):
        path = [source]
        if span - 1 <= left:
            left -= span - 1
            for row in range(boxes[source].level + 1, boxes[target].level):
                items.append(_Item(row, BEND, [], []))
                path.append(len(items) - 1)
        path.append(target)
        for upper, lower in pairwise(path):
            items[upper].below.append(lower)
            items[lower].above.append(upper)
        paths.append(path)
    return paths


def _pull(items: list[_Item], row: list[int], down: bool, reorder: bool) -> None:
    """Move a row to where its neighbours in the row above, or below, want it."""
    wanted = {}
    for index in row:
        near = items[index].above if down else items[index].below
        xs = [items[other].x for other in near]
        wanted[index] = sum(xs) / len(xs) if xs else items[index].x
    if reorder:
        row.sort(key=lambda index: wanted[index])
    _settle(items, row, [wanted[index] for index in row])


def _settle(items: list[_Item], row: list[int], wanted: list[float]) -> None:
    """The places nearest to those wanted that keep order and distance (pool adjacent violators)."""
    offsets, offset = [], 0.0
    for position, index in enumerate(row):
        if position:
            offset += items[row[position - 1]].half + items[index].half + GAP
        offsets.append(offset)
    pools: list[tuple[float, int]] = []  # mean of what is wanted, less the offset; how many
    for want, away in zip(wanted, offsets, strict=True):
        mean, count = want - away, 1
        while pools and pools[-1][0] > mean:
            other, more = pools.pop()
            mean = (mean * count + other * more) / (count + more)
            count += more
        pools.append((mean, count))
    means = [mean for mean, count in pools for _ in range(count)]
    for index, mean, away in zip(row, means, offsets, strict=True):
        items[index].x = mean + away


def _through(path: list[int], items: list[_Item], left: float) -> list[Point]:
    """The points of an edge: out of a box, along its bends, into a box."""
    points = []
    for position, index in enumerate(path):
        x, top = items[index].x - left, items[index].row * ROW + GAP
        if position:
            points.append((x, top))
        if position < len(path) - 1:
            points.append((x, top + BOX_HEIGHT))
    return points
