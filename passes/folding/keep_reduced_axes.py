"""Let a Reduce keep its axes where something after it brings them back.

    U(f(Reduce(x, A, keepdims=0)))   =>   f(Reduce(x, A, keepdims=1))

for U a Reshape, Unsqueeze or the like that provably inserts the axes A with size 1, and f elementwise
operators between: all operators that are connected by such tensors change together, so that a mean and a
variance may meet on the way. Constants in f gain the axes too.

Refuses: a result, or a tensor between, that a graph returns or that something else reads; reductions over
different axes that meet; large constants that something else reads too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.graph import Constant, Node
from graphopt.ir.inference.facts import Shape
from graphopt.ir.surgery import (
    Scope,
    bypass,
    new_constant,
    new_tensor,
    producer,
    remove,
    replace,
    users,
)
from graphopt.pass_base import Context, Edit, Pass, Skip

from ._integer_operands import from_front, integers, is_given, opset, plain
from ._permuted_operators import SHARED_BYTES, VARIADIC
from .eliminate_reshape_around_elementwise import BINARY, SCALAR_OPERANDS, UNARY, data_index
from .merge_reshapes import RESHAPES

REDUCTIONS = (
    *("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2"),
    *("ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare"),
)
MAX_NODES = 256
"""Operators that change together."""


@dataclass(frozen=True)
class KeepReducedAxes(Pass):
    """A Reduce keeps its axes where something after it brings them back."""

    name = "keep-reduced-axes"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        seen: set[int] = set()
        for node in context.nodes(graph, *REDUCTIONS):
            axes = reduced_axes(node, context)
            if axes is None or node.uid in seen:
                continue
            group = _Group(node, axes, context)
            if group.grow():
                count = len(group.exits)
                group.rewrite()
                yield Edit(node, f"keeps its axes, which {count} nodes after it brought back")
            seen.update(member.uid for member in group.nodes.values())


def reduced_axes(node: Node, context: Context) -> list[int] | None:
    """The axes, from the front, that a Reduce drops; None where it keeps them or they are unknown."""
    rank = context.facts.rank(node.inputs[0])
    if rank is None or node.attrs.get("keepdims", 1) != 0:
        return None
    if not is_given(node, "axes", 1):
        return None if node.attrs.get("noop_with_empty_axes") else list(range(rank))
    axes = integers(node, "axes", 1)
    axes = from_front(axes, rank) if axes else None
    return None if axes is None else sorted(set(axes))


@dataclass
class _Group:
    """Reductions over the same axes and the elementwise operators that connect them.

    Attributes:
        seed: the Reduce that it grows from.
        axes: what is reduced.
        nodes: the reductions and operators, by ``id``.
        exits: what inserts the axes again.
        made: what stands in for each tensor.
    """

    seed: Node
    axes: list[int]
    context: Context
    nodes: dict[int, Node] = field(default_factory=dict)
    exits: dict[int, Node] = field(default_factory=dict)
    made: dict[int, gs.Tensor] = field(default_factory=dict)

    def grow(self) -> bool:
        """Take in all that is connected; False where some of it cannot change."""
        waiting: list[gs.Tensor] = [self.seed.outputs[0]]
        seen: set[int] = set()
        rank = self.context.facts.rank(self.seed.outputs[0])
        while waiting:
            tensor = waiting.pop()
            if id(tensor) in seen:
                continue
            seen.add(id(tensor))
            made = producer(tensor)
            fits = not tensor.is_output and self.context.facts.rank(tensor) == rank
            if made is None or not fits or len(self.nodes) >= MAX_NODES:
                return False
            found = self._reads(made)
            if found is None:
                return False
            self.nodes[id(made)] = made
            waiting += found
            for user in dict.fromkeys(users(tensor)):
                if self._brings_back(user, tensor):
                    self.exits[id(user)] = user
                elif user.outputs and self._reads(user) is not None:
                    waiting.append(user.outputs[0])
                else:
                    return False
        return bool(self.exits)

    def _reads(self, node: Node) -> list[gs.Tensor] | None:
        """The tensors that must change with a node; None for a node that cannot."""
        if not plain(node, self.seed, node.op):
            return None
        if node.op in REDUCTIONS:
            same = reduced_axes(node, self.context) == self.axes
            ranks = [self.context.facts.rank(n.inputs[0]) for n in (node, self.seed)]
            return [] if same and ranks[0] == ranks[1] else None
        if node.op in UNARY or node.op in SCALAR_OPERANDS:
            return [node.inputs[0]] if data_index(node, self.context) == 0 else None
        if node.op not in BINARY and node.op not in VARIADIC:
            return None
        if opset(node) < (8 if node.op in VARIADIC else 7):
            return None
        constants = [t for t in node.inputs if isinstance(t, Constant)]
        if not all(self._growable(constant) for constant in constants):
            return None
        return [t for t in node.inputs if not isinstance(t, Constant)] or None

    def _growable(self, constant: Constant) -> bool:
        rank = self.context.facts.rank(self.seed.outputs[0])
        if rank is None or len(constant.shape) > rank:
            return False
        return len(constant.outputs) == 1 or constant.nbytes <= SHARED_BYTES

    def _grown(self, shape: Shape) -> Shape:
        dims = iter(shape)
        size = len(shape) + len(self.axes)
        return tuple(1 if axis in self.axes else next(dims) for axis in range(size))

    def _brings_back(self, user: Node, tensor: gs.Tensor) -> bool:
        if not plain(user, self.seed, *RESHAPES) or user.inputs[0] is not tensor:
            return False
        if any(t is tensor for t in user.inputs[1:]):
            return False
        shape = self.context.facts.shape(tensor)
        return shape is not None and self.context.facts.shape(user.outputs[0]) == self._grown(shape)

    def rewrite(self) -> None:
        """Build the operators anew with the axes kept, and drop what inserted them."""
        pending = sorted(self.nodes.values(), key=lambda node: node.order)
        while pending:
            later = [node for node in pending if not self._build(node)]
            assert len(later) < len(pending)
            pending = later
        for user in self.exits.values():
            self._skip(user)
        for node in self.nodes.values():
            if not node.dead:
                remove(node)

    def _build(self, node: Node) -> bool:
        """Replace one operator if those it reads are there already."""
        graph = node.graph
        assert graph is not None
        output = node.outputs[0]
        if node.op in REDUCTIONS:
            inputs, attrs = list(node.inputs), {**node.attrs, "keepdims": 1}
        else:
            reads = {id(tensor) for tensor in self._reads(node) or ()}
            if not reads <= self.made.keys():
                return False
            inputs, attrs = [self._operand(node, t) for t in node.inputs], dict(node.attrs)
        made = new_tensor(graph, output.name)
        self.made[id(output)] = made
        replace(node, node.op, inputs, attrs, [made])
        return True

    def _operand(self, node: Node, tensor: gs.Tensor) -> gs.Tensor:
        if not isinstance(tensor, Constant):
            return self.made.get(id(tensor), tensor)
        values = tensor.values
        if values.size == 1 or node.op in SCALAR_OPERANDS:
            return tensor
        rank = self.context.facts.rank(self.seed.outputs[0]) or values.ndim
        aligned = values.reshape((1,) * (rank - values.ndim) + values.shape)
        assert node.graph is not None
        return new_constant(node.graph, tensor.name, np.expand_dims(aligned, tuple(self.axes)))

    def _skip(self, user: Node) -> None:
        before = user.inputs[0]
        source, result = self.made[id(before)], user.outputs[0]
        renamed = bool(result.is_output)
        if not bypass(user, source):
            replace(user, "Identity", [source])
        elif renamed:
            self.made[id(before)] = result
