"""What a run holds in memory at its peak: constants as a runtime keeps them, and activations alive at once.

Constants. A runtime computes what depends on constants alone when it loads a model. What it keeps is what
other nodes read: a result instead of what it was made from. DequantizeLinear is left alone, as ONNX Runtime
does, so its weights stay as small as they are stored; nodes with bodies are left alone as well.

Activations. Nodes run in the order of the model. A tensor is there from the node that makes it to the last
that reads it, what a caller gives or gets until the end. While a node runs, its inputs, its outputs and the
peak of its bodies are there; the outputs of an If or of a local function are those of its body. What only
looks at its input otherwise (Reshape and its kin) takes nothing. Two buffers are never one, so an
element-wise operator that a runtime would let write over its input counts with both.

What kernels need for themselves, such as weights packed anew or scratch space, is not counted.

Source: Aho, Lam, Sethi, Ullman, Compilers, chapter 9.2.5, live variables.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import onnx_graphsurgeon as gs

from graphopt.ir.frames import Frame, UnprovenError
from graphopt.ir.graph import Constant, Node, element_bits
from graphopt.ir.inference import Facts
from graphopt.ir.model import Model
from graphopt.ir.operators import NON_TENSOR, QUANTIZED_STORAGE, deterministic
from graphopt.ir.surgery import Scope, producer

VIEWS = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
"""Operators whose result is their input under another shape."""


def runtime_bytes(
    model: Model, facts: Facts, bindings: Mapping[str, int] | None = None
) -> int | None:
    """Bytes that a run holds at its peak; None where a shape or type is not proven.

    Args:
        model: the model.
        facts: what is proven of its tensors.
        bindings: sizes of symbolic dimensions of the inputs; 1 where one is missing.
    """
    memory = _Memory()
    try:
        peak = memory.peak(model.graph, Frame.of(model, facts, bindings))
    except UnprovenError:
        return None
    return peak + sum(memory.constants.values())


@dataclass
class _Memory:
    """What was found in the scopes so far.

    Attributes:
        constants: bytes of the constants that are kept, by ``id`` and by the call that they belong to.
        folded: tensors, by ``id``, that are computed when the model is loaded.
    """

    constants: dict[tuple[int, int], int] = field(default_factory=dict)
    folded: set[int] = field(default_factory=set)
    calls: int = 0

    def peak(self, scope: Scope, frame: Frame, call: int = 0) -> int:
        """The most bytes of activations that one run of a scope holds at once; keeps its constants."""
        nodes = self._running(scope, frame)
        for tensor in (*(t for node in nodes for t in node.inputs), *scope.outputs):
            self._keep(tensor, frame, call)
        plan = _Plan(self, scope, frame)
        expiring = plan.expiring(nodes)
        most = live = sum(plan.held.values())
        for index, node in enumerate(nodes):
            made = sum(plan.make(tensor, node) for tensor in node.outputs if tensor.name)
            inner, replaces = self._inner(node, frame, call)
            most = max(most, live + (max(made, inner) if replaces else made + inner))
            live += made - sum(plan.held.pop(key, 0) for key in expiring.get(index, ()))
        return most

    def _running(self, scope: Scope, frame: Frame) -> list[Node]:
        """The nodes of a scope that are left when what depends on constants alone is computed."""
        left = []
        for node in scope.nodes:
            if node.dead:
                continue
            if self._foldable(node, frame):
                self.folded.update(id(tensor) for tensor in node.outputs)
            else:
                left.append(node)
        return left

    def _foldable(self, node: Node, frame: Frame) -> bool:
        if (
            not node.standard
            or frame.function(node) is not None
            or any(True for _ in node.bodies())
        ):
            return False
        if node.op in QUANTIZED_STORAGE or node.op in NON_TENSOR or not deterministic(node.op):
            return False
        read = [tensor for tensor in node.inputs if tensor.name or isinstance(tensor, Constant)]
        return all(isinstance(tensor, Constant) or id(tensor) in self.folded for tensor in read)

    def _keep(self, tensor: gs.Tensor, frame: Frame, call: int) -> None:
        key = (id(tensor), call)
        if key in self.constants:
            return
        made = producer(tensor)
        stored = made.attrs.get("value") if made is not None and made.op == "Constant" else tensor
        if isinstance(stored, Constant):
            self.constants[key] = stored.nbytes
        elif id(tensor) in self.folded:
            self.constants[key] = size_of(tensor, frame)

    def _inner(self, node: Node, frame: Frame, call: int) -> tuple[int, bool]:
        """The peak of what runs inside a node, and whether the node's outputs are part of it."""
        function = frame.function(node)
        if function is not None:
            self.calls += 1
            inner = _Memory(self.constants, set(), self.calls)
            peak = inner.peak(function, frame.enter(node, function), self.calls)
            self.calls = inner.calls
            return peak, True
        bodies = frame.bodies(node)
        return max((self.peak(b, frame, call) for b in bodies), default=0), node.op == "If"


@dataclass
class _Plan:
    """Which buffers a scope needs, and how long.

    Attributes:
        held: bytes of the buffers that are alive, by ``id`` of the tensor that they were made for.
        roots: for a tensor that looks at another's buffer, by ``id``, that tensor.
    """

    memory: _Memory
    scope: Scope
    frame: Frame
    held: dict[int, int] = field(default_factory=dict)
    roots: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.frame.depth == 0 or self.scope.parent is not None:
            self.held = {id(t): size_of(t, self.frame) for t in self.scope.inputs}

    def make(self, tensor: gs.Tensor, node: Node) -> int:
        """Bytes that an output of a node takes when it is made."""
        if id(tensor) in self.roots:
            return 0
        self.held[id(tensor)] = size_of(tensor, self.frame)
        return self.held[id(tensor)]

    def expiring(self, nodes: list[Node]) -> dict[int, list[int]]:
        """The buffers that are free after each node, by its place."""
        kept = {id(tensor) for tensor in (*self.scope.inputs, *self.scope.outputs)}
        last: dict[int, int] = {}
        for index, node in enumerate(nodes):
            if node.op in VIEWS and node.standard and node.inputs and node.outputs:
                source, view = id(node.inputs[0]), id(node.outputs[0])
                if view not in kept:
                    self.roots[view] = self.roots.get(source, source)
            for tensor in (*_read(node, self.frame), *node.outputs):
                last[self.roots.get(id(tensor), id(tensor))] = index
        found: dict[int, list[int]] = {}
        for key, index in last.items():
            if key not in kept:
                found.setdefault(index, []).append(key)
        return found


def size_of(tensor: gs.Tensor, frame: Frame) -> int:
    """Bytes of a tensor, types below a byte packed.

    Raises:
        UnprovenError: its shape or type is not known, or its elements are strings.
    """
    dtype = frame.engine.fact(tensor, frame.facts).dtype
    if dtype is None or dtype == object:
        raise UnprovenError("the type is not known, or it has no fixed size")
    return (math.prod(frame.shape(tensor)) * element_bits(dtype) + 7) // 8


def _read(node: Node, frame: Frame) -> Iterator[gs.Tensor]:
    """What a node reads, itself or from inside its bodies."""
    yield from node.inputs
    stack: list[Iterable[Scope]] = [node.bodies()]
    while stack:
        for body in stack.pop():
            yield from body.outputs
            for inner in body.nodes:
                yield from inner.inputs
                stack.append(inner.bodies())
