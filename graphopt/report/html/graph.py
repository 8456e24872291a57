"""The graphs before and after: drawn, and as lists of what changed."""

from __future__ import annotations

from collections import Counter

from markupsafe import Markup

from graphopt.report.html.blocks import (
    Block,
    Column,
    Details,
    Figure,
    Grid,
    Limits,
    Note,
    Row,
    Section,
    Table,
    cut,
)
from graphopt.report.html.collapse import Box, boxes
from graphopt.report.html.figures import counted
from graphopt.report.html.layout import BOX_HEIGHT, BOX_WIDTH, Layout, Point, arrange
from graphopt.report.html.svg import element, image, path
from graphopt.report.html.text import compose, middle, name, names, safe
from graphopt.report.models import GraphInfo, NodeInfo
from graphopt.report.tree import Report

NARROW = 488.0
"""Pixels up to which two drawings stand side by side."""

_SIGNS = {"kept": "", "changed": "~ ", "removed": "- ", "added": "+ "}
_WORDS = {"kept": "unchanged", "changed": "changed", "removed": "removed", "added": "added"}


def section(report: Report, limits: Limits) -> Section | None:
    """Both drawings folded away, and the changes as tables."""
    before, after = report.graph_before, report.graph_after
    if before is None and after is None:
        return None
    nodes = [*(before.nodes if before else []), *(after.nodes if after else [])]
    gone = [node for node in nodes if node.status == "removed"]
    new = [node for node in nodes if node.status == "added"]
    changed = [
        node for node in (after or before or GraphInfo([])).nodes if node.status == "changed"
    ]
    blocks: list[Block] = [Note(_counts(len(gone), len(new), len(changed)))]
    blocks += _drawings(before, after, limits)
    blocks += [
        _list(title, found, limits)
        for title, found in (("Removed", gone), ("Added", new), ("Changed", changed))
        if found
    ]
    lead = (
        "The main graph, from the inputs down. Unchanged parts are drawn together, so that changes stand "
        "out."
    )
    return Section("graph", "The graph before and after", lead, blocks)


def _drawings(before: GraphInfo | None, after: GraphInfo | None, limits: Limits) -> list[Block]:
    """Both graphs, side by side where they are narrow enough."""
    found: list[Block] = []
    widest = 0.0
    for title, graph in (("Original", before), ("Result", after)):
        if graph is not None and graph.nodes:
            kept, left_out = boxes(graph, limits.boxes)
            layout = arrange(kept)
            widest = max(widest, layout.width)
            found.append(_drawing(title, graph, kept, left_out, layout))
    if not found:
        return []
    drawings: list[Block] = [Grid(found)] if widest <= NARROW else found
    return [Details("Draw both graphs", [Note(_legend(), "legends"), *drawings])]


def _counts(gone: int, new: int, changed: int) -> str:
    return f"{counted(gone, 'node')} removed, {new:,} added, {changed:,} changed."


def _legend() -> Markup:
    return Markup("").join(
        compose(
            '<span class="legend"><span class="swatch node-{}">{}</span>{}</span>',
            status,
            sign.strip(),
            _WORDS[status],
        )
        for status, sign in _SIGNS.items()
    )


def _list(title: str, nodes: list[NodeInfo], limits: Limits) -> Details:
    """Nodes by operator and by what was done."""
    groups: dict[tuple[str, str], list[str]] = {}
    for node in nodes:
        groups.setdefault((node.op, node.what), []).append(node.name)
    shown, left_out = cut(list(groups.items()), limits.rows)
    rows = [
        Row((name(op, 32), f"{len(found):,}", what[: limits.letters], names(found, limits.members)))
        for (op, what), found in shown
    ]
    columns = (
        Column("Operator", "name"),
        Column("Count", "number"),
        Column("What was done", "wide"),
        Column("Nodes", "wide"),
    )
    table = Table(f"Nodes {title.lower()}", columns, rows, left_out)
    return Details(f"{title}: {counted(len(nodes), 'node')}", [table])


def _drawing(
    title: str, graph: GraphInfo, found: list[Box], left_out: int, layout: Layout
) -> Figure:
    counts = Counter[str](node.status for node in graph.nodes)
    label = f"{title} graph of {len(graph.nodes):,} nodes: " + ", ".join(
        f"{counts[status]:,} {word}" for status, word in _WORDS.items() if counts[status]
    )
    caption = f"{len(graph.nodes) + graph.left_out:,} nodes in {len(found) + left_out:,} boxes."
    if left_out:
        caption += f" The first {len(found):,} boxes are drawn."
    if graph.left_out:
        caption += f" {graph.left_out:,} nodes are not in the report."
    return Figure(title, f"{title} graph", _draw(found, layout, label), caption)


def _draw(found: list[Box], layout: Layout, label: str) -> Markup:
    edges = "".join(_curve(line) for line in layout.lines)
    shapes = [_box(box, place) for box, place in zip(found, layout.places, strict=True)]
    return image("graph", label, layout.width, layout.height, path("edge", edges), *shapes)


def _curve(line: tuple[Point, Point]) -> str:
    """Straight down, or an S that leaves and arrives upright."""
    (x, y), (to_x, to_y) = line
    if abs(x - to_x) < 0.5:
        return f"M{x:.0f} {y:.0f}L{to_x:.0f} {to_y:.0f}"
    half = (y + to_y) / 2
    return f"M{x:.0f} {y:.0f}C{x:.0f} {half:.0f} {to_x:.0f} {half:.0f} {to_x:.0f} {to_y:.0f}"


def _box(box: Box, place: Point) -> Markup:
    x, y = place
    upper, lower, tip = _words(box)
    status = box.status if box.status in _SIGNS else "kept"
    return element(
        "g",
        element("title", tip),
        element("rect", x=x - BOX_WIDTH / 2, y=y, width=BOX_WIDTH, height=BOX_HEIGHT, rx=6),
        element("text", upper, class_="op", x=x, y=y + 16, text_anchor="middle"),
        element("text", lower, class_="node-name", x=x, y=y + 30, text_anchor="middle"),
        class_=f"node node-{status}" + (" many" if len(box.nodes) > 1 else ""),
    )


def _words(box: Box) -> tuple[str, str, str]:
    """What stands in a box, in two lines, and its tooltip."""
    sign = _SIGNS.get(box.status, "")
    first = box.nodes[0]
    word = _WORDS.get(box.status, safe(box.status, 20))
    if len(box.nodes) == 1:
        tip = f"{first.op} {safe(first.name, 120)}: {first.what or word}"
        return sign + middle(first.op, 20 - len(sign)), middle(first.name, 25), tip
    operators = box.operators
    kinds = middle(operators[0], 12) if len(operators) == 1 else "nodes"
    tip = f"{len(box.nodes):,} nodes, {word}: {', '.join(safe(op, 24) for op in operators[:8])}"
    below = word if len(operators) == 1 else middle(", ".join(operators[:6]), 25)
    return f"{sign}{len(box.nodes):,} {kinds}", below, tip
