"""Weights in bodies and of recurrent layers are stored in few bits, fitted to data, and folded at load."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import onnx
import onnxruntime
import pytest

from graphopt.ir.model import Model
from graphopt.ir.nesting import nodes_within
from graphopt.optimizer import optimize
from graphopt.quality.gate import Budget
from graphopt.testing import parse

FREE = Budget(None)

LOOP = """<ir_version: 10, opset_import: ["" : 21]>
g (float[N,32] x, int64 n, float[32,32] w, float[32,32] v) => (float[N,32] y) {
  y = Loop(n, , x) <
    body = b (int64 i, bool c, float[M,32] s) => (bool d, float[K,32] t) {
      d = Identity(c)
      a = MatMul(s, w)
      r = Relu(a)
      t = MatMul(r, v)
    }
  >
}"""

BODY_WEIGHTS = """<ir_version: 10, opset_import: ["" : 21]>
g (float[N,32] x, bool k) => (float[N,32] y) {
  y = If(k) <
    then_branch = t () => (float[M,32] p) <float[32,32] w> { a = MatMul(x, w) p = Relu(a) },
    else_branch = e () => (float[M,32] q) { q = Neg(x) }
  >
}"""

LSTM = """<ir_version: 10, opset_import: ["" : 21]>
g (float[5,N,16] x, float[1,64,16] w, float[1,64,16] r, float[1,128] b) => (float[5,1,N,16] y) {
  y = LSTM<hidden_size = 16>(x, w, r, b)
}"""

GRU = LSTM.replace("LSTM", "GRU").replace("64", "48").replace("128", "96")


def correlated(samples: int) -> np.ndarray:
    mixed = np.random.default_rng(1).standard_normal((4, 32))
    drawn = np.random.default_rng(samples).standard_normal((samples, 4))
    return (drawn @ mixed).astype(np.float32)


def executed(model: Model, feeds: dict[str, np.ndarray]) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.to_bytes(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


def operators(graph: onnx.GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield node.op_type
        for attribute in node.attribute:
            yield from operators(attribute.g)


def folded(model: Model, path) -> Counter[str]:
    """The operators of what ONNX Runtime makes of a model, with those in bodies."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(model.to_bytes(), options, providers=["CPUExecutionProvider"])
    return Counter(operators(onnx.load(path).graph))


WAYS = {
    "fitted": ("quantize-weights:bits=4,rounding=least-squares", True),
    "nearest": ("quantize-weights:bits=4,rounding=nearest", True),
    "clustered": ("cluster-weights:clusters=16", True),
    "clustered blindly": ("cluster-weights:clusters=16", False),
}


def test_weights_in_a_loop_are_fitted_to_all_its_iterations(tmp_path) -> None:
    model = parse(LOOP, ("w", "v"))
    for constant in model.constants():
        constant.values = constant.values / np.float32(4)
    data = {"x": correlated(64)[:, None], "n": np.full(64, 2)}
    feeds = {"x": correlated(50), "n": np.array(2)}
    exact, plain = executed(model, feeds), folded(model, tmp_path / "plain.onnx")
    lost = {}
    for way, (step, given) in WAYS.items():
        found = optimize(model, passes=[step], data=data if given else None, budget=FREE).model
        lost[way] = float(np.mean((executed(found, feeds) - exact) ** 2) / exact.var())
        assert folded(found, tmp_path / "folded.onnx") == plain
        assert found.weight_bytes() < model.weight_bytes() / 3
    assert lost["fitted"] < lost["nearest"] / 2
    assert lost["clustered"] < lost["clustered blindly"] / 2


def test_weights_that_a_body_holds_are_stored_in_few_bits(tmp_path) -> None:
    text = BODY_WEIGHTS.replace("<float[32,32] w>", "").replace(
        "bool k)", "bool k, float[32,32] w)"
    )
    model = parse(text, ("w",))
    found = optimize(model, passes=["quantize-weights"]).model
    assert found.weight_bytes() < model.weight_bytes() / 3
    assert folded(found, tmp_path / "a.onnx") == folded(model, tmp_path / "b.onnx")


@pytest.mark.parametrize("text", [LSTM, GRU])
@pytest.mark.parametrize("bits", [8, 4])
def test_weights_of_recurrent_layers_are_stored_in_few_bits(text: str, bits: int, tmp_path) -> None:
    model = parse(text, ("w", "r", "b"))
    found = optimize(model, passes=[f"quantize-weights:bits={bits}"]).model
    recurrent = next(node for node in nodes_within(found.graph) if node.op in ("LSTM", "GRU"))
    assert found.weight_bytes() < model.weight_bytes() * (0.42 if bits == 8 else 0.33)
    assert recurrent.inputs[1].inputs and recurrent.inputs[2].inputs
    assert folded(found, tmp_path / "a.onnx") == folded(model, tmp_path / "b.onnx")
    x = np.random.default_rng(0).standard_normal((5, 3, 16)).astype(np.float32)
    exact = executed(model, {"x": x})
    limit = 1e-3 if bits == 8 else 5e-2
    assert np.mean((executed(found, {"x": x}) - exact) ** 2) < limit * exact.var()


@pytest.mark.parametrize("text", [LSTM, GRU])
def test_that_recurrent_layers_stay_on_floats_is_said(text: str) -> None:
    data = {"x": np.random.default_rng(0).standard_normal((8, 5, 1, 16)).astype(np.float32)}
    model = parse(text, ("w", "r", "b"))
    step = optimize(model, passes=["quantize-qdq"], data=data, budget=FREE).report.steps[-1]
    assert any("no integer kernel for" in skip.why for skip in step.skips)
