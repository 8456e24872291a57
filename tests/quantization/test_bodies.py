"""What stands in the bodies of If, Loop and Scan is rounded as numpy says, fused, and judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import onnx
import onnxruntime
import pytest
from qdq_models import (
    CPU,
    Arrays,
    build,
    feeds_of,
    grid_over,
    rounded_to,
    units_of,
)

from graphopt.ir.inference import infer
from graphopt.ir.model import Model
from graphopt.ir.surgery import tidy
from graphopt.optimizer import optimize
from graphopt.passes.quantization._qdq.insertion import Insertion, Scale
from graphopt.passes.quantization._qdq.losses import Rounding, measured_losses
from graphopt.passes.quantization._qdq.timing import marked, read_profile
from graphopt.passes.quantization._qdq.weights import rounded
from graphopt.runtime.native import Native
from graphopt.runtime.node_times import NodeTimes
from graphopt.runtime.observer import Observer
from graphopt.runtime.observing import Stream

INPUTS = "float[4,16] x, float[16,16] w, float[16,16] v"

BRANCHES = """
  h = MatMul(x, w)
  r = Relu(h)
  y = If(k) <
    then_branch = t () => (float[4,16] p) { a = MatMul(r, v) p = MatMul(a, w) },
    else_branch = e () => (float[4,16] q) { m = MatMul(r, w) q = Neg(m) }
  >
"""

LOOP = """
  y = Loop(n, , x) <
    body = b (int64 i, bool c, float[4,16] s) => (bool d, float[4,16] t) {
      d = Identity(c)
      a = MatMul(s, w)
      g = MatMul(a, v)
      t = Tanh(g)
    }
  >
"""

SCAN = """
  y, o = Scan<num_scan_inputs = 1,
    body = b (float[16] s, float[16] e) => (float[16] t, float[16] u) {
      a = MatMul(e, w)
      f = Add(a, s)
      t = Tanh(f)
      u = MatMul(t, v)
    }>(s0, x)
"""

COARSE = Scale(np.float32(0.3), np.asarray(100))


def of_weights(model: Model, name: str) -> np.ndarray:
    """Weights as they are on integers, with a scale for each column."""
    values = next(c.values for c in model.constants() if c.name == name)
    found = rounded(values, 1, CPU.weights)
    return found.steps.astype(np.float32) * found.scale


def plain(model: Model, name: str) -> np.ndarray:
    return next(c.values for c in model.constants() if c.name == name)


def executed(model: Model, feeds: Arrays, optimized: bool = False) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimized else level.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.to_bytes(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, feeds))


def operators(graph: onnx.GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield node.op_type
        for attribute in node.attribute:
            yield from operators(attribute.g)


def test_a_branch_reads_integers_that_are_made_outside_once() -> None:
    model = build(f"{INPUTS}, bool k", "float[4,16] y", BRANCHES, "w v")
    feeds = feeds_of(model) | {"k": np.array(True)}
    w, v = plain(model, "w"), plain(model, "v")
    x = feeds["x"]
    r = np.maximum(x @ w, 0)
    a = r @ v
    grids = {"x": grid_over(x, CPU), "r": grid_over(r, CPU), "a": grid_over(a, CPU)}
    grids |= {name: grid_over(5 * r, CPU) for name in ("h", "p", "m")}
    made = model.copy()
    Insertion(made, CPU, grids).quantize(units_of(made))
    for scope in made.scopes():
        tidy(scope)
    onnx.checker.check_model(made.to_proto(), full_check=True)
    counts = Counter(operators(made.to_proto().graph))
    assert counts["QuantizeLinear"] == 3  # x, r and a, each once, though both branches read r
    wi, vi = of_weights(model, "w"), of_weights(model, "v")

    def on(name: str, values: np.ndarray) -> np.ndarray:
        return rounded_to(values, grids[name], CPU)

    read = on("r", np.maximum(on("x", x) @ wi, 0))
    for k, expected in ((True, on("a", read @ vi) @ wi), (False, -(read @ wi))):
        (found,) = executed(made, feeds | {"k": np.array(k)})
        step = float(max(g.scale for g in grids.values()))
        np.testing.assert_allclose(found, expected, atol=1e-4)
        assert (
            np.abs(executed(made, feeds | {"k": np.array(k)}, True)[0] - expected).max() < 8 * step
        )


@pytest.mark.parametrize("times", [0, 1, 3])
def test_the_state_of_a_loop_is_rounded_in_each_iteration(times: int) -> None:
    model = build(f"{INPUTS}, int64 n", "float[4,16] y", LOOP, "w v")
    feeds = feeds_of(model) | {"n": np.array(times)}
    wi, vi = of_weights(model, "w"), of_weights(model, "v")
    grids = {
        "s": grid_over(np.array([-2.9, 3.0], np.float32), CPU),
        "a": grid_over(np.array([-9.0, 9.0], np.float32), CPU),
    }
    grids["g"] = grids["a"]
    made = model.copy()
    Insertion(made, CPU, grids).quantize(units_of(made))
    for scope in made.scopes():
        tidy(scope)
    onnx.checker.check_model(made.to_proto(), full_check=True)
    state = feeds["x"]
    for _ in range(times):
        inner = rounded_to(rounded_to(state, grids["s"], CPU) @ wi, grids["a"], CPU)
        state = np.tanh(inner @ vi)
    np.testing.assert_allclose(executed(made, feeds)[0], state, atol=1e-4)


def test_onnx_runtime_fuses_what_stands_in_bodies(native: Native) -> None:
    model = build(f"{INPUTS}, int64 n", "float[4,16] y", LOOP, "w v")
    feeds = feeds_of(model) | {"n": np.array(3)}
    made = model.copy()
    grids = {name: grid_over(np.array([-2.9, 3.0], np.float32), CPU) for name in "sag"}
    units = units_of(model)
    Insertion(made, CPU, grids).quantize(units_of(made))
    for scope in made.scopes():
        tidy(scope)
    floats, integers = (
        read_profile(t) for t in NodeTimes(native, feeds)([marked(model), marked(made)])
    )
    assert [integers.integer(unit.uid) for unit in units] == [True, True]
    assert not any(floats.integer(unit.uid) for unit in units)
    assert all(floats.seconds[unit.uid] > 0 for unit in units)


def measure(model: Model, native: Native, roundings, units, batches) -> dict:
    facts = infer(model.graph, model.functions)
    observe = Observer(native, Stream(lambda: batches))
    return measured_losses(model, facts, roundings, units, CPU, observe, {})


@pytest.mark.parametrize("k", [True, False])
def test_losses_of_branches(native: Native, k: bool) -> None:
    model = build(f"{INPUTS}, bool k", "float[4,16] y", BRANCHES, "w v")
    feeds = feeds_of(model) | {"k": np.array(k)}
    w, v = plain(model, "w"), plain(model, "v")

    def output(a=lambda t: t, r=lambda t: t, m=w) -> np.ndarray:
        read = r(np.maximum(feeds["x"] @ w, 0))
        return a(read @ v) @ w if k else -(read @ m)

    def coarse(values: np.ndarray) -> np.ndarray:
        return rounded_to(values, COARSE, CPU)

    unit = next(unit for unit in units_of(model) if unit.output.name == "m")
    found = measure(model, native, [Rounding(n, n, COARSE) for n in "ar"], [unit], [feeds])
    for key, got in (
        ("a", output(a=coarse)),
        ("r", output(r=coarse)),
        (unit.uid, output(m=of_weights(model, "w"))),
    ):
        expected = np.mean((got - output()) ** 2) / output().var()
        np.testing.assert_allclose(found[key], expected, rtol=1e-3, atol=1e-9)
    assert (found["a"] > 0) == k
    assert found["r"] > 0


def test_losses_in_a_loop_add_up_over_iterations(native: Native) -> None:
    model = build(f"{INPUTS}, int64 n", "float[4,16] y", LOOP, "w v")
    feeds = feeds_of(model) | {"n": np.array(3)}
    w, v = plain(model, "w"), plain(model, "v")

    def output(rounded: str, weight: np.ndarray) -> np.ndarray:
        state = feeds["x"]
        for _ in range(3):
            read = rounded_to(state, COARSE, CPU) if rounded == "s" else state
            inner = read @ weight
            state = np.tanh((rounded_to(inner, COARSE, CPU) if rounded == "a" else inner) @ v)
            state = rounded_to(state, COARSE, CPU) if rounded == "t" else state
        return state

    first = units_of(model)[0]
    found = measure(model, native, [Rounding(n, n, COARSE) for n in "sat"], [first], [feeds])
    whole = output("", w)
    for key in "sat":
        expected = np.mean((output(key, w) - whole) ** 2) / whole.var()
        np.testing.assert_allclose(found[key], expected, rtol=1e-3)
    expected = np.mean((output("", of_weights(model, "w")) - whole) ** 2) / whole.var()
    np.testing.assert_allclose(found[first.uid], expected, rtol=1e-3)


def test_losses_in_a_scan(native: Native) -> None:
    model = build(f"{INPUTS}, float[16] s0", "float[16] y, float[4,16] o", SCAN, "w v")
    feeds = feeds_of(model)
    w, v = plain(model, "w"), plain(model, "v")

    def outputs(rounding: bool) -> tuple[np.ndarray, np.ndarray]:
        state, rows = feeds["s0"], []
        for row in feeds["x"]:
            a = row @ w
            state = np.tanh((rounded_to(a, COARSE, CPU) if rounding else a) + state)
            rows.append(state @ v)
        return state, np.array(rows)

    found = measure(model, native, [Rounding("a", "a", COARSE)], (), [feeds])
    pairs = zip(outputs(True), outputs(False), strict=True)
    expected = np.mean([np.mean((new - old) ** 2) / old.var() for new, old in pairs])
    np.testing.assert_allclose(found["a"], expected, rtol=1e-3)


def test_what_ends_a_loop_is_not_rounded(native: Native) -> None:
    body = LOOP.replace("d = Identity(c)", "").replace(
        "t = Tanh(g)", "t = Tanh(g) l = ReduceSum<keepdims = 0>(t) d = Less(l, z)"
    )
    model = build(f"{INPUTS}, int64 n, float z", "float[4,16] y", body, "w v", z=0)
    feeds = feeds_of(model) | {"n": np.array(3)}
    found = measure(model, native, [Rounding(n, n, COARSE) for n in "sa"], (), [feeds])
    assert found == {"s": np.inf, "a": np.inf}


def test_the_pass_reaches_a_loop() -> None:
    body = LOOP.replace("g = MatMul(a, v)", "z = Sigmoid(a) g = MatMul(z, v)")
    model = build(f"{INPUTS}, int64 n", "float[4,16] y", body, "w v")
    each = [feeds_of(model, seed) for seed in range(8)]
    data = {"x": np.stack([feeds["x"] for feeds in each]), "n": np.full(8, 3)}
    result = optimize(model, passes=["quantize-qdq:target=openvino"], data=data)
    rows = {row.tensor: row for row in result.report.steps[-1].quantized}
    assert {rows[name].computes for name in "ag"} == {"integers"}
    assert all(rows[name].loss > 0 for name in "ag")
    (loop,) = (node for node in result.model.graph.nodes if node.op == "Loop")
    (inside,) = loop.bodies()
    counts = Counter(node.op for node in inside.nodes)
    assert counts["QuantizeLinear"] >= 2
    assert counts["DequantizeLinear"] >= 4
    feeds = {"x": data["x"][0], "n": np.array(3)}
    (exact,), (found,) = (executed(entry, feeds) for entry in (model, result.model))
    assert np.mean((found - exact) ** 2) < 0.01 * exact.var()
