"""What is computed in the bodies of If, Loop and Scan, brought out as sequences: one element for each run.

A sequence goes in at the node that holds a body, and comes out with what the body computed at its end:

    If      the branch that runs appends; the other one hands on what it was given
    Loop    one more variable that is carried from iteration to iteration
    Scan    becomes the Loop that computes the same, which may carry sequences

So a tensor may have another shape in each run, bodies may be nested in any way, and what never runs gives an
empty sequence. Nothing else changes. Source: If, Loop, Scan, Identity (each from operator set 14 on) and
SequenceInsert of the ONNX operator specification.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import onnx
from onnx import GraphProto, NodeProto, TensorProto, helper

from graphopt.runtime.scan_loops import as_loop

OPSET = 14
"""The first operator set whose control flow and Identity take sequences."""


def bodies(node: NodeProto) -> Iterator[GraphProto]:
    """The bodies of a node."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def defined(graph: GraphProto) -> set[str]:
    """All names that a body and the bodies in it define, inputs among them."""
    found = {entry.name for entry in graph.input}
    for node in graph.node:
        found.update(node.output)
        for body in bodies(node):
            found |= defined(body)
    return found


def defined_within(node: NodeProto) -> set[str]:
    """All names that the bodies of a node define."""
    return {name for body in bodies(node) for name in defined(body)}


@dataclass
class Hoisting:
    """Brings inner tensors out of one main graph, which it changes.

    Args:
        graph: the main graph, of operator set 14 or later.
        types: of the tensors wanted, by name: element types as in TensorProto.
        shapes: whether their shapes are brought out in their place, as int64.
    """

    graph: GraphProto
    types: Mapping[str, int]
    shapes: bool = False
    _free: str = field(init=False)
    _count: int = 0

    def __post_init__(self) -> None:
        """Find a beginning of names that no name in the graph has."""
        self._free = "run"
        taken = {
            name
            for node in self.graph.node
            for name in (*node.output, *node.input, *defined_within(node))
        }
        while any(name.startswith(self._free) for name in taken):
            self._free += "_"

    def hoist(self) -> dict[str, str]:
        """Change the graph.

        Returns:
            By the name of each tensor wanted, the name of its sequence in the main graph.
        """
        given = {name: self._fresh() for name in self.types}
        starts = [
            helper.make_node("SequenceEmpty", [], [sequence], dtype=self._type(name))
            for name, sequence in given.items()
        ]
        found = self._collect(self.graph, given)
        nodes = [*starts, *self.graph.node]
        del self.graph.node[:]
        self.graph.node.extend(nodes)
        return {name: found.get(name, given[name]) for name in self.types}

    def _type(self, name: str) -> int:
        return TensorProto.INT64 if self.shapes else self.types[name]

    def _fresh(self) -> str:
        self._count += 1
        return f"{self._free}{self._count}"

    def _collect(self, graph: GraphProto, given: Mapping[str, str]) -> dict[str, str]:
        """Let a graph append what it computes to sequences; their new names, of those that have one."""
        found: dict[str, str] = {}
        nodes: list[NodeProto] = []
        inputs = [] if graph is self.graph else [entry.name for entry in graph.input]
        for name in inputs:
            nodes += self._appended(name, given, found)
        for node in graph.node:
            within = defined_within(node)
            inner = {name: sequence for name, sequence in given.items() if name in within}
            made, behind = [node], list[NodeProto]()
            if inner:
                made, behind = self._entered(node, inner, found)
            nodes += [*made, *behind]
            for name in node.output if graph is not self.graph else ():
                nodes += self._appended(name, given, found)
        del graph.node[:]
        graph.node.extend(nodes)
        return found

    def _appended(
        self, name: str, given: Mapping[str, str], found: dict[str, str]
    ) -> list[NodeProto]:
        """The nodes that append a tensor of the graph at hand to its sequence."""
        if not name or name not in given:
            return []
        nodes, element = [], name
        if self.shapes:
            element = self._fresh()
            nodes.append(helper.make_node("Shape", [name], [element]))
        found[name] = self._fresh()
        nodes.append(helper.make_node("SequenceInsert", [given[name], element], [found[name]]))
        return nodes

    def _entered(
        self, node: NodeProto, given: Mapping[str, str], found: dict[str, str]
    ) -> tuple[list[NodeProto], list[NodeProto]]:
        """A node that takes sequences in and gives them back, with the nodes before and behind it."""
        before: list[NodeProto] = []
        behind: list[NodeProto] = []
        if node.op_type == "Scan":
            before, node, behind = as_loop(node, self._fresh)
        results = {name: self._fresh() for name in given}
        found.update(results)
        if node.op_type == "If":
            self._branches(node, given)
            node.output.extend(results.values())
        else:
            self._iterations(node, given, list(results.values()))
        return [*before, node], behind

    def _branches(self, node: NodeProto, given: Mapping[str, str]) -> None:
        for branch in bodies(node):
            self._returned(branch, given, len(branch.output))

    def _iterations(
        self, node: NodeProto, given: Mapping[str, str], results: Sequence[str]
    ) -> None:
        body = next(iter(bodies(node)))
        carried = len(body.input) - 2
        node.input.extend([""] * (2 - len(node.input)))
        node.input.extend(given.values())
        inner = {name: self._fresh() for name in given}
        for name, sequence in inner.items():
            info = helper.make_tensor_sequence_value_info(sequence, self._type(name), None)
            body.input.append(info)
        self._returned(body, inner, 1 + carried)
        outputs = [name or self._fresh() for name in node.output]
        outputs += [self._fresh() for _ in range(carried - len(outputs))]
        outputs[carried:carried] = results
        del node.output[:]
        node.output.extend(outputs)

    def _returned(self, body: GraphProto, given: Mapping[str, str], place: int) -> None:
        """Let a body return sequences, from some place among its outputs on."""
        found = self._collect(body, given)
        infos = []
        for name, sequence in given.items():
            result = found.get(name)
            if result is None:
                result = self._fresh()
                body.node.append(helper.make_node("Identity", [sequence], [result]))
            infos.append(helper.make_tensor_sequence_value_info(result, self._type(name), None))
        outputs = list(body.output)
        outputs[place:place] = infos
        del body.output[:]
        body.output.extend(outputs)
