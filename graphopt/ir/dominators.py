"""Dominators of an acyclic graph: the vertices that every path from the root to a vertex passes.

In topological order the immediate dominator of a vertex is the lowest common ancestor of its predecessors in
the tree of the vertices before it (Cooper, Harvey and Kennedy, "A simple, fast dominance algorithm", 2001;
without cycles one round suffices). Ancestors are found in logarithmic time by jump pointers (Myers, "An
applicative random-access stack", 1983), so the tree of n edges takes n log n steps. Post-dominators are the
dominators of the graph with its edges reversed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class DominatorTree:
    """The tree of immediate dominators; each vertex with the interval of its subtree in preorder.

    Attributes:
        parent: of each vertex; the root, vertex 0, is its own.
        start: the place of each vertex in preorder.
        stop: one beyond the last place of its subtree.
    """

    parent: list[int]
    start: list[int]
    stop: list[int]

    def dominates(self, vertex: int, other: int) -> bool:
        """Whether every path to ``other`` passes ``vertex``; a vertex dominates itself."""
        return self.start[vertex] <= self.start[other] < self.stop[vertex]


def dominator_tree(before: Sequence[Sequence[int]]) -> DominatorTree:
    """The dominators of vertices in topological order.

    Args:
        before: of each vertex its predecessors, all with smaller numbers. A vertex without any follows the
            root, vertex 0.
    """
    parent, depth, jump = [0], [0], [0]
    for sources in before[1:]:
        found = sources[0] if sources else 0
        for source in sources[1:]:
            found = _common(found, source, parent, depth, jump)
        far = jump[found]
        level = depth[found] - depth[far] == depth[far] - depth[jump[far]]
        parent.append(found)
        depth.append(depth[found] + 1)
        jump.append(jump[far] if level else found)
    return _numbered(parent)


def post_dominator_tree(after: Sequence[Sequence[int]]) -> DominatorTree:
    """The dominators of the reversed graph; its root, the end of all paths, is vertex 0 as well.

    Args:
        after: of each vertex its successors, all with greater numbers; those without any end there.
    """
    count = len(after)
    turned = [[count - other for other in after[count - v]] for v in range(1, count)]
    tree = dominator_tree([[], *turned])
    back = [0, *range(count - 1, 0, -1)]
    return DominatorTree(
        [back[tree.parent[v]] for v in back],
        [tree.start[v] for v in back],
        [tree.stop[v] for v in back],
    )


def _common(a: int, b: int, parent: list[int], depth: list[int], jump: list[int]) -> int:
    """The lowest common ancestor of two vertices."""
    if depth[a] < depth[b]:
        a, b = b, a
    while depth[a] > depth[b]:
        a = jump[a] if depth[jump[a]] >= depth[b] else parent[a]
    while a != b:
        a, b = (parent[a], parent[b]) if jump[a] == jump[b] else (jump[a], jump[b])
    return a


def _numbered(parent: list[int]) -> DominatorTree:
    """A tree whose parents come before their children, with intervals."""
    sizes = [1] * len(parent)
    for vertex in range(len(parent) - 1, 0, -1):
        sizes[parent[vertex]] += sizes[vertex]
    start, free = [0] * len(parent), [1] * len(parent)
    for vertex in range(1, len(parent)):
        above = parent[vertex]
        start[vertex] = free[above]
        free[above] += sizes[vertex]
        free[vertex] = start[vertex] + 1
    return DominatorTree(parent, start, [s + n for s, n in zip(start, sizes, strict=True)])
