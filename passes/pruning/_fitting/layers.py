"""Layers with weights as matrices: ``y = x W + b`` for every row x of the input, group by group.

    Conv             W [M, C / g, *k]        W_g [C / g * K, M / g]     K: the size of the kernel
    ConvTranspose    W [C, M / g, *k]        W_g [C / g * K, M / g]
    Gemm             W [K, N] or its transpose
    MatMul           W [1, ..., K, N]

A convolution reads a patch of its input as one row, its features channel by channel; see
``graphopt.runtime.observing_layers``. Layers are what can be refitted; ``_channels.readers`` knows what else
reads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from graphopt.ir.graph import Constant, Node
from graphopt.ir.model import Model
from graphopt.ir.surgery import discard, input_or_none, new_constant, sole_user, users
from graphopt.numerics.streaming import FeatureRows, Rows
from graphopt.runtime.observing_layers import rows_of

CONVOLUTIONS = ("Conv", "ConvTranspose")

LAYERS = (*CONVOLUTIONS, "Gemm", "MatMul")


@dataclass(frozen=True)
class Layer:
    """A Conv, ConvTranspose, Gemm or MatMul whose second input is a constant.

    Attributes:
        node: it.
        weight: the constant.
        rows: how its input is read.
    """

    node: Node
    weight: Constant
    rows: Rows

    @property
    def groups(self) -> int:
        """Groups of a convolution; 1 for a product."""
        return int(self.node.attrs.get("group", 1)) if self.node.op in CONVOLUTIONS else 1

    @property
    def output_axis(self) -> int:
        """The axis of the weight that counts outputs; of a ConvTranspose the outputs of one group."""
        if self.node.op == "Gemm":
            return 0 if self.node.attrs.get("transB", 0) else 1
        if self.node.op == "MatMul":
            return len(self.weight.shape) - 1
        return 0 if self.node.op == "Conv" else 1

    @property
    def features(self) -> int:
        """Features of a group."""
        shape = self.weight.shape
        groups = self.groups if self.node.op == "ConvTranspose" else 1
        return int(math.prod(shape) // (shape[self.output_axis] * groups))

    @property
    def outputs(self) -> Rows:
        """How its output is read as rows."""
        return FeatureRows(-1 if self.node.op == "MatMul" else 1)

    @property
    def factor(self) -> float:
        """What the product is multiplied by (Gemm's alpha)."""
        return float(self.node.attrs.get("alpha", 1.0)) if self.node.op == "Gemm" else 1.0

    def matrices(self) -> np.ndarray:
        """The weights as float64 of shape ``(groups, features of a group, outputs of a group)``."""
        return self.as_matrices(self.weight.values.astype(np.float64) * self.factor)

    def as_matrices(self, values: np.ndarray) -> np.ndarray:
        """An array of the shape of the weight as ``matrices`` gives it."""
        if self.node.op in CONVOLUTIONS:
            stacked = values.reshape(
                self.groups, -1, *values.shape[1:2], math.prod(values.shape[2:])
            )
            order = (0, 2, 3, 1) if self.node.op == "Conv" else (0, 1, 3, 2)
            outputs = stacked.shape[order[-1]]
            return stacked.transpose(order).reshape(self.groups, -1, outputs)
        if self.node.op == "MatMul":
            return values.reshape(1, *values.shape[-2:])
        return (values.T if self.output_axis == 0 else values)[None]

    def assign(self, matrices: np.ndarray, bias: np.ndarray | None) -> None:
        """Give it other weights and, where it can have one, another bias.

        Args:
            matrices: as ``matrices`` gives them.
            bias: of shape ``(outputs of all groups,)``; None to leave it as it is.
        """
        values = self.as_stored(matrices)
        self.weight.values = (values / self.factor).astype(self.weight.dtype)
        if bias is None or not self.takes_bias:
            return
        graph = self.node.graph
        assert graph is not None
        made = new_constant(graph, f"{self.weight.name}/bias", bias.astype(self.weight.dtype))
        old = input_or_none(self.node, 2)
        self.node.inputs = [*self.node.inputs[:2], made]
        if self.node.op == "Gemm":
            self.node.attrs["beta"] = 1.0
        if isinstance(old, Constant):
            discard(graph, old)

    def as_stored(self, matrices: np.ndarray) -> np.ndarray:
        """Matrices as ``matrices`` gives them, of any type, in the shape of the weight."""
        shape = self.weight.shape
        if self.node.op not in CONVOLUTIONS:
            across = matrices[0].T if self.output_axis == 0 else matrices[0]
            return np.asarray(across.reshape(shape))
        kernel, outputs = math.prod(shape[2:]), matrices.shape[-1]
        stacked = matrices.reshape(self.groups, -1, kernel, outputs)
        order = (0, 3, 1, 2) if self.node.op == "Conv" else (0, 1, 3, 2)
        return np.asarray(stacked.transpose(order).reshape(shape))

    @property
    def takes_bias(self) -> bool:
        """Whether a bias fits into it."""
        return str(self.node.op) != "MatMul"


def bias_behind(layer: Layer) -> Constant | None:
    """The bias of a MatMul: a vector of its own in an Add that alone reads the product; None without one."""
    add = sole_user(layer.node.outputs[0])
    if layer.takes_bias or add is None or not add.standard or add.op != "Add":
        return None
    held = next((tensor for tensor in add.inputs if isinstance(tensor, Constant)), None)
    if held is None or len(users(held)) > 1 or held.dtype != layer.weight.dtype:
        return None
    fits = held.shape[-1:] == (layer.weight.shape[layer.output_axis],)
    return held if fits and math.prod(held.shape[:-1]) == 1 else None


def layer_of(node: Node) -> Layer | str:
    """A node as a layer with constant weights, or why it is none."""
    if not node.standard or node.op not in LAYERS:
        return f"{node.label} is a {node.op}"
    weight = input_or_none(node, 1)
    if not isinstance(weight, Constant) or weight.dtype.kind != "f":
        return f"{node.label} multiplies it by what is no constant of floats"
    if node.op == "MatMul" and (len(weight.shape) < 2 or math.prod(weight.shape[:-2]) != 1):
        return f"the weights of {node.label} are no matrix"
    if not math.prod(weight.shape):
        return f"the weights of {node.label} are empty"
    if isinstance(input_or_none(node, 0), Constant):
        return f"{node.label} reads a constant"
    rows = rows_of(node)
    return rows if isinstance(rows, str) else Layer(node, weight, rows)


def refittable(layer: Layer) -> str:
    """Why a layer must keep its weights; empty where it need not."""
    if len(users(layer.weight)) > 1:
        return f"the weights of {layer.node.label} are shared"
    if layer.factor == 0:
        return f"{layer.node.label} multiplies its product by 0"
    if layer.node.op == "ConvTranspose" and layer.groups > 1:
        return f"{layer.node.label} is a transposed convolution of several groups"
    bias = input_or_none(layer.node, 2)
    if bias is None or layer.node.op == "MatMul":
        return ""
    if not isinstance(bias, Constant):
        return f"the bias of {layer.node.label} is no constant"
    if math.prod(bias.shape[:-1]) != 1:
        return f"the bias of {layer.node.label} differs from row to row"
    return ""


def layers_of(model: Model) -> dict[int, Layer]:
    """All layers of the main graph that can be refitted, in order, by the number of their node."""
    found = ((node.uid, layer_of(node)) for node in model.graph.nodes)
    return {
        uid: layer for uid, layer in found if isinstance(layer, Layer) and not refittable(layer)
    }
