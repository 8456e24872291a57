"""Compute beforehand what depends on constants alone.

    y = f(c1, c2, ...)   =>   y is a constant

All nodes that can be computed are found first; only tensors that something else reads are kept. They
are evaluated by ONNX Runtime without its optimizations, or by the reference evaluator where it has no
kernel, in a process whose death does no harm. So the values are the ones that would be seen at run time.

Refuses: random operators, operators with bodies, training mode, operators outside the standard domain;
DequantizeLinear, so that quantized weights stay small; a result that would make the constants outgrow
their budget, whose inputs are then looked at in its place; anything whose evaluation fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.graph import Constant, Node, element_bits
from graphopt.ir.operators import (
    NON_TENSOR,
    QUANTIZED_STORAGE,
    TRAINING_OPS,
    deterministic,
    schema,
)
from graphopt.ir.surgery import Scope, insert, is_used, names_of, producer, redirect, remove
from graphopt.pass_base import Context, Edit, Pass, Skip

UNKNOWN_SIZE_ELEMENTS = 1 << 16
"""Elements of all inputs up to which a node is computed though the size of its result is unknown."""

EXPANDING = frozenset({"ConstantOfShape", "Expand", "Pad", "Range", "Resize", "Tile", "Upsample"})
"""Operators whose result may be far larger than their inputs."""

DECODING = frozenset({"Cast", "CastLike", "Gather"})
"""Operators that weights are stored behind to keep the file small (half floats, codebooks)."""


@dataclass(frozen=True)
class FoldConstants(Pass):
    """Nodes that depend on constants alone are computed beforehand."""

    name = "fold-constants"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        if context.evaluate is None:
            return
        plan = _Plan(graph, context)
        plan.choose()
        values = context.evaluate(context.model, plan.run, plan.wanted)
        for node in plan.kept:
            yield from _finish(node, values, context)
        for node, why in plan.refused:
            yield Skip(node, why)


@dataclass
class _Plan:
    """What to compute and what to keep of it."""

    graph: Scope
    context: Context
    run: list[Node] = field(default_factory=list)
    kept: list[Node] = field(default_factory=list)
    wanted: list[gs.Tensor] = field(default_factory=list)
    refused: list[tuple[Node, str]] = field(default_factory=list)

    def choose(self) -> None:
        """Decide from the last node up, so that only what is read elsewhere is kept."""
        candidates = self._candidates()
        inside: set[int] = set()
        for node in reversed(candidates):
            outputs = [t for t in node.outputs if t.name and is_used(t)]
            ends = [
                t for t in outputs if t.is_output or any(id(u) not in inside for u in t.outputs)
            ]
            if ends:
                why = self._too_large(node, outputs)
                if why:
                    self.refused.append((node, why))
                    continue
                self.kept.append(node)
                self.wanted += outputs
            inside.add(id(node))
        self.kept.reverse()
        self.refused.reverse()
        self.run = [node for node in candidates if id(node) in inside]

    def _candidates(self) -> list[Node]:
        known: set[int] = set()
        found = []
        for node in self.context.nodes(self.graph):
            if not _foldable(node, int(self.graph.opset)):
                continue
            made = (producer(t) for t in node.inputs if t.name and not isinstance(t, Constant))
            if all(node_ is not None and id(node_) in known for node_ in made):
                known.add(id(node))
                found.append(node)
        return found

    def _too_large(self, node: Node, outputs: list[gs.Tensor]) -> str:
        """Why a node's outputs may not become constants; empty where they may."""
        made = 0
        for tensor in outputs:
            size = self._bytes(node, tensor)
            if size is None:
                return "the size of the result is not known beforehand"
            if size > self.context.limits.fold_bytes:
                return (
                    f"the result takes {size} bytes, the limit is {self.context.limits.fold_bytes}"
                )
            made += size
        freed, decodes = self._freed(node)
        if made > freed and decodes:
            return f"it would store {made} bytes in place of {freed}"
        if not self.context.afford(made, freed):
            left = max(self.context.budget, 0)
            return f"the constants would grow by {made - freed} bytes, {left} are left"
        return ""

    def _bytes(self, node: Node, tensor: gs.Tensor) -> int | None:
        shape = self.context.facts.static_shape(tensor)
        dtype = self.context.facts.dtype(tensor)
        if shape is not None and dtype is not None:
            return (int(np.prod(shape, dtype=object)) * element_bits(dtype) + 7) // 8
        read = sum(int(np.prod(t.shape)) for t in node.inputs if isinstance(t, Constant))
        if node.op in EXPANDING or read > UNKNOWN_SIZE_ELEMENTS:
            return None
        return 8 * read

    def _freed(self, node: Node) -> tuple[int, bool]:
        """Bytes of constants that only this node's result needs, and whether it decodes weights."""
        cone: dict[int, Node] = {}
        constants: dict[int, Constant] = {}
        stack = [node]
        while stack:
            current = stack.pop()
            if id(current) in cone:
                continue
            cone[id(current)] = current
            for tensor in current.inputs:
                if isinstance(tensor, Constant):
                    constants[id(tensor)] = tensor
                elif tensor.inputs:
                    stack.append(tensor.inputs[0])
        freed = sum(
            c.nbytes
            for c in constants.values()
            if not c.is_output and all(id(user) in cone for user in c.outputs)
        )
        large = any(c.nbytes > 1024 for c in constants.values())
        return freed, large and any(n.op in DECODING for n in cone.values())


def _foldable(node: Node, opset: int) -> bool:
    if not deterministic(node.op) or node.op in QUANTIZED_STORAGE or node.op in NON_TENSOR:
        return False
    if node.op == "Constant" or schema(node.op, opset) is None:
        return False
    if node.op in TRAINING_OPS and (node.attrs.get("training_mode") or len(node.outputs) > 1):
        return False
    return not (node.op == "Dropout" and len(node.inputs) > 2)


def _finish(
    node: Node, values: dict[int, np.ndarray | str], context: Context
) -> Iterator[Edit | Skip]:
    """Put the computed values in the place of a node."""
    outputs = [t for t in node.outputs if t.name and is_used(t)]
    for tensor in outputs:
        value = values[id(tensor)]
        why = value if isinstance(value, str) else _contradiction(tensor, value, context)
        if why:
            yield Skip(node, f"it cannot be computed beforehand: {why}")
            return
    shown = []
    for tensor in outputs:
        value = values[id(tensor)]
        assert isinstance(value, np.ndarray)
        shown.append(f"{value.dtype.name}[{','.join(map(str, value.shape))}]")
        become_constant(node, tensor, value)
    remove(node)
    yield Edit(node, f"computed: {', '.join(shown)}")


def become_constant(node: Node, tensor: gs.Tensor, value: np.ndarray) -> None:
    """Let everything that reads a tensor of ``node`` read a constant.

    A graph output is computed by a Constant node from then on, so that it stays an output.
    """
    if tensor.is_output:
        insert(node, "Constant", [], [tensor], {"value": Constant("", value)})
    else:
        redirect(tensor, Constant(tensor.name, value))
    assert node.graph is not None
    names_of(node.graph).bytes_made += value.nbytes


def _contradiction(tensor: gs.Tensor, value: np.ndarray, context: Context) -> str:
    """A computed value must have the type and shape that were proven."""
    dtype, shape = context.facts.dtype(tensor), context.facts.static_shape(tensor)
    if dtype is not None and dtype != value.dtype:
        return f"{value.dtype} came out where {dtype} was proven"
    if shape is not None and shape != value.shape:
        return f"shape {value.shape} came out where {shape} was proven"
    if value.nbytes > context.limits.fold_bytes:
        return f"it takes {value.nbytes} bytes"
    return ""
