"""To what a layer is fitted: where in the graph what it gives is compared with the original.

That is as far behind the layer as what follows is linear in its output: its own output; the sum with a bias
that an Add holds; the sum with a skip connection whose other operand is final already, so that the layer
makes up for the error of that operand, too. Where a function follows that is constant in parts, such as Relu,
only what it lets through counts (``graphopt.numerics.streaming.restored``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.graph import Constant, Node
from graphopt.ir.model import Model
from graphopt.ir.surgery import constant, input_or_none, producer, sole_user

from .layers import Layer, bias_behind, layers_of

Bounds = tuple[float, float]


@dataclass(frozen=True)
class Place:
    """Where a layer is fitted.

    Attributes:
        layer: the layer.
        value: what the layer gives, with its bias.
        output: the tensor that is compared with the original's: ``value``, or its sum with ``skip``.
        bias: the constant that an Add behind the layer adds to its output, where it takes none itself.
        skip: the other operand of the sum that ``output`` is; None where it is none.
        bounds: below and above which the function behind ``output`` is constant; None where it is nowhere.
    """

    layer: Layer
    value: gs.Tensor
    output: gs.Tensor
    bias: Constant | None = None
    skip: gs.Tensor | None = None
    bounds: Bounds | None = None

    @property
    def biased(self) -> bool:
        """Whether there is a bias that can be fitted."""
        return self.layer.takes_bias or self.bias is not None

    def alone(self) -> Place:
        """The place where the layer is compared without the skip connection."""
        return replace(self, output=self.value, skip=None, bounds=None)

    def assign(self, matrices: np.ndarray, bias: np.ndarray | None) -> None:
        """Give the layer other weights, and itself or the Add behind it another bias."""
        self.layer.assign(matrices, bias if self.layer.takes_bias else None)
        if self.bias is not None and bias is not None:
            self.bias.values = bias.reshape(self.bias.shape).astype(self.bias.dtype)

    def offset(self) -> np.ndarray:
        """The present bias, float64 of shape ``(outputs,)``, or ``(1,)`` where all are equal."""
        held = self.bias if self.bias is not None else input_or_none(self.layer.node, 2)
        if not isinstance(held, Constant):
            return np.zeros(1)
        factor = float(self.layer.node.attrs.get("beta", 1.0))
        return np.asarray(np.ravel(held.values).astype(np.float64) * factor)


def places_of(model: Model) -> list[Place]:
    """The places of all layers of the main graph that can be refitted, in the order of computation."""
    order = {id(node): number for number, node in enumerate(model.graph.nodes)}
    return [_place(layer, order) for layer in layers_of(model).values()]


def together(places: list[Place]) -> Iterator[list[Place]]:
    """Places one after another that read the same tensor, and so can be fitted at once."""
    group: list[Place] = []
    for place in places:
        if group and place.layer.node.inputs[0] is not group[0].layer.node.inputs[0]:
            yield group
            group = []
        group.append(place)
    if group:
        yield group


def _place(layer: Layer, order: dict[int, int]) -> Place:
    output, skip = layer.node.outputs[0], None
    add = _sum_with(output)
    bias = bias_behind(layer)
    if add is not None and bias is not None:
        output = add.outputs[0]
        add = _sum_with(output)
    value = output
    if add is not None:
        other = _operand(add, output)
        if not isinstance(other, Constant) and _before(other, layer.node, order):
            output, skip = add.outputs[0], other
    return Place(layer, value, output, bias, skip, _bounds(sole_user(output)))


def _sum_with(tensor: gs.Tensor) -> Node | None:
    """The Add that alone reads a tensor, once."""
    user = sole_user(tensor)
    if user is None or not user.standard or user.op != "Add" or len(user.inputs) != 2:
        return None
    return user if user.inputs[0] is not user.inputs[1] else None


def _operand(add: Node, tensor: gs.Tensor) -> gs.Tensor:
    found: gs.Tensor = add.inputs[1] if add.inputs[0] is tensor else add.inputs[0]
    return found


def _before(tensor: gs.Tensor, node: Node, order: dict[int, int]) -> bool:
    """Whether a tensor is there, for good, before a node of the main graph runs."""
    made = producer(tensor)
    return made is None or order.get(id(made), len(order)) < order[id(node)]


def _bounds(node: Node | None) -> Bounds | None:
    """Below and above what the function that a node computes is constant."""
    if node is None or not node.standard:
        return None
    if node.op == "Relu":
        return 0.0, math.inf
    if node.op == "HardSwish":
        return -3.0, math.inf
    if node.op == "HardSigmoid":
        alpha, beta = (float(node.attrs.get(k, v)) for k, v in (("alpha", 0.2), ("beta", 0.5)))
        return (-beta / alpha, (1 - beta) / alpha) if alpha > 0 else None
    return _clip(node) if node.op == "Clip" else None


def _clip(node: Node) -> Bounds | None:
    bounds = [
        float(node.attrs.get(key, end)) for key, end in (("min", -math.inf), ("max", math.inf))
    ]
    for index, tensor in enumerate(node.inputs[1:3]):
        value = constant(tensor) if tensor.name else None
        if tensor.name and (value is None or value.size != 1):
            return None
        if value is not None:
            bounds[index] = float(value.reshape(()))
    return (bounds[0], bounds[1]) if bounds[0] < bounds[1] else None
