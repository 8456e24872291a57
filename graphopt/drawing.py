"""The main graphs of a model before and after, as they are drawn: nodes in rows, with what became of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphopt.ir.graph import Constant, Node
from graphopt.ir.model import Model
from graphopt.ir.surgery import producer
from graphopt.report import GraphInfo, NodeInfo, StepReport
from graphopt.report.models import NodeStatus

MOST_NODES = 2000
"""Nodes of a graph that are listed; of a larger one, the first ones."""


def describe_graphs(
    before: Model, after: Model, steps: Sequence[StepReport]
) -> tuple[GraphInfo, GraphInfo]:
    """Both main graphs, their nodes marked as kept, changed, removed or added.

    A node that stays keeps its number through all passes; so does one that takes another's place.

    Args:
        before: the original.
        after: the result.
        steps: what the passes did, for what is said of a changed node.
    """
    words: dict[str, list[str]] = {}
    for step in steps:
        for edit in step.edits:
            words.setdefault(edit.node, []).append(f"{step.name}: {edit.what}")
    olds = {node.uid: node for node in _nodes(before)}
    news = {node.uid: node for node in _nodes(after)}
    changed = {
        uid
        for uid in olds.keys() & news.keys()
        if _differs(olds[uid], news[uid]) or news[uid].label in words or olds[uid].label in words
    }

    def status(uid: int, other: dict[int, Node], missing: NodeStatus) -> NodeStatus:
        if uid not in other:
            return missing
        return "changed" if uid in changed else "kept"

    return (
        _graph(before, words, lambda uid: status(uid, news, "removed")),
        _graph(after, words, lambda uid: status(uid, olds, "added")),
    )


def _nodes(model: Model) -> list[Node]:
    return [node for node in model.graph.nodes if node.op != "Constant"]


def _differs(old: Node, new: Node) -> bool:
    """Whether a node computes something else, or with other constants."""
    return old.op != new.op or _constants(old) != _constants(new)


def _constants(node: Node) -> list[tuple[str, tuple[int, ...]]]:
    return [(t.name, tuple(t.shape)) for t in node.inputs if isinstance(t, Constant)]


def _graph(
    model: Model, words: dict[str, list[str]], status: Callable[[int], NodeStatus]
) -> GraphInfo:
    nodes = _nodes(model)
    shown = nodes[:MOST_NODES]
    place = {id(node): index for index, node in enumerate(shown)}
    found: list[NodeInfo] = []
    for node in shown:
        makers = (producer(tensor) for tensor in node.inputs)
        inputs = sorted({place[id(m)] for m in makers if m is not None and id(m) in place})
        level = 1 + max((found[i].level for i in inputs if i < len(found)), default=-1)
        what = status(node.uid)
        said = "; ".join(words.get(node.label, [])) if what != "kept" else ""
        found.append(NodeInfo(node.label, node.op, what, level, inputs, said))
    return GraphInfo(found, len(nodes) - len(shown))
