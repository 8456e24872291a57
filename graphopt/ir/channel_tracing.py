"""Following channels through a graph: every axis of every tensor gets its atoms, node by node.

A rule per operator says how the atoms of its inputs' axes become those of its outputs' axes, which of them
it joins, and where channels end: a sum over an axis reads them, a weight makes new ones. An operator without
a rule, or one whose rule does not understand a node, keeps everything that it touches as it is.

A constant is a source of atoms like any other tensor, so weights that reach their operator through Transpose,
Cast or DequantizeLinear need no rule of their own. A large constant that several nodes read stays one
constant: all of them must agree on what leaves. Each reader of a small one gets a copy where they differ.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import onnx_graphsurgeon as gs

from graphopt.errors import printable
from graphopt.ir import channel_movement, channel_products, channel_reshape, channel_rules
from graphopt.ir.channel_atoms import Atoms
from graphopt.ir.channel_visit import RULES, Axes, Trace, UnfollowedError, Use, Visit, named
from graphopt.ir.graph import Constant, Graph, Node
from graphopt.ir.inference import Facts
from graphopt.ir.model import Model

FAMILIES = (channel_movement, channel_products, channel_reshape, channel_rules)
"""The modules that hold the rules."""

TIED_ELEMENTS = 1024
"""Elements up to which a constant is copied rather than kept in common."""

OLDEST_OPSET = 9
"""Operator set since which there is Where, and broadcasting is what numpy does."""

FAILURES = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def _per_output(answer: Axes | list[Axes]) -> list[Axes]:
    """A rule's answer, output by output."""
    several = [entry for entry in answer if isinstance(entry, list)]
    return several or [[entry for entry in answer if not isinstance(entry, list)]]


class Tracer:
    """One walk over a model.

    Args:
        model: the model.
        facts: what is proven of its tensors.
    """

    def __init__(self, model: Model, facts: Facts) -> None:
        self.facts = facts
        self.opset = model.opset
        self.trace = Trace()
        self._axes: dict[int, Axes | None] = {}
        self._home: dict[int, Graph] = {}
        self._weights: set[int] = set()
        self._shared: dict[int, Axes] = {}
        self._copies: dict[tuple[int, int], Axes] = {}
        self._read: set[tuple[int, int]] = set()

    def scope(self, graph: Graph, what: str) -> None:
        """Walk a graph whose inputs and outputs stay.

        Args:
            graph: the graph.
            what: what its inputs and outputs are called, as in ``graph``.
        """
        for tensor in graph.inputs:
            why = f"{what} input {printable(tensor.name)!r} keeps its shape"
            self._store(graph, tensor, None, why)
        for node in graph.nodes:
            if not node.dead:
                self._visit(graph, node)
        for tensor in graph.outputs:
            why = f"{what} output {printable(tensor.name)!r} keeps its shape"
            for atoms in self._known(tensor):
                self.trace.atoms.lock(atoms, why)

    def _known(self, tensor: gs.Tensor) -> Axes:
        if isinstance(tensor, Constant):
            return self._shared.get(id(tensor), [])
        return self._axes.get(id(tensor)) or []

    def axes(self, node: Node, index: int) -> Axes | None:
        """The atoms of a node's input; None where its rank is not known."""
        tensor = node.inputs[index]
        if isinstance(tensor, Constant):
            return self._constant(node, index, tensor)
        found = self._axes.get(id(tensor))
        if found is None or self._home.get(id(tensor)) is node.graph:
            return found
        body = node.graph
        parent = body.parent if isinstance(body, Graph) else None
        why = f"a body of {named(parent)} reads it" if parent is not None else "a body reads it"
        for atoms in found:
            self.trace.atoms.lock(atoms, why)
        fixed = self.trace.atoms.fixed(why)
        return [fixed if bool((a >= 0).any()) and len(a) > 1 else a for a in found]

    def is_weight(self, tensor: gs.Tensor) -> bool:
        """Whether a tensor is a constant or computed from constants only."""
        return isinstance(tensor, Constant) or id(tensor) in self._weights

    def _constant(self, node: Node, index: int, constant: Constant) -> Axes:
        small = math.prod(constant.shape) <= TIED_ELEMENTS or len(constant.shape) < 2
        if small and len(constant.outputs) > 1:
            axes = self._copies.get((node.uid, index))
            if axes is not None:
                return axes
            axes = self._copies[node.uid, index] = self._sources(constant)
        elif (node.uid, index) in self._read:
            return self._shared[id(constant)]
        else:
            self._read.add((node.uid, index))
            axes = self._shared.setdefault(id(constant), [])
            axes.extend([] if axes else self._sources(constant))
        self.trace.uses.append(Use(constant, axes, node, index))
        return axes

    def _sources(self, tensor: gs.Tensor) -> Axes:
        return [self.trace.atoms.fresh(int(dim)) for dim in tensor.shape]

    def _visit(self, graph: Graph, node: Node) -> None:
        bodies = list(node.bodies())
        plain = not any(isinstance(value, gs.Node.AttributeRef) for value in node.attrs.values())
        rule = RULES.get(node.op) if node.standard and plain and not bodies else None
        found: list[Axes] | None = None
        why = f"{named(node)} is not followed"
        if rule is not None and self.opset >= OLDEST_OPSET:
            try:
                visit = Visit(self, node)
                found = _per_output(rule(visit))
                self._touch(node, f"{named(node)} reads it as sizes or positions", visit.asked)
            except UnfollowedError as error:
                why = str(error)
            except FAILURES as error:
                why = f"{named(node)} is not understood ({error})"
        if found is None:
            self._touch(node, why)
        for body in bodies:
            self.scope(body, f"{node.op} body")
        if node.inputs and all(self.is_weight(t) for t in node.inputs if t.name):
            self._weights.update(map(id, node.outputs))
        if node.op == "Constant":
            self._weights.update(map(id, node.outputs))
        for index, tensor in enumerate(node.outputs):
            if tensor.name:
                axes = found[index] if found is not None and index < len(found) else None
                stored = self._store(graph, tensor, axes, why)
                if stored is not None:
                    self.trace.uses.append(Use(tensor, stored, node, index))

    def _touch(self, node: Node, why: str, asked: Collection[int] | None = None) -> None:
        """Keep what a node reads: everything, or the computed tensors that its rule did not ask for."""
        for index, tensor in enumerate(node.inputs):
            known = asked is not None and (index in asked or isinstance(tensor, Constant))
            if known or not (tensor.name or isinstance(tensor, Constant)):
                continue
            for atoms in self.axes(node, index) or []:
                self.trace.atoms.lock(atoms, why)

    def _store(self, graph: Graph, tensor: gs.Tensor, axes: Axes | None, why: str) -> Axes | None:
        """Note the axes of a tensor; without a rule's word on them they are fixed."""
        shape = self.facts.shape(tensor)
        stored = axes
        if axes is None or shape is None or len(shape) != len(axes):
            if axes is not None:
                why = f"the rank of {printable(tensor.name)!r} is not proven"
            for atoms in axes or []:
                self.trace.atoms.lock(atoms, why)
            stored = None if shape is None else [self.trace.atoms.fixed(why)] * len(shape)
        if stored is not None and shape is not None:
            stored = [self._fitted(a, dim) for a, dim in zip(stored, shape, strict=True)]
        self._axes[id(tensor)] = stored
        self._home[id(tensor)] = graph
        return stored

    def _fitted(self, atoms: Atoms, dim: object) -> Atoms:
        """Axes of one place are always written place by place; lengths must be what is proven."""
        if atoms.ndim == 0:
            return atoms.reshape(1) if dim == 1 else atoms
        if dim != len(atoms):
            why = "its length is not what is proven of it"
            self.trace.atoms.lock(atoms, why)
            return self.trace.atoms.fixed(why)
        return atoms
