"""What can be multiplied on integers whose range is found in every run, and how that is written.

Products that read the same activation in the same scope share its integers, and are one place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from graphopt.ir.graph import Node
from graphopt.ir.inference import infer
from graphopt.ir.model import Model
from graphopt.ir.surgery import discard, insert, new_constant, new_tensor, producer, replace

from ._dynamic_lstm import lstm_layers, run_on_integers
from ._qdq.targets import Target
from ._qdq.units import Unit, find_units
from ._qdq.weights import Rounded, rounded

PRODUCTS = Target(
    "ort-cpu", linear=("MatMul", "Gemm"), arithmetic=(), movement=(), quantizes_output=False
)
"""What is multiplied, and the types of its integers."""


@dataclass(frozen=True)
class Places:
    """The places of one model.

    Attributes:
        model: the model.
        products: those that read the same activation in the same scope.
        layers: recurrent ones that have the same recurrent weights.
        refused: why others are none, by the label of the node.
    """

    model: Model
    products: Mapping[str, Sequence[Unit]]
    layers: Mapping[str, Sequence[Node]]
    refused: Mapping[str, str]

    @classmethod
    def of(cls, model: Model, smallest: int, recurrent: bool) -> Places:
        """Find them.

        Args:
            model: the model.
            smallest: elements of the smallest weight.
            recurrent: whether LSTM may run by an operator that only ONNX Runtime has.
        """
        facts = infer(model.graph, model.functions)
        units, refused = find_units(model, facts, PRODUCTS)
        products: dict[str, list[Unit]] = {}
        for unit in units:
            why = _objection(unit, smallest)
            if why:
                refused[unit.node.label] = why
            else:
                products.setdefault(_name(unit), []).append(unit)
        layers, more = lstm_layers(model, facts, smallest, recurrent)
        return cls(model, products, layers, refused | more)

    @property
    def names(self) -> list[str]:
        """Of all places."""
        return [*self.products, *self.layers]

    def nodes(self, name: str) -> list[Node]:
        """The nodes of a place, as they are on floats."""
        if name in self.layers:
            return list(self.layers[name])
        return [node for unit in self.products[name] for node in unit.nodes]

    def elements(self, name: str) -> int:
        """Of the weights of a place."""
        places = (1, 2) if name in self.layers else (1,)
        weights = (node.inputs[place] for node in self.nodes(name) for place in places)
        return sum(int(weight.values.size) for weight in weights)

    def run_on_integers(self, name: str, integers: Mapping[int, Rounded]) -> list[int]:
        """Change the model at a place; the numbers of the nodes that do it then.

        Args:
            name: of the place.
            integers: weights of products by the number of the node; others are rounded to the nearest.
        """
        if name in self.products:
            return _multiply_on_integers(self.model, self.products[name], integers)
        for node in self.layers[name]:
            run_on_integers(self.model, node, PRODUCTS.weights)
        return [node.uid for node in self.layers[name]]


def _name(unit: Unit) -> str:
    """The activation that a product reads, and, inside a body, where it is read."""
    scope, source = unit.node.graph, unit.inputs[0]
    if scope is None or scope.parent is None:
        return str(source.name)
    return f"{source.name} in {scope.parent.label}, {scope.name}"


def _objection(unit: Unit, smallest: int) -> str:
    """Why a product cannot run on integers; empty where it can."""
    weight = unit.node.inputs[1]
    if unit.weight != 1:
        return "it multiplies two activations, or by weights from the left"
    if len(weight.shape) != 2:
        return "its weights are no matrix"
    if weight.values.size < smallest:
        return f"its weights have fewer than {smallest} elements"
    return ""


def _multiply_on_integers(
    model: Model, units: Sequence[Unit], integers: Mapping[int, Rounded]
) -> list[int]:
    """Let products of one activation run on integers; the numbers of the nodes that do it."""
    source, graph, first = units[0].inputs[0], model.graph, units[0].node
    made = producer(source)
    if made is not None and made.graph is not first.graph:
        made = None
    near = made or first
    names = ("quantized", "scale", "zero_point")
    step, scale, zero = (new_tensor(graph, f"{source.name}_{part}") for part in names)
    root = insert(near, "DynamicQuantizeLinear", [source], [step, scale, zero])
    root.order += 0.5 if made is not None else -0.5
    found = [root.uid]
    for unit in units:
        found += _product(model, unit, (step, scale, zero), integers.get(unit.uid))
    return found


def _product(
    model: Model, unit: Unit, source: Sequence[gs.Tensor], known: Rounded | None
) -> list[int]:
    """One product in the place of a node; the numbers of the nodes that compute it."""
    node, graph = unit.node, model.graph
    weight = node.inputs[1]
    given = known or rounded(weight.values, unit.channel_axis(), PRODUCTS.weights)
    turned = node.op == "Gemm" and node.attrs.get("transB", 0)
    steps = np.ascontiguousarray(given.steps.T if turned else given.steps)
    step, scale, zero = source
    total = new_tensor(graph, f"{weight.name}_sum")
    floats, factor = (new_tensor(graph, f"{weight.name}_{part}") for part in ("floats", "factor"))
    matrix = new_constant(graph, f"{weight.name}_quantized", steps)
    scales = new_constant(graph, f"{weight.name}_scale", given.scale.astype(np.float32))
    bias = None if unit.bias is None else node.inputs[unit.bias]
    made = [
        insert(node, "MatMulInteger", [step, matrix, zero], [total]),
        insert(node, "Cast", [total], [floats], {"to": int(TensorProto.FLOAT)}),
        insert(node, "Mul", [scale, scales], [factor]),
    ]
    if bias is None:
        replace(node, "Mul", [floats, factor], {})
    else:
        product = new_tensor(graph, f"{weight.name}_product")
        made.append(insert(node, "Mul", [floats, factor], [product]))
        values = bias.values if given.bias is None else given.bias
        shift = np.asarray(values, np.float32).reshape(-1)
        replace(node, "Add", [product, new_constant(graph, bias.name, shift)], {})
    for old in (weight, bias):
        if old is not None:
            for scope in model.scopes():
                discard(scope, old)
    return [*(entry.uid for entry in made), node.uid]
