"""Write a trained digits CNN as ONNX the way real exporters do: nothing folded.

On purpose the graph keeps what folding should remove: BatchNormalization after every
convolution, Identity around shared weights, Dropout, an explicit Pad, a pair of Transposes
around an activation, a hard-swish written out in four nodes, the flatten as a
Shape-Gather-Concat-Reshape chain over a dynamic batch, and fully connected layers as
MatMul + Add with a transposed weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from train import DigitsCnn, Residual

OPSET = 17
IR_VERSION = 8


@dataclass
class Writer:
    """Nodes and initializers of a graph being written, with a name for every value."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[TensorProto] = field(default_factory=list)

    def node(self, op: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        """Append a node with one output and return the output's name."""
        label = f"{op}_{len(self.nodes)}"
        output = output or f"{label}_out"
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=label, **attributes))
        return output

    def weight(self, name: str, value: NDArray[Any]) -> str:
        """Add an initializer and return its name."""
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def constant(self, value: NDArray[Any]) -> str:
        """Append a Constant node and return its output's name."""
        return self.node("Constant", [], value=numpy_helper.from_array(value))


def scalar(value: float) -> NDArray[np.float32]:
    """Return a float32 array of shape []."""
    return np.array(value, np.float32)


def conv_bn(
    w: Writer, x: str, name: str, conv: nn.Conv2d, bn: nn.BatchNorm2d, explicit_pad: bool = False
) -> str:
    """Write a convolution and the batch normalization behind it, not folded."""
    pad = conv.padding[0]
    inputs = [x, w.weight(f"{name}.weight", conv.weight.detach().numpy())]
    if explicit_pad:
        amounts = np.array([0, 0, pad, pad, 0, 0, pad, pad], np.int64)
        inputs[0] = w.node("Pad", [x, w.constant(amounts), w.constant(scalar(0.0))])
        pad = 0
    if conv.bias is not None:
        inputs.append(w.weight(f"{name}.bias", conv.bias.detach().numpy()))
    y = w.node(
        "Conv",
        inputs,
        dilations=[1, 1],
        group=1,
        kernel_shape=list(conv.kernel_size),
        pads=[pad] * 4,
        strides=list(conv.stride),
    )
    values = {
        "gamma": bn.weight,
        "beta": bn.bias,
        "mean": bn.running_mean,
        "var": bn.running_var,
    }
    names = [
        w.weight(f"{name}.bn.{key}", value.detach().numpy())
        for key, value in values.items()
        if value is not None
    ]
    return w.node("BatchNormalization", [y, *names], epsilon=bn.eps, momentum=0.9)


def residual(w: Writer, x: str, name: str, block: Residual, nhwc: bool) -> str:
    """Write one residual block; ``nhwc`` wraps its inner activation in a pair of Transposes."""
    y = conv_bn(w, x, f"{name}.conv1", block.conv1, block.bn1, explicit_pad=nhwc)
    if nhwc:
        y = w.node("Transpose", [y], perm=[0, 2, 3, 1])
    y = w.node("Relu", [y])
    if nhwc:
        y = w.node("Transpose", [y], perm=[0, 3, 1, 2])
    y = conv_bn(w, y, f"{name}.conv2", block.conv2, block.bn2)
    if isinstance(block.short, nn.Sequential):
        conv, bn = block.short[0], block.short[1]
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(bn, nn.BatchNorm2d)
        x = conv_bn(w, x, f"{name}.short", conv, bn)
    else:
        x = w.node("Identity", [x])
    return w.node("Relu", [w.node("Add", [y, x])])


def hard_swish(w: Writer, x: str) -> str:
    """Write ``x * clip(x + 3, 0, 6) / 6`` in four nodes, as exporters of old opsets do."""
    shifted = w.node("Add", [x, w.constant(scalar(3.0))])
    clipped = w.node("Clip", [shifted, w.constant(scalar(0.0)), w.constant(scalar(6.0))])
    return w.node("Div", [w.node("Mul", [x, clipped]), w.constant(scalar(6.0))])


def flatten(w: Writer, x: str, width: int) -> str:
    """Write ``Reshape(x, [batch, width])`` with the batch read from the shape of ``x``."""
    batch = w.node("Gather", [w.node("Shape", [x]), w.constant(np.array(0, np.int64))], axis=0)
    axes = w.constant(np.array([0], np.int64))
    first = w.node("Unsqueeze", [batch, axes])
    rest = w.node("Unsqueeze", [w.constant(np.array(width, np.int64)), axes])
    return w.node("Reshape", [x, w.node("Concat", [first, rest], axis=0)])


def linear(w: Writer, x: str, name: str, layer: nn.Linear, output: str = "") -> str:
    """Write a fully connected layer as MatMul with a transposed weight, then Add."""
    stored = w.weight(f"{name}.weight", layer.weight.detach().numpy())
    kernel = w.node("Transpose", [w.node("Identity", [stored])], perm=[1, 0])
    bias = w.weight(f"{name}.bias", layer.bias.detach().numpy())
    return w.node("Add", [bias, w.node("MatMul", [x, kernel])], output)


def export(net: DigitsCnn, mean: float, std: float) -> onnx.ModelProto:
    """Return the network as an ONNX model with input ``x`` and output ``logits``.

    Args:
        net: the trained network in inference mode.
        mean: subtracted from the input.
        std: the input is divided by it.

    Returns:
        A checked model: ``x`` float32 [N, 1, 8, 8] to ``logits`` float32 [N, 10].
    """
    w = Writer()
    y = w.node("Sub", ["x", w.constant(scalar(mean))])
    y = w.node("Div", [y, w.constant(scalar(std))])
    y = w.node("Relu", [conv_bn(w, y, "stem", net.stem, net.bn)])
    y = residual(w, y, "block1", net.block1, nhwc=False)
    y = residual(w, y, "block2", net.block2, nhwc=True)
    y = residual(w, y, "block3", net.block3, nhwc=False)
    y = hard_swish(w, conv_bn(w, y, "tail", net.tail, net.tail_bn))
    y = flatten(w, w.node("GlobalAveragePool", [y]), net.fc1.in_features)
    y = w.node("Dropout", [y, w.constant(scalar(0.1)), w.constant(np.array(False))])
    y = w.node("Relu", [linear(w, y, "fc1", net.fc1)])
    linear(w, y, "fc2", net.fc2, "logits")
    graph = helper.make_graph(
        w.nodes,
        "digits_cnn",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])],
        w.weights,
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    onnx.checker.check_model(model, full_check=True)
    return model
