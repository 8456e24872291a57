"""Blocks of layers that can be taken out, found in the graph alone.

A *branch* is what only one operand of a sum needs. Where the other operand has the proven shape of the sum,
the sum can be that operand:

    y = x + f(x)          becomes   y = x

whatever else f reads, such as a mask. A *chain* leads from a tensor x to a tensor z of the same proven shape
and type, all data enters it by x and all leaves it by z; what reads z can read x. With vertices for tensors,
their uses and nodes that says: x dominates z and z post-dominates x (Johnson, Pearson and Pingali, "The
program structure tree", PLDI 1994). Only the shortest such pairs count; longer ones are made of them. Pairs
with the same layers between them, which differ in activations at their ends, are alternatives.

What a block takes out is, in preorder of the post-dominator tree, at most two intervals. So counting in it
and telling whether two overlap takes constant time, and finding all blocks n log n.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.errors import printable
from graphopt.ir.dataflow import Dataflow
from graphopt.ir.dominators import DominatorTree, dominator_tree, post_dominator_tree
from graphopt.ir.graph import Node
from graphopt.ir.inference import Facts
from graphopt.ir.model import Model
from graphopt.ir.shape_keys import Key, Shapes

SUMS = {
    "Add": ((0, 1), (1, 0)),
    "Gemm": ((0, 2),),
    "Sub": ((1, 0),),
    "Sum": ((0, 1), (1, 0)),
}
"""Operators that sum two operands: which one may be left out, and which one is then the sum."""

OPERANDS = {"Add": 2, "Gemm": 3, "Sub": 2, "Sum": 2}
"""How many operands they then have."""


@dataclass(frozen=True)
class Block:
    """Nodes that can be taken out.

    Attributes:
        where: the name of the tensor that leaves it.
        source: the name of the tensor to be read instead.
        kind: of block.
        ranges: what is taken out, as intervals of places.
        root: the place of the node that makes the tensor that leaves it.
        order: of that node in the computation.
        nodes: how many go; those that compute from constants and shapes only are not counted.
    """

    where: str
    source: str
    kind: Literal["branch", "chain"]
    ranges: tuple[tuple[int, int], ...]
    root: int
    order: int
    nodes: int

    def overlaps(self, other: Block) -> bool:
        """Whether both take out a same node, so that at most one of them may be."""
        return self.holds(other.root) or other.holds(self.root)

    def holds(self, place: int) -> bool:
        """Whether a place is in it."""
        return any(start <= place < stop for start, stop in self.ranges)


@dataclass
class Blocks:
    """The blocks of a model.

    Attributes:
        found: lists of alternatives; one list for each set of layers, in the order of computation.
        refused: reasons by the tensor that leaves the block.
    """

    found: list[list[Block]]
    refused: dict[str, str]
    _flow: Dataflow
    _post: DominatorTree

    def sums(self, values: Mapping[int, float]) -> list[float]:
        """For each set of layers, the sum over the nodes that go.

        Args:
            values: by ``uid``. That of a node that computes from constants and shapes goes to the node that
                alone reads what it computes, and counts nowhere where several do.
        """
        running = _running(self._flow, self._post, values)
        return [_between(running, alternatives[0].ranges) for alternatives in self.found]


def find_blocks(model: Model, facts: Facts) -> Blocks:
    """Find what can be taken out of the main graph.

    Args:
        model: a model whose nodes are in topological order; not changed.
        facts: what is proven of its tensors.
    """
    flow = Dataflow.of(model.graph)
    post = post_dominator_tree(flow.after)
    finder = _Finder(flow, dominator_tree(flow.before), post, Shapes(model.graph, facts))
    sets: dict[int, list[Block]] = {}
    for block in (*finder.branches(), *finder.chains()):
        alternatives = sets.setdefault(finder.fingerprint(block), [])
        if all((b.where, b.source) != (block.where, block.source) for b in alternatives):
            alternatives.append(block)
    found = []
    for alternatives in sets.values():
        offences = [finder.offence(block) for block in alternatives]
        sound = [b for b, offence in zip(alternatives, offences, strict=True) if not offence]
        if sound:
            found.append(sound)
        else:
            finder.refused.setdefault(alternatives[0].where, offences[0])
    found.sort(key=lambda alternatives: alternatives[0].order)
    exits = {block.where for alternatives in found for block in alternatives}
    refused = {where: why for where, why in finder.refused.items() if where not in exits}
    return Blocks(found, refused, flow, post)


@dataclass
class _Finder:
    """Looks for blocks in a flow with its two trees."""

    flow: Dataflow
    dominators: DominatorTree
    post: DominatorTree
    shapes: Shapes
    refused: dict[str, str] = field(default_factory=dict)
    _read_at: dict[int, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        flow = self.flow
        uids = [node.uid for node in flow.nodes if node is not None]
        numbers = np.random.default_rng(0).integers(1, 1 << 62, len(uids)).tolist()
        marks = {u: n for u, n in zip(uids, numbers, strict=True) if u in flow.layers}
        self.marks = _running(flow, self.post, marks)
        self.layers = _running(flow, self.post, dict.fromkeys(marks, 1))
        self.nodes = _running(flow, self.post, {u: 1 for u in uids if u not in flow.free})
        self.bad = sorted(
            (self.post.start[vertex], node.uid)
            for vertex, node in enumerate(flow.nodes)
            if node is not None and flow.offences[node.uid]
        )

    def fingerprint(self, block: Block) -> int:
        """The same for blocks with the same layers (the sum of a random number for each)."""
        return int(_between(self.marks, block.ranges))

    def offence(self, block: Block) -> str:
        """Why a block may not be taken out; empty where it may."""
        for start, stop in block.ranges:
            first, last = (bisect_left(self.bad, (place, -1)) for place in (start, stop))
            for _, uid in self.bad[first:last]:
                for offence in self.flow.offences[uid]:
                    inner = offence.reader and block.holds(self.post.start[offence.reader])
                    if not (inner or offence.tensor == block.where):
                        return offence.why
        return ""

    def branches(self) -> Iterator[Block]:
        """What only one operand of a sum needs."""
        for vertex, node in enumerate(self.flow.nodes):
            if node is None or not node.standard or len(node.inputs) != OPERANDS.get(node.op):
                continue
            for gone, kept in SUMS[node.op]:
                yield from self._branch(vertex, node, node.inputs[gone], node.inputs[kept])

    def _branch(self, vertex: int, node: Node, gone: gs.Tensor, kept: gs.Tensor) -> Iterator[Block]:
        use = self.flow.uses.get((id(gone), node.uid))
        if use is None or gone is kept or not self.flow.computed(kept):
            return
        if node.op == "Gemm" and node.attrs.get("beta", 1.0) != 1.0:
            return
        place, result = self.post.start[vertex], node.outputs[0]
        ranges = ((place, place + 1), (self.post.start[use], self.post.stop[use]))
        if not _between(self.layers, ranges) or not self._is_base(kept, ranges[1]):
            return
        key = self.shapes.key(result)
        if key is None or self.shapes.key(kept) != key:
            self.refused[result.name] = (
                f"without its branch it would be {printable(kept.name)!r}, whose shape is not proven equal"
            )
            return
        yield self._block(result, kept, "branch", ranges, vertex)

    def _is_base(self, kept: gs.Tensor, inner: tuple[int, int]) -> bool:
        """Whether a branch is one beside a tensor: that is learned, or the branch reads it itself."""
        place = self.flow.made[id(kept)]
        if place in self.flow.learned:
            return True
        if place not in self._read_at:
            self._read_at[place] = sorted(self.post.start[use] for use in self.flow.after[place])
        read = self._read_at[place]
        return bisect_left(read, inner[0]) < bisect_left(read, inner[1])

    def chains(self) -> Iterator[Block]:
        """The shortest ways from a tensor to one of the same shape with layers between them."""
        parent, count = self.post.parent, len(self.flow.nodes)
        following = {
            v: parent[v]
            for v in range(1, count)
            if parent[v] and self.dominators.dominates(v, parent[v])
        }
        inner = set(following.values())
        for head in following:
            if head in inner:
                continue
            chain = [head]
            while chain[-1] in following:
                chain.append(following[chain[-1]])
            yield from self._chain(chain)

    def _chain(self, chain: list[int]) -> Iterator[Block]:
        """The blocks of one chain. Between layers, the first and the last tensor of a shape may be an end."""
        known: dict[Key, list[int]] = {}
        post = self.post
        spans = itertools.groupby(
            chain, lambda v: _between(self.layers, ((post.start[v], post.stop[v]),))
        )
        for _, span in spans:
            sources: dict[Key, list[int]] = {}
            for vertex in span:
                tensor = self.flow.tensors[vertex]
                key = None if tensor is None else self.shapes.key(tensor)
                if key is not None:
                    sources.setdefault(key, []).append(vertex)
            for key, vertices in sources.items():
                exits = [v for v in vertices if self.flow.made.get(id(self.flow.tensors[v])) == v]
                for start, stop in itertools.product(_ends(known.get(key, [])), _ends(exits)):
                    yield self._bypass(start, stop)
            known.update(sources)

    def _bypass(self, start: int, stop: int) -> Block:
        post, flow = self.post, self.flow
        ranges = ((post.start[stop], post.start[start]), (post.stop[start], post.stop[stop]))
        source, exit_ = flow.tensors[start], flow.tensors[stop]
        assert source is not None and exit_ is not None
        return self._block(exit_, source, "chain", ranges, flow.before[stop][0])

    def _block(
        self,
        exit_: gs.Tensor,
        source: gs.Tensor,
        kind: Literal["branch", "chain"],
        ranges: tuple[tuple[int, int], ...],
        root: int,
    ) -> Block:
        count = int(_between(self.nodes, ranges))
        return Block(exit_.name, source.name, kind, ranges, self.post.start[root], root, count)


def _ends(vertices: list[int]) -> list[int]:
    """The first and the last."""
    return vertices if len(vertices) < 2 else [vertices[0], vertices[-1]]


def _running(flow: Dataflow, post: DominatorTree, values: Mapping[int, float]) -> list[float]:
    """Running sums of a value of nodes over the places of vertices; see ``Blocks.sums``."""
    own = dict(values)
    found: list[float] = [0] * len(flow.nodes)
    for vertex, node in enumerate(flow.nodes):
        if node is None or node.uid not in own:
            continue
        if node.uid not in flow.free:
            found[post.start[vertex]] = own[node.uid]
            continue
        users = [use for tensor in flow.after[vertex] for use in flow.after[tensor]]
        reader = flow.nodes[flow.after[users[0]][0]] if len(users) == 1 else None
        if reader is not None:
            own[reader.uid] = own.get(reader.uid, 0) + own[node.uid]
    return list(itertools.accumulate(found, initial=0))


def _between(running: list[float], ranges: tuple[tuple[int, int], ...]) -> float:
    return sum(running[stop] - running[start] for start, stop in ranges)
