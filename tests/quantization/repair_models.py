"""Models whose channels spread, as those of real networks do, and what runs of them give."""

from __future__ import annotations

import numpy as np
import onnxruntime

import graphopt
from graphopt.ir.model import Model
from graphopt.optimizer import Result
from graphopt.quality.gate import Budget
from graphopt.report import StepReport
from graphopt.testing import parse

FREE = Budget(None)

EVERYTHING = "quantize-qdq:target=openvino"
"""Quantizes all that has a kernel, whatever its time: what is lost shows in full."""

SEPARABLE = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N,8,8,8] x, float[32,8,1,1] w1, float[32] b1, float[32,1,3,3] w2, float[32] b2,
   float[16,32,1,1] w3, float[16] b3) => (float[N,16,8,8] y) {
  c = Conv(x, w1, b1)
  r = Relu(c)
  d = Conv<group = 32, pads = [1,1,1,1]>(r, w2, b2)
  s = Relu(d)
  y = Conv(s, w3, b3)
}"""

ENCODER = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N,8,64] x, float[64] g1, float[64] b1, float[64,64] wq, float[64,64] wk, float[64,64] wv,
   float[64,64] wo, float[64] g2, float[64] b2, float[64,128] w1, float[128] c1, float[128,64] w2,
   float[64] c2) => (float[N,8,64] y) {
  n = LayerNormalization(x, g1, b1)
  q = MatMul(n, wq)
  k = MatMul(n, wk)
  v = MatMul(n, wv)
  kt = Transpose<perm = [0,2,1]>(k)
  s = MatMul(q, kt)
  t = Tanh(s)
  p = Softmax<axis = -1>(t)
  a = MatMul(p, v)
  o = MatMul(a, wo)
  h = Add(x, o)
  m = LayerNormalization(h, g2, b2)
  u = MatMul(m, w1)
  ub = Add(u, c1)
  r = Relu(ub)
  d = MatMul(r, w2)
  db = Add(d, c2)
  y = Add(h, db)
}"""


def constants(model: Model) -> dict:
    return {constant.name: constant for constant in model.constants()}


def separable(seed: int = 0, relu6: bool = False, decades: float = 2.0) -> Model:
    """A depthwise separable block, as of MobileNet, whose channels between layers spread over decades."""
    names = ("w1", "b1", "w2", "b2", "w3", "b3")
    text = SEPARABLE
    if relu6:
        text = text.replace("float[16] b3)", "float[16] b3, float low, float high)")
        text = text.replace("Relu(c)", "Clip(c, low, high)").replace(
            "Relu(d)", "Clip(d, low, high)"
        )
        names += ("low", "high")
    model = parse(text, names)
    held, rng = constants(model), np.random.default_rng(seed)
    first, second = 10.0 ** rng.uniform(-decades, 0.5, (2, 32))
    factors = {
        "w1": first[:, None, None, None],
        "b1": first,
        "w2": (second / first)[:, None, None, None],
        "b2": second,
        "w3": 1 / second[None, :, None, None],
    }
    for name, by in factors.items():
        held[name].values = (held[name].values * by).astype(np.float32)
    if relu6:
        held["low"].values, held["high"].values = (
            np.array(0.0, np.float32),
            np.array(6.0, np.float32),
        )
    return model


def encoder(seed: int = 0, size: float = 60.0) -> Model:
    """A layer of a transformer in whose normalized activations three channels reach far."""
    model = parse(ENCODER, ["g1", "b1", "wq", "wk", "wv", "wo", "g2", "b2", "w1", "c1", "w2", "c2"])
    held, rng = constants(model), np.random.default_rng(seed)
    for name in ("wq", "wk", "wv", "wo", "w1", "w2"):
        held[name].values = (held[name].values / 8).astype(np.float32)
    for scale, shift, readers in (("g1", "b1", ("wq", "wk", "wv")), ("g2", "b2", ("w1",))):
        far = np.ones(64)
        far[rng.choice(64, 3, replace=False)] = size
        held[scale].values = ((1 + rng.standard_normal(64) / 10) * far).astype(np.float32)
        held[shift].values = (rng.standard_normal(64) / 10 * far).astype(np.float32)
        for name in readers:
            held[name].values = (held[name].values / far[:, None]).astype(np.float32)
    return model


def images(seed: int, count: int = 32) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 8, 8, 8)).astype(np.float32)


def words(seed: int, count: int = 32) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 8, 64)).astype(np.float32)


def optimized(model: Model, x: np.ndarray, *passes: str) -> Result:
    return graphopt.optimize(model, passes=list(passes), data={"x": x}, budget=FREE, latency=False)


def step(result: Result, name: str) -> StepReport:
    return next(found for found in result.report.steps if found.name == name)


def outputs(model: Model, x: np.ndarray, level: str = "ORT_DISABLE_ALL") -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.log_severity_level = 4
    opened = onnxruntime.InferenceSession(model.to_bytes(), options, ["CPUExecutionProvider"])
    return np.asarray(opened.run(None, {"x": x})[0])


def decibels(model: Model, changed: Model, x: np.ndarray) -> float:
    """The signal-to-quantization-noise ratio of a changed model."""
    wanted, found = outputs(model, x).astype(np.float64), outputs(changed, x)
    return float(10 * np.log10(np.square(wanted).sum() / np.square(found - wanted).sum()))
