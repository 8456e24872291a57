"""Nodes and weights of a test model in the making; weights are random and keep signals alive."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Batch = int | str

OPSET = 17

GAIN = 2.5
"""Variance of a weight of a convolution times its inputs: it gives back what activations take."""


class Net:
    """Nodes and weights of a model in the making. Every method returns names of tensors."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """A node with one output."""
        return self.ops(kind, 1, *inputs, **attributes)[0]

    def ops(self, kind: str, count: int, *inputs: str, **attributes: Any) -> list[str]:
        """A node with several outputs."""
        names = [f"{kind}_{len(self.nodes)}_{number}" for number in range(count)]
        label = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=label, **attributes))
        return names

    def constant(self, values: object, dtype: type = np.float32) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def ints(self, *values: int) -> str:
        return self.constant(values, np.int64)

    def random(self, *shape: int, scale: float, middle: float = 0.0) -> str:
        return self.constant(middle + scale * self.rng.standard_normal(shape))

    def conv(
        self,
        x: str,
        inputs: int,
        outputs: int,
        size: int = 1,
        stride: int = 1,
        group: int = 1,
        pad: int | None = None,
    ) -> str:
        scale = math.sqrt(GAIN / (inputs // group * size * size))
        weight = self.random(outputs, inputs // group, size, size, scale=scale)
        pads = [size // 2 if pad is None else pad] * 4
        bias = self.random(outputs, scale=0.1)
        return self.op("Conv", x, weight, bias, strides=[stride] * 2, pads=pads, group=group)

    def norm(self, x: str, width: int) -> str:
        """A BatchNormalization with statistics as of a trained model."""
        scale, mean = self.random(width, scale=0.1, middle=1.0), self.random(width, scale=0.1)
        shift, variance = (
            self.random(width, scale=0.1),
            self.constant(self.rng.uniform(0.7, 1.4, width)),
        )
        return self.op("BatchNormalization", x, scale, shift, mean, variance)

    def layer_norm(self, x: str, width: int) -> str:
        scale, shift = self.random(width, scale=0.1, middle=1.0), self.random(width, scale=0.1)
        return self.op("LayerNormalization", x, scale, shift, axis=-1)

    def linear(self, x: str, inputs: int, outputs: int) -> str:
        """A MatMul and the Add of its bias."""
        weight = self.random(inputs, outputs, scale=1 / math.sqrt(inputs))
        return self.op("Add", self.op("MatMul", x, weight), self.random(outputs, scale=0.1))

    def gemm(self, x: str, inputs: int, outputs: int) -> str:
        weight = self.random(outputs, inputs, scale=1 / math.sqrt(inputs))
        return self.op("Gemm", x, weight, self.random(outputs, scale=0.1), transB=1)

    def silu(self, x: str) -> str:
        return self.op("Mul", x, self.op("Sigmoid", x))

    def model(
        self,
        name: str,
        inputs: Sequence[tuple[str, int, Sequence[Batch]]],
        outputs: Mapping[str, tuple[str, Sequence[Batch]]],
    ) -> onnx.ModelProto:
        """The model; its outputs get names of their own."""
        for given, (made, _) in outputs.items():
            self.nodes.append(helper.make_node("Identity", [made], [given], name=given))
        proto = helper.make_model(
            helper.make_graph(
                self.nodes,
                name,
                [helper.make_tensor_value_info(*entry) for entry in inputs],
                [
                    helper.make_tensor_value_info(given, TensorProto.FLOAT, shape)
                    for given, (_, shape) in outputs.items()
                ],
                self.weights,
            ),
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=8,
        )
        onnx.checker.check_model(proto, full_check=True)
        return proto
