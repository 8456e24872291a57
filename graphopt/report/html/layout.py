"""Where the boxes of a layered graph stand and how its edges run.

After Sugiyama, Tagawa and Toda (1981): rows are given; an edge that passes rows gets a bend in each, which
takes room there and is shared by all edges that leave the same box; the order within rows follows the mean
position of the neighbours; and the places are the least-squares fit to these means that keeps order and
distance (isotonic regression by pooling).
"""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.report.html.collapse import Box

BOX_WIDTH, BOX_HEIGHT = 172.0, 38.0
ROW = 72.0
GAP = 16.0
BEND = 4.0
SWEEPS = 8
BENDS = 3000
"""Bends in all; edges beyond run straight on behind the boxes."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Layout:
    """A drawing without ink.

    Attributes:
        width: of the whole, in pixels.
        height: of the whole.
        places: middle of the upper edge of each box.
        lines: the pieces of the edges, each from its upper end to its lower one.
    """

    width: float
    height: float
    places: list[Point]
    lines: list[tuple[Point, Point]]


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
    links = _route(boxes, items)
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
    lines = _lines(links, items, len(boxes), left)
    return Layout(right - left, (len(rows) - 1) * ROW + BOX_HEIGHT + 2 * GAP, places, lines)


def _route(boxes: list[Box], items: list[_Item]) -> list[tuple[int, int]]:
    """Link boxes row by row; edges that leave one box share their bends as long as they run together."""
    spans = [
        (box.level - boxes[source].level, source, index)
        for index, box in enumerate(boxes)
        for source in box.inputs
    ]
    bends: dict[tuple[int, int], int] = {}
    links: dict[tuple[int, int], None] = {}
    for _, source, target in sorted(spans):
        last = source
        for row in range(boxes[source].level + 1, boxes[target].level):
            if (source, row) not in bends:
                if len(bends) >= BENDS:
                    break
                bends[source, row] = len(items)
                items.append(_Item(row, BEND, [], []))
            links[last, bends[source, row]] = None
            last = bends[source, row]
        links[last, target] = None
    for upper, lower in links:
        items[upper].below.append(lower)
        items[lower].above.append(upper)
    return list(links)


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


def _lines(
    links: list[tuple[int, int]], items: list[_Item], boxes: int, left: float
) -> list[tuple[Point, Point]]:
    """From the lower end of each item to the upper end of the next; and straight through each bend."""

    def end(index: int, lower: bool) -> Point:
        item = items[index]
        return item.x - left, item.row * ROW + GAP + (BOX_HEIGHT if lower else 0.0)

    through = [(end(index, False), end(index, True)) for index in range(boxes, len(items))]
    return [*((end(upper, True), end(lower, False)) for upper, lower in links), *through]
