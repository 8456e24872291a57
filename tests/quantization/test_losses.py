"""What rounding one thing loses, against two plain runs of ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from qdq_models import (
    CPU,
    Arrays,
    build,
    computed,
    feeds_of,
    grid_of_constant,
    rounded_to,
    units_of,
)

from graphopt.errors import NativeError
from graphopt.ir.inference import infer
from graphopt.ir.model import Model
from graphopt.passes.quantization._qdq import variants
from graphopt.passes.quantization._qdq.insertion import Scale
from graphopt.passes.quantization._qdq.losses import compared, measured_losses, samples_for
from graphopt.passes.quantization._qdq.units import Unit
from graphopt.passes.quantization._qdq.variants import Rounding
from graphopt.runtime.native import Native
from graphopt.runtime.observer import Observer
from graphopt.runtime.observing import Stream

COARSE = Scale(np.float32(0.3), np.asarray(100))
FINE = Scale(np.float32(0.02), np.asarray(128))

BODY = """
  c = Conv<pads = [1,1,1,1]>(x, w, b)
  r = Relu(c)
  d = Conv<pads = [1,1,1,1]>(r, v)
  s = Add(d, k)
  y = Tanh(s)
  p = MaxPool<kernel_shape = [2,2]>(r)
  z = Mul(p, f)
  n = Neg(x)
"""
INPUTS = "float[1,4,6,6] x, float[4,4,3,3] w, float[4] b, float[4,4,3,3] v, float[4,1,1] k, float[4,1,1] f"
OUTPUTS = "float[1,4,6,6] y, float[1,4,5,5] z, float[1,4,6,6] n"


def net() -> Model:
    return build(INPUTS, OUTPUTS, BODY, "w b v k f")


def observer(native: Native, batches: Sequence[Arrays]) -> Observer:
    return Observer(native, Stream(lambda: batches))


def measured(
    model: Model,
    native: Native,
    activations: Sequence[Rounding] = (),
    units: Sequence[Unit] = (),
    batches: Sequence[Arrays] = (),
) -> dict[Any, float]:
    feeds = batches or [feeds_of(model, seed) for seed in range(3)]
    facts = infer(model.graph, model.functions)
    return measured_losses(
        model, facts, activations, units, CPU, observer(native, feeds), constants={}
    )


def by_hand(
    model: Model, change: Callable[[str, np.ndarray], np.ndarray], names: Sequence[str]
) -> float:
    """The loss where every reader sees one tensor changed, at some tensors, on the same inputs."""
    runs: list[tuple[Arrays, Arrays]] = []
    for seed in range(3):
        feeds = feeds_of(model, seed)
        runs.append(
            (_values(model, feeds, lambda name, value: value), _values(model, feeds, change))
        )
    shares = []
    for name in names:
        plain, changed = (np.stack([run[place][name] for run in runs]) for place in (0, 1))
        gap = changed.astype(np.float64) - plain
        shares.append(float((gap**2).mean() / plain.astype(np.float64).var()))
    return sum(shares) / len(shares)


def _values(model: Model, feeds: Arrays, change: Callable[[str, np.ndarray], np.ndarray]) -> Arrays:
    values = {c.name: change(c.name, c.values) for c in model.constants()}
    values.update({name: change(name, value) for name, value in feeds.items()})
    for node in model.graph.nodes:
        inputs = [values[t.name] if t.name else None for t in node.inputs]
        for tensor, value in zip(node.outputs, computed(node, inputs), strict=True):
            values[tensor.name] = change(tensor.name, value)
    return values


def rounding(name: str, scale: Scale) -> Callable[[str, np.ndarray], np.ndarray]:
    return lambda found, value: rounded_to(value, scale, CPU) if found == name else value


@pytest.mark.parametrize("scale", [COARSE, FINE], ids=["coarse", "fine"])
@pytest.mark.parametrize("name", ["x", "r", "d", "p", "s"])
def test_rounding_an_activation(name: str, scale: Scale, native: Native) -> None:
    model = net()
    before = model.to_bytes()
    found = measured(model, native, [Rounding(name, name, scale)])
    assert model.to_bytes() == before
    wanted = by_hand(model, rounding(name, scale), ["y", "z", "n"])
    assert wanted > 0
    assert found == {name: pytest.approx(wanted, rel=1e-3)}


def test_one_activation_in_several_ways(native: Native) -> None:
    model = net()
    ways = [Rounding(("r", way), "r", scale) for way, scale in (("a", COARSE), ("b", FINE))]
    found = measured(model, native, [*ways, Rounding("x", "x", FINE)])
    alone = [measured(model, native, [way]) for way in ways]
    assert found[("r", "a")] == pytest.approx(alone[0][("r", "a")])
    assert found[("r", "b")] == pytest.approx(alone[1][("r", "b")])
    assert found[("r", "b")] > 10 * found[("r", "a")]  # the fine grid clips


def per_channel(values: np.ndarray) -> np.ndarray:
    scale = np.abs(values).max(axis=(1, 2, 3), keepdims=True) / 127
    return (np.clip(np.rint(values / scale), -127, 127) * scale).astype(np.float32)


def test_rounding_the_constants_of_a_unit(native: Native) -> None:
    model = net()
    units = units_of(model)
    found = measured(model, native, units=units)
    ways: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "w": per_channel,
        "v": per_channel,
        "k": lambda values: rounded_to(values, grid_of_constant(values, CPU), CPU),
        "f": lambda values: rounded_to(values, grid_of_constant(values, CPU), CPU),
    }
    names = {unit.uid: t.name for unit in units for t in unit.node.inputs if t.name in ways}
    assert found.keys() == names.keys()
    for uid, name in names.items():
        wanted = by_hand(
            model, lambda n, v, name=name: ways[name](v) if n == name else v, ["y", "z", "n"]
        )
        assert wanted > 0
        assert found[uid] == pytest.approx(wanted, rel=1e-3)


def test_only_the_units_asked_for_and_in_a_model_of_their_own_too(native: Native) -> None:
    model = net()
    units = units_of(model)
    every = measured(model, native, units=units)
    (uid,) = (unit.uid for unit in units if unit.node.outputs[0].name == "d")
    assert measured(model, native, units=[u for u in units if u.uid == uid]) == {
        uid: pytest.approx(every[uid])
    }


def test_models_that_grow_too_large_are_split(native: Native, monkeypatch) -> None:
    model = net()
    activations = [Rounding(name, name, FINE) for name in ("x", "r", "d", "p")]
    together = measured(model, native, activations, units_of(model))
    monkeypatch.setattr(variants, "NODES", 1)
    apart = measured(model, native, activations, units_of(model))
    assert apart == {key: pytest.approx(loss) for key, loss in together.items()}


def test_what_no_output_depends_on_loses_nothing(native: Native) -> None:
    body = "y = MatMul(x, w) u = MatMul(z, w)"
    model = build("float[4,8] x, float[4,8] z, float[8,8] w", "float[4,8] y", body, "w")
    found = measured(model, native, [Rounding("z", "z", COARSE), Rounding("x", "x", COARSE)])
    assert found["z"] == 0
    assert found["x"] > 0


def test_outputs_that_do_not_depend_on_it_count_as_zero(native: Native) -> None:
    model = net()
    found = measured(model, native, [Rounding("s", "s", COARSE)])["s"]
    alone = by_hand(model, rounding("s", COARSE), ["y"])
    assert found == pytest.approx(alone / 3, rel=1e-3)


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ("y = Tanh(x) z = Relu(y)", ["y", "z"]),
        ("a = Tanh(x) y = Softmax<axis = -1>(a) z = Sigmoid(a)", ["a"]),
        ("a = Tanh(x) s = LogSoftmax<axis = -1>(a) t = Transpose(s) y = Identity(t) z = Neg(a)", ["a", "z"]),
        ("a = Tanh(x) t = Transpose(a) y = Identity(t) z = Neg(x)", ["y", "z"]),
        ("y = Tanh(x) z = Shape(x)", ["y"]),
        ("y = Softmax<axis = -1>(x) z = Neg(x)", ["x", "z"]),
    ],
)  # fmt: skip
def test_where_losses_are_measured(body: str, wanted: list[str]) -> None:
    kind = "int64[2] z" if "Shape" in body else "float z"
    model = build("float[4,8] x", f"float y, {kind}", body)
    assert compared(model, infer(model.graph, model.functions)) == wanted


def test_before_softmax_not_behind(native: Native) -> None:
    body = "a = MatMul(x, w) y = Softmax<axis = -1>(a)"
    model = build("float[4,8] x, float[8,8] w", "float[4,8] y", body, "w")
    found = measured(model, native, [Rounding("x", "x", COARSE)])["x"]
    assert found == pytest.approx(by_hand(model, rounding("x", COARSE), ["a"]), rel=1e-3)
    assert found != pytest.approx(by_hand(model, rounding("x", COARSE), ["y"]), rel=1e-2)


@pytest.mark.parametrize(
    ("macs", "roundings", "samples"),
    [
        (0, 0, 16),
        (10**8, 1000, 16),  # a small network for images
        (10**9, 1000, 8),
        (10**10, 1000, 4),  # a large transformer
    ],
)
def test_a_large_model_is_looked_at_with_fewer_samples(
    macs: int, roundings: int, samples: int
) -> None:
    assert samples_for(macs, roundings) == samples


def test_what_cannot_be_measured_is_infinite(native: Native) -> None:
    model = net()

    class Broken:
        def first(self, samples: int) -> Broken:
            return self

        def fused(self) -> Broken:
            return self

        def __call__(self, *_: object) -> object:
            raise NativeError("it does not run")

    facts = infer(model.graph, model.functions)
    broken: Any = Broken()
    found = measured_losses(
        model, facts, [Rounding("x", "x", FINE)], units_of(model)[:1], CPU, broken, constants={}
    )
    assert set(found.values()) == {np.inf}
    assert len(found) == 2


def test_an_output_without_any_spread_that_changes_loses_everything(native: Native) -> None:
    body = "z = Mul(x, f) y = ReduceSum<keepdims = 0>(z)"
    model = build("float[4] x, float[4] f", "float y", body, f=[1, 1, 1, 1])
    batch = {"x": np.full(4, 0.37, np.float32)}
    found = measured(model, native, [Rounding("z", "z", COARSE)], batches=[batch])
    assert found == {"z": np.inf}
    exact = Scale(np.float32(0.37), np.asarray(0))
    found = measured(model, native, [Rounding("z", "z", exact)], batches=[batch])
    assert found == {"z": 0.0}


BODIES = """
  h = MatMul(x, w)
  r = Relu(h)
  z = Add(x, x)
  y = If(k) <
    then_branch = t () => (float[4,4] p) { p = MatMul(r, v) },
    else_branch = e () => (float[4,4] q) { m = MatMul(r, v) q = Neg(m) }
  >
"""


def test_what_decides_between_bodies_is_not_known(native: Native) -> None:
    body = BODIES.replace("If(k)", "If(n)").replace(
        "y =", "t0 = ReduceSum<keepdims = 0>(r) zero = Sub(t0, t0) n = Equal(t0, zero) y ="
    )
    inputs = "float[4,8] x, float[8,8] w, float[8,4] v"
    model = build(inputs, "float[4,4] y, float[4,8] z", body, "w v")
    assert measured(model, native, [Rounding("r", "r", FINE)]) == {"r": np.inf}
