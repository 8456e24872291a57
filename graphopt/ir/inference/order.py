"""An order of nodes in which producers come before users (Kahn, 1962)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx_graphsurgeon as gs


def dependency_order(nodes: Sequence[gs.Node]) -> tuple[list[gs.Node], list[gs.Node]]:
    """Return nodes in dependency order, and those that lie on or behind a cycle."""
    producers = {
        id(tensor): index
        for index, node in enumerate(nodes)
        for tensor in node.outputs
        if tensor.name
    }
    if all(
        producers.get(id(tensor), -1) < index
        for index, node in enumerate(nodes)
        for tensor in node.inputs
    ):
        return list(nodes), []
    waits: list[set[int]] = []
    users: list[list[int]] = [[] for _ in nodes]
    for index, node in enumerate(nodes):
        needed = {producers[id(t)] for t in _reads(node) if id(t) in producers}
        waits.append(needed)
        for producer in needed:
            users[producer].append(index)
    ready = [index for index, needed in enumerate(waits) if not needed]
    ordered: list[gs.Node] = []
    for index in ready:
        ordered.append(nodes[index])
        for user in users[index]:
            waits[user].discard(index)
            if not waits[user]:
                ready.append(user)
    return ordered, [node for node, needed in zip(nodes, waits, strict=True) if needed]


def _reads(node: gs.Node) -> Iterator[gs.Tensor]:
    """Everything a node reads, including what bodies inside it take from outside."""
    pending = [node]
    while pending:
        current = pending.pop()
        yield from current.inputs
        for attribute in current.attrs.values():
            for graph in attribute if isinstance(attribute, list) else [attribute]:
                if isinstance(graph, gs.Graph):
                    pending.extend(graph.nodes)
                    yield from graph.outputs
