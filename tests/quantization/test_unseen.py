"""Without data, drawn inputs are brought to what batch normalizations keep of training, and it is said so."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from qdq_models import build

from graphopt.ir.model import Model
from graphopt.ir.normalized import normalized_moments
from graphopt.numerics.streaming import HistogramSpec, MomentsSpec
from graphopt.optimizer import optimize
from graphopt.pass_manager import PassManager
from graphopt.passes.quantization._qdq.unseen import as_trained
from graphopt.recipe import Recipe
from graphopt.runtime.native import Native
from graphopt.runtime.observer import Observer
from graphopt.runtime.observing import Request, Stream

LAYER = "c{0} = Conv<pads = [1,1,1,1]>({1}, w{0}) n{0} = BatchNormalization(c{0}, g{0}, b{0}, m{0}, v{0}) "
BODY = (
    LAYER.format(1, "x")
    + "r1 = Relu(n1) "
    + LAYER.format(2, "r1")
    + "s = Add(n2, r1) r2 = Relu(s) "
    + LAYER.format(3, "r2")
    + "y = Relu(n3)"
)
PARAMETERS = ", ".join(
    f"float[8,{width},3,3] w{n}, float[8] g{n}, float[8] b{n}, float[8] m{n}, float[8] v{n}"
    for n, width in ((1, 3), (2, 8), (3, 8))
)


def textures(seed: int, count: int = 8) -> list[dict[str, np.ndarray]]:
    """Inputs with channels that go together, far from 0: no noise is like them."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        common = rng.standard_normal((4, 1, 12, 12))
        found.append(
            {"x": (3 * common + 0.3 * rng.standard_normal((4, 3, 12, 12)) + 2).astype("f")}
        )
    return found


def noise(seed: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [{"x": rng.standard_normal((4, 3, 12, 12)).astype(np.float32)} for _ in range(8)]


@dataclass(frozen=True)
class Drawn(Observer):
    """Drawn inputs for a model."""

    original: Model | None = None

    def source(self) -> Model | None:
        return self.original


def observer(native: Native, batches: list[dict[str, np.ndarray]]) -> Observer:
    return Observer(native, Stream(lambda: batches))


def trained(native: Native) -> Model:
    """A network whose normalizations hold the statistics of textures."""
    ones = {f"v{n}": 1 for n in (1, 2, 3)} | {f"m{n}": 0 for n in (1, 2, 3)}
    names = " ".join(f"w{n} g{n} b{n}" for n in (1, 2, 3))
    model = build(f"float[N,3,12,12] x, {PARAMETERS}", "float[N,8,12,12] y", BODY, names, **ones)
    constants = {constant.name: constant for constant in model.constants()}
    for n in (1, 2, 3):
        request = Request(f"c{n}", MomentsSpec(axis=1))
        found = observer(native, textures(0))(model, [request]).of(request)
        constants[f"m{n}"].values = found.mean.astype(np.float32)
        constants[f"v{n}"].values = found.variance.astype(np.float32)
    return model


@pytest.fixture(scope="module")
def network(native: Native) -> Model:
    return trained(native)


def reaches(model: Model, native: Native, batches: list[dict[str, np.ndarray]]) -> np.ndarray:
    """The largest elements of what is computed."""
    asked = [Request(name, HistogramSpec()) for name in ("r1", "r2", "y")]
    answers = observer(native, batches)(model, asked)
    return np.array([answers.of(request).maximum for request in asked])


def folded(model: Model) -> Model:
    return PassManager(None).run(model.copy(), Recipe.parse(["folding"]).folded().passes).model


def test_what_a_normalization_gave_in_training_is_known(network: Model, native: Native) -> None:
    told = normalized_moments(network)
    assert set(told) == {"n1", "n2", "n3"}
    for name, moments in told.items():
        request = Request(name, MomentsSpec(axis=1))
        seen = observer(native, textures(0))(network, [request]).of(request)
        np.testing.assert_allclose(moments.mean, seen.mean, atol=1e-3)
        np.testing.assert_allclose(moments.deviation, np.sqrt(seen.variance), rtol=1e-3)


def test_ranges_come_closer_to_those_of_data(network: Model, native: Native) -> None:
    model = folded(network)
    assert "BatchNormalization" not in {node.op for node in model.graph.nodes}
    before = model.to_bytes()
    drawn = observer(native, noise(1))
    seen, places = as_trained(model, network, drawn)
    assert places == 3
    assert model.to_bytes() == before
    real = reaches(model, native, textures(2))
    blind, told = (reaches(entry, native, noise(1)) for entry in (model, seen))
    assert (np.abs(np.log(told / real)) < 0.4).all()
    assert np.abs(np.log(told / real)).max() < np.abs(np.log(blind / real)).max() / 2
    asked = {f"n{n}": Request(f"c{n}", MomentsSpec(axis=1)) for n in (1, 2, 3)}
    found = drawn(seen, list(asked.values()))
    for name, moments in normalized_moments(network).items():
        values = found.of(asked[name])
        np.testing.assert_allclose(values.mean, moments.mean, atol=0.1 * moments.deviation.max())


def test_a_tensor_that_holds_something_else_now_takes_no_part(
    network: Model, native: Native
) -> None:
    model = folded(network)
    changed = next(c for c in model.constants() if c.shape == (8, 3, 3, 3))
    changed.values = changed.values * np.float32(2)
    _, places = as_trained(model, network, observer(native, noise(1)))
    assert places == 0


def test_data_is_left_as_it_is(network: Model, native: Native) -> None:
    model = folded(network)
    assert as_trained(model, None, observer(native, noise(1))) == (model, 0)


def test_it_is_said(network: Model) -> None:
    result = optimize(network, passes=["quantize-qdq:target=openvino,ranges=minmax"])
    step = result.report.steps[-1]
    (why,) = (skip.why for skip in step.skips if skip.node == "the model")
    assert "estimated, not seen" in why
    assert "moments that 3 normalizations keep" in why
    rows = [row for row in step.quantized if row.output is not None]
    assert rows
    assert {row.output.method for row in rows} == {"minmax, no data"}
