"""Weights in few bits: what ONNX Runtime makes of them, and which integers and signs they go to."""

from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

import graphopt
from graphopt.ir.graph import Constant
from graphopt.ir.model import Model
from graphopt.lossy_pass import Choice
from graphopt.numerics.binarization import unpacked
from graphopt.numerics.grids import AffineGrid
from graphopt.passes.quantization import _layer_moments as moments
from graphopt.passes.quantization._weight_places import Layout
from graphopt.passes.quantization.binarize_weights import BinarizeWeights
from graphopt.passes.quantization.quantize_weights import QuantizeWeights
from graphopt.quality.gate import Budget
from graphopt.runtime.observer import Observer
from graphopt.runtime.observing import Stream
from graphopt.stage import Stage
from graphopt.testing import parse

FREE = Budget(None)

PRODUCT = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N, 64] x, float[64, 96] w) => (float[N, 96] y) { y = MatMul(x, w) }"""

LAYERS = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N,8,6,6] x, float[16,4,3,3] w1, float[16] b1, float[16,1,3,3] w2, float[16,8,2,2] w3,
   float[8,64] w4, float[12,64] w5, float[40,40] w6, int64[N] k) => (float[N,12] y, float[N,40] z) {
  c = Conv<group = 2, pads = [1,1,1,1]>(x, w1, b1)
  d = Conv<group = 16, strides = [2,2], pads = [1,1,1,1]>(c, w2)
  u = ConvTranspose<group = 1>(d, w3)
  p = GlobalAveragePool(u)
  f = Flatten(p)
  m = MatMul(f, w4)
  y = Gemm<transB = 1, alpha = 0.5>(m, w5)
  z = Gather(w6, k)
}
"""


def product() -> Model:
    return parse(PRODUCT, ("w",))


def correlated(samples: int, features: int = 64, rank: int = 8) -> np.ndarray:
    """Features that depend on each other, as those of real layers do."""
    mixed = np.random.default_rng(1).standard_normal((rank, features))
    drawn = np.random.default_rng(samples).standard_normal((samples, rank))
    return (drawn @ mixed).astype(np.float32)


def stored(options: str, model: Model | None = None, name: str = "quantize-weights") -> Model:
    """The product with its weights stored, fitted to inputs that depend on each other."""
    result = graphopt.optimize(
        model or product(),
        passes=[f"{name}:{options}"],
        data={"x": correlated(256)},
        budget=FREE,
    )
    assert result.report.steps[-1].edits
    return result.model


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


@pytest.mark.parametrize("options", [*FORMATS, "bits=4,block=16,symmetric=true"])
def test_what_is_stored_is_folded_when_it_is_loaded(options: str, tmp_path) -> None:
    model = stored(options)
    found = as_run(model, tmp_path)
    assert [node.op_type for node in found.node] == ["MatMul"]
    assert [tuple(i.dims) for i in found.initializer] == [(64, 96)]
    assert model.weight_bytes() < (0.3 if "8" in options else 0.2) * product().weight_bytes()


@pytest.mark.parametrize("bases", [1, 2, 3, 4])
def test_bits_are_unpacked_when_they_are_loaded(bases: int, tmp_path) -> None:
    model = stored(f"bases={bases}", name="binarize-weights")
    found = as_run(model, tmp_path)
    assert [node.op_type for node in found.node] == ["MatMul"]
    assert [tuple(i.dims) for i in found.initializer] == [(64, 96)]
    taken = bases * (64 * 96 / 8 + 96 * 4)
    assert taken <= model.weight_bytes() <= taken + 64
    assert len(model.to_bytes()) < taken + 1500


@pytest.mark.parametrize(
    "options",
    ["bits=4,block=32", "bits=4,block=16,symmetric=true", "bits=4,block=0", "bits=8", "block=32"],
)
def test_a_kernel_takes_dequantize_linear_in(options: str, tmp_path) -> None:
    model = stored(f"{options},form=dequantize")
    assert [node.op_type for node in as_run(model, tmp_path).node] == ["MatMulNBits"]


@pytest.mark.parametrize("inputs", [64, 40])
@pytest.mark.parametrize("product", ["MatMul(x, w)", "Gemm(x, w)"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_the_kernel_computes_what_was_judged(inputs: int, product: str, symmetric: bool) -> None:
    """Where a session keeps it from rounding what the layer reads."""
    text = PRODUCT.replace("64", str(inputs)).replace("MatMul(x, w)", product)
    step = QuantizeWeights(bits=4, block=32, symmetric=symmetric, form="dequantize")
    model = Stage([step]).run(parse(text, ("w",))).model
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    exact = onnxruntime.InferenceSession(model.to_bytes(), options, ["CPUExecutionProvider"])
    x = correlated(9, inputs)
    wanted = outputs(model, x)
    tolerance = 1e-5 * np.abs(wanted).max()
    np.testing.assert_allclose(exact.run(None, {"x": x})[0], wanted, atol=tolerance)
    rounded = np.abs(session(model).run(None, {"x": x})[0] - wanted).max()
    assert rounded < 2e-2 * np.abs(wanted).max()


@pytest.mark.parametrize("gemm", ["<transB = 1>", "<alpha = 0.5>"])
def test_what_no_kernel_takes_in_is_folded(gemm: str, tmp_path) -> None:
    text = PRODUCT.replace("[64, 96] w", "[96, 96] w").replace("N, 64", "N, 96")
    text = text.replace("MatMul(", f"Gemm{gemm}(")
    run = Stage([QuantizeWeights(bits=4, form="dequantize")]).run(parse(text, ("w",)))
    assert [node.op_type for node in as_run(run.model, tmp_path).node] == ["Gemm"]


@pytest.mark.parametrize("form", ["foldable", "dequantize"])
@pytest.mark.parametrize("inputs", [64, 40])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_what_is_run_equals_the_formula_bit_for_bit(form, inputs, symmetric, dtype) -> None:
    kind = {np.float32: "float", np.float16: "float16", np.float64: "double"}[dtype]
    text = PRODUCT.replace("float[", f"{kind}[").replace("64", str(inputs))
    step = QuantizeWeights(bits=4, block=32, symmetric=symmetric, form=form)
    model = Stage([step]).run(parse(text, ("w",))).model
    found = np.concatenate([outputs(model, np.eye(inputs, dtype=dtype))])
    values = initializers(model)
    steps = next(v for v in values.values() if v.dtype in (ml_dtypes.int4, ml_dtypes.uint4))
    zero = 0 if symmetric else weight("w", model, "zero_point").astype(dtype).reshape(-1, 1, 96)
    scale = weight("w", model, "scale").astype(dtype).reshape(-1, 1, 96)
    padded = np.zeros((64, 96), dtype)
    padded[: steps.size // 96] = steps.reshape(-1, 96)
    wanted = ((padded.reshape(2, 32, 96) - zero) * scale).astype(dtype).reshape(64, 96)[:inputs]
    np.testing.assert_array_equal(found, wanted)
    assert model.opset == 21


def test_packed_integers_are_the_ones_that_were_found() -> None:
    """Low nibble first, in raw bytes; what is read back stands within half a step of the weights."""
    model = stored("bits=4,rounding=nearest")
    tensor = next(
        i for i in model.to_proto().graph.initializer if i.data_type == onnx.TensorProto.UINT4
    )
    assert tensor.dims == [4, 16, 96]
    assert len(tensor.raw_data) == 64 * 96 // 2
    pairs = np.frombuffer(tensor.raw_data, np.uint8)
    steps = np.stack([pairs & 15, pairs >> 4], -1).reshape(4, 16, 96)
    np.testing.assert_array_equal(steps, numpy_helper.to_array(tensor).astype(np.uint8))
    scale = weight("w", model, "scale").astype(np.float32)
    zero = weight("w", model, "zero_point").astype(np.float32)
    gap = np.abs((steps - zero) * scale - initializers(product())["w"].reshape(4, 16, 96))
    inner = (steps > 0) & (steps < 15)
    assert inner.mean() > 0.8
    assert (gap <= scale * (0.5 + 1e-5))[inner].all()


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


def taken(model: Model, *parts: str) -> int:
    return sum(weight("w", model, part).nbytes for part in parts)


def proposed(step, model: Model, observe: Observer | None = None) -> list[Choice]:
    found = list(step.propose(Stage([step], observe=observe).context(model)))
    assert all(isinstance(entry, Choice) for entry in found), found
    return found


@pytest.mark.parametrize("block", [0, 16])
@pytest.mark.parametrize("bits", [4, 8])
def test_integers_that_fit_the_data_lose_less_than_the_nearest(block: int, bits: int) -> None:
    x = correlated(64)
    wanted = outputs(product(), x)
    fitted, nearest = (
        np.square(outputs(stored(f"bits={bits},block={block},rounding={way}"), x) - wanted).mean()
        for way in ("least-squares", "nearest")
    )
    assert fitted < 0.5 * nearest


def test_fewer_than_8_bits_fit_the_data_where_there_is_some() -> None:
    same = stored("bits=4").to_bytes()
    assert same == stored("bits=4,rounding=least-squares").to_bytes()
    assert same != stored("bits=4,rounding=nearest").to_bytes()
    assert stored("bits=8").to_bytes() == stored("bits=8,rounding=nearest").to_bytes()
    unused = Observer(None, Stream(list))  # type: ignore[arg-type]
    step = QuantizeWeights(bits=4)
    assert Stage([step], observe=unused).run(product()).edits  # drawn inputs are not looked at


def images(samples: int = 64) -> dict[str, np.ndarray]:
    drawn = correlated(samples, 8 * 36).reshape(samples, 8, 6, 6)
    return {"x": drawn, "k": np.arange(samples) % 40}


@pytest.mark.parametrize("held", [moments.HELD_BYTES, 6000])
def test_every_kind_of_layer_is_fitted(native, monkeypatch, held: int) -> None:
    """Groups, kernels, transposed weights, factors; with moments as a whole, and in blocks."""
    monkeypatch.setattr(moments, "HELD_BYTES", held)
    names = [f"w{n}" for n in range(1, 7)]
    model = parse(LAYERS, (*names, "b1"))
    observe = Observer(native, Stream(lambda: [images()]))
    step = QuantizeWeights(bits=4, block=16, rounding="least-squares", smallest=100)
    fitted = [choice for choice in proposed(step, model, observe) if choice.level == 4]
    assert [choice.where for choice in fitted] == names
    for choice in fitted[:-1]:
        assert choice.what.endswith(", by least squares")
    assert "to the nearest: Gather" in fitted[-1].what
    wanted = session(model, level="ORT_DISABLE_ALL").run(["y"], images())[0]
    errors = []
    for way in (step, replace(step, rounding="nearest")):
        stage = Stage([way], observe=observe)
        found = stage.run(model).model
        run = session(found, level="ORT_DISABLE_ALL").run(["y"], images())[0]
        errors.append(np.square(run - wanted).sum() / np.square(wanted).sum())
    assert errors[0] < 0.03
    assert errors[0] < 0.8 * errors[1]


def test_the_loss_is_that_of_the_outputs(native) -> None:
    x = correlated(256)
    observe = Observer(native, Stream(lambda: [{"x": x}]))
    step = QuantizeWeights(bits=4, block=16, rounding="least-squares")
    choice = proposed(step, product(), observe)[0]
    run = Stage([step], observe=observe).run(product())
    wanted = outputs(product(), x)
    lost = np.square(outputs(run.model, x) - wanted).sum() / np.square(wanted).sum()
    assert choice.loss == pytest.approx(lost, rel=1e-3)


def test_without_a_calibration_weights_go_to_the_nearest() -> None:
    run = Stage([QuantizeWeights(bits=4, rounding="least-squares")]).run(product())
    assert "without data weights go to the nearest integers" in str(run.skips)
    plain = Stage([QuantizeWeights(bits=4)]).run(product())
    assert run.model.to_bytes() == plain.model.to_bytes()


def test_what_a_layer_reads_may_be_unknown(native) -> None:
    """Inputs that are not finite, or none at all, leave the nearest integers and a reason."""
    step = QuantizeWeights(bits=4, rounding="least-squares")
    nan = np.full((4, 64), np.nan, np.float32)
    for x, why in ((nan, "no finite numbers"), (nan[:0], "no finite numbers")):
        observe = Observer(native, Stream(lambda x=x: [{"x": x}]))
        run = Stage([step], observe=observe).run(product())
        assert why in run.edits[0].what
        assert (
            run.model.to_bytes()
            == Stage([replace(step, rounding="nearest")]).run(product()).model.to_bytes()
        )


def test_the_operator_set_rises_with_the_type() -> None:
    old = parse(PRODUCT.replace("17", "12"), ("w",))
    assert stored("bits=4", old).opset == 21
    assert stored("bits=8", old).opset == 12
    assert stored("bits=8,form=dequantize", old).opset == 13
    assert stored("bases=1", old, "binarize-weights").opset == 13


@pytest.mark.parametrize("step", [QuantizeWeights(bits=4), BinarizeWeights()])
def test_what_cannot_be_raised_is_refused_with_the_reason(step) -> None:
    text = PRODUCT.replace("17", "10").replace("= MatMul(x, w)", "= MatMul(x, w) o = Resize(y, s)")
    text = text.replace("float[64, 96] w", "float[64, 96] w, float[2] s")
    model = parse(text.replace("] y)", "] y, float[A, B] o)"), ("w",))
    run = Stage([step]).run(model)
    assert not run.edits
    assert "it may round up or down" in run.skips[step.name]["w"]
    assert run.model.to_bytes() == model.to_bytes()


@pytest.mark.parametrize(
    ("value", "why"),
    [(np.nan, "NaN"), (np.inf, "infinity"), (1e300, "beyond what scales can express")],
)
def test_numbers_that_no_scale_expresses_are_refused(value: float, why: str) -> None:
    model = parse(PRODUCT.replace("float[", "double["), ("w",))
    held = next(c for c in model.constants() if c.name == "w")
    assert isinstance(held, Constant)
    changed = held.values.copy()
    changed[3, 4] = value
    held.values = changed
    for step in (QuantizeWeights(bits=4), BinarizeWeights()):
        run = Stage([step]).run(model)
        assert why in run.skips[step.name]["w"]
        assert not run.edits


def test_weights_of_zeros_and_of_the_smallest_numbers_survive() -> None:
    for value in (0.0, 1e-30, 6e-8):
        dtype = np.float16 if value == 6e-8 else np.float32
        kind = "float16" if dtype is np.float16 else "float"
        model = parse(PRODUCT.replace("float[", f"{kind}["), ("w",))
        held = next(c for c in model.constants() if c.name == "w")
        held.values = np.full((64, 96), value, dtype)
        for step in (QuantizeWeights(bits=4), QuantizeWeights(), BinarizeWeights()):
            run = Stage([step]).run(model)
            found = outputs(run.model, np.eye(64, dtype=dtype))
            np.testing.assert_allclose(found, np.full((64, 96), dtype(value)), rtol=0.1)


@pytest.mark.parametrize(
    ("name", "budget", "milder"),
    [
        ("quantize-weights:bits=2", 0.0005, "w in 8 bits"),
        ("binarize-weights", 0.1, "w as 2 binary bases"),
        ("binarize-weights", 0.01, "w as 4 binary bases"),
    ],
)
def test_a_budget_eases_to_milder_levels(name: str, budget: float, milder: str) -> None:
    model = parse(PRODUCT.replace("17", "25").replace("8,", "13,"), ("w",))
    result = graphopt.optimize(
        model, passes=[name], data={"x": correlated(256)}, budget=Budget(budget), metric="cosine"
    )
    step = result.report.steps[-1]
    assert step.status == "eased"
    assert [edit.what for edit in step.edits] == [milder]


@pytest.mark.parametrize(
    "layout",
    [
        Layout((4, 40, 6), (2,), 1, 16),
        Layout((40, 6), (1,), 0, 40),
        Layout((6, 33), (0,), 1, 32),
        Layout((5, 7, 3), (0, 2)),
    ],
)
def test_what_is_cut_can_be_joined(layout: Layout) -> None:
    values = np.random.default_rng(0).standard_normal(layout.shape)
    cut = layout.cut(values)
    assert cut.shape == layout.cut_shape
    np.testing.assert_array_equal(layout.joined(cut), values)
    each = cut.max(axis=layout.shared, keepdims=True)
    assert each.size == layout.scales
    assert (layout.spread(each) >= values).all()


def test_8_bits_lose_no_more_than_the_covering_scale() -> None:
    values = initializers(product())["w"]
    model = Stage([QuantizeWeights()]).run(product()).model
    grid = AffineGrid(-127, 127)
    scale, zero = grid.parameters(values.min(0), values.max(0), symmetric=True)
    plain = grid.dequantized(grid.quantized(values, scale, zero), scale, zero)
    found = outputs(model, np.eye(64, dtype=np.float32))
    assert np.square(found - values).sum() <= np.square(plain - values).sum()
    assert weight("w", model, "int8").dtype == np.int8
