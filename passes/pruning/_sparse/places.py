"""Weight tensors that may become sparse, each as matrices with its inputs in the order of an n:m pattern.

A tensor is seen as ``(groups, outputs, features)``. The features of a convolution are its kernel positions
times its input channels. A pattern counts along the channels, at each kernel position apart: so kernels for
structured sparsity want it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from graphopt.ir.graph import Constant, Node
from graphopt.ir.operators import WEIGHTS
from graphopt.ir.surgery import input_or_none, users
from graphopt.pass_base import Context, is_main

from .._fitting.layers import Layer, layer_of

PRODUCTS = ("Conv", "Gemm", "MatMul")
"""Operators of the main graph whose input is observed."""


@dataclass(frozen=True)
class Place:
    """A weight tensor.

    Attributes:
        name: unique in the model.
        weight: the tensor.
        reader: the first node that reads it.
        index: at which input.
        layer: the layer that it is of, where that layer's input can be observed.
        why: the reason where it cannot.
    """

    name: str
    weight: Constant
    reader: Node
    index: int
    layer: Layer | None
    why: str

    @property
    def size(self) -> int:
        """Weights."""
        return math.prod(self.weight.shape)

    @property
    def kernel(self) -> int:
        """Features of one input channel."""
        conv = self.layer is not None and self.reader.op == "Conv"
        return math.prod(self.weight.shape[2:]) if conv else 1

    @property
    def groups(self) -> int:
        """Groups of a layer."""
        return self.layer.groups if self.layer is not None else 1

    @property
    def width(self) -> int:
        """Features of one group of a layer."""
        return self.inputs * self.kernel

    @property
    def inputs(self) -> int:
        """Input channels that one output is computed from; 0 where there is no such thing."""
        if self.reader.op == "Gather":
            return 0
        shared = int(self.reader.attrs.get("group", 1)) if self.reader.op == "ConvTranspose" else 1
        return int(self.weight.shape[self._axis] // max(shared, 1))

    @property
    def _axis(self) -> int:
        """The axis of the weight that counts input channels."""
        op, rank = self.reader.op, len(self.weight.shape)
        if rank < 2:
            return 0
        if op == "Gemm":
            return self.index ^ 1 ^ int(bool(self.reader.attrs.get(f"trans{'AB'[self.index]}", 0)))
        if op == "MatMul":
            return rank - 1 - self.index
        return min({"Conv": 1, "ConvTranspose": 0, "Gather": 1}.get(op, 2), rank - 1)

    def matrices(self) -> np.ndarray:
        """The weights as float64 of shape ``(groups, outputs, features)``."""
        if self.layer is not None:
            return self.layer.matrices().transpose(0, 2, 1)
        moved = np.moveaxis(self.weight.values.astype(np.float64), self._axis, -1)
        return moved.reshape(1, -1, moved.shape[-1])

    def assign(self, matrices: np.ndarray, bias: np.ndarray | None = None) -> None:
        """Give the tensor other weights and, where ``bias`` says so, its layer another bias."""
        if self.layer is not None:
            self.layer.assign(matrices.transpose(0, 2, 1), bias)
            return
        moved = np.moveaxis(self.weight.values, self._axis, -1)
        values = np.moveaxis(matrices.reshape(moved.shape), -1, self._axis)
        self.weight.values = np.ascontiguousarray(values.astype(self.weight.dtype))

    def bias(self) -> np.ndarray | None:
        """The bias of the layer as float64 of shape ``(all outputs,)``; None where it takes no other one."""
        layer = self.layer
        if layer is None or not layer.takes_bias:
            return None
        outputs = self.weight.shape[layer.output_axis]
        held = input_or_none(layer.node, 2)
        if held is None:
            return np.zeros(outputs)
        if not isinstance(held, Constant) or math.prod(held.shape) not in (1, outputs):
            return None
        if len(held.shape) > 1 and held.shape[-1] == 1 < math.prod(held.shape):
            return None
        return np.broadcast_to(held.values.astype(np.float64).ravel(), outputs)


def places_of(context: Context, smallest: int) -> list[Place]:
    """All weight tensors of at least so many elements, in the order of the nodes that read them."""
    found: dict[int, Place] = {}
    names: set[str] = set()
    for scope in context.scopes():
        for node in context.nodes(scope, *WEIGHTS):
            for index, weight in _weights(node):
                if math.prod(weight.shape) < smallest or id(weight) in found:
                    continue
                name = next(n for n in _names(weight.name) if n not in names)
                names.add(name)
                layer = _layer(node, weight, is_main(scope, context))
                found[id(weight)] = (
                    Place(name, weight, node, index, None, layer)
                    if isinstance(layer, str)
                    else Place(name, weight, node, index, layer, "")
                )
    return list(found.values())


def _layer(node: Node, weight: Constant, main: bool) -> Layer | str:
    """The layer whose input shows what a weight matters, or why there is none."""
    if node.op not in PRODUCTS:
        return f"the inputs of a {node.op} are not observed"
    if not main:
        return "it lies in a body, whose inputs are not observed"
    if len(users(weight)) > 1:
        return "several nodes read it"
    layer = layer_of(node)
    if isinstance(layer, Layer) and layer.weight is not weight:
        return f"it is not the second input of {node.label}"
    return layer


def _weights(node: Node) -> Iterator[tuple[int, Constant]]:
    for index in WEIGHTS[node.op]:
        tensor = input_or_none(node, index)
        if isinstance(tensor, Constant):
            yield index, tensor


def _names(name: str) -> Iterator[str]:
    """A name, and others for tensors of the same name in other scopes."""
    yield name
    number = 2
    while True:
        yield f"{name}#{number}"
        number += 1


def refusal(place: Place, context: Context, pattern: tuple[int, int] | None) -> str:
    """Why a tensor stays as it is; empty where it need not."""
    weight = place.weight
    if weight.dtype.name not in ("float16", "float32", "float64"):
        return f"it is {weight.dtype.name}"
    if any(weight is output for scope in context.scopes() for output in scope.outputs):
        return "a graph returns it"
    if not np.isfinite(weight.values).all():
        return "it holds NaN or infinity"
    if not weight.values.any():
        return "all its weights are zero already"
    if pattern is None:
        return ""
    if not place.inputs:
        return f"{place.reader.label} looks it up, so it has no inputs that a pattern could count"
    if place.inputs % pattern[1]:
        return f"its {place.inputs} input channels are no multiple of {pattern[1]}"
    return ""
