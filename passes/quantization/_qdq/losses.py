"""What rounding one activation, or the constants of one unit, does to the outputs of the model.

    loss = mean over outputs of  E (y' - y)^2 / Var y        y': with that one thing rounded, y: without

It is measured: everything that depends on the rounded tensor is computed a second time, in one model with the
original, so a run gives what many roundings do. What several roundings do together is foreseen as the sum,
as of independent noise; the gate judges the whole.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.errors import NativeError
from graphopt.ir.graph import Constant, Node, Variable
from graphopt.ir.inference import Facts
from graphopt.ir.model import Model
from graphopt.ir.surgery import insert, new_constant, new_tensor, producer, tidy
from graphopt.numerics.streaming import MomentsSpec
from graphopt.pass_base import Observe
from graphopt.runtime.observing import Request

from .insertion import Scale, integers_of, weight_scale
from .targets import Target
from .units import Unit

NODES = 6000
"""Nodes of a model beyond which no further rounding is measured in it."""

SAMPLES = 16
"""Samples that a loss is measured on."""

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
class _Variants:
    """A copy of a model in which things are computed a second time, rounded.

    Attributes:
        model: the copy.
        outputs: the names of the outputs that are compared.
        differences: by what is rounded, the names of the differences by the name of the output.
    """

    model: Model
    target: Target
    outputs: Sequence[str]
    differences: dict[Key, dict[str, str]] = field(default_factory=dict)
    order: list[Node] = field(init=False)

    def __post_init__(self) -> None:
        """Remember the nodes as they were."""
        self.order = list(self.model.graph.nodes)

    @property
    def full(self) -> bool:
        """Whether there is no room for another one."""
        return len(self.model.graph.nodes) > NODES

    def add_activation(self, tensor: gs.Tensor, key: Key, scale: Scale) -> None:
        """Round one activation."""
        near = producer(tensor) or self.order[0]
        graph = self.model.graph
        behind = 0.5 if producer(tensor) is not None else -0.5
        values = (
            new_constant(graph, "scale", np.asarray(scale.scale, np.float32)),
            new_constant(
                graph, "zero", np.asarray(scale.zero_point, self.target.activations.dtype)
            ),
        )
        read, parameters = tensor, list(values)
        for op in ("QuantizeLinear", "DequantizeLinear"):
            made = new_tensor(graph, f"{tensor.name}/{op}")
            insert(near, op, [read, *parameters], [made]).order += behind
            read = made
        self._repeat({id(tensor): read}, key)

    def add_constants(self, unit: Unit) -> None:
        """Round the constants of one unit."""
        node = unit.node
        inputs = [
            self._rounded(unit, place, tensor) if isinstance(tensor, Constant) else tensor
            for place, tensor in enumerate(node.inputs)
        ]
        made = new_tensor(self.model.graph, f"{node.outputs[0].name}/rounded")
        insert(node, node.op, inputs, [made], dict(node.attrs)).order += 0.5
        self._repeat({id(node.outputs[0]): made}, node.uid)

    def _rounded(self, unit: Unit, place: int, tensor: Constant) -> gs.Tensor:
        values = tensor.values
        if unit.kind == "movement" or place == unit.bias or values.dtype != np.float32:
            return tensor
        if place == unit.weight:
            axis = unit.channel_axis()
            scale = weight_scale(values, axis)
            shape = [1] * values.ndim
            if axis is not None:
                shape[axis] = -1
            rounded = integers_of(values, scale, axis) * scale.reshape(shape)
        else:
            grid = self.target.activations
            own, zero = grid.parameters(values.min(), values.max(), self.target.symmetric)
            rounded = grid.dequantized(grid.quantized(values, own, zero), own, zero)
        return new_constant(self.model.graph, tensor.name, rounded.astype(np.float32))

    def _repeat(self, seconds: dict[int, gs.Tensor], key: Key) -> None:
        """Compute all that depends on some tensors once more, from their second version."""
        graph = self.model.graph
        for node in self.order:
            if not any(id(tensor) in seconds for tensor in node.inputs):
                continue
            if node.outputs and id(node.outputs[0]) in seconds:
                continue
            made = [new_tensor(graph, t.name) if t.name else Variable("") for t in node.outputs]
            inputs = [seconds.get(id(tensor), tensor) for tensor in node.inputs]
            copy = insert(node, node.op, inputs, made, dict(node.attrs))
            copy.domain, copy.order = node.domain, node.order + 0.25
            for old, new in zip(node.outputs, made, strict=True):
                seconds[id(old)] = new
        found = {}
        for tensor in graph.outputs:
            if tensor.name in self.outputs and id(tensor) in seconds:
                made = producer(tensor)
                gap = new_tensor(graph, f"{tensor.name}/difference")
                inputs = [seconds[id(tensor)], tensor]
                insert(made or self.order[-1], "Sub", inputs, [gap]).order += 0.75
                found[tensor.name] = gap.name
        self.differences[key] = found


def measured_losses(
    model: Model,
    facts: Facts,
    activations: Sequence[Rounding],
    units: Sequence[Unit],
    target: Target,
    observe: Observe,
) -> dict[Key, float]:
    """The loss of each of some roundings.

    Args:
        model: not changed.
        facts: what is proven of its tensors.
        activations: to be rounded, one at a time.
        units: of the model, whose constants are to be rounded, one unit at a time.
        target: whose grids they are.
        observe: gives statistics of tensors.

    Returns:
        By the key of an activation, or the number of a unit; infinite for what cannot be measured.
    """
    outputs = [
        t.name
        for t in model.graph.outputs
        if producer(t) is not None and (dtype := facts.dtype(t)) is not None and dtype.kind == "f"
    ]
    losses: dict[Key, float] = {}
    few = observe.first(SAMPLES)
    for variants in _chunks(model, activations, units, target, outputs):
        losses.update(_losses(variants, few))
    return losses


def _chunks(
    model: Model,
    activations: Sequence[Rounding],
    units: Sequence[Unit],
    target: Target,
    outputs: Sequence[str],
) -> Iterator[_Variants]:
    """Models with as many roundings each as there is room for."""
    current: _Variants | None = None
    for wanted in (*activations, *(unit for unit in units if _has_constants(unit))):
        if current is not None and current.full:
            yield current
            current = None
        if current is None:
            current = _Variants(model.copy(), target, outputs)
            nodes = {node.uid: node for node in current.order}
            tensors = {t.name: t for node in current.order for t in node.outputs}
            tensors.update((t.name, t) for t in current.model.graph.inputs)
        if isinstance(wanted, Rounding):
            current.add_activation(tensors[wanted.tensor], wanted.key, wanted.scale)
        else:
            current.add_constants(_twin(wanted, nodes[wanted.uid]))
    if current is not None:
        yield current


def _twin(unit: Unit, node: Node) -> Unit:
    """A unit of another copy of the model."""
    return Unit(node, unit.kind, unit.reads, unit.weight, unit.bias)


def _has_constants(unit: Unit) -> bool:
    if unit.kind == "movement":
        return False
    return any(isinstance(tensor, Constant) for tensor in unit.node.inputs)


def _losses(variants: _Variants, observe: Observe) -> dict[Key, float]:
    tidy(variants.model.graph)
    whole = {name: Request(name, MomentsSpec()) for name in variants.outputs}
    gaps = {
        key: {name: Request(gap, MomentsSpec()) for name, gap in pairs.items()}
        for key, pairs in variants.differences.items()
    }
    asked = [*whole.values(), *(request for pairs in gaps.values() for request in pairs.values())]
    try:
        answers = observe(variants.model, asked)
    except NativeError:
        return dict.fromkeys(gaps, math.inf)
    powers = {name: answers[request].value for name, request in whole.items()}
    spreads = {name: float(value.variance) for name, value in powers.items() if value is not None}
    found: dict[Key, float] = {}
    for key, pairs in gaps.items():
        values = {name: answers[request].value for name, request in pairs.items()}
        errors = {n: math.nan if v is None else float(v.second) for n, v in values.items()}
        found[key] = _mean(errors, spreads)
    return found


def _mean(errors: Mapping[str, float], spreads: Mapping[str, float]) -> float:
    """The mean over the outputs of the error's share of the spread; 0 for outputs that do not depend on it."""
    shares = []
    for name, spread in spreads.items():
        error = errors.get(name, 0.0)
        shares.append(error / spread if spread > 0 else (math.inf if error else 0.0))
    found = sum(shares) / len(shares) if shares else 0.0
    return found if math.isfinite(found) else math.inf
