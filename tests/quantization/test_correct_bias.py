"""Means and spread of changed layers: where they are put, and when they are left alone."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from repair_models import (
    constants,
    decibels,
    encoder,
    images,
    optimized,
    outputs,
    separable,
    step,
    words,
)

from graphopt.ir.model import Model
from graphopt.ir.surgery import tidy
from graphopt.optimizer import Result
from graphopt.passes.quantization._bias_slots import Slot, slot_of
from graphopt.testing import parse

LOSSY = [
    "quantize-weights:bits=4,block=0,rounding=nearest",
    "quantize-weights:bits=4,rounding=nearest",
    "binarize-weights:bases=2",
]

MEANS = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N,8,64] x, float[64,48] w1, float[48] b1, float[48,32] w2) => (float[N,8,32] y) {
  c = MatMul(x, w1)
  d = Add(c, b1)
  r = Relu(d)
  y = MatMul(r, w2)
}"""


def plain(seed: int = 0) -> Model:
    return separable(seed, decades=0.0)


def initializers(model: Model) -> dict[str, np.ndarray]:
    return {i.name: numpy_helper.to_array(i) for i in model.to_proto().graph.initializer}


def error_of(model: Model, changed: Model, x: np.ndarray) -> float:
    return 10 ** (-decibels(model, changed, x) / 10)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", LOSSY)
def test_less_is_lost_on_samples_that_nobody_saw(seed: int, name: str) -> None:
    model, x = plain(seed), images(9)
    before = optimized(model, images(1), name)
    after = optimized(model, images(1), name, "correct-bias")
    assert step(after, "correct-bias").edits
    assert error_of(model, after.model, x) < error_of(model, before.model, x)
    assert len(after.model.to_proto().graph.node) == len(before.model.to_proto().graph.node)


def test_a_moved_mean_comes_back_whole() -> None:
    """All of what rounding away a positive part does to a constant input is a shift."""
    model = plain()
    x = np.broadcast_to(images(3, 1), (32, 8, 8, 8)) + 0.01 * images(4)
    found = optimized(model, x.astype(np.float32), LOSSY[0], "correct-bias:gain=false")
    before = optimized(model, x.astype(np.float32), LOSSY[0])
    wanted = outputs(model, x[:8].astype(np.float32)).mean(axis=(0, 2, 3))
    gaps = [
        np.abs(outputs(r.model, x[:8].astype(np.float32)).mean(axis=(0, 2, 3)) - wanted).max()
        for r in (found, before)
    ]
    assert gaps[0] < 0.3 * gaps[1]


CONVOLUTION = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N,8,8,8] x, float[16,8,3,3] w) => (float[N,16,6,6] y) { y = Conv(x, w) }"""


def dequantized_bias(model: Model, node: onnx.NodeProto) -> tuple[np.ndarray, float | np.ndarray]:
    made = {n.output[0]: n for n in model.to_proto().graph.node}
    held, found = initializers(model), made[node.input[2]]
    assert found.op_type == "DequantizeLinear"
    return held[found.input[0]], held[found.input[1]]


def test_a_bias_of_integers_moves_by_steps_of_its_scale() -> None:
    model, x = plain(), images(1)
    target = "quantize-qdq:target=qnn,ranges=mse"
    before, after = optimized(model, x, target), optimized(model, x, target, "correct-bias")
    assert step(after, "correct-bias").edits
    for found in (before, after):
        made = {n.output[0]: n for n in found.model.to_proto().graph.node}
        held = initializers(found.model)
        for node in found.model.to_proto().graph.node:
            if node.op_type == "Conv":
                steps, scale = dequantized_bias(found.model, node)
                assert steps.dtype == np.int32
                product = held[made[node.input[0]].input[1]] * held[made[node.input[1]].input[1]]
                np.testing.assert_allclose(scale, product, rtol=1e-6)
    assert error_of(model, after.model, images(9)) < error_of(model, before.model, images(9))


@pytest.mark.parametrize("gains", [False, True])
def test_a_layer_on_integers_without_a_bias_gets_one_of_integers(gains: bool) -> None:
    model = parse(CONVOLUTION, ("w",))
    before = optimized(model, images(1), "quantize-qdq:target=qnn").model
    after = before.copy()
    slot = slot_of(next(n for n in after.graph.nodes if n.op == "Conv"), 16)
    assert isinstance(slot, Slot)
    assert slot.gain is not None
    shift, gain = np.linspace(-3.0, 3.0, 16), np.linspace(0.8, 1.2, 16) if gains else np.ones(16)
    slot.gain(gain)
    slot.shift(gain, shift)
    tidy(after.graph)
    (node,) = (n for n in after.to_proto().graph.node if n.op_type == "Conv")
    steps, scale = dequantized_bias(after, node)
    assert steps.dtype == np.int32
    np.testing.assert_allclose(steps * scale, shift, atol=scale.max() / 2)
    raw = [raw_of(found, images(2)) for found in (before, after)]
    wanted = raw[0] * gain[:, None, None] + shift[:, None, None]
    np.testing.assert_allclose(raw[1], wanted, atol=scale.max() / 2 + 1e-5)


def raw_of(model: Model, x: np.ndarray) -> np.ndarray:
    """What the convolution gives before it is rounded."""
    (node,) = (n for n in model.graph.nodes if n.op == "Conv")
    cut = model.copy()
    twin = next(n for n in cut.graph.nodes if n.uid == node.uid)
    twin.outputs[0].dtype = np.dtype(np.float32)
    cut.graph.outputs = [twin.outputs[0]]
    return outputs(cut, x)


def test_a_product_has_its_bias_in_the_sum_behind_it() -> None:
    model = parse(MEANS, ("w1", "b1", "w2"))
    x = words(1) + 1.0
    found = optimized(model, x, LOSSY[0], "correct-bias:gain=false")
    done = step(found, "correct-bias")
    assert len(done.edits) == 1
    assert any("takes no bias, and no Add behind it holds one" in skip.why for skip in done.skips)
    (add,) = (n for n in found.model.to_proto().graph.node if n.op_type == "Add")
    assert np.abs(initializers(found.model)[add.input[1]] - constants(model)["b1"].values).max() > 0
    before = optimized(model, x, LOSSY[0])
    y = words(9) + 1.0
    assert error_of(model, found.model, y) < error_of(model, before.model, y)


def test_a_gain_can_be_left_out() -> None:
    with_gain = optimized(plain(), images(1), LOSSY[0], "correct-bias")
    without = optimized(plain(), images(1), LOSSY[0], "correct-bias:gain=false")
    assert any("means and spread" in e.what for e in step(with_gain, "correct-bias").edits)
    assert all("its means were" in e.what for e in step(without, "correct-bias").edits)
    scales = [n for n in initializers(without.model) if "scale" in n]
    same = optimized(plain(), images(1), LOSSY[0])
    for name in scales:
        np.testing.assert_array_equal(
            initializers(without.model)[name], initializers(same.model)[name]
        )


def test_what_did_not_change_is_not_touched() -> None:
    found = optimized(plain(), images(1), "quantize-weights:bits=8,smallest=400", "correct-bias")
    done = step(found, "correct-bias")
    where = " ".join([*(e.node for e in done.edits), *(s.node for s in done.skips)])
    assert "Conv→y" in where
    assert "Conv→d" not in where


def refusal(result: Result) -> str:
    done = step(result, "correct-bias")
    assert done.status == "unchanged"
    return " ".join(skip.why for skip in done.skips)


def test_it_takes_a_lossy_pass_before_it() -> None:
    assert "no lossy pass" in refusal(optimized(plain(), images(1), "correct-bias"))


def test_exact_passes_in_between_may_have_moved_weights() -> None:
    text = MEANS.replace("r = Relu(d)", "e = Identity(d)\n  r = Relu(e)")
    model = parse(text, ("w1", "b1", "w2"))
    passes = ["eliminate-dead-code", LOSSY[0], "eliminate-identity", "correct-bias"]
    assert "no lossy pass" in refusal(optimized(model, words(1), *passes))
    passes[2] = "eliminate-dead-code"
    assert step(optimized(model, words(1) + 1.0, *passes), "correct-bias").edits


def test_few_samples_cannot_be_held_back() -> None:
    found = optimized(plain(), images(1, 6), LOSSY[0], "correct-bias")
    assert "judging a correction takes 8 samples" in refusal(found)


def test_sliced_layers_have_no_counterpart() -> None:
    model = encoder(size=1.0)
    found = optimized(model, words(1), "prune-channels:amount=0.3", "correct-bias")
    whys = [skip.why for skip in step(found, "correct-bias").skips]
    assert any("other channels than the original's" in why for why in whys)
    assert np.isfinite(outputs(found.model, words(2))).all()
