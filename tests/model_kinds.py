"""Small models of the kinds that people prune, with random weights, and inputs for them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
import onnx
from model_net import Batch, Net
from onnx import TensorProto

Arrays = dict[str, np.ndarray]


def _csp(net: Net, x: str, inputs: int, width: int, shortcut: bool) -> str:
    """A CSP block: half of the channels go through a bottleneck, and all that there is is joined."""
    half = width // 2
    first = net.silu(net.conv(x, inputs, width))
    kept, taken = net.ops("Split", 2, first, net.ints(half, half), axis=1)
    made = net.silu(net.conv(net.silu(net.conv(taken, half, half, 3)), half, half, 3))
    made = net.op("Add", taken, made) if shortcut else made
    joined = net.op("Concat", kept, taken, made, axis=1)
    return net.silu(net.conv(joined, 3 * half, width))


def _sppf(net: Net, x: str, width: int) -> str:
    """Pooling at three sizes, one after another, and all of them joined."""
    parts = [net.silu(net.conv(x, width, width // 2))]
    for _ in range(3):
        parts.append(net.op("MaxPool", parts[-1], kernel_shape=[5, 5], pads=[2] * 4))
    return net.silu(net.conv(net.op("Concat", *parts, axis=1), 2 * width, width))


def _head(net: Net, x: str, width: int, boxes: int, classes: int) -> str:
    """What a detector says at each place of one scale, ``(N, boxes + classes, places)``."""
    branches = []
    for outputs in (boxes, classes):
        hidden = net.silu(net.conv(x, width, 16, 3))
        branches.append(net.conv(hidden, 16, outputs))
    both = net.op("Concat", *branches, axis=1)
    return net.op("Reshape", both, net.ints(0, boxes + classes, -1))


def yolo(batch: Batch = "N") -> onnx.ModelProto:
    """A detector: CSP blocks, SPPF, a neck that goes up and down again, heads at three scales."""
    net, boxes, classes = Net(1), 8, 5
    x = net.silu(net.conv("images", 3, 16, 3, 2))
    third = _csp(net, net.silu(net.conv(x, 16, 32, 3, 2)), 32, 32, True)
    fourth = _csp(net, net.silu(net.conv(third, 32, 48, 3, 2)), 48, 48, True)
    fifth = _sppf(net, net.silu(net.conv(fourth, 48, 64, 3, 2)), 64)
    up = functools.partial(
        net.op, "Resize", mode="nearest", coordinate_transformation_mode="asymmetric"
    )
    sizes = net.constant([1, 1, 2, 2])
    upper = _csp(net, net.op("Concat", up(fifth, "", sizes), fourth, axis=1), 112, 48, False)
    large = _csp(net, net.op("Concat", up(upper, "", sizes), third, axis=1), 80, 32, False)
    down = net.silu(net.conv(large, 32, 32, 3, 2))
    medium = _csp(net, net.op("Concat", down, upper, axis=1), 80, 48, False)
    down = net.silu(net.conv(medium, 48, 48, 3, 2))
    small = _csp(net, net.op("Concat", down, fifth, axis=1), 112, 64, False)
    heads = [
        _head(net, feature, width, boxes, classes)
        for feature, width in ((large, 32), (medium, 48), (small, 64))
    ]
    joined = net.op("Concat", *heads, axis=2)
    box, scores = net.ops("Split", 2, joined, net.ints(boxes, classes), axis=1)
    found = net.op("Concat", box, net.op("Sigmoid", scores), axis=1)
    shape = [batch, 3, 32, 32]
    outputs = {"found": (found, [batch, boxes + classes, 84])}
    return net.model("yolo", [("images", TensorProto.FLOAT, shape)], outputs)


def _inverted(
    net: Net, x: str, inputs: int, wide: int, outputs: int, size: int, stride: int, attends: bool
) -> str:
    """An inverted residual: wide, by depth, gated where it attends, narrow again."""
    act = "HardSwish" if attends else "Relu"
    made = net.op(act, net.norm(net.conv(x, inputs, wide), wide))
    made = net.op(act, net.norm(net.conv(made, wide, wide, size, stride, wide), wide))
    if attends:
        squeezed = net.op("GlobalAveragePool", made)
        inner = net.op("Relu", net.conv(squeezed, wide, wide // 4))
        gate = net.op("HardSigmoid", net.conv(inner, wide // 4, wide), alpha=1 / 6, beta=0.5)
        made = net.op("Mul", made, gate)
    made = net.norm(net.conv(made, wide, outputs), outputs)
    return net.op("Add", x, made) if stride == 1 and inputs == outputs else made


def mobilenet(batch: Batch = "N") -> onnx.ModelProto:
    """A classifier of inverted residuals, with BatchNormalizations that are yet to be folded."""
    net = Net(2)
    x = net.op("HardSwish", net.norm(net.conv("image", 3, 16, 3, 2), 16))
    x = _inverted(net, x, 16, 32, 16, 3, 1, False)
    x = _inverted(net, x, 16, 48, 24, 3, 2, False)
    x = _inverted(net, x, 24, 64, 24, 5, 1, True)
    x = _inverted(net, x, 24, 72, 32, 5, 2, True)
    x = _inverted(net, x, 32, 96, 32, 5, 1, True)
    x = net.op("HardSwish", net.norm(net.conv(x, 32, 96), 96))
    x = net.op("Flatten", net.op("GlobalAveragePool", x), axis=1)
    x = net.op("HardSwish", net.gemm(x, 96, 64))
    outputs = {"scores": (net.gemm(x, 64, 10), [batch, 10])}
    inputs = [("image", TensorProto.FLOAT, [batch, 3, 32, 32])]
    return net.model("mobilenet", inputs, outputs)


def _attended(net: Net, scores: str, values: str, tokens: int, width: int) -> str:
    """Values by scores, heads side by side again, ``(N, tokens, width)``."""
    mixed = net.op("MatMul", net.op("Softmax", scores, axis=-1), values)
    turned = net.op("Transpose", mixed, perm=[0, 2, 1, 3])
    return net.op("Reshape", turned, net.ints(0, tokens, width))


def _gelu_tanh(net: Net, x: str) -> str:
    cubed = net.op("Mul", net.op("Pow", x, net.constant(3.0)), net.constant(0.044715))
    inner = net.op("Mul", net.op("Add", x, cubed), net.constant(math.sqrt(2 / math.pi)))
    gate = net.op("Add", net.op("Tanh", inner), net.constant(1.0))
    return net.op("Mul", net.op("Mul", x, gate), net.constant(0.5))


def _gelu_erf(net: Net, x: str) -> str:
    gate = net.op("Erf", net.op("Div", x, net.constant(math.sqrt(2))))
    gate = net.op("Add", gate, net.constant(1.0))
    return net.op("Mul", net.op("Mul", x, gate), net.constant(0.5))


def _class_token(net: Net, batch: Batch, width: int) -> str:
    """A learned token for each sample: expanded to the batch, or as often as there are samples."""
    token = net.rng.standard_normal((1, 1, width))
    if isinstance(batch, int):
        return net.constant(np.repeat(token, batch, 0))
    count = net.op("Gather", net.op("Shape", "image"), net.ints(0), axis=0)
    shape = net.op("Concat", count, net.ints(1, width), axis=0)
    return net.op("Expand", net.constant(token), shape)


def vit(batch: Batch = "N") -> onnx.ModelProto:
    """A vision transformer: patches, a class token, pre-norm blocks with q, k and v in one product."""
    net, width, heads, tokens, wide = Net(3), 48, 4, 17, 128
    patches = net.conv("image", 3, width, 8, stride=8, pad=0)
    flat = net.op("Reshape", patches, net.ints(0, width, tokens - 1))
    x = net.op("Transpose", flat, perm=[0, 2, 1])
    x = net.op("Concat", _class_token(net, batch, width), x, axis=1)
    x = net.op("Add", x, net.random(1, tokens, width, scale=0.3))
    for _ in range(2):
        packed = net.linear(net.layer_norm(x, width), width, 3 * width)
        shape = net.ints(0, tokens, 3, heads, width // heads)
        parts = net.op("Transpose", net.op("Reshape", packed, shape), perm=[2, 0, 3, 1, 4])
        q, k, v = (net.op("Gather", parts, net.constant(n, np.int64), axis=0) for n in range(3))
        scores = net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 3, 2]))
        scores = net.op("Mul", scores, net.constant(1 / math.sqrt(width // heads)))
        mixed = _attended(net, scores, v, tokens, width)
        x = net.op("Add", x, net.linear(mixed, width, width))
        hidden = _gelu_tanh(net, net.linear(net.layer_norm(x, width), width, wide))
        x = net.op("Add", x, net.linear(hidden, wide, width))
    first = net.op("Gather", net.layer_norm(x, width), net.constant(0, np.int64), axis=1)
    outputs = {"scores": (net.gemm(first, width, 10), [batch, 10])}
    inputs = [("image", TensorProto.FLOAT, [batch, 3, 32, 32])]
    return net.model("vit", inputs, outputs)


def _hidden_words(net: Net, mask: str) -> str:
    """What is added to the scores: nothing for words, a large negative number for what fills up."""
    wide = net.op("Unsqueeze", net.op("Cast", mask, to=TensorProto.FLOAT), net.ints(1, 2))
    return net.op("Mul", net.op("Sub", net.constant(1.0), wide), net.constant(-10000.0))


def bert(batch: Batch = "N") -> onnx.ModelProto:
    """A text encoder: embeddings, a mask, post-norm blocks with products of their own for q, k and v."""
    net, width, heads, tokens, wide, words = Net(4), 48, 4, 12, 128, 60
    hidden_words = _hidden_words(net, "mask")
    x = net.op("Gather", net.random(words, width, scale=1.0), "ids")
    x = net.layer_norm(net.op("Add", x, net.random(1, tokens, width, scale=0.3)), width)
    split = net.ints(0, tokens, heads, width // heads)
    for _ in range(2):
        turned = []
        for order in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]):
            part = net.op("Reshape", net.linear(x, width, width), split)
            turned.append(net.op("Transpose", part, perm=order))
        q, k, v = turned
        scores = net.op("Div", net.op("MatMul", q, k), net.constant(math.sqrt(width // heads)))
        scores = net.op("Add", scores, hidden_words)
        mixed = _attended(net, scores, v, tokens, width)
        x = net.layer_norm(net.op("Add", net.linear(mixed, width, width), x), width)
        hidden = _gelu_erf(net, net.linear(x, width, wide))
        x = net.layer_norm(net.op("Add", net.linear(hidden, wide, width), x), width)
    first = net.op("Gather", x, net.constant(0, np.int64), axis=1)
    pooled = net.op("Tanh", net.gemm(first, width, width))
    outputs = {
        "states": (x, [batch, tokens, width]),
        "scores": (net.gemm(pooled, width, 4), [batch, 4]),
    }
    inputs = [(name, TensorProto.INT64, [batch, tokens]) for name in ("ids", "mask")]
    return net.model("bert", inputs, outputs)


def _lstm(net: Net, x: str, inputs: int, width: int, directions: int) -> list[str]:
    scale = 1 / math.sqrt(width)
    weights = [
        net.random(directions, 4 * width, inputs, scale=2 * scale),
        net.random(directions, 4 * width, width, scale=scale),
        net.random(directions, 8 * width, scale=0.1),
    ]
    kind = "bidirectional" if directions == 2 else "forward"
    return net.ops("LSTM", 2, x, *weights, hidden_size=width, direction=kind)


def lstm(batch: Batch = "N") -> onnx.ModelProto:
    """Two layers of LSTM, the first one in both directions, and a product of the last state."""
    net, features, first, second = Net(5), 6, 24, 32
    x = net.op("Transpose", "series", perm=[1, 0, 2])
    states = net.op("Transpose", _lstm(net, x, features, first, 2)[0], perm=[0, 2, 1, 3])
    joined = net.op("Reshape", states, net.ints(0, 0, 2 * first))
    last = net.op("Squeeze", _lstm(net, joined, 2 * first, second, 1)[1], net.ints(0))
    outputs = {"scores": (net.gemm(last, second, 5), [batch, 5])}
    return net.model("lstm", [("series", TensorProto.FLOAT, [batch, 10, features])], outputs)


def _pictures(rng: np.random.Generator, count: int) -> np.ndarray:
    """Large soft shapes under a little noise, ``(count, 3, 32, 32)``."""
    coarse = rng.standard_normal((count, 3, 4, 4)).repeat(8, 2).repeat(8, 3)
    return (coarse + 0.3 * rng.standard_normal(coarse.shape)).astype(np.float32)


def samples(kind: str, count: int, seed: int) -> Arrays:
    """Inputs of a model, all of one distribution."""
    rng = np.random.default_rng(seed)
    if kind == "bert":
        lengths = rng.integers(4, 13, (count, 1))
        mask = (np.arange(12) < lengths).astype(np.int64)
        return {"ids": rng.integers(1, 60, (count, 12)) * mask, "mask": mask}
    if kind == "lstm":
        steps = rng.standard_normal((count, 10, 6)).cumsum(axis=1)
        return {"series": (steps / 2).astype(np.float32)}
    return {"images" if kind == "yolo" else "image": _pictures(rng, count)}


KINDS: dict[str, Callable[[Batch], onnx.ModelProto]] = {
    "yolo": yolo,
    "mobilenet": mobilenet,
    "vit": vit,
    "bert": bert,
    "lstm": lstm,
}
"""By name what builds a model for a batch, of any size by default."""
