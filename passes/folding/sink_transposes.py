"""Move Transposes down through operators until they meet others and cancel.

    f(Transpose(x, p), Transpose(y, p), c)   =>   Transpose(f(x, y, c'), p)

Around each Transpose the largest region of operators is taken that can work on the untransposed
data: elementwise ones, Concat, Split, Slice, Pad, Softmax and Reduce, all of whose other inputs
are constants, in the region, Transposes by the same p, or tensors of which a Transpose makes the
other order anyway. Entering Transposes that nothing else reads go; one is put after each tensor
that leaves the region, and cancels where the inverse stands there. The region changes only when
fewer Transposes remain than there were, so this ends. Graphs made from channels-last models
(TensorFlow) lose most of their Transposes in this way.

Refuses: inputs of a region in the original order; large constants that something else reads too,
which would be stored twice; a region that gains nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.graph import Constant, Node, Variable
from graphopt.ir.surgery import (
    Scope,
    bypass,
    insert,
    new_constant,
    new_tensor,
    producer,
    remove,
    replace,
    users,
)
from graphopt.pass_base import Context, Edit, Pass, Skip

from ._integer_operands import plain
from ._permuted_operators import Permuted, dropping, permuted, permuted_constant
from .merge_transposes import permutation

MAX_REGION = 4096
"""Operators of one region."""

MAX_ABOVE = 256
"""Operators above one that are looked at to take it in."""


@dataclass(frozen=True)
class SinkTransposes(Pass):
    """Transposes move down until they cancel."""

    name = "sink-transposes"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        seen: set[int] = set()
        for node in context.nodes(graph, "Transpose"):
            perm = permutation(node)
            if node.uid in seen or perm is None or perm == sorted(perm):
                continue
            region = _Region(node, perm, context)
            region.grow()
            seen.update(entry.uid for entry in region.entries.values())
            if region.gain() > 0:
                count = region.gain()
                region.rewrite()
                yield Edit(node, f"moved down past {len(region.inside)} nodes: {count} less")


def _same(node: Node | None, perm: list[int], near: Node) -> bool:
    return node is not None and plain(node, near, "Transpose") and permutation(node) == perm


@dataclass
class _Region:
    """Operators that shall work on untransposed data, with what goes in and comes out.

    Attributes:
        seed: the Transpose that it grows from.
        perm: its order of axes.
        entries: the Transposes before the region, by ``id`` of their results.
        inside: the operators, by ``id``, with how they work then.
        order: the operators, each after those that it reads.
        exits: operators after the region that need no Transpose.
        refused: operators that cannot be part of it.
        waiting: tensors whose users were not looked at yet.
        made: what stands in for each tensor on untransposed data.
        constants: what stands in for each constant.
    """

    seed: Node
    perm: list[int]
    context: Context
    entries: dict[int, Node] = field(default_factory=dict)
    inside: dict[int, Permuted] = field(default_factory=dict)
    order: list[Node] = field(default_factory=list)
    exits: dict[int, tuple[Node, Permuted]] = field(default_factory=dict)
    refused: set[int] = field(default_factory=set)
    waiting: list[gs.Tensor] = field(default_factory=list)
    made: dict[int, gs.Tensor] = field(default_factory=dict)
    constants: dict[int, Constant] = field(default_factory=dict)

    def grow(self) -> None:
        """Take in all operators below whose other inputs are free."""
        self.entries[id(self.seed.outputs[0])] = self.seed
        self.waiting.append(self.seed.outputs[0])
        while self.waiting and len(self.order) < MAX_REGION:
            tensor = self.waiting.pop()
            for user in dict.fromkeys(users(tensor)):
                if id(user) in self.inside or id(user) in self.exits or id(user) in self.refused:
                    continue
                if self._take(user):
                    continue
                way = self._exit(user, tensor)
                if way is not None:
                    self.exits[id(user)] = (user, way)

    def _exit(self, user: Node, tensor: gs.Tensor) -> Permuted | None:
        if not plain(user, self.seed, user.op) or user.inputs[0] is not tensor:
            return None
        if any(t is tensor for t in user.inputs[1:]):
            return None
        return dropping(user, self.perm, self.context)

    def _way(self, node: Node | None) -> Permuted | None:
        """How a node works in the region; None where it cannot be in it."""
        if node is None or id(node) in self.refused or not plain(node, self.seed, node.op):
            return None
        return permuted(node, self.perm, self.context)

    def _tap(self, tensor: gs.Tensor) -> gs.Tensor | None:
        """The tensor in the other order, where a Transpose after it makes that anyway."""
        found = (user for user in self._transposes(tensor) if self._inverse(user))
        return next((user.outputs[0] for user in found), None)

    def _take(self, node: Node) -> bool:
        """Take in a node with all above it up to Transposes; False where that fails."""
        taken: dict[int, Permuted] = {}
        entries: dict[int, Node] = {}
        taps: dict[int, gs.Tensor] = {}
        ordered: list[Node] = []
        stack = [(node, False)]
        while stack:
            current, done = stack.pop()
            if done:
                ordered.append(current)
                continue
            if id(current) in taken or id(current) in self.inside:
                continue
            way = self._way(current)
            data = [current.inputs[index] for index in way.data] if way is not None else []
            moving = [tensor for tensor in data if not isinstance(tensor, Constant)]
            if way is None or not moving or len(taken) >= MAX_ABOVE:
                self.refused |= {id(node), id(current)}
                return False
            taken[id(current)] = way
            stack.append((current, True))
            for tensor in moving:
                made = producer(tensor)
                if made is not None and _same(made, self.perm, self.seed):
                    entries[id(tensor)] = made
                elif made is not None and (id(made) in self.inside or self._way(made)):
                    stack.append((made, False))
                elif (tap := self._tap(tensor)) is not None:
                    taps[id(tensor)] = tap
                else:
                    self.refused.add(id(node))
                    return False
        self._add(taken, ordered, entries)
        self.made.update(taps)
        return True

    def _add(
        self, taken: dict[int, Permuted], ordered: list[Node], entries: dict[int, Node]
    ) -> None:
        self.inside.update(taken)
        self.order += ordered
        new = [entry.outputs[0] for key, entry in entries.items() if key not in self.entries]
        self.waiting += [tensor for node in ordered for tensor in node.outputs if tensor.name]
        self.waiting += new
        self.entries.update(entries)

    def gain(self) -> int:
        """How many Transposes fewer there are after ``rewrite``."""
        gone = sum(1 for entry in self.entries.values() if self._vanishes(entry))
        for node in self.order:
            for tensor in node.outputs:
                if not tensor.name:
                    continue
                gone += sum(1 for user in self._transposes(tensor) if self._inverse(user))
                gone -= self._leaves(tensor)
        return gone

    def _vanishes(self, entry: Node) -> bool:
        tensor = entry.outputs[0]
        taken = [id(user) in self.inside or id(user) in self.exits for user in users(tensor)]
        return not tensor.is_output and bool(taken) and all(taken)

    def _transposes(self, tensor: gs.Tensor) -> list[Node]:
        return [user for user in users(tensor) if plain(user, self.seed, "Transpose")]

    def _combined(self, node: Node) -> list[int]:
        order = permutation(node) or list(range(len(self.perm)))[::-1]
        return [self.perm[axis] for axis in order]

    def _inverse(self, node: Node) -> bool:
        return self._combined(node) == sorted(self.perm)

    def _leaves(self, tensor: gs.Tensor) -> bool:
        """Whether something outside needs the tensor in the order that it has now."""
        if tensor.is_output:
            return True
        return any(
            id(user) not in self.inside
            and id(user) not in self.exits
            and not plain(user, self.seed, "Transpose")
            for user in users(tensor)
        )

    def rewrite(self) -> None:
        """Build the region anew on untransposed data and take the old one out."""
        for key, entry in self.entries.items():
            self.made[key] = entry.inputs[0]
        old = []
        for node in self.order:
            outputs = [t for t in node.outputs if t.name]
            old.append((node, outputs))
            graph = node.graph
            assert graph is not None
            fresh = [new_tensor(graph, t.name) if t.name else t for t in node.outputs]
            self._rebuild(node, self.inside[id(node)], fresh)
            for before, after in zip(node.outputs, fresh, strict=True):
                self.made[id(before)] = after
        for node, way in self.exits.values():
            self._rebuild(node, way, list(node.outputs))
        for node, outputs in old:
            for tensor in outputs:
                self._leave(node, tensor)
        for node, _ in reversed(old):
            remove(node)
        for entry in self.entries.values():
            remove(entry)

    def _rebuild(self, node: Node, way: Permuted, outputs: list[gs.Tensor]) -> None:
        inputs = list(node.inputs)
        for index in way.data:
            tensor = inputs[index]
            known = self.made.get(id(tensor))
            inputs[index] = self._constant(node, tensor) if known is None else known
        for index, values in way.lists.items():
            assert node.graph is not None
            while len(inputs) <= index:
                inputs.append(Variable(""))
            base = inputs[index].name or f"{node.name or node.op}/axes"
            inputs[index] = new_constant(node.graph, base, np.array(values, np.int64))
        replace(node, node.op, inputs, way.attrs, outputs)

    def _constant(self, node: Node, tensor: gs.Tensor) -> gs.Tensor:
        values = permuted_constant(tensor.values, self.perm)
        if values is tensor.values:
            return tensor
        if id(tensor) not in self.constants:
            assert node.graph is not None
            self.constants[id(tensor)] = new_constant(node.graph, tensor.name, values)
        return self.constants[id(tensor)]

    def _leave(self, node: Node, tensor: gs.Tensor) -> None:
        """Give a tensor that leaves the region to those who read it."""
        transposes = self._transposes(tensor)
        after = self.made[id(tensor)]
        if self._leaves(tensor):
            insert(node, "Transpose", [after], [tensor], {"perm": list(self.perm)})
        for user in transposes:
            order = self._combined(user)
            if not self._inverse(user):
                replace(user, "Transpose", [after], {"perm": order})
                continue
            result = user.outputs[0]
            renamed = bool(result.is_output)
            if not bypass(user, after):
                replace(user, "Identity", [after])
            elif renamed:
                after = self.made[id(tensor)] = result
