"""Layers with weights as matrices: ``y = x W + b`` for every row x of the input, group by group.

A Conv reads a patch of its input as one row, its features channel by channel; see
``graphopt.runtime.observing_layers``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphopt.ir.graph import Constant, Node
from graphopt.ir.model import Model
from graphopt.ir.surgery import discard, input_or_none, new_constant, users
from graphopt.numerics.streaming import FeatureRows, Rows
from graphopt.runtime.observing_layers import rows_of


@dataclass(frozen=True)
class Layer:
    """A Conv, Gemm or MatMul whose second input is a constant of its own.

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
        return int(self.node.attrs.get("group", 1)) if self.node.op == "Conv" else 1

    @property
    def output_axis(self) -> int:
        """The axis of the weight that counts outputs."""
        if self.node.op == "Gemm":
            return 0 if self.node.attrs.get("transB", 0) else 1
        return 0 if self.node.op == "Conv" else 1

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
        values = self.weight.values.astype(np.float64) * self.factor
        if self.node.op == "Conv":
            stacked = values.reshape(self.groups, len(values) // self.groups, -1)
            return stacked.transpose(0, 2, 1)
        return (values.T if self.output_axis == 0 else values)[None]

    def assign(self, matrices: np.ndarray, bias: np.ndarray | None) -> None:
        """Give it other weights and, where it can have one, another bias."""
        if self.node.op == "Conv":
            values = matrices.transpose(0, 2, 1).reshape(self.weight.shape)
        else:
            values = matrices[0].T if self.output_axis == 0 else matrices[0]
        self.weight.values = (values / self.factor).astype(self.weight.dtype)
        if bias is None or not self.takes_bias:
            return
        graph = self.node.graph
        assert graph is not None
        made = new_constant(graph, f"{self.weight.name}/bias", bias.astype(self.weight.dtype))
        old = input_or_none(self.node, 2)
        self.node.inputs = [*self.node.inputs[:2], made]
        if isinstance(old, Constant):
            discard(graph, old)

    @property
    def takes_bias(self) -> bool:
        """Whether a bias fits into it."""
        return self.node.op == "Conv" or (
            self.node.op == "Gemm" and float(self.node.attrs.get("beta", 1.0)) == 1.0
        )


def layer_of(node: Node, index: int = 0) -> Layer | str:
    """A node as a layer that reads data by one input, or why it is none."""
    if index != 0 or node.op not in ("Conv", "Gemm", "MatMul"):
        return f"{node.label} is a {node.op} that reads it by input {index}"
    weight = input_or_none(node, 1)
    if not isinstance(weight, Constant) or weight.dtype.kind != "f":
        return f"{node.label} multiplies it by what is no constant of floats"
    if len(users(weight)) > 1 or (node.op == "MatMul" and len(weight.shape) != 2):
        return f"the weights of {node.label} are shared or no matrix"
    rows = rows_of(node)
    return rows if isinstance(rows, str) else Layer(node, weight, rows)


def layers_of(model: Model) -> dict[int, Layer]:
    """All layers of the main graph in order, by the number of their node."""
    found = ((node.uid, layer_of(node)) for node in model.graph.nodes if node.standard)
    return {uid: layer for uid, layer in found if isinstance(layer, Layer)}
