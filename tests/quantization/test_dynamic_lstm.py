"""LSTM on integers by the operator of ONNX Runtime: what it computes, where it is used, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from qdq_models import CPU, build, feeds_of

from graphopt.ir.model import Model
from graphopt.numerics.statistics import Ratio
from graphopt.outcome import Outcome
from graphopt.pass_manager import PassManager
from graphopt.passes.quantization._qdq.weights import rounded
from graphopt.passes.quantization.quantize_dynamic import QuantizeDynamic
from graphopt.report import SpeedInfo
from graphopt.runtime.profiling import NodeSeconds

INPUTS = "float[6,3,16] x, float[D,96,16] w, float[D,96,24] r, float[D,192] b"
STATES = "float[D,3,24] h0, float[D,3,24] c0"
OUTPUTS = "float[6,D,3,24] y, float[D,3,24] h, float[D,3,24] c"
FORWARD = "y, h, c = LSTM<hidden_size = 24>(x, w, r, b, , h0, c0)"
BOTH = 'y, h, c = LSTM<hidden_size = 24, direction = "bidirectional">(x, w, r, b, , h0, c0)'


class Machine:
    """A machine on which layers take some microseconds on floats and on integers."""

    def __init__(self, integers: float = 2.0) -> None:
        self.taken = {"LSTM": 10.0, "DynamicQuantizeLSTM": integers}

    def __call__(self, models: Any, anew: bool = False) -> list[list[NodeSeconds]]:
        return [
            [NodeSeconds(n.name, n.op, 1e-6 * self.taken.get(n.op, 0.1)) for n in model.nodes()]
            for model in models
        ]


def net(directions: int = 1, body: str = FORWARD) -> Model:
    texts = (f"{INPUTS}, {STATES}", OUTPUTS)
    inputs, outputs = (text.replace("D", str(directions)) for text in texts)
    model = build(inputs, outputs, body, "w r b")
    for constant in model.constants():
        constant.values = constant.values / np.float32(4)
    return model


def quantized(model: Model, measure: Machine | None = None, **options: Any) -> Outcome:
    """The pass on a model, without a gate."""
    ratio = Ratio(0.5, 0.49, 0.51)
    manager = PassManager(
        None,
        measure=measure or Machine(),
        race=lambda before, after: SpeedInfo(ratio, Ratio(1.0, 0.97, 1.03), "faster"),
    )
    return manager.run(model, [QuantizeDynamic(**options)])


def executed(model: Model, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.to_bytes(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, feeds))


def dynamic(values: np.ndarray) -> np.ndarray:
    """Values rounded as DynamicQuantizeLinear does."""
    low, high = min(values.min(), 0.0), max(values.max(), 0.0)
    scale = np.float32((high - low) / 255) or np.float32(1)
    zero = np.clip(np.rint(-low / scale), 0, 255)
    return ((np.clip(np.rint(values / scale) + zero, 0, 255) - zero) * scale).astype(np.float32)


def lstm(model: Model, feeds: dict[str, np.ndarray], direction: int) -> np.ndarray:
    """The outputs of all steps, ``(steps, batch, hidden)``, in numpy: gates i, o, f, c."""
    constants = {c.name: c.values[direction] for c in model.constants()}
    w, r = (rounded(constants[name], 0, CPU.weights) for name in "wr")
    w, r = (part.steps.astype(np.float32) * part.scale[:, None] for part in (w, r))
    bias = constants["b"][:96] + constants["b"][96:]
    x = dynamic(feeds["x"])[:: -1 if direction else 1]
    h, c, found = feeds["h0"][direction], feeds["c0"][direction], []
    for step in x:
        gates = step @ w.T + dynamic(h) @ r.T + bias
        i, o, f = (1 / (1 + np.exp(-gates[:, 24 * n : 24 * n + 24])) for n in range(3))
        c = f * c + i * np.tanh(gates[:, 72:])
        h = o * np.tanh(c)
        found.append(h)
    return np.array(found[:: -1 if direction else 1])


@pytest.mark.parametrize(("directions", "body"), [(1, FORWARD), (2, BOTH)])
def test_it_computes_what_numpy_says(directions: int, body: str) -> None:
    model = net(directions, body)
    found = quantized(model, recurrent=True).model
    assert [node.op for node in found.graph.nodes] == ["DynamicQuantizeLSTM"]
    feeds = feeds_of(model)
    y, h, c = executed(found, feeds)
    exact = executed(model, feeds)
    for direction in range(directions):
        wanted = lstm(model, feeds, direction)
        np.testing.assert_allclose(y[:, direction], wanted, atol=2e-3)
        assert np.abs(y[:, direction] - wanted).max() < np.abs(y - exact[0]).max()
    assert np.abs(c - exact[2]).max() < 0.05
    assert h.shape == exact[1].shape
    assert found.weight_bytes() < 0.4 * model.weight_bytes()
    imports = {entry.domain: entry.version for entry in found.to_proto().opset_import}
    assert imports == {"": 17, "com.microsoft": 1}


def test_it_is_asked_for() -> None:
    step = quantized(net()).steps[-1]
    assert step.status == "unchanged"
    assert "recurrent=true" in step.skips[0].why


def test_what_is_slower_on_integers_stays_on_floats() -> None:
    step = quantized(net(), Machine(20.0), recurrent=True).steps[-1]
    assert step.status == "unchanged"
    assert "not faster" in step.skips[0].why


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("y, h, c = LSTM<hidden_size = 24>(x, w, z, b, , h0, c0)", "computed"),
        ("y, h = GRU<hidden_size = 32>(x, w, z)", "no kernel for GRU"),
        ("y, h = RNN<hidden_size = 96>(x, w, z)", "no kernel for RNN"),
    ],
)
def test_what_cannot_run_on_integers_has_a_reason(body: str, why: str) -> None:
    inputs = f"{INPUTS}, {STATES}".replace("D", "1")
    model = build(inputs, "float y", f"z = Identity(r) {body}".replace("r)", "r)"), "w b")
    step = quantized(model, recurrent=True).steps[-1]
    assert any(why in skip.why for skip in step.skips)


def test_an_lstm_in_a_body_runs_on_integers() -> None:
    body = """
      y = If(k) <
        then_branch = t () => (float[6,1,3,24] p) { p = LSTM<hidden_size = 24>(x, w, r, b) },
        else_branch = e () => (float[6,1,3,24] q) { l = LSTM<hidden_size = 24>(x, w, r, b) q = Neg(l) }
      >
    """
    inputs = INPUTS.replace("D", "1") + ", bool k"
    model = build(inputs, "float[6,1,3,24] y", body, "w r b")
    found = quantized(model, recurrent=True).model
    assert [node.op for node in found.nodes()].count("DynamicQuantizeLSTM") == 2
    for k in (True, False):
        feeds = feeds_of(model) | {"k": np.array(k)}
        (wanted,), (got,) = (executed(entry, feeds) for entry in (model, found))
        assert np.mean((got - wanted) ** 2) < 1e-3 * wanted.var()


def test_products_in_a_loop_run_on_integers() -> None:
    body = """
      y = Loop(n, , x) <
        body = b (int64 i, bool c, float[4,64] s) => (bool d, float[4,64] t) {
          d = Identity(c)
          a = MatMul(s, w)
          g = MatMul(x, w)
          m = Add(a, g)
          t = Tanh(m)
        }
      >
    """
    model = build("float[4,64] x, int64 n, float[64,64] w", "float[4,64] y", body, "w")
    machine = Machine()
    machine.taken |= {"MatMul": 10.0}
    found = quantized(model, machine).model
    ops = [node.op for node in found.nodes()]
    assert ops.count("MatMulInteger") == ops.count("DynamicQuantizeLinear") == 2
    assert "MatMul" not in ops
    feeds = feeds_of(model) | {"n": np.array(2)}
    (wanted,), (got,) = (executed(entry, feeds) for entry in (model, found))
    assert np.mean((got - wanted) ** 2) < 0.01 * wanted.var()
