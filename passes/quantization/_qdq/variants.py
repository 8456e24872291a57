"""A model in which much is computed a second time, each time with something else rounded.

Everything that depends on a rounded tensor is there twice, beside the original, so one run gives what many
roundings do to the outputs. In bodies of control flow the node that holds them is there twice.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from graphopt.ir.graph import Constant, Node, Variable
from graphopt.ir.model import Model
from graphopt.ir.nesting import bodies_of, enclosing, home, homes, nodes_within
from graphopt.ir.surgery import Scope, insert, new_constant, new_tensor, producer, read_by

from .bodies import decides, repeated, rounded_inside
from .insertion import Scale
from .targets import Target
from .units import Unit
from .weights import Rounded, rounded

NODES = 6000
"""Nodes of a model beyond which no further rounding is measured in it."""

Key = Hashable
"""What is rounded: an activation in one of several ways, or the constants of a unit, by its number."""


@dataclass(frozen=True)
class Rounding:
    """One activation on one grid.

    Attributes:
        key: by which the loss is found.
        tensor: the name of the activation.
        scale: its grid.
    """

    key: Key
    tensor: str
    scale: Scale


@dataclass
class Variants:
    """A copy of a model in which things are computed a second time, rounded.

    Attributes:
        model: the copy.
        outputs: the names of the outputs that are compared.
        constants: weights as integers, by the number of the unit.
        differences: by what is rounded, the names of the sums of the squared differences by the name of the
            output.
        unknown: what decides, when rounded, which bodies of control flow run: its loss is not known.
    """

    model: Model
    target: Target
    outputs: Sequence[str]
    constants: Mapping[int, Rounded]
    differences: dict[Key, dict[str, str]] = field(default_factory=dict)
    unknown: set[Key] = field(default_factory=set)
    inserted: int = 0
    nested: bool = field(init=False)
    inputs: dict[int, Scope] = field(init=False)
    order: list[Node] = field(init=False)
    nodes: dict[int, Node] = field(init=False)
    tensors: dict[str, gs.Tensor] = field(init=False)

    def __post_init__(self) -> None:
        """Remember the nodes and tensors as they were."""
        self.order = list(self.model.graph.nodes)
        every = list(nodes_within(self.model.graph))
        self.inputs = homes(self.model.graph)
        self.nested = len(every) > len(self.order)
        self.nodes = {node.uid: node for node in every}
        self.tensors = {t.name: t for node in every for t in node.outputs}
        scopes = (self.model.graph, *bodies_of(self.model.graph))
        self.tensors.update((tensor.name, tensor) for scope in scopes for tensor in scope.inputs)

    @property
    def full(self) -> bool:
        """Whether there is no room for another one."""
        return self.inserted + len(self.model.graph.nodes) > NODES

    def add_activation(self, rounding: Rounding) -> None:
        """Round one activation."""
        tensor, root = self.tensors[rounding.tensor], self._around(self.tensors[rounding.tensor])
        if self.nested and decides([tensor]):
            self.unknown.add(rounding.key)
        elif root is None:
            near = producer(tensor) or self.order[0]
            read = self._pair(tensor, near, rounding.scale)
            self._repeat({id(tensor): read}, rounding.key)
        else:
            seconds = rounded_inside(root, tensor, partial(self._pair, scale=rounding.scale))
            self._entered(root)
            self._repeat(seconds, rounding.key)

    def _pair(self, tensor: gs.Tensor, near: Node, scale: Scale) -> gs.Tensor:
        """A tensor, quantized and dequantized beside a node of its scope."""
        graph = self.model.graph
        behind = 0.5 if producer(tensor) is not None else -0.5
        parameters = (
            new_constant(graph, "scale", np.asarray(scale.scale, np.float32)),
            new_constant(
                graph, "zero", np.asarray(scale.zero_point, self.target.activations.dtype)
            ),
        )
        read = tensor
        for op in ("QuantizeLinear", "DequantizeLinear"):
            made = new_tensor(graph, f"{tensor.name}/{op}")
            insert(near, op, [read, *parameters], [made]).order += behind
            read = made
        return read

    def _around(self, tensor: gs.Tensor) -> Node | None:
        """The node of the main graph in whose bodies a tensor is defined; None for one outside them."""
        scope = home(tensor, self.inputs)
        return None if scope is None else next(reversed([*enclosing(scope)]), None)

    def _entered(self, root: Node) -> None:
        """Count the nodes of a copy of bodies."""
        self.inserted += sum(1 for body in root.bodies() for _ in nodes_within(body))

    def add_constants(self, unit: Unit) -> None:
        """Round the constants of one unit."""
        node, seconds = unit.node, dict[int, gs.Tensor]()
        root = self._around(node.outputs[0])
        if self.nested and decides(node.outputs):
            self.unknown.add(node.uid)
            return
        inputs = [
            self._rounded(unit, place, tensor) if isinstance(tensor, Constant) else None
            for place, tensor in enumerate(node.inputs)
        ]
        if root is None:
            made = new_tensor(self.model.graph, f"{node.outputs[0].name}/rounded")
            given = [new or old for new, old in zip(inputs, node.inputs, strict=True)]
            insert(node, node.op, given, [made], dict(node.attrs)).order += 0.5
            seconds[id(node.outputs[0])] = made
        else:
            _, copies = repeated(root, seconds)
            copy = producer(copies[id(node.outputs[0])])
            assert copy is not None
            copy.inputs = [new or old for new, old in zip(inputs, copy.inputs, strict=True)]
            self._entered(root)
        self._repeat(seconds, node.uid)

    def _rounded(self, unit: Unit, place: int, tensor: Constant) -> gs.Tensor:
        values = tensor.values
        if unit.kind == "movement" or values.dtype != np.float32:
            return tensor
        if place == unit.bias:
            bias = known.bias if (known := self.constants.get(unit.uid)) is not None else None
            if bias is None:
                return tensor
            changed = bias.astype(np.float32).reshape(values.shape)
            return new_constant(self.model.graph, tensor.name, changed)
        if place == unit.weight == 1:
            axis = unit.channel_axis()
            known = self.constants.get(unit.uid) or rounded(values, axis, self.target.weights)
            shape = [1] * values.ndim
            if axis is not None:
                shape[axis] = -1
            made = known.steps * known.scale.reshape(shape)
        else:
            grid = self.target.activations
            own, zero = grid.parameters(values.min(), values.max(), self.target.symmetric)
            made = grid.dequantized(grid.quantized(values, own, zero), own, zero)
        return new_constant(self.model.graph, tensor.name, made.astype(np.float32))

    def _repeat(self, seconds: dict[int, gs.Tensor], key: Key) -> None:
        """Compute all that depends on some tensors once more, from their second version."""
        graph = self.model.graph
        for node in self.order:
            if any(id(tensor) in seconds for tensor in node.outputs):
                continue
            if any(True for _ in node.bodies()):
                if any(id(tensor) in seconds for tensor in read_by(node)):
                    repeated(node, seconds)
                    self._entered(node)
                continue
            if not any(id(tensor) in seconds for tensor in node.inputs):
                continue
            made = [new_tensor(graph, t.name) if t.name else Variable("") for t in node.outputs]
            inputs = [seconds.get(id(tensor), tensor) for tensor in node.inputs]
            copy = insert(node, node.op, inputs, made, dict(node.attrs))
            copy.domain, copy.order = node.domain, node.order + 0.25
            for old, new in zip(node.outputs, made, strict=True):
                seconds[id(old)] = new
        found = {}
        for name in self.outputs:
            tensor = self.tensors[name]
            if id(tensor) in seconds:
                found[name] = self._squared_difference(seconds[id(tensor)], tensor)
        self.differences[key] = found

    def _squared_difference(self, second: gs.Tensor, first: gs.Tensor) -> str:
        """The sum of the squares of the difference of two tensors, by name."""
        graph, near, read = self.model.graph, producer(first) or self.order[-1], [second, first]
        steps: tuple[tuple[str, dict[str, int]], ...] = (
            ("Sub", {}),
            ("Cast", {"to": onnx.TensorProto.FLOAT}),
            ("ReduceSumSquare", {"keepdims": 0}),
        )
        for number, (op, attrs) in enumerate(steps):
            made = new_tensor(graph, f"{first.name}/{op}")
            insert(near, op, read, [made], dict(attrs)).order += 0.75 + 0.01 * number
            read = [made]
        return str(read[0].name)
