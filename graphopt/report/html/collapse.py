"""A graph with its unchanged parts drawn together, so that what changed fits on a page.

Three contractions, each of which keeps the graph free of circles:

    chain    unchanged nodes one after the other, each read by the next one alone
    band     neighbouring rows in which nothing changed: every edge goes from a lower row to a higher one, so
             all nodes of such rows can be one box
    width    equal operators of one row, where a row has too many boxes: no path leads between them
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass

from graphopt.report.models import GraphInfo, NodeInfo

CHAIN = 3
"""Unchanged nodes from which on a chain becomes one box."""

WIDE = 6
"""Boxes from which on a row is drawn together."""


@dataclass(frozen=True)
class Box:
    """One or more nodes of one status.

    Attributes:
        nodes: what it stands for.
        inputs: positions of the boxes whose results it reads, all before it.
        level: its row.
    """

    nodes: tuple[NodeInfo, ...]
    inputs: tuple[int, ...]
    level: int

    @property
    def status(self) -> str:
        """The status of all of its nodes."""
        return self.nodes[0].status

    @property
    def operators(self) -> list[str]:
        """Its operators, the most frequent first."""
        counts = Counter(node.op for node in self.nodes)
        return sorted(counts, key=lambda op: (-counts[op], op))


def boxes(graph: GraphInfo, most: int) -> tuple[list[Box], int]:
    """The boxes to draw, in topological order, and how many are left out.

    Args:
        graph: its nodes in topological order.
        most: boxes that fit.
    """
    found = [Box((node,), _known(index, node), 0) for index, node in enumerate(graph.nodes)]
    found = _contract(found, list(range(len(found))))
    for group in (_chains, _bands, _by_operator, _by_status):
        found = _contract(found, group(found))
    kept = found[:most]
    return kept, len(found) - len(kept)


def _known(index: int, node: NodeInfo) -> tuple[int, ...]:
    """The inputs that are nodes before it."""
    return tuple(sorted({source for source in node.inputs if 0 <= source < index}))


def _kept(box: Box) -> bool:
    return box.status == "kept"


def _chains(found: list[Box]) -> list[Hashable]:
    readers = Counter(source for box in found for source in box.inputs)
    root = list(range(len(found)))
    for index, box in enumerate(found):
        if len(box.inputs) == 1 and _kept(box):
            source = box.inputs[0]
            if _kept(found[source]) and readers[source] == 1:
                root[index] = root[source]
    length = Counter(root)
    return [root[index] if length[root[index]] >= CHAIN else index for index in range(len(found))]


def _bands(found: list[Box]) -> list[Hashable]:
    changed = {box.level for box in found if not _kept(box)}
    starts: dict[int, int] = {}
    for level in range(max((box.level for box in found), default=-1) + 1):
        if level not in changed:
            starts[level] = starts.get(level - 1, level)
    sizes = Counter(starts[box.level] for box in found if box.level in starts)
    rows = Counter(starts.values())
    return [
        ("band", starts[box.level])
        if box.level in starts and rows[starts[box.level]] > 1 and sizes[starts[box.level]] >= CHAIN
        else index
        for index, box in enumerate(found)
    ]


def _by_operator(found: list[Box]) -> list[Hashable]:
    width = Counter(box.level for box in found)
    return [
        (box.level, box.status, tuple(box.operators)) if width[box.level] >= WIDE else index
        for index, box in enumerate(found)
    ]


def _by_status(found: list[Box]) -> list[Hashable]:
    width = Counter(box.level for box in found)
    return [
        (box.level, box.status) if width[box.level] >= WIDE else index
        for index, box in enumerate(found)
    ]


def _contract(found: list[Box], groups: list[Hashable]) -> list[Box]:
    """Draw the boxes of one group together; sort by row, then by the first node."""
    place: dict[Hashable, int] = {}
    members: list[list[int]] = []
    for index, group in enumerate(groups):
        if group not in place:
            place[group] = len(members)
            members.append([])
        members[place[group]].append(index)
    sources = [
        {place[groups[source]] for index in group for source in found[index].inputs} - {number}
        for number, group in enumerate(members)
    ]
    levels = _levels(sources)
    order = sorted(range(len(members)), key=lambda number: (levels[number], members[number][0]))
    position = {number: index for index, number in enumerate(order)}
    return [
        Box(
            tuple(node for index in members[number] for node in found[index].nodes),
            tuple(sorted(position[source] for source in sources[number])),
            levels[number],
        )
        for number in order
    ]


def _levels(sources: list[set[int]]) -> list[int]:
    """The row of each: one more than the lowest of what it reads (longest path).

    What hangs on constants alone, such as the nodes that make a weight, sinks to its first reader.
    """
    order = _topological(sources)
    readers: list[list[int]] = [[] for _ in sources]
    levels = [0] * len(sources)
    for number in order:
        for source in sources[number]:
            readers[source].append(number)
            levels[number] = max(levels[number], levels[source] + 1)
    latest = list(levels)
    for number in reversed(order):
        if readers[number]:
            latest[number] = min(latest[reader] for reader in readers[number]) - 1
    loose = [False] * len(sources)
    for number in order:
        slack = latest[number] > levels[number]
        loose[number] = slack and all(loose[source] for source in sources[number])
    for number in reversed(order):
        if loose[number]:
            levels[number] = min(levels[reader] for reader in readers[number]) - 1
    return levels


def _topological(sources: list[set[int]]) -> list[int]:
    """Each after all that it reads (Kahn, 1962)."""
    readers: list[list[int]] = [[] for _ in sources]
    waiting = [len(inputs) for inputs in sources]
    for number, inputs in enumerate(sources):
        for source in inputs:
            readers[source].append(number)
    order = [number for number, count in enumerate(waiting) if not count]
    for number in order:
        for reader in readers[number]:
            waiting[reader] -= 1
            if not waiting[reader]:
                order.append(reader)
    return order
