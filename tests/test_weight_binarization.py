"""Weights as sums of binary ones: their bits, what they stand for, and what ONNX Runtime makes of them."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from graphopt.ir.model import Model
from graphopt.lossy_pass import Choice
from graphopt.numerics.binarization import unpacked
from graphopt.passes.quantization.binarize_weights import BinarizeWeights
from graphopt.stage import Stage
from graphopt.testing import parse

PRODUCT = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N, 64] x, float[64, 96] w) => (float[N, 96] y) { y = MatMul(x, w) }"""


def product() -> Model:
    return parse(PRODUCT, ("w",))


def session(model: Model, optimized: str = "", level: str = "ORT_ENABLE_ALL"):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.log_severity_level = 4
    if optimized:
        options.optimized_model_filepath = optimized
    return onnxruntime.InferenceSession(model.to_bytes(), options, ["CPUExecutionProvider"])


def outputs(model: Model, x: np.ndarray) -> np.ndarray:
    return np.asarray(session(model, level="ORT_DISABLE_ALL").run(None, {"x": x})[0])


def as_run(model: Model, tmp_path) -> onnx.GraphProto:
    """The graph that ONNX Runtime runs."""
    path = str(tmp_path / "optimized.onnx")
    session(model, path)
    return onnx.load(path).graph


def initializers(model: Model) -> dict[str, np.ndarray]:
    return {i.name: numpy_helper.to_array(i) for i in model.to_proto().graph.initializer}


def weight(name: str, model: Model, what: str) -> np.ndarray:
    return initializers(model)[f"{name}_{what}"]


FORMATS = ["bits=8", "bits=8,symmetric=false", "bits=4", "bits=4,block=0", "bits=4,block=32"]


def taken(model: Model, *parts: str) -> int:
    return sum(weight("w", model, part).nbytes for part in parts)


def proposed(step, model: Model) -> list[Choice]:
    found = list(step.propose(Stage([step]).context(model)))
    assert all(isinstance(entry, Choice) for entry in found), found
    return found


@pytest.mark.parametrize("bases", [1, 2, 3, 4])
def test_bits_are_unpacked_when_they_are_loaded(bases: int, tmp_path) -> None:
    model = Stage([BinarizeWeights(bases)]).run(product()).model
    found = as_run(model, tmp_path)
    assert [node.op_type for node in found.node] == ["MatMul"]
    assert [tuple(i.dims) for i in found.initializer] == [(64, 96)]
    taken = bases * (64 * 96 / 8 + 96 * 4)
    assert taken <= model.weight_bytes() <= taken + 64
    assert len(model.to_bytes()) < taken + 1500


def test_packed_signs_are_the_ones_that_were_found() -> None:
    values = initializers(product())["w"]
    model = Stage([BinarizeWeights()]).run(product()).model
    signs = unpacked(weight("w", model, "bits").ravel(), values.size).reshape(values.shape)
    np.testing.assert_array_equal(signs, np.where(values < 0, -1, 1))
    factors = weight("w", model, "factors") / 2
    np.testing.assert_allclose(factors.ravel(), np.abs(values).mean(axis=0), rtol=1e-6)
    np.testing.assert_array_equal(outputs(model, np.eye(64, dtype=np.float32)), signs * factors[0])


@pytest.mark.parametrize("bases", [2, 3, 4])
def test_bases_are_summed_in_their_order(bases: int) -> None:
    model = Stage([BinarizeWeights(bases)]).run(product()).model
    bits = weight("w", model, "bits").ravel()
    signs = unpacked(bits, bases * 64 * 96).reshape(bases, 64, 96).astype(np.float32)
    terms = signs * (weight("w", model, "factors") / 2)
    wanted = terms[0]
    for term in terms[1:]:
        wanted = wanted + term
    np.testing.assert_array_equal(outputs(model, np.eye(64, dtype=np.float32)), wanted)


def test_more_bases_lose_less_and_take_more() -> None:
    choices = proposed(BinarizeWeights(), product())
    assert [choice.level for choice in choices] == [1, 2, 3, 4]
    assert [c.loss for c in choices] == sorted((c.loss for c in choices), reverse=True)
    assert [c.saving for c in choices] == sorted((c.saving for c in choices), reverse=True)
    values = initializers(product())["w"]
    for choice in choices:
        model = Stage([BinarizeWeights(int(choice.level))]).run(product()).model
        gap = outputs(model, np.eye(64, dtype=np.float32)) - values
        lost = np.square(gap).sum() / np.square(values).sum()
        assert choice.loss == pytest.approx(lost, rel=0.1)  # predicted on 64 of 96 channels
        assert choice.saving == product().weight_bytes() - taken(model, "bits", "factors")
