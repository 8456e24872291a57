"""Nearly equal weights: which are found, what they cost, and that the gate has the last word."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

import graphopt
from graphopt.ir.graph import Constant
from graphopt.ir.model import Model
from graphopt.lossy_pass import Choice
from graphopt.passes.clustering.share_weights import ShareWeights
from graphopt.quality.gate import Budget
from graphopt.stage import Stage
from graphopt.testing import parse

NAMES = ("a", "b", "c", "d")

CHAIN = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N,96] x, float[96,96] a, float[96,96] b, float[96,96] c, float[96,96] d) => (float[N,96] y) {
  ha = MatMul(x, a)
  h = Tanh(ha)
  ib = MatMul(h, b)
  i = Tanh(ib)
  jc = MatMul(i, c)
  j = Tanh(jc)
  y = MatMul(j, d)
}"""


def chain(gaps: dict[str, float]) -> Model:
    """Rotations of which some are the first with noise of so large a share."""
    model, rng = parse(CHAIN, NAMES), np.random.default_rng(0)
    base = np.linalg.qr(rng.normal(size=(96, 96)))[0]
    for name in NAMES:
        turned = np.linalg.qr(rng.normal(size=(96, 96)))[0]
        own = (
            base
            if name == "a"
            else turned
            if name not in gaps
            else base + gaps[name] * rng.normal(size=(96, 96)) / 96**0.5
        )
        held(model, name).values = own.astype(np.float32)
    return model


def held(model: Model, name: str) -> Constant:
    found = next(constant for constant in model.constants() if constant.name == name)
    assert isinstance(found, Constant)
    return found


def given(model: Model, x: np.ndarray) -> np.ndarray:
    made = onnxruntime.InferenceSession(model.to_bytes(), providers=["CPUExecutionProvider"])
    return np.asarray(made.run(None, {"x": x})[0])


def drawn(seed: int, count: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 96)).astype(np.float32)


def proposed(model: Model, step: ShareWeights) -> dict[str, Choice]:
    entries = step.propose(Stage([step]).context(model))
    return {entry.where: entry for entry in entries if isinstance(entry, Choice)}


def test_near_ones_are_found_and_what_they_cost_is_known() -> None:
    model = chain({"b": 0.1, "d": 0.02})
    found = proposed(model, ShareWeights())
    assert set(found) == {"b", "d"}
    for name, choice in found.items():
        own, first = (held(model, n).values.astype(float) for n in (name, "a"))
        lost = np.square(own - first).sum() / np.square(own).sum()
        assert choice.loss == pytest.approx(lost, rel=1e-6)
        assert choice.saving == 96 * 96 * 4
        assert choice.what.startswith("becomes a,")
    assert not proposed(model, ShareWeights(distance=1e-5))


def test_equal_ones_are_left_to_the_exact_pass() -> None:
    model = chain({"b": 0.0})
    result = graphopt.optimize(
        model, passes=["folding", "share-weights"], data={"x": drawn(0)}, budget=Budget(None)
    )
    assert not result.report.steps[-1].edits
    assert result.model.weight_bytes() == 3 * 96 * 96 * 4
    np.testing.assert_array_equal(given(result.model, drawn(1)), given(model, drawn(1)))


def test_what_is_shared_computes_as_the_other_would() -> None:
    model = chain({"b": 0.1, "d": 0.02})
    wanted = model.copy()
    for name in ("b", "d"):
        held(wanted, name).values = held(model, "a").values
    found = Stage([ShareWeights()]).run(model).model
    np.testing.assert_array_equal(given(found, drawn(1)), given(wanted, drawn(1)))
    assert found.weight_bytes() == 2 * 96 * 96 * 4


def test_with_data_the_loss_is_that_of_the_outputs() -> None:
    """Where the input is always 0 weights may differ; so what differs there goes last, or not at all."""
    text = CHAIN.replace("MatMul(h, b)", "MatMul(x, b)").replace("MatMul(i, c)", "Neg(i)")
    text = text.replace(", float[96,96] c", "").replace(
        "MatMul(j, d)", "MatMul(j, d)\n  z = Add(h, i)"
    )
    text = text.replace("=> (float[N,96] y)", "=> (float[N,96] y, float[N,96] z)")
    model, x = parse(text, ("a", "b", "d")), drawn(0, 256)
    x[:, 48:] = 0.0
    first = held(model, "a").values
    noise = 0.2 * np.random.default_rng(4).normal(size=first.shape).astype(np.float32)
    noise[:48] = 0.0
    held(model, "b").values = first + noise
    result = graphopt.optimize(
        model, passes=["share-weights"], data={"x": x}, budget=Budget(1e-6), metric="cosine"
    )
    assert [edit.what.split()[0] for edit in result.report.steps[-1].edits] == ["b"]
    np.testing.assert_array_equal(given(result.model, x), given(model, x))


def test_the_gate_takes_back_what_costs_too_much() -> None:
    model = chain({"b": 0.2, "d": 0.001})
    result = graphopt.optimize(
        model,
        passes=["share-weights"],
        data={"x": drawn(0, 256)},
        budget=Budget(0.001),
        metric="cosine",
    )
    step = result.report.steps[-1]
    assert step.status == "eased"
    assert [edit.what.split()[0] for edit in step.edits] == ["d"]


def test_bodies_read_the_same_tensor() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (bool c, float[N,32] x, float[32,32] a, float[32,32] b) => (float[N,32] y) {
      y = If(c) <
        then_branch = t () => (float[N,32] p) { p = MatMul(x, a) },
        else_branch = e () => (float[N,32] q) { q = MatMul(x, b) }
      >
    }"""
    model = parse(text, ("a", "b"))
    held(model, "b").values = held(model, "a").values + np.float32(0.01)
    found = Stage([ShareWeights()]).run(model).model
    assert found.weight_bytes() == 32 * 32 * 4
    made = onnxruntime.InferenceSession(found.to_bytes(), providers=["CPUExecutionProvider"])
    x = np.ones((2, 32), np.float32)
    both = [made.run(None, {"c": np.array(c), "x": x})[0] for c in (True, False)]
    np.testing.assert_array_equal(*both)


@pytest.mark.parametrize("options", [{"distance": -0.1}, {"distance": 1.0}, {"smallest": 0}])
def test_options_that_make_no_sense_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match="distance is 0 up to below 1"):
        ShareWeights(**options)
