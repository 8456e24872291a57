"""Sparse weights: exactly as many zeros as asked for, where they lie, and what is made up for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from graphopt.errors import UsageError
from graphopt.ir.graph import Constant
from graphopt.ir.model import Model
from graphopt.optimizer import Result, optimize
from graphopt.passes.pruning._sparse import moments as sparse_moments
from graphopt.passes.pruning.sparsify_weights import SparsifyWeights
from graphopt.quality.data import DataOptions
from graphopt.quality.gate import Budget
from graphopt.recipe import Recipe
from graphopt.runtime.observer import Observer
from graphopt.runtime.observing import Stream
from graphopt.stage import Stage
from graphopt.testing import parse

ROOT = Path(__file__).parent.parent
MODEL = ROOT / "models" / "digits_cnn" / "digits_cnn.onnx"
NPZ = ROOT / "models" / "digits_cnn" / "digits_test.npz"
LABELLED = DataOptions(source=str(NPZ), labels="y")

LAYERS = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N,8,6,6] x, float[16,4,3,3] w1, float[16] b1, float[16,1,3,3] w2, float[16,64] w3,
   float[12,64] w4, float[12] b4) => (float[N,12] y) {
  c = Conv<group = 2, pads = [1,1,1,1]>(x, w1, b1)
  r = Relu(c)
  d = Conv<group = 16, strides = [2,2], pads = [1,1,1,1]>(r, w2)
  p = GlobalAveragePool(d)
  f = Flatten(p)
  m = MatMul(f, w3)
  s = Relu(m)
  y = Gemm<transB = 1, alpha = 0.5>(s, w4, b4)
}
"""
NAMES = ("w1", "b1", "w2", "w3", "w4", "b4")


def sparsify(options: str, drop: float | None = None, *before: str) -> Result:
    passes = [*before, f"sparsify-weights:{options}"]
    return optimize(MODEL, passes=passes, data=LABELLED, budget=Budget(drop))


def weights(model: Model, smallest: int = 256) -> list[np.ndarray]:
    found = [c.values for c in model.constants()]
    return [v for v in found if v.ndim > 1 and v.dtype.kind == "f" and v.size >= smallest]


def zeros(model: Model, smallest: int = 256) -> tuple[int, int]:
    every = weights(model, smallest)
    return sum(int((v == 0).sum()) for v in every), sum(v.size for v in every)


def outputs(model: Model, feeds: dict[str, np.ndarray]) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.to_bytes(), options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, feeds)[0])


def accuracy(result: Result) -> float:
    with np.load(NPZ) as data:
        scores = outputs(result.model, {result.report.input.inputs[0].name: data["x"]})
        return float((scores.argmax(axis=1) == data["y"]).mean())


def images(count: int = 96) -> np.ndarray:
    """Inputs of correlated channels of unequal size and with means."""
    rng = np.random.default_rng(3)
    hidden = rng.normal(size=(count, 3, 6, 6))
    mixed = np.einsum("nchw,cd->ndhw", hidden, rng.normal(size=(3, 8))) + 0.3 * rng.normal(
        size=(count, 8, 6, 6)
    )
    return (mixed * rng.lognormal(size=(8, 1, 1)) + rng.normal(size=(8, 1, 1))).astype(np.float32)


def run(step: SparsifyWeights, model: Model, native=None, x: np.ndarray | None = None):
    """A stage's run on a model; with data where they are given."""

    observe = None
    if x is not None:
        observe = Observer(native, Stream(lambda: [{"x": x[:48]}, {"x": x[48:]}]))
    return Stage([step], observe=observe).run(model)


def error(model: Model, sparse: Model, x: np.ndarray) -> float:
    wanted = outputs(model, {"x": x})
    return float(np.square(outputs(sparse, {"x": x}) - wanted).sum() / np.square(wanted).sum())


@pytest.mark.parametrize("method", ["sparsegpt", "wanda", "magnitude"])
@pytest.mark.parametrize("refit", [True, False])
@pytest.mark.parametrize("amount", [0.371, 0.8])
def test_exactly_so_many_zeros_as_asked_for(native, method, refit, amount) -> None:
    model = parse(LAYERS, NAMES)
    step = SparsifyWeights(amount=amount, method=method, refit=refit, smallest=100)
    found = run(step, model, native, images())
    gone, size = zeros(found.model, 100)
    assert gone == round(amount * size)
    assert {v.dtype for v in weights(found.model, 100)} == {np.dtype(np.float32)}
    onnx.checker.check_model(found.model.to_proto(), full_check=True)


@pytest.mark.parametrize("method", ["sparsegpt", "wanda", "magnitude"])
@pytest.mark.parametrize("refit", [True, False])
def test_the_pattern_holds_along_inputs(native, method, refit) -> None:
    step = SparsifyWeights(pattern="2:4", method=method, refit=refit, smallest=100)
    found = run(step, parse(LAYERS, NAMES), native, images())
    read = {c.name: c.values for c in found.model.constants() if isinstance(c, Constant)}
    along = {"w1": 1, "w3": 0, "w4": 1}
    for name, axis in along.items():
        rows = np.moveaxis(read[name], axis, -1).reshape(-1, 4)
        assert ((rows != 0).sum(axis=1) == 2).all(), name
    assert read["w2"].all()
    assert found.skips[step.name]["w2"] == "its 1 input channels are no multiple of 4"
    assert not run(step, found.model, native, images()).edits


def test_each_way_is_better_than_the_one_before_and_the_refit_is_better_still(native) -> None:
    model, x = parse(LAYERS, NAMES), images()
    steps = [
        SparsifyWeights(amount=0.5, method=method, refit=refit, smallest=100)
        for method, refit in [
            ("magnitude", False),
            ("wanda", False),
            ("sparsegpt", False),
            ("sparsegpt", True),
        ]
    ]
    errors = [error(model, run(step, model, native, x).model, x) for step in steps]
    assert errors == sorted(errors, reverse=True)
    assert errors[3] < errors[2] / 1.2
    assert errors[2] < errors[0] / 2


def test_the_mean_of_what_is_lost_goes_into_the_bias(native) -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,32] x, float[16,32] w, float[16] b) => (float[N,16] y) {
      y = Gemm<transB = 1>(x, w, b)
    }"""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(96, 32)) + 5).astype(np.float32)
    model = parse(text, ("w", "b"))
    for method in ("magnitude", "sparsegpt"):
        step = SparsifyWeights(amount=0.5, method=method, refit=False)
        found = run(step, model, native, x).model
        gap = outputs(found, {"x": x}) - outputs(model, {"x": x})
        assert np.abs(gap.mean(axis=0)).max() < 1e-3
        assert np.abs(gap).max() > 0.1


def test_zeros_stay_and_count(native) -> None:
    model, x = parse(LAYERS, NAMES), images()
    first = run(SparsifyWeights(amount=0.3, smallest=100), model, native, x).model
    masks = [v == 0 for v in weights(first, 100)]
    second = run(SparsifyWeights(amount=0.6, smallest=100), first, native, x).model
    assert all((v == 0)[mask].all() for mask, v in zip(masks, weights(second, 100), strict=True))
    gone, size = zeros(second, 100)
    assert gone == round(0.6 * size)
    idle = run(SparsifyWeights(amount=0.2, smallest=100), first, native, x)
    assert not idle.edits
    assert idle.skips["sparsify-weights"]["the model"].endswith("so many zeros already")


def test_a_layer_too_wide_has_its_moments_in_blocks(native, monkeypatch) -> None:
    model, x = parse(LAYERS, NAMES), images()
    monkeypatch.setattr(sparse_moments, "HELD_BYTES", 8 * 64 * 16)
    seen = run(SparsifyWeights(pattern="2:4", smallest=100), model, native, x)
    said = "50 % of the weights of w4 are zero, not refitted"
    assert said in [edit.what for edit in seen.edits]
    w4 = next(c.values for c in seen.model.constants() if c.name == "w4")
    assert ((w4.reshape(-1, 4) != 0).sum(axis=1) == 2).all()
    plain = run(
        SparsifyWeights(pattern="2:4", method="magnitude", refit=False, smallest=100), model
    )
    assert error(model, seen.model, x) < error(model, plain.model, x)


def test_without_data_it_goes_by_magnitude_and_says_so() -> None:
    model = parse(LAYERS, NAMES)
    found = run(SparsifyWeights(amount=0.5, smallest=100), model)
    assert "without data" in found.skips["sparsify-weights"]["the model"]
    assert all("by magnitude: there is no data" in edit.what for edit in found.edits)
    plain = run(SparsifyWeights(amount=0.5, method="magnitude", smallest=100), model)
    assert found.model.to_bytes() == plain.model.to_bytes()
    before = {c.name: c.values for c in model.constants()}
    for constant in found.model.constants():
        old, new = before[constant.name], constant.values
        assert (new[new != 0] == old[new != 0]).all()
        if (new == 0).any() and new.any():
            assert np.abs(old[new == 0]).max() <= np.abs(old[new != 0]).min()


def test_the_same_data_give_the_same_bytes(native) -> None:
    step = SparsifyWeights(amount=0.6, smallest=100)
    first, second = (run(step, parse(LAYERS, NAMES), native, images()) for _ in range(2))
    assert first.model.to_bytes() == second.model.to_bytes()


def tried(folder: Path, drop: float | None, *passes: str) -> Result:
    """What a whole run makes of the layers."""
    np.savez(folder / "x.npz", x=images(256))
    data = DataOptions(source=str(folder / "x.npz"))
    return optimize(parse(LAYERS, NAMES), passes=passes, data=data, budget=Budget(drop))


def test_the_report_shows_the_zeros_and_it_follows_the_cutting_of_channels(tmp_path) -> None:
    steps = ["prune-channels:amount=0.2", "sparsify-weights:amount=0.5,smallest=64"]
    found = tried(tmp_path, None, *steps)
    assert [s.status for s in found.report.steps if not s.exact] == ["applied", "applied"]
    gone, size = zeros(found.model, 64)
    assert gone == round(0.5 * size)
    before, after = found.report.input.sparse_rate, found.report.output.sparse_rate
    assert before == 0
    assert after is not None
    assert 0.45 < after < 0.5
    assert all("of the weights of" in edit.what for edit in found.report.steps[-1].edits)


@pytest.mark.slow
def test_it_keeps_the_accuracy_where_magnitudes_do_not() -> None:
    found = sparsify("amount=0.7")
    assert accuracy(found) > accuracy(sparsify("amount=0.7,method=magnitude,refit=false"))
    assert accuracy(found) > 0.95


def test_the_gate_eases_the_amount(tmp_path) -> None:
    found = tried(tmp_path, 0.1, "sparsify-weights:amount=0.95,smallest=64")
    step = found.report.steps[-1]
    assert step.status == "eased"
    assert step.eased.endswith("of its strength")
    gone, size = zeros(found.model, 64)
    assert 0.1 < gone / size < 0.95


def test_the_gate_eases_a_pattern_place_by_place(tmp_path) -> None:
    found = tried(tmp_path, 0.1, "sparsify-weights:pattern=2:4,smallest=64")
    step = found.report.steps[-1]
    assert step.status == "eased"
    assert step.eased.startswith("without ")
    assert step.edits


@pytest.mark.parametrize(
    "wrong",
    [
        "amount=1",
        "amount=-0.1",
        "smallest=0",
        "method=x",
        "pattern=4:2",
        "pattern=0:4",
        "pattern=2:",
        "pattern=two",
        "pattern=99999:100000",
    ],
)
def test_options_that_make_no_sense(wrong: str) -> None:
    with pytest.raises(UsageError):
        Recipe.parse([f"sparsify-weights:{wrong}"])
