"""Patterns of nodes: a pattern is a value, a match is a value.

    CONV_BN = Op("BatchNormalization", name="bn", inputs=(Op("Conv", name="conv", sole_user=True),))
    for match in find(nodes, CONV_BN):
        match["conv"], match["bn"]

A pattern is written from its last node up: an ``Op`` matches the node that computes a tensor, its
``inputs`` match what that node reads. ``Any`` binds a tensor, ``Value`` a constant with one value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.graph import Constant, Node
from graphopt.ir.surgery import producer, splat


@dataclass(frozen=True)
class Any:
    """Matches every tensor; the same name must mean the same tensor each time.

    Args:
        name: what to call it in the match; unnamed it is not kept.
        constant: whether it must be a constant.
    """

    name: str = ""
    constant: bool = False


@dataclass(frozen=True)
class Value:
    """Matches a constant all of whose elements are one value.

    Args:
        value: the value, or None for any.
        name: what to call the tensor in the match.
        tolerance: the largest relative difference; float32 rounding of the constant by default.
    """

    value: float | None = None
    name: str = ""
    tolerance: float = 1e-6


@dataclass(frozen=True)
class Op:
    """Matches a tensor that a node of the standard domain computes as its first output.

    Args:
        op: the operator, or several to choose from with ``|``, as in ``"Add|Sub"``.
        name: what to call the node in the match.
        inputs: patterns of the first inputs; further ones are free unless ``exact_inputs``.
        sole_user: whether the tensor may have no user beside the node below it.
        commutative: whether two inputs may stand in either order; by default for Add, Mul, Min, Max.
        exact_inputs: whether the node must have no further inputs.
        attrs: attributes that the node must have, with these values (absent counts as different).
    """

    op: str
    name: str = ""
    inputs: tuple[Pattern, ...] = ()
    sole_user: bool = True
    commutative: bool | None = None
    exact_inputs: bool = False
    attrs: tuple[tuple[str, object], ...] = ()

    @property
    def ops(self) -> tuple[str, ...]:
        """The operators to choose from."""
        return tuple(self.op.split("|"))


Pattern = Op | Any | Value

_COMMUTATIVE = frozenset({"Add", "Mul", "Min", "Max", "And", "Or", "Equal", "Sum"})


@dataclass
class Match:
    """What a pattern found: nodes and tensors by name."""

    nodes: dict[str, Node] = field(default_factory=dict)
    tensors: dict[str, gs.Tensor] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Node:
        """The node that was matched under a name."""
        return self.nodes[name]

    def tensor(self, name: str) -> gs.Tensor:
        """The tensor that was matched under a name."""
        return self.tensors[name]

    def copy(self) -> Match:
        """A match to try an alternative on."""
        return Match(dict(self.nodes), dict(self.tensors))


def find(nodes: Iterable[Node], pattern: Op) -> Iterator[Match]:
    """Match a pattern at each of the given nodes, at most once per node.

    Args:
        nodes: candidates for the pattern's last node; ones that died meanwhile are passed over.
        pattern: what to look for.
    """
    for node in nodes:
        if not node.dead:
            match = match_node(node, pattern)
            if match is not None:
                yield match


def match_node(node: Node, pattern: Op) -> Match | None:
    """Match a pattern with ``node`` as its last node."""
    return next(_node(node, pattern, Match()), None)


def _tensor(tensor: gs.Tensor, pattern: Pattern, match: Match, below: Node) -> Iterator[Match]:
    if isinstance(pattern, Op):
        node = producer(tensor)
        if node is None or node.graph is not below.graph or node.outputs[0] is not tensor:
            return
        if pattern.sole_user and (tensor.is_output or any(u is not below for u in tensor.outputs)):
            return
        yield from _node(node, pattern, match)
        return
    if isinstance(pattern, Value):
        found = splat(tensor)
        if found is None or not _close(found, pattern):
            return
    elif pattern.constant and not isinstance(tensor, Constant):
        return
    if not tensor.name:
        return
    if pattern.name:
        bound = match.tensors.get(pattern.name)
        if bound is not None and bound is not tensor:
            return
        match = match.copy()
        match.tensors[pattern.name] = tensor
    yield match


def _close(found: np.generic, pattern: Value) -> bool:
    if pattern.value is None:
        return True
    if found.dtype.kind not in "fiub":
        return False
    wanted = pattern.value
    return abs(float(found) - wanted) <= pattern.tolerance * max(abs(wanted), 1e-30)


def _node(node: Node, pattern: Op, match: Match) -> Iterator[Match]:
    if node.op not in pattern.ops or not node.standard:
        return
    if len(node.inputs) < len(pattern.inputs):
        return
    if pattern.exact_inputs and len(node.inputs) != len(pattern.inputs):
        return
    if any(node.attrs.get(key) != value for key, value in pattern.attrs):
        return
    if any(isinstance(value, gs.Node.AttributeRef) for value in node.attrs.values()):
        return
    if any(isinstance(value, gs.Node.AttributeRef) for value in node.attrs.values()):
        return
    if pattern.name:
        bound = match.nodes.get(pattern.name)
        if bound is not None and bound is not node:
            return
        match = match.copy()
        match.nodes[pattern.name] = node
    either = pattern.commutative
    if either is None:
        either = node.op in _COMMUTATIVE
    orders: list[list[gs.Tensor]] = [list(node.inputs[: len(pattern.inputs)])]
    if either and len(pattern.inputs) == 2:
        orders.append(orders[0][::-1])
    for tensors in orders:
        yield from _inputs(node, tensors, pattern.inputs, match)


def _inputs(
    node: Node, tensors: list[gs.Tensor], patterns: tuple[Pattern, ...], match: Match
) -> Iterator[Match]:
    if not patterns:
        yield match
        return
    for found in _tensor(tensors[0], patterns[0], match, node):
        yield from _inputs(node, tensors[1:], patterns[1:], found)
