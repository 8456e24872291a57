"""The main graph as a flow of data: its tensors, each use of them, and its nodes, as vertices of one graph.

Two orders are read off it. *Before* follows values: what a vertex is computed from, constants and the shapes
of tensors aside, for neither depends on the values of what they are taken from. *After* follows needs: all
that is lost with a vertex. It passes over that a tensor which nodes read is also an output of the model, that
a body captures it, or that its shape is read. Each of these is an *offence* at the node that makes the
tensor, so that what is refused for its sake can be told from what is no block at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import onnx_graphsurgeon as gs

from graphopt.errors import printable
from graphopt.ir.graph import Constant, Graph, Node
from graphopt.ir.mac_contributed import MICROSOFT
from graphopt.ir.mac_rules import STANDARD
from graphopt.ir.operators import NONDETERMINISTIC, deterministic
from graphopt.ir.surgery import constant, input_or_none, is_used

SHAPES = frozenset({"Shape", "Size"})
"""Operators that look at the shape of a tensor only."""


@dataclass(frozen=True)
class Offence:
    """What forbids to take a node out.

    Attributes:
        why: in words.
        tensor: the one that it makes and that is the reason; it may be what leaves a block.
        reader: the vertex that, unless it is taken out as well, is the reason; 0 for none.
    """

    why: str
    tensor: str = ""
    reader: int = 0


@dataclass
class Dataflow:
    """The graph, in topological order; vertex 0 is where all paths begin, and where they end.

    Attributes:
        before: of each vertex the vertices that its value is computed from.
        after: of each vertex the vertices that need it.
        tensors: of each vertex that is a tensor or a use of one, the tensor.
        nodes: of each vertex that is a node, the node.
        made: the vertex of a tensor, by ``id``.
        uses: the vertex of a tensor's use, by ``id`` of the tensor and ``uid`` of the node.
        free: nodes, by ``uid``, that compute from constants and shapes only.
        layers: nodes, by ``uid``, that multiply by weights.
        learned: vertices that such a node computes, or that are computed from such.
        offences: why a node, by ``uid``, may not be taken out.
    """

    before: list[list[int]] = field(default_factory=lambda: [[]])
    after: list[list[int]] = field(default_factory=lambda: [[]])
    tensors: list[gs.Tensor | None] = field(default_factory=lambda: [None])
    nodes: list[Node | None] = field(default_factory=lambda: [None])
    made: dict[int, int] = field(default_factory=dict)
    uses: dict[tuple[int, int], int] = field(default_factory=dict)
    free: set[int] = field(default_factory=set)
    layers: set[int] = field(default_factory=set)
    learned: set[int] = field(default_factory=set)
    offences: dict[int, list[Offence]] = field(default_factory=dict)
    _free: set[int] = field(default_factory=set)
    _weights: set[int] = field(default_factory=set)
    _aside: dict[int, list[int]] = field(default_factory=dict)
    _captured: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, graph: Graph) -> Dataflow:
        """Read a main graph, which must be in topological order."""
        flow = cls()
        for tensor in graph.inputs:
            flow.made[id(tensor)] = flow._vertex([0], tensor=tensor)
        for node in graph.nodes:
            if not node.dead:
                flow._add(node)
        for node in (node for node in flow.nodes if node is not None):
            flow.offences[node.uid] = list(flow._offences(node))
        for key, place in flow.made.items():
            flow.after[place] = flow.after[place] or flow._aside.get(key, [])
        return flow

    def computed(self, tensor: gs.Tensor) -> bool:
        """Whether a tensor depends on the values of the model's inputs."""
        return id(tensor) in self.made and id(tensor) not in self._free

    def _vertex(
        self, before: list[int], tensor: gs.Tensor | None = None, node: Node | None = None
    ) -> int:
        self.before.append(before)
        self.after.append([])
        self.tensors.append(tensor)
        self.nodes.append(node)
        vertex = len(self.before) - 1
        if (node is not None and node.uid in self.layers) or not self.learned.isdisjoint(before):
            self.learned.add(vertex)
        return vertex

    def _add(self, node: Node) -> None:
        bodies = any(True for _ in node.bodies())
        read = [tensor for tensor in node.inputs if tensor.name]
        known = not bodies and node.standard and deterministic(node.op)
        free = known and (node.op in SHAPES or all(map(self._is_free, read)))
        weights = known and all(map(self._is_weight, read))
        if _multiplies(node) and any(map(self._is_weight, read)) and not free:
            self.layers.add(node.uid)
        before: list[int] = []
        uses: list[int] = []
        own = {id(tensor) for tensor in read}
        for tensor in (*read, *_captured(node)):
            place = self.made.get(id(tensor))
            if place is None or (id(tensor), node.uid) in self.uses:
                continue
            use = self._vertex([place], tensor=tensor)
            self.uses[id(tensor), node.uid] = use
            uses.append(use)
            if id(tensor) not in own:
                self._captured.add(id(tensor))
            if id(tensor) not in own or (free and node.op in SHAPES):
                self._aside.setdefault(id(tensor), []).append(use)
            else:
                self.after[place].append(use)
            if not (free or self._is_free(tensor)):
                before.append(use)
        vertex = self._vertex(before, node=node)
        for use in uses:
            self.after[use] = [vertex]
        for tensor in node.outputs:
            if tensor.name and is_used(tensor):
                self.made[id(tensor)] = self._vertex([vertex], tensor=tensor)
                self.after[vertex].append(self.made[id(tensor)])
                self._free.update([id(tensor)] if free else [])
                self._weights.update([id(tensor)] if weights else [])
        if free:
            self.free.add(node.uid)

    def _is_free(self, tensor: gs.Tensor) -> bool:
        return isinstance(tensor, Constant) or id(tensor) in self._free

    def _is_weight(self, tensor: gs.Tensor) -> bool:
        return isinstance(tensor, Constant) or id(tensor) in self._weights

    def _offences(self, node: Node) -> Iterator[Offence]:
        """Why a node may not be taken out."""
        if _draws(node):
            yield Offence(f"{node.label} draws random numbers")
        for tensor in node.outputs:
            shown, place = printable(tensor.name), self.made.get(id(tensor))
            if place is None:
                continue
            if id(tensor) in self._captured:
                yield Offence(f"a body captures {shown!r}, which it makes")
                continue
            if not self.after[place]:
                continue
            if tensor.is_output:
                why = f"{shown!r}, which it makes, is an output of the model"
                yield Offence(why, tensor.name)
            for use in self._aside.get(id(tensor), []):
                why = f"the shape of {shown!r}, which it makes, is read elsewhere"
                yield Offence(why, tensor.name, self.after[use][0])


def _multiplies(node: Node) -> bool:
    """Whether an operator sums products."""
    return node.op in (MICROSOFT if node.domain == "com.microsoft" else STANDARD)


def _captured(node: Node) -> Iterator[gs.Tensor]:
    """What the bodies of a node read or return, their own tensors among it."""
    stack = list(node.bodies())
    while stack:
        body = stack.pop()
        yield from body.outputs
        for inner in body.nodes:
            yield from inner.inputs
            stack.extend(inner.bodies())


def _draws(node: Node) -> bool:
    """Whether a node, or one in its bodies, gives other results each time."""
    stack = [node]
    while stack:
        found = stack.pop()
        if found.op in NONDETERMINISTIC or (found.op == "Dropout" and _trains(found)):
            return True
        stack.extend(inner for body in found.bodies() for inner in body.nodes)
    return False


def _trains(node: Node) -> bool:
    """Whether a Dropout may be in training mode (its third input, since operator set 12)."""
    mode = input_or_none(node, 2)
    if mode is None:
        return False
    value = constant(mode)
    return value is None or bool(value.any())
