"""Where layers are compared with the original, and what the refit makes of it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from graphopt.ir.inference import infer
from graphopt.ir.model import Model
from graphopt.pass_base import Context, Edit, Skip
from graphopt.passes.pruning._fitting import fits
from graphopt.passes.pruning._fitting import refit as marching
from graphopt.passes.pruning._fitting.fits import Fit, LeastSquares, MomentMatch
from graphopt.passes.pruning._fitting.places import Place, places_of, together
from graphopt.passes.pruning._fitting.refit import refit
from graphopt.runtime.observer import Observer
from graphopt.runtime.observing import Stream
from graphopt.testing import parse

HEAD = '<ir_version: 8, opset_import: ["" : 17]>\ng '
RESIDUAL = (
    HEAD
    + """(float[N,4,6,6] x, float[8,4,3,3] w, float[8] b, float[8,8,3,3] v, float[8,8,1,1] u,
       float[8] c, float[3,8] o) => (float[N,3] y) {
  a = Conv<pads = [1,1,1,1]>(x, w, b)
  r = Relu(a)
  d = Conv<pads = [1,1,1,1]>(r, v)
  s = Add(d, r)
  t = Relu(s)
  e = Conv(t, u, c)
  f = HardSwish(e)
  g = GlobalAveragePool(f)
  h = Flatten(g)
  y = Gemm<transB = 1>(h, o)
}"""
)
NAMES = ("w", "b", "v", "u", "c", "o")


def images(count: int = 96) -> np.ndarray:
    rng = np.random.default_rng(5)
    base = rng.standard_normal((count, 2, 6, 6))
    mixed = np.einsum("nchw,cd->ndhw", base, rng.standard_normal((2, 4)))
    return (mixed + 0.3 * rng.standard_normal((count, 4, 6, 6))).astype(np.float32)


def outputs(native, model: Model, x: np.ndarray) -> np.ndarray:
    native.call("open", "model", model.to_bytes())
    found = native.call("run", "model", {"x": x})[0]
    native.call("close", "model")
    return found


def refitted(native, changed: Model, dense: Model, x: np.ndarray, method=LeastSquares, size=32):
    stream = Stream(lambda: ({"x": x[i : i + size]} for i in range(0, len(x), size)))
    context = Context(changed, infer(changed.graph), observe=Observer(native, stream))
    return list(refit(changed, dense, {}, context, method))


def disturbed(model: Model, *names: str, scale: float = 0.5) -> Model:
    rng = np.random.default_rng(2)
    found = model.copy()
    for constant in found.constants():
        if constant.name in names:
            noise = rng.standard_normal(constant.shape) * np.std(constant.values) * scale
            constant.values = (constant.values + noise).astype(np.float32)
    return found


def place(model: Model, weight: str) -> Place:
    return next(p for p in places_of(model) if p.layer.weight.name == weight)


def test_places_reach_as_far_as_what_follows_is_linear() -> None:
    model = parse(RESIDUAL, NAMES)
    first, second = place(model, "w"), place(model, "v")
    assert (first.output.name, first.skip, first.bounds) == ("a", None, (0.0, math.inf))
    assert (second.value.name, second.output.name) == ("d", "s")
    assert second.skip is not None
    assert second.skip.name == "r"
    assert second.bounds == (0.0, math.inf)
    assert place(model, "u").bounds == (-3.0, math.inf)
    assert place(model, "o").output.name == "y"


@pytest.mark.parametrize(
    ("function", "bounds"),
    [
        ("Relu", (0.0, math.inf)),
        ("HardSigmoid<alpha = 0.25, beta = 0.5>", (-2.0, 2.0)),
        ("Sigmoid", None),
        ("LeakyRelu", None),
    ],
)
def test_the_bounds_of_a_function(function: str, bounds: tuple[float, float] | None) -> None:
    text = (
        f"(float[N,4] x, float[4,4] w) => (float[N,4] y) {{ h = MatMul(x, w) y = {function}(h) }}"
    )
    assert place(parse(HEAD + text, ("w",)), "w").bounds == bounds


@pytest.mark.parametrize(
    ("low", "high", "bounds"),
    [("lo", "hi", (0.0, 6.0)), ("lo", "", (0.0, math.inf)), ("x0", "hi", None)],
)
def test_the_bounds_of_a_clip(low: str, high: str, bounds: tuple[float, float] | None) -> None:
    text = (
        "(float[N,4] x, float x0, float[4,4] w) => (float[N,4] y) <float lo = {0}, float hi = {6}>"
        f" {{ h = MatMul(x, w) y = Clip(h, {low}, {high}) }}"
    ).replace(", )", ")")
    assert place(parse(HEAD + text, ("w",)), "w").bounds == bounds


def test_an_operand_that_comes_later_is_no_skip_connection() -> None:
    text = """(float[N,4] x, float[4,4] w, float[4,4] v) => (float[N,4] y) {
      a = MatMul(x, w)
      b = MatMul(x, v)
      y = Add(a, b)
    }"""
    model = parse(HEAD + text, ("w", "v"))
    assert place(model, "w").skip is None
    skip = place(model, "v").skip
    assert skip is not None
    assert skip.name == "a"
    assert [len(group) for group in together(places_of(model))] == [2]


def test_what_an_add_holds_is_the_bias_of_a_product() -> None:
    text = """(float[N,2,4] x, float[4,4] w, float[4] b) => (float[N,2,4] y) {
      a = MatMul(x, w)
      s = Add(b, a)
      y = Add(s, x)
    }"""
    found = place(parse(HEAD + text, ("w", "b")), "w")
    assert found.bias is not None
    assert (found.value.name, found.output.name) == ("s", "y")
    assert found.biased


def test_a_layer_makes_up_for_the_error_of_the_skip_connection(native) -> None:
    dense, x = parse(RESIDUAL, NAMES), images()
    wanted = outputs(native, dense, x)
    changed = disturbed(dense, "w")

    def only_second(place: Place) -> Fit | None:
        return LeastSquares(place) if place.layer.weight.name == "v" else None

    def alone(place: Place) -> Fit | None:
        return LeastSquares(place.alone()) if place.layer.weight.name == "v" else None

    errors = []
    for method in (None, alone, only_second):
        model = changed.copy()
        assert len(refitted(native, model, dense, x, method)) == (method is not None)
        errors.append(np.square(outputs(native, model, x) - wanted).sum())
    assert errors[2] < 0.8 * errors[1] < errors[0]


def test_fitting_anew_at_a_relu_comes_nearer(native, monkeypatch) -> None:
    dense, x = parse(RESIDUAL, NAMES), images()
    wanted = outputs(native, dense, x)
    errors = []
    for again in (0, 4):
        monkeypatch.setattr(LeastSquares, "again", again)
        model = disturbed(dense, "w", "v", scale=1.0)
        refitted(
            native,
            model,
            dense,
            x,
            lambda p: LeastSquares(p) if p.layer.weight.name == "v" else None,
        )
        errors.append(np.square(outputs(native, model, x) - wanted).sum())
    assert errors[1] < errors[0]


def test_weights_that_lost_nothing_come_back(native) -> None:
    dense, x = parse(RESIDUAL, NAMES), images(256)
    changed = disturbed(dense, "w", "v", "u", "o")
    entries = refitted(native, changed, dense, x)
    assert all(isinstance(entry, Edit) for entry in entries)
    assert len(entries) == 4
    wanted = outputs(native, dense, x)
    gap = np.square(outputs(native, changed, x) - wanted).sum()
    assert gap < 1e-3 * np.square(wanted - wanted.mean(0)).sum()


def test_relays_change_nothing(native, monkeypatch) -> None:
    dense, x = parse(RESIDUAL, NAMES), images()
    found = []
    for leg in (1, 100):
        monkeypatch.setattr(marching, "LEG", leg)
        changed = disturbed(dense, "w", "v", "u", "o")
        refitted(native, changed, dense, x)
        found.append(outputs(native, changed, x))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4, atol=1e-5)


def test_without_room_for_a_relay_the_layers_are_fitted_all_the_same(native, monkeypatch) -> None:
    from graphopt.runtime import relay

    monkeypatch.setattr(relay, "MOST_BYTES", 1)
    dense, x = parse(RESIDUAL, NAMES), images()
    changed = disturbed(dense, "w", "v", "u", "o")
    assert all(isinstance(entry, Edit) for entry in refitted(native, changed, dense, x))


def test_moments_are_restored(native) -> None:
    dense, x = parse(RESIDUAL, NAMES), images(256)
    changed = dense.copy()
    for constant in changed.constants():
        if constant.name in ("w", "u"):
            constant.values = constant.values * np.float32(0.4) + np.float32(0.01)
    entries = refitted(native, changed, dense, x, MomentMatch)
    told = {type(e): [x for x in entries if type(x) is type(e)] for e in entries}
    assert len(told[Edit]) == 4
    tensors = [p.value.name for p in places_of(dense)]
    for name in tensors:
        values = []
        for model in (dense, changed):
            proto = model.to_proto()
            proto.graph.output.add(name=name)
            native.call("open", "inner", proto.SerializeToString())
            values.append(native.call("run", "inner", {"x": x}, [name])[0])
            native.call("close", "inner")
        axes = tuple(axis for axis in range(values[0].ndim) if axis != 1)
        if name != "d":  # there the sum is what is compared
            np.testing.assert_allclose(*(v.mean(axes) for v in values), rtol=0.02, atol=0.02)
            np.testing.assert_allclose(*(v.std(axes) for v in values), rtol=0.05, atol=0.02)


def test_a_very_wide_layer_is_fitted_in_blocks(native, monkeypatch) -> None:
    text = """(float[N,4,6,6] x, float[24,4,3,3] w, float[5,24,1,1] v) => (float[N,5,4,4] y) {
      a = Conv(x, w)
      r = Relu(a)
      y = Conv(r, v)
    }"""
    dense, x = parse(HEAD + text, ("w", "v")), images(256)
    wanted = outputs(native, dense, x)
    errors = []
    for wide in (8192, 16):
        monkeypatch.setattr(fits, "WIDE", wide)
        monkeypatch.setattr(fits, "BLOCK", 8)
        changed = disturbed(dense, "v")
        before = np.square(outputs(native, changed, x) - wanted).sum()
        method = lambda p: LeastSquares(p) if p.layer.weight.name == "v" else None  # noqa: E731
        refitted(native, changed, dense, x, method)
        errors.append(np.square(outputs(native, changed, x) - wanted).sum() / before)
    whole, blocks = errors
    assert whole < 1e-3
    assert whole < blocks < 0.5


def test_a_layer_that_cannot_be_observed_says_why(native) -> None:
    dense = parse(RESIDUAL, NAMES)
    changed = disturbed(dense, "w")
    x = np.full((4, 4, 6, 6), np.nan, np.float32)
    entries: Sequence[Edit | Skip] = refitted(native, changed, dense, x)
    assert all(isinstance(entry, Skip) and "finite" in entry.why for entry in entries)
