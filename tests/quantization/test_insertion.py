"""Units on integers compute what rounded floats compute, and ONNX Runtime makes integer kernels of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
from model_net import Net
from onnx import TensorProto
from qdq_models import (
    CPU,
    Arrays,
    build,
    feeds_of,
    initializers,
    quantized,
    run,
    scales_for,
    units_of,
)

from graphopt.ir.model import Model
from graphopt.ir.surgery import tidy
from graphopt.passes.quantization._qdq.insertion import Insertion
from graphopt.passes.quantization._qdq.settling import settled
from graphopt.passes.quantization._qdq.targets import TARGETS, Target
from graphopt.passes.quantization._qdq.weights import Rounded

INTEGER = ("QLinear", "QGemm", "MatMulInteger", "NhwcMaxPool")


@dataclass(frozen=True)
class Case:
    """A model whose units all go on integers.

    Attributes:
        name: of the case.
        inputs: of the model, as text.
        outputs: likewise.
        body: likewise.
        random: names of random constants.
        kernels: the integer kernels that ONNX Runtime makes of it, with how many of each.
        given: constants.
    """

    name: str
    inputs: str
    outputs: str
    body: str
    random: str = ""
    kernels: str = ""
    given: dict[str, Any] = field(default_factory=dict)

    def model(self) -> Model:
        return build(self.inputs, self.outputs, self.body, self.random, **self.given)

    def __str__(self) -> str:
        return self.name


X = "float[1,8,8,8] x"
W = "float[8,8,3,3] w, float[8] b"
ROWS = "float[4,16] x"
RNG = np.random.default_rng(5)

CASES = [
    Case("convolution", f"{X}, {W}", "float[1,8,6,6] y", "y = Conv(x, w, b)", "w b", "QLinearConv"),
    Case(
        "no bias",
        f"{X}, float[8,8,3,3] w",
        "float[1,8,6,6] y",
        "y = Conv(x, w)",
        "w",
        "QLinearConv",
    ),
    Case(
        "convolution and relu",
        f"{X}, {W}",
        "float[1,8,6,6] y",
        "c = Conv(x, w, b) y = Relu(c)",
        "w b",
        "QLinearConv",
    ),
    Case(
        "convolution and relu6",
        f"{X}, {W}, float low, float high",
        "float[1,8,6,6] y",
        "c = Conv(x, w, b) y = Clip(c, low, high)",
        "w b",
        "QLinearConv",
        {"low": 0, "high": 6},
    ),
    Case(
        "convolution between two bounds",
        f"{X}, {W}, float low, float high",
        "float[1,8,6,6] y",
        "c = Conv(x, w, b) y = Clip(c, low, high)",
        "w b",
        "QLinearConv",
        {"low": -1, "high": 2.5},
    ),
    Case(
        "strides, dilations and pads",
        f"{X}, {W}",
        "float[1,8,4,3] y",
        "y = Conv<strides = [2,2], dilations = [1,2], pads = [1,0,1,2]>(x, w, b)",
        "w b",
        "QLinearConv",
    ),
    Case(
        "depthwise",
        f"{X}, float[8,1,3,3] w, float[8] b",
        "float[1,8,8,8] y",
        "y = Conv<group = 8, pads = [1,1,1,1]>(x, w, b)",
        "w b",
        "QLinearConv",
    ),
    Case(
        "grouped",
        f"{X}, float[16,2,3,3] w, float[16] b",
        "float[1,16,8,8] y",
        "y = Conv<group = 4, pads = [1,1,1,1]>(x, w, b)",
        "w b",
        "QLinearConv",
    ),
    Case(
        "one dimension",
        "float[1,8,16] x, float[4,8,3] w, float[4] b",
        "float[1,4,14] y",
        "y = Conv(x, w, b)",
        "w b",
        "QLinearConv",
    ),
    Case(
        "transposed convolution",
        f"{X}, float[8,6,3,3] w, float[6] b",
        "float[1,6,10,10] y",
        "y = ConvTranspose(x, w, b)",
        "w b",
    ),
    Case(
        "grouped transposed convolution",
        f"{X}, float[8,3,3,3] w, float[6] b",
        "float[1,6,10,10] y",
        "y = ConvTranspose<group = 2>(x, w, b)",
        "w b",
    ),
    Case(
        "gemm",
        f"{ROWS}, float[16,8] w, float[8] b",
        "float[4,8] y",
        "y = Gemm(x, w, b)",
        "w b",
        "QGemm",
    ),
    Case(
        "gemm, its bias a row",
        f"{ROWS}, float[16,8] w, float[1,8] b",
        "float[4,8] y",
        "y = Gemm(x, w, b)",
        "w b",
        "QGemm",
    ),
    Case(
        "gemm, transposed weights",
        f"{ROWS}, float[8,16] w, float[8] b",
        "float[4,8] y",
        "y = Gemm<transB = 1>(x, w, b)",
        "w b",
        "QGemm",
    ),
    Case(
        "gemm without a bias", f"{ROWS}, float[16,8] w", "float[4,8] y", "y = Gemm(x, w)", "w", "QGemm"
    ),
    Case(
        "two gemms",
        f"{ROWS}, float[8,16] w, float[8] b, float[5,8] v, float[5] c",
        "float[4,5] y",
        "h = Gemm<transB = 1>(x, w, b) r = Relu(h) y = Gemm<transB = 1>(r, v, c)",
        "w b v c",
        "QGemm QGemm",
    ),
    Case(
        "weights on the right",
        "float[2,4,16] x, float[16,8] w",
        "float[2,4,8] y",
        "y = MatMul(x, w)",
        "w",
        "MatMulIntegerToFloat",
    ),
    Case(
        "weights on the left",
        "float[16,8] x, float[4,16] w",
        "float[4,8] y",
        "y = MatMul(w, x)",
        "w",
        "MatMulIntegerToFloat",
    ),
    Case(
        "stacked weights",
        "float[2,4,16] x, float[2,16,8] w",
        "float[2,4,8] y",
        "y = MatMul(x, w)",
        "w",
        "MatMulIntegerToFloat",
    ),
    Case(
        "a vector of weights",
        f"{ROWS}, float[16] w",
        "float[4] y",
        "y = MatMul(x, w)",
        "w",
        "MatMulIntegerToFloat",
    ),
    Case(
        "two activations",
        f"{ROWS}, float[16,8] z",
        "float[4,8] y",
        "y = MatMul(x, z)",
        "",
        "MatMulIntegerToFloat",
    ),
    Case(
        "an activation with itself",
        "float[6,6] x",
        "float[6,6] y",
        "y = MatMul(x, x)",
        "",
        "MatMulIntegerToFloat",
    ),
    Case(
        "two products",
        f"{ROWS}, float[16,8] w, float[8,8] v",
        "float[4,8] y",
        "h = MatMul(x, w) y = MatMul(h, v)",
        "w v",
        "QLinearMatMul MatMulIntegerToFloat",
    ),
    Case(
        "a product and its bias",
        f"{ROWS}, float[16,8] w, float[8] b",
        "float[4,8] y",
        "h = MatMul(x, w) a = Add(h, b) y = Relu(a)",
        "w b",
        "QLinearMatMul QLinearAdd",
    ),
    Case(
        "a constant is added",
        f"{X}, float[8,1,1] c",
        "float[1,8,8,8] y",
        "y = Add(x, c)",
        "c",
        "QLinearAdd",
    ),
    Case("a constant factor", f"{X}, float c", "float[1,8,8,8] y", "y = Mul(c, x)", "c", "QLinearMul"),
    Case(
        "a sum and relu",
        f"{X}, float[1,8,8,8] z",
        "float[1,8,8,8] y",
        "s = Add(x, z) y = Relu(s)",
        "",
        "QLinearAdd",
    ),
    Case("a tensor and itself", X, "float[1,8,8,8] y", "y = Add(x, x)", "", "QLinearAdd"),
    Case(
        "a gate", f"{X}, float[1,8,1,1] z", "float[1,8,8,8] y", "s = Sigmoid(z) y = Mul(x, s)", "",
        "QLinearSigmoid QLinearMul",
    ),
    Case(
        "a tensor twice beside another",
        f"{X}, float[1,8,8,8] z",
        "float[1,24,8,8] y",
        "y = Concat<axis = 1>(x, z, x)",
        "",
        "QLinearConcat",
    ),
    Case(
        "means",
        X,
        "float[1,8,1,1] y",
        "a = AveragePool<kernel_shape = [3,3], strides = [2,2], pads = [1,1,1,1]>(x)"
        " y = GlobalAveragePool(a)",
        "",
        "QLinearAveragePool QLinearGlobalAveragePool",
    ),
    Case("a leaky relu", X, "float[1,8,8,8] y", "y = LeakyRelu<alpha = 0.1>(x)", "", "QLinearLeakyRelu"),
    Case(
        "movement between products",
        f"{X}, float[8,8,3,3] w, float[36,4] v, int64[3] s",
        "float[8,1,4] y",
        """
        c = Conv<pads = [1,1,1,1]>(x, w)
        p = MaxPool<kernel_shape = [3,3]>(c)
        r = Reshape(p, s)
        t = Transpose<perm = [1,0,2]>(r)
        y = MatMul(t, v)
        """,
        "w v",
        "QLinearConv NhwcMaxPool MatMulIntegerToFloat",
        {"s": [1, 8, 36]},
    ),
    Case(
        "more movement",
        f"{X}, float[8,8,1,1] w, float[4] r, int64[2] i, int64[1] a, int64[1] b, int64[1] axis",
        "float[1,8,2,1,8] y",
        """
        c = Conv(x, w)
        l = Resize<mode = "nearest">(c, , r)
        g = Gather<axis = 2>(l, i)
        k = Slice(g, a, b, axis)
        y = Unsqueeze(k, axis)
        """,
        "w",
        "QLinearConv",
        {"r": [1, 1, 2, 2], "i": [3, 1], "a": [0], "b": [8], "axis": [3]},
    ),
    Case(
        "a residual block",
        f"{X}, {W}, float[8,8,3,3] v, float[8] c",
        "float[1,8,8,8] y",
        """
        h = Conv<pads = [1,1,1,1]>(x, w, b)
        r = Relu(h)
        d = Conv<pads = [1,1,1,1]>(r, v, c)
        s = Add(d, r)
        y = Relu(s)
        """,
        "w b v c",
        "QLinearConv QLinearConv QLinearAdd",
    ),
    Case(
        "outputs of units are outputs of the model",
        f"{X}, {W}, float[8,8,3,3] v",
        "float[1,8,4,4] y, float[1,8,6,6] h",
        "h = Conv(x, w, b) y = Conv(h, v)",
        "w b v",
        "QLinearConv QLinearConv",
    ),
    Case(
        "read by floats and integers",
        f"{X}, {W}, float[8,8,3,3] v",
        "float[1,8,6,6] t, float[1,8,4,4] y, float[1,8,8,8] n",
        "c = Conv(x, w, b) t = Tanh(c) y = Conv(c, v) n = Neg(x)",
        "w b v",
        "QLinearConv QLinearConv",
    ),
    Case(
        "shared weights and bias",
        f"{X}, {W}",
        "float[1,8,8,8] y",
        "c = Conv<pads = [1,1,1,1]>(x, w, b) y = Conv<pads = [1,1,1,1]>(c, w, b)",
        "w b",
        "QLinearConv QLinearConv",
    ),
    Case(
        "weights that floats read too",
        "float[8,8] x, float[8,8] w",
        "float[8,8] y, float[8,8] n",
        "y = MatMul(x, w) n = Neg(w)",
        "w",
        "MatMulIntegerToFloat",
    ),
    Case(
        "channels of zeros",
        f"{X}, {W}",
        "float[1,8,6,6] y",
        "y = Conv(x, w, b)",
        "b",
        "QLinearConv",
        {"w": RNG.standard_normal((8, 8, 3, 3)) * (np.arange(8) > 2)[:, None, None, None]},
    ),
    Case(
        "only zeros",
        f"{ROWS}, float[16,8] w, float[8] b",
        "float[4,8] y",
        "y = Gemm(x, w, b)",
        "",
        "QGemm",
        {"w": 0, "b": 0},
    ),
    Case(
        "biases far beyond the weights",
        f"{X}, {W}",
        "float[1,8,6,6] y",
        "y = Conv(x, w, b)",
        "",
        "QLinearConv",
        {"w": 1e-6 * RNG.standard_normal((8, 8, 3, 3)), "b": 100.0 * np.arange(8)},
    ),
    Case(
        "biases far beyond the weights, one scale",
        f"{X}, float[8,3,3,3] w, float[6] b",
        "float[1,6,10,10] y",
        "y = ConvTranspose<group = 2>(x, w, b)",
        "",
        "",
        {"w": 1e-6 * RNG.standard_normal((8, 3, 3, 3)), "b": 100.0 * np.arange(6)},
    ),
]  # fmt: skip


def close(found: np.ndarray, wanted: np.ndarray, step: float) -> bool:
    """Whether arrays are equal up to float32; a few elements may be a step off where sums are near a half."""
    assert found.shape == wanted.shape
    assert np.isfinite(found).all()
    gap = np.abs(found - wanted)
    size = float(np.abs(wanted).max(initial=1e-30))
    return bool(
        (gap > 1e-5 * size).mean() <= 0.01 and gap.max(initial=0.0) <= 1.01 * step + 1e-5 * size
    )


def steps_of(model: Model, scales: dict[str, Any], wanted: list[np.ndarray]) -> list[float]:
    """What one rounding step more or less changes in each output, at most a hundredth of what it spans."""
    names = [tensor.name for tensor in model.graph.outputs]
    return [
        float(scales[name].scale) if name in scales else 0.01 * float(np.ptp(value))
        for name, value in zip(names, wanted, strict=True)
    ]


def interface(model: Model) -> list[onnx.ValueInfoProto]:
    proto = model.to_proto()
    return [*proto.graph.input, *proto.graph.output]


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_computes_what_rounded_floats_compute(case: Case, target: Target) -> None:
    model = case.model()
    before = model.to_bytes()
    feeds = feeds_of(model)
    made, wanted, scales = quantized(model, feeds, target)
    assert model.to_bytes() == before
    proto = made.to_proto()
    onnx.checker.check_model(proto, full_check=True)
    assert interface(made) == interface(model)
    read = {name for node in proto.graph.node for name in node.input}
    assert {entry.name for entry in proto.graph.initializer} <= read
    plain, _ = run(proto, feeds)
    steps = steps_of(made, scales, wanted)
    for found, expected, step in zip(plain, wanted, steps, strict=True):
        assert close(found, expected, step)
    optimized, _ = run(proto, feeds, optimized=True)
    for found, expected, step in zip(optimized, plain, steps, strict=True):
        assert np.abs(found - expected).max() <= 2 * step + 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_runtime_makes_integer_kernels_of_it(case: Case) -> None:
    model = case.model()
    feeds = feeds_of(model)
    made, _, _ = quantized(model, feeds)
    _, ops = run(made.to_proto(), feeds, optimized=True)
    kernels = Counter(op for op in ops.elements() if op.startswith(INTEGER))
    assert kernels == Counter(case.kernels.split())
    if case.kernels:
        assert not ops.keys() & {
            "Conv",
            "FusedConv",
            "Gemm",
            "MatMul",
            "Relu",
            "Clip",
            "Add",
            "Concat",
        }


def test_a_float_bias_far_beyond_the_weights_stays_what_it_is() -> None:
    model = next(case for case in CASES if case.name == "biases far beyond the weights").model()
    feeds = feeds_of(model)
    made, _, scales = quantized(model, feeds, TARGETS["openvino"])
    (plain,), (optimized,) = (
        run(made.to_proto(), feeds, optimized=way)[0] for way in (False, True)
    )
    assert np.abs(optimized - plain).max() <= 2 * float(scales["y"].scale)


def between(op: str, bias: str = "") -> Model:
    """Three layers, of which the weights of the middle one differ widely from channel to channel."""
    return build(
        f"{X}, float[8,8,1,1] w, float[8,8,1,1] v, float[8,8,1,1] u, float[8] b",
        "float[1,8,8,8] y",
        f"a = Conv(x, w) h = {op}(a, v{bias}) r = Relu(h) y = Conv(r, u)",
        "w u b",
        v=np.random.default_rng(0).standard_normal((8, 8, 1, 1))
        * 10.0 ** -np.arange(8)[:, None, None, None],
    )


def chosen_of(model: Model, *outputs: str) -> frozenset[int]:
    return frozenset(node.uid for node in model.graph.nodes if node.outputs[0].name in outputs)


def test_a_layer_on_floats_between_integers_joins_them() -> None:
    model = between("Conv")
    found = settled(model, units_of(model), chosen_of(model, "a", "y"))
    assert found == chosen_of(model, "a", "h", "y")


def test_where_it_cannot_join_what_reads_from_it_leaves() -> None:
    model = between("ConvTranspose")
    found = settled(model, units_of(model), chosen_of(model, "a", "y"))
    assert found == chosen_of(model, "a")


@pytest.mark.parametrize("outputs", ["", "a", "y", "a h", "h y", "h", "a h y"])
def test_other_choices_are_left_as_they_are(outputs: str) -> None:
    model = between("Conv", ", b")
    chosen = chosen_of(model, *outputs.split())
    assert settled(model, units_of(model), chosen) == chosen


def test_a_layer_that_something_else_reads_or_that_is_returned_stays() -> None:
    constants = "float[8,8,1,1] w, float[8,8,1,1] v, float[8,8,1,1] u"
    body = "a = Conv(x, w) h = Conv(a, v) y = Conv(h, u)"
    for outputs, more in (("float y, float h", ""), ("float y, float t", " t = Tanh(h)")):
        model = build(f"{X}, {constants}", outputs, body + more, "w v u")
        chosen = chosen_of(model, "a", "y")
        assert settled(model, units_of(model), chosen) == chosen


def test_a_layer_that_reads_floats_from_integers_stays() -> None:
    model = build(
        f"{ROWS}, float[16,16] w, float[16,16] v, float[16,16] u",
        "float[4,16] y",
        "a = Gemm(x, w) h = Gemm(a, v) y = Gemm(h, u)",
        "w v u",
    )
    chosen = chosen_of(model, "a", "y")
    made, _, _ = quantized(
        model, feeds_of(model), CPU, [node.label for node in model.graph.nodes][1:2]
    )
    _, ops = run(made.to_proto(), feeds_of(model), optimized=True)
    assert (ops["QGemm"], ops["Gemm"]) == (2, 1)
    assert settled(model, units_of(model), chosen) == chosen


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
def test_a_settled_choice_computes_what_it_says(op: str) -> None:
    model = between(op)
    feeds = feeds_of(model)
    units = units_of(model)
    kept = settled(model, units, chosen_of(model, "a", "y"))
    left = [unit.node.label for unit in units if unit.uid not in kept]
    made, wanted, scales = quantized(model, feeds, CPU, left)
    (plain,), _ = run(made.to_proto(), feeds)
    (optimized,), _ = run(made.to_proto(), feeds, optimized=True)
    (step,) = steps_of(made, scales, wanted)
    assert np.abs(optimized - plain).max() <= 2 * step


def random_net(seed: int) -> Model:
    """A graph of a few operators, each on one of the last tensors and perhaps another one."""
    net, rng = Net(seed), np.random.default_rng(seed)
    tensors = ["x"]
    for _ in range(rng.integers(4, 10)):
        one = tensors[rng.integers(max(0, len(tensors) - 3), len(tensors))]
        other = tensors[rng.integers(0, len(tensors))]
        tensors.append(_random_node(net, rng, one, other))
    proto = net.model(
        "random",
        [("x", TensorProto.FLOAT, [1, 8, 8, 8])],
        {"y": (tensors[-1], [1, 8, 8, 8]), "z": (tensors[-2], [1, 8, 8, 8])},
    )
    return Model.load(proto)


def _random_node(net: Net, rng: np.random.Generator, one: str, other: str) -> str:
    kind = rng.integers(0, 13)
    if kind < 4:
        made = net.conv(one, 8, 8, 3, group=int(rng.choice([1, 2, 8])))
        if kind == 0:
            return net.op("Clip", made, net.constant(0.0), net.constant(6.0))
        return net.op("Relu", made) if kind == 1 else made
    if kind == 4:
        return net.op("Relu", net.op("Add", one, other))
    if kind == 5:
        return net.op("Mul", one, net.op("Sigmoid", other))
    if kind == 6:
        return net.conv(net.op("Concat", one, other, axis=1), 16, 8)
    if kind == 7:
        return net.op("MaxPool", one, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    if kind == 8:
        turned = net.op("LeakyRelu", net.op("Transpose", one, perm=[0, 2, 3, 1]), alpha=0.2)
        return net.op("Transpose", turned, perm=[0, 3, 1, 2])
    if kind == 9:
        return net.op("Tanh", one)
    if kind == 10:
        return net.op("MatMul", one, other)
    if kind == 11:
        flat = net.op("Reshape", one, net.ints(1, 8, 64))
        return net.op("Reshape", net.linear(flat, 64, 64), net.ints(1, 8, 8, 8))
    return net.op("Mul", one, net.op("GlobalAveragePool", other))


@pytest.mark.parametrize("seed", range(24))
def test_any_graph_with_any_units_on_integers(seed: int) -> None:
    model = random_net(seed)
    feeds = feeds_of(model, seed)
    rng = np.random.default_rng(seed)
    units = units_of(model)
    some = frozenset(unit.uid for unit in units if rng.random() > 0.3 * (seed % 2))
    kept = settled(model, units, some)
    leave = [unit.node.label for unit in units if unit.uid not in kept]
    target = (CPU, CPU, TARGETS["qnn"], TARGETS["tensorrt"])[seed // 2 % 4]
    made, wanted, _ = quantized(model, feeds, target, leave)
    proto = made.to_proto()
    onnx.checker.check_model(proto, full_check=True)
    plain, _ = run(proto, feeds)
    optimized, _ = run(proto, feeds, optimized=True)
    for one, two, expected in zip(plain, optimized, wanted, strict=True):
        size = np.abs(expected).max()
        assert (np.abs(one - expected) > 1e-5 * size).mean() <= 0.01
        assert np.abs(two - one).max() <= 0.02 * size


def inserted(case: str, target: Target = CPU, **more: Any) -> tuple[Model, Arrays, dict[str, Any]]:
    model = next(entry for entry in CASES if entry.name == case).model()
    feeds = feeds_of(model)
    units = units_of(model, target)
    scales = scales_for(model, units, feeds, target)
    Insertion(model, target, scales, **more).quantize(units)
    tidy(model.graph)
    return model, initializers(model.to_proto()), scales


def test_each_tensor_is_quantized_once() -> None:
    model, _, _ = inserted("read by floats and integers")
    ops = Counter(node.op for node in model.graph.nodes)
    assert ops["QuantizeLinear"] == 3  # x, c, y
    assert ops["DequantizeLinear"] == 3 + 2 + 1  # and the weights of both, and one bias
    neg = next(node for node in model.graph.nodes if node.op == "Neg")
    assert neg.inputs[0].name == "x"
    tanh = next(node for node in model.graph.nodes if node.op == "Tanh")
    assert tanh.inputs[0].inputs[0].op == "DequantizeLinear"


def test_what_was_inserted_is_told_with_what_it_is_for() -> None:
    model = next(entry for entry in CASES if entry.name == "a residual block").model()
    feeds = feeds_of(model)
    units = units_of(model)
    inserting = Insertion(model, CPU, scales_for(model, units, feeds, CPU))
    inserting.quantize(units)
    ops = {node.uid: node.op for node in model.graph.nodes}
    told = Counter((ops[uid], role.quantizes, role.tensor) for uid, role in inserting.roles.items())
    assert told == Counter(
        [
            (op, op == "QuantizeLinear", name)
            for name in ("x", "r", "d", "y")
            for op in ("QuantizeLinear", "DequantizeLinear")
        ]
    )


@pytest.mark.parametrize(
    ("target", "activations", "bias", "outputs"),
    [
        ("ort-cpu", np.uint8, np.int32, True),
        ("openvino", np.uint8, np.float32, True),
        ("qnn", np.uint8, np.int32, True),
        ("tensorrt", np.int8, np.float32, False),
    ],
)
def test_types_are_those_of_the_target(
    target: str, activations: type, bias: type, outputs: bool
) -> None:
    _, values, scales = inserted("convolution", TARGETS[target])
    assert values["x_zero_point"].dtype == activations
    assert values["w_quantized"].dtype == np.int8
    assert np.abs(values["w_quantized"].astype(int)).max() == 127
    assert values["w_scale"].shape == (8,)
    assert not values["w_zero_point"].any()
    assert ("y_scale" in values) == outputs
    if target == "tensorrt":
        assert values["x_zero_point"] == 0
    found = [entry for name, entry in values.items() if name.startswith("b")]
    assert {entry.dtype.type for entry in found if entry.shape} >= {bias}
    if bias is np.int32:
        product = (scales["x"].scale * values["w_scale"]).astype(np.float32)
        assert (values["b_scale"] == product).all()
        assert not values["b_zero_point"].any()
        old = {
            c.name: c for c in next(e for e in CASES if e.name == "convolution").model().constants()
        }
        gap = values["b_quantized"] * product.astype(np.float64) - old["b"].values
        assert (np.abs(gap) <= product * 0.501).all()


def test_the_scale_of_weights_rises_until_the_bias_fits() -> None:
    case = next(entry for entry in CASES if entry.name == "biases far beyond the weights")
    _, values, scales = inserted(case.name)
    weights, bias = case.given["w"].astype(np.float32), case.given["b"]
    reach = np.abs(weights).max(axis=(1, 2, 3)) / 127
    assert values["w_scale"][0] == pytest.approx(reach[0])  # no bias there
    wanted = bias[1:] / (float(scales["x"].scale) * 2.0**30)
    assert (wanted > reach[1:]).all()
    assert values["w_scale"][1:] == pytest.approx(wanted)
    assert values["b_quantized"].astype(np.int64).max() <= 2**30 + 256
    found = values["b_quantized"].astype(np.float64) * values["b_scale"]
    assert found == pytest.approx(bias, rel=1e-6)


def test_weights_and_biases_may_be_given() -> None:
    rng = np.random.default_rng(3)
    steps = rng.integers(-127, 128, (8, 8, 3, 3)).astype(np.int8)
    scale = (0.01 + rng.random(8)).astype(np.float32)
    bias = rng.standard_normal(8)
    _, values, scales = inserted("convolution", constants={0: Rounded(steps, scale, bias)})
    assert (values["w_quantized"] == steps).all()
    assert (values["w_scale"] == scale).all()
    unit = (scales["x"].scale * scale).astype(np.float32)
    assert (values["b_quantized"] == np.rint(bias / unit.astype(np.float64))).all()
    model, _, _ = inserted(
        "convolution", TARGETS["openvino"], constants={0: Rounded(steps, scale, bias)}
    )
    (conv,) = (node for node in model.graph.nodes if node.op == "Conv")
    assert conv.inputs[2].values == pytest.approx(bias, rel=1e-6)


def test_given_weights_stay_where_the_bias_fits() -> None:
    rng = np.random.default_rng(3)
    steps = rng.integers(-127, 128, (8, 8, 3, 3)).astype(np.int8)
    scale = np.full(8, 0.01, np.float32)
    bias = np.array([0.5] * 7 + [1e9])
    _, values, _ = inserted("convolution", constants={0: Rounded(steps, scale, bias)})
    assert values["w_scale"][7] > 1
    assert (values["w_scale"][:7] == scale[:7]).all()
    assert (values["w_quantized"][:7] == steps[:7]).all()


TINY = [
    pytest.param(1.0, {"w": 1e-44, "b": 0.5}, id="weights"),
    pytest.param(1.0, {"w": 1e-44 * (np.arange(8) % 2), "b": 0.5}, id="weights and zeros"),
    pytest.param(
        1e-30,
        {"w": 1e-20, "b": 0.0},
        id="product of scales",
    ),
]


@pytest.mark.parametrize(("factor", "given"), TINY)
def test_scales_are_never_zero(factor: float, given: dict[str, Any]) -> None:
    inputs, body = f"{ROWS}, float[16,8] w, float[8] b", "y = Gemm(x, w, b)"
    model = build(inputs, "float[4,8] y", body, **given)
    feeds = {"x": np.float32(factor) * feeds_of(model)["x"]}
    units = units_of(model)
    Insertion(model, CPU, scales_for(model, units, feeds, CPU)).quantize(units)
    tidy(model.graph)
    (found,), _ = run(model.to_proto(), feeds)
    assert found == pytest.approx(given["b"] * np.ones((4, 8)), abs=0.01)
