"""What a rule sees of a node when channels are followed through it, and what it can say of them.

A rule takes a visit, asks for the atoms of the node's inputs, says what it joins, splits, sums or makes, and
returns the atoms of the outputs. A rule raises where it does not understand the node.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.errors import printable
from graphopt.ir.arguments import dims
from graphopt.ir.channel_atoms import MAX_PLACES, Atoms, AtomTable
from graphopt.ir.graph import Constant, Node
from graphopt.ir.inference import Facts
from graphopt.ir.inference.facts import Shape
from graphopt.ir.surgery import input_or_none, producer
from graphopt.numerics.dims import Dim

Axes = list[Atoms]
"""The atoms of a tensor, axis by axis."""


class UnfollowedError(ValueError):
    """A node does something with its channels that its rule does not follow."""


@dataclass(frozen=True, eq=False)
class Use:
    """A tensor with its atoms: where it is computed or, for a constant, where it is read.

    Attributes:
        tensor: the tensor.
        axes: its atoms.
        node: the node that computes it or reads it.
        index: as which output or input.
    """

    tensor: gs.Tensor
    axes: Axes
    node: Node
    index: int


@dataclass(frozen=True, eq=False)
class Read:
    """An axis that a node sums over: what is zero there adds nothing."""

    node: Node
    index: int
    axis: int
    atoms: Atoms


@dataclass(frozen=True, eq=False)
class Work:
    """A part of a node's multiply-accumulates: proportional to the lengths of these axes.

    Attributes:
        node: the node.
        share: which part, between 0 and 1.
        axes: their atoms.
    """

    node: Node
    share: float
    axes: Sequence[Atoms]


@dataclass
class Trace:
    """What following the channels of a model found.

    Attributes:
        atoms: which places leave together.
        uses: all tensors with their atoms, in the order of computation.
        reads: where channels are summed.
        makes: the nodes whose weights make channels, with the atoms of these.
        works: what it costs.
        heads: atoms that count matrix products.
    """

    atoms: AtomTable = field(default_factory=AtomTable)
    uses: list[Use] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    makes: list[tuple[Node, Atoms]] = field(default_factory=list)
    works: list[Work] = field(default_factory=list)
    heads: list[Atoms] = field(default_factory=list)


class Following(Protocol):
    """The walk that a node is visited on."""

    trace: Trace
    facts: Facts
    opset: int

    def axes(self, node: Node, index: int) -> Axes | None:
        """The atoms of a node's input; None where its rank is not known."""

    def is_weight(self, tensor: gs.Tensor) -> bool:
        """Whether a tensor is a constant or computed from constants only."""


class Visit:
    """One node as its rule sees it."""

    def __init__(self, tracer: Following, node: Node) -> None:
        self.tracer = tracer
        self.node = node
        self.atoms = tracer.trace.atoms
        self.facts = tracer.facts
        self.opset = tracer.opset
        self.asked: set[int] = set()

    @property
    def label(self) -> str:
        """The node's operator and name."""
        return named(self.node)

    @property
    def results(self) -> int:
        """How many outputs are asked for."""
        return sum(bool(tensor.name) for tensor in self.node.outputs)

    def has(self, index: int) -> bool:
        """Whether this input is given."""
        return input_or_none(self.node, index) is not None

    def axes(self, index: int) -> Axes:
        """The atoms of an input, a list of one's own.

        Raises:
            UnfollowedError: its rank is not known.
        """
        self.asked.add(index)
        found = self.tracer.axes(self.node, index)
        if found is None:
            raise UnfollowedError(f"{self.label} reads a tensor of unknown rank")
        return list(found)

    def shape(self, index: int) -> Shape:
        """The dims of an input."""
        found = dims(self.node.inputs[index], self.facts)
        if found is None:
            raise UnfollowedError(f"{self.label} reads a tensor of unknown rank")
        return found

    def result(self, index: int = 0) -> Shape:
        """The dims of an output."""
        found = dims(self.node.outputs[index], self.facts)
        if found is None:
            raise UnfollowedError(f"{self.label} has a result of unknown rank")
        return found

    def is_weight(self, index: int) -> bool:
        """Whether an input is the same in every run."""
        return self.tracer.is_weight(self.node.inputs[index])

    def fixed(self, why: str = "") -> Atoms:
        """An axis that stays."""
        return self.atoms.fixed(why or f"{self.label} makes it anew")

    def source(self, dim: Dim) -> Atoms:
        """An axis of its own, where its length is known."""
        return self.atoms.fresh(dim) if isinstance(dim, int) else self.fixed()

    def lock(self, axes: Sequence[Atoms], why: str) -> None:
        """Axes that stay."""
        for atoms in axes:
            self.atoms.lock(atoms, why)

    def join(self, a: Atoms, b: Atoms) -> None:
        """Axes whose places leave together, one to one."""
        if a.ndim and b.ndim and len(a) != len(b):
            raise UnfollowedError(f"{self.label} joins axes of unequal lengths")
        self.atoms.join(a, b)

    def split(self, whole: Atoms, parts: Sequence[Atoms]) -> None:
        """An axis that is the product of others; those of one place do not count."""
        parts = [part for part in parts if part.ndim == 0 or len(part) != 1]
        known = whole.ndim and all(part.ndim for part in parts)
        if known and math.prod(map(len, parts)) != len(whole):
            raise UnfollowedError(f"{self.label} divides an axis unevenly")
        if len(parts) == 1:
            self.atoms.join(whole, parts[0])
        elif parts:
            self.atoms.split(whole, parts, self.label)

    def sum(self, index: int, axis: int, atoms: Atoms) -> None:
        """The node sums over this axis of an input."""
        tensor = self.node.inputs[index]
        if not isinstance(tensor, Constant) and self.facts.dtype(tensor) is None:
            raise UnfollowedError(f"{self.label} reads a tensor of unknown type")
        self.tracer.trace.reads.append(Read(self.node, index, axis, atoms))

    def make(self, atoms: Atoms) -> None:
        """The node's weights make these channels."""
        self.tracer.trace.makes.append((self.node, atoms))

    def work(self, axes: Sequence[Atoms], share: float = 1.0) -> None:
        """The node's multiply-accumulates, or a share of them, grow with these axes."""
        self.tracer.trace.works.append(Work(self.node, share, axes))

    def batch(self, atoms: Atoms) -> None:
        """These count independent matrix products."""
        self.atoms.batch(atoms)
        if atoms.ndim and len(atoms) > 1:
            self.tracer.trace.heads.append(atoms)

    def broadcast(self, flows: Sequence[Axes]) -> Axes:
        """What axes become when tensors are broadcast together; those of equal length are joined."""
        rank = max(map(len, flows))
        return [
            self._meet([axes[position] for axes in flows if len(axes) >= -position])
            for position in range(-rank, 0)
        ]

    def _meet(self, entries: list[Atoms]) -> Atoms:
        several = [a for a in entries if a.ndim and len(a) != 1]
        scalars = [a for a in entries if not a.ndim]
        if several:
            for other in (*several[1:], *scalars):
                self.join(several[0], other)
            return several[0]
        if scalars:
            return scalars[0]
        for other in entries[1:]:
            self.join(entries[0], other)
        return entries[0]


def literal(tensor: gs.Tensor) -> np.ndarray | None:
    """The contents of a constant, be it an initializer or what a Constant node holds; else None."""
    if isinstance(tensor, Constant):
        return tensor.values
    made = producer(tensor)
    if made is None or made.op != "Constant" or not made.standard:
        return None
    for name, dtype in (("value_int", np.int64), ("value_ints", np.int64)):
        if name in made.attrs:
            return np.asarray(made.attrs[name], dtype)
    value = made.attrs.get("value")
    return value.values if isinstance(value, Constant) else None


def filled(atoms: Atoms, places: int) -> Atoms:
    """An axis place by place, also where it stays as a whole; one that is too long stays a scalar."""
    return atoms if atoms.ndim or places > MAX_PLACES else np.full(places, atoms, dtype=np.int64)


def named(node: Node) -> str:
    """A node for people: operator and name."""
    return f"{printable(node.op)} {node.label!r}"


Rule = Callable[[Visit], Axes | list[Axes]]

RULES: dict[str, Rule] = {}
"""How operators of the standard pass channels on, by name."""


def follows(*ops: str) -> Callable[[Rule], Rule]:
    """Register the rule of some operators. It returns the axes of the output, or a list of them."""

    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(ops, rule))
        return rule

    return register
