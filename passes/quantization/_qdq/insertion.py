"""Put QuantizeLinear and DequantizeLinear around units, in the pattern that a target fuses.

    x -> Q -> DQ -> unit      an activation that floats flow into
    unit -> Q -> DQ -> y      what a unit gives; y keeps its name, so everything reads the rounded values
    Wq -> DQ -> unit          weights: int8, symmetric, one scale per output channel where the operator can
    bq -> DQ -> unit          bias: int32 of scale s_x s_w, zero point 0, as the sums of the products have

What a body of control flow reads from outside is quantized outside, once, and dequantized inside: a runtime
fuses what stands in one scope only.

A scale of weights is raised where the bias would not fit into int32 otherwise. QuantizeLinear and
DequantizeLinear: ONNX operator specification; the scale of the bias: Jacob et al., "Quantization and training
of neural networks for efficient integer-arithmetic-only inference", 2018.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.graph import Constant, Node
from graphopt.ir.model import Model
from graphopt.ir.nesting import anchor, home, homes
from graphopt.ir.surgery import Scope, discard, insert, new_constant, new_tensor, producer
from graphopt.numerics.grids import SMALLEST_SCALE

from .targets import OFFSET, Target
from .units import Unit
from .weights import Rounded, integers_of, rounded

BIAS_REACH = 2.0**30
"""The largest magnitude of an int32 bias: sums of products come on top of it."""


class Scale(NamedTuple):
    """Where the grid of a tensor lies: a float32 scale and an integer zero point."""

    scale: np.ndarray
    zero_point: np.ndarray


class Role(NamedTuple):
    """What an inserted node is for.

    Attributes:
        quantizes: whether it is a QuantizeLinear.
        tensor: the name of the activation.
    """

    quantizes: bool
    tensor: str


@dataclass
class Insertion:
    """Quantizes units of one model, which it changes.

    Attributes:
        model: the model.
        target: whose pattern it is.
        scales: of every activation to be quantized, by name.
        constants: weights as integers, and biases, by the number of the unit; those of others are rounded to
            the nearest.
        roles: of the inserted nodes, by number.
    """

    model: Model
    target: Target
    scales: Mapping[str, Scale]
    constants: Mapping[int, Rounded] = field(default_factory=dict)
    roles: dict[int, Role] = field(default_factory=dict)
    _integers: dict[int, gs.Tensor] = field(default_factory=dict)
    _read: dict[tuple[int, int], gs.Tensor] = field(default_factory=dict)
    _inputs: dict[int, Scope] = field(init=False)

    def __post_init__(self) -> None:
        """Remember where the inputs of bodies belong."""
        self._inputs = homes(self.model.graph)

    def quantize(self, units: Sequence[Unit]) -> None:
        """Let units run on integers.

        Args:
            units: of this model, in topological order.
        """
        wanted = {id(tensor) for unit in units for tensor in unit.inputs}
        for unit in units:
            given = not unit.gives_floats or id(unit.output) in wanted
            if given and self.target.quantizes_output:
                self._at_birth(unit)
        for unit in units:
            self._read_integers(unit)

    def _at_birth(self, unit: Unit) -> None:
        """Round what a unit gives, before anything reads it."""
        tensor, last = unit.output, unit.absorbed or unit.node
        graph = self.model.graph
        raw = new_tensor(graph, f"{tensor.name}_raw")
        integers = new_tensor(graph, f"{tensor.name}_quantized")
        last.outputs = [raw if output is tensor else output for output in last.outputs]
        self._insert("QuantizeLinear", last, tensor.name, (raw, integers), behind=True)
        self._insert("DequantizeLinear", last, tensor.name, (integers, tensor), behind=True)
        self._integers[id(tensor)] = integers
        self._read[id(tensor), id(last.graph)] = tensor

    def _read_integers(self, unit: Unit) -> None:
        node = unit.node
        inputs = list(node.inputs)
        for place in unit.reads:
            inputs[place] = self._rounded(inputs[place], node)
        scales: np.ndarray | None = None
        if unit.weight == 0:
            inputs[0] = self._constant(inputs[0], node)
        elif unit.weight is not None:
            inputs[unit.weight], scales = self._weights(unit)
        if unit.bias is not None and self.target.integer_bias:
            assert scales is not None
            inputs[unit.bias] = self._bias(unit, scales)
        elif unit.bias is not None and unit.uid in self.constants:
            inputs[unit.bias] = self._float_bias(unit)
        if unit.kind == "arithmetic":
            inputs = [self._constant(t, node) if isinstance(t, Constant) else t for t in inputs]
        old = [t for t in node.inputs if isinstance(t, Constant)]
        node.inputs = inputs
        for tensor in old:
            for scope in self.model.scopes():
                discard(scope, tensor)

    def _rounded(self, tensor: gs.Tensor, near: Node) -> gs.Tensor:
        """An activation, rounded; quantized once, and dequantized once in each scope that reads it."""
        found = self._read.get((id(tensor), id(near.graph)))
        if found is not None:
            return found
        made, graph = producer(tensor), self.model.graph
        scope = home(tensor, self._inputs)
        place = made or (near if scope is None else anchor(near, scope)) or near
        integers = self._integers.get(id(tensor))
        if integers is None:
            integers = self._integers[id(tensor)] = new_tensor(graph, f"{tensor.name}_quantized")
            pair = (tensor, integers)
            self._insert("QuantizeLinear", place, tensor.name, pair, behind=made is not None)
        found = new_tensor(graph, f"{tensor.name}_rounded")
        inside = place.graph is not near.graph
        pair, place = (integers, found), near if inside else place
        behind = made is not None and not inside
        self._insert("DequantizeLinear", place, tensor.name, pair, behind)
        self._read[id(tensor), id(near.graph)] = found
        return found

    def _insert(
        self,
        op: Literal["QuantizeLinear", "DequantizeLinear"],
        near: Node,
        key: str,
        tensors: tuple[gs.Tensor, gs.Tensor],
        behind: bool,
    ) -> None:
        """Let the second of two tensors be the first one, quantized or dequantized."""
        read, gives = tensors
        made = insert(near, op, [read, *self._parameters(key, near)], [gives], name=f"{key}/{op}")
        made.order += 0.5 if behind else -0.5
        self.roles[made.uid] = Role(op == "QuantizeLinear", key)

    def _parameters(self, name: str, near: Node) -> tuple[Constant, Constant]:
        scale, zero = self.scales[name]
        graph = near.graph
        assert graph is not None
        return (
            new_constant(graph, f"{name}_scale", np.asarray(scale, np.float32)),
            new_constant(
                graph, f"{name}_zero_point", np.asarray(zero, self.target.activations.dtype)
            ),
        )

    def _weights(self, unit: Unit) -> tuple[gs.Tensor, np.ndarray]:
        """The weights of a unit, dequantized, and their scales."""
        assert unit.weight is not None
        weight = unit.node.inputs[unit.weight]
        axis = unit.channel_axis()
        known = self.constants.get(unit.uid) or rounded(weight.values, axis, self.target.weights)
        steps, scale = known.steps, known.scale
        if unit.bias is not None:
            least = self._least(unit, scale)
            if (least > scale).any():
                raised = _along(least > scale, steps.ndim, axis)
                scale = np.maximum(scale, least)
                steps = np.where(
                    raised, integers_of(weight.values, scale, axis, self.target.weights), steps
                )
        zero = None
        if self.target.unsigned_weights:
            steps = (steps.astype(np.int16) + OFFSET).astype(np.uint8)
            zero = np.full(scale.shape, OFFSET)
        return self._dequantized(unit.node, weight.name, steps, scale, axis, zero), scale

    def _least(self, unit: Unit, scale: np.ndarray) -> np.ndarray:
        """The scale of weights with which the bias fits into int32."""
        reach = np.abs(self._bias_values(unit)).astype(np.float64)
        least = reach / (float(self._input_scale(unit)) * BIAS_REACH)
        return np.asarray(least.max() if scale.ndim == 0 else least, np.float32)

    def _input_scale(self, unit: Unit) -> np.ndarray:
        return self.scales[unit.node.inputs[unit.reads[0]].name].scale

    def _bias_values(self, unit: Unit) -> np.ndarray:
        assert unit.bias is not None
        known = self.constants.get(unit.uid)
        if known is not None and known.bias is not None:
            return known.bias
        return np.asarray(unit.node.inputs[unit.bias].values, np.float64).reshape(-1)

    def _bias(self, unit: Unit, weight_scales: np.ndarray) -> gs.Tensor:
        assert unit.bias is not None
        product = self._input_scale(unit) * np.asarray(weight_scales, np.float64)
        scale = np.maximum(product, SMALLEST_SCALE).astype(np.float32)
        steps = np.rint(self._bias_values(unit) / scale.astype(np.float64)).astype(np.int32)
        name = unit.node.inputs[unit.bias].name
        return self._dequantized(unit.node, name, steps, scale, 0 if scale.ndim else None)

    def _float_bias(self, unit: Unit) -> Constant:
        assert unit.bias is not None and unit.node.graph is not None
        old = unit.node.inputs[unit.bias]
        values = self._bias_values(unit).astype(old.dtype).reshape(old.shape)
        return new_constant(unit.node.graph, old.name, values)

    def _constant(self, tensor: Constant, node: Node) -> gs.Tensor:
        """A constant that is added or multiplied: on the grid of activations, by its own range."""
        values = tensor.values
        grid = self.target.activations
        scale, zero = grid.parameters(values.min(), values.max(), self.target.symmetric)
        steps = grid.quantized(values, scale, zero)
        return self._dequantized(node, tensor.name, steps, scale, None, zero)

    def _dequantized(
        self,
        node: Node,
        name: str,
        steps: np.ndarray,
        scale: np.ndarray,
        axis: int | None,
        zero: np.ndarray | None = None,
    ) -> gs.Tensor:
        graph = node.graph
        assert graph is not None
        zeros = np.zeros(scale.shape, steps.dtype) if zero is None else zero.astype(steps.dtype)
        inputs = [
            new_constant(graph, f"{name}_quantized", steps),
            new_constant(graph, f"{name}_scale", scale.astype(np.float32)),
            new_constant(graph, f"{name}_zero_point", zeros),
        ]
        result = new_tensor(graph, f"{name}_dequantized")
        attrs: dict[str, object] = {} if axis is None else {"axis": axis}
        insert(node, "DequantizeLinear", inputs, [result], attrs, f"{name}/DequantizeLinear")
        return result


def _along(values: np.ndarray, rank: int, axis: int | None) -> np.ndarray:
    """One value for each channel, in a shape that broadcasts against the weights."""
    return values if axis is None else values.reshape([-1 if n == axis else 1 for n in range(rank)])
