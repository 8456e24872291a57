"""Clustered weights: what ONNX Runtime makes of them, what they take, and how well they fit the data."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

import graphopt
from graphopt.errors import UsageError
from graphopt.ir.graph import Constant
from graphopt.ir.model import Model
from graphopt.lossy_pass import Choice
from graphopt.options import build, parse_choice
from graphopt.passes.clustering import _fits, _sharing
from graphopt.passes.clustering._codes import Packing, cost, packings
from graphopt.passes.clustering._numbers import Numbers
from graphopt.passes.clustering.cluster_weights import ClusterWeights
from graphopt.quality import gate
from graphopt.quality.gate import Budget
from graphopt.stage import Stage
from graphopt.testing import parse

FREE = Budget(None)

LAYERS = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N,8,6,6] x, float[16,4,3,3] w1, float[16] b1, float[16,1,3,3] w2, float[16,8,2,2] w3,
   float[8,64] w4, float[12,64] w5) => (float[N,12] y) {
  c = Conv<group = 2, pads = [1,1,1,1]>(x, w1, b1)
  r = Relu(c)
  d = Conv<group = 16, strides = [2,2], pads = [1,1,1,1]>(r, w2)
  u = ConvTranspose(d, w3)
  p = GlobalAveragePool(u)
  f = Flatten(p)
  m = MatMul(f, w4)
  n = Relu(m)
  y = Gemm<transB = 1, alpha = 0.5>(n, w5)
}
"""
PRODUCT = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N, 64] x, float[64, 96] w) => (float[N, 96] y) { y = MatMul(x, w) }"""
NAMES = [f"w{n}" for n in range(1, 6)]


def layers() -> Model:
    return parse(LAYERS, (*NAMES, "b1"))


def images(samples: int = 64) -> dict[str, np.ndarray]:
    """Features that depend on each other, as those of real layers do."""
    mixed = np.random.default_rng(1).standard_normal((12, 8 * 36))
    drawn = np.random.default_rng(samples).standard_normal((samples, 12)) @ mixed
    return {"x": (drawn / 4 + 0.3).reshape(samples, 8, 6, 6).astype(np.float32)}


def clustered(options: str, model: Model | None = None, fitted: bool = True) -> Model:
    """A model, or small layers, with weights clustered, with data or without."""
    return _clustered(options, model, fitted) if model else _layers_clustered(options, fitted)


@functools.cache
def _layers_clustered(options: str, fitted: bool) -> Model:
    return _clustered(options, layers(), fitted)


def _clustered(options: str, model: Model, fitted: bool) -> Model:
    step = f"cluster-weights:smallest=100,{options}"
    if fitted:
        data = {i.name: images()["x"].reshape(64, *i.shape[1:]) for i in model.graph.inputs}
        result = graphopt.optimize(model, passes=[step], data=data, budget=FREE)
        assert result.report.steps[-1].edits
        return result.model
    made = build(ClusterWeights, parse_choice(step)[1])
    return Stage([made]).run(model).model


def session(model: Model, optimized: str = "", level: str = "ORT_ENABLE_ALL"):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.log_severity_level = 4
    if optimized:
        options.optimized_model_filepath = optimized
    return onnxruntime.InferenceSession(model.to_bytes(), options, ["CPUExecutionProvider"])


def outputs(model: Model, level: str = "ORT_ENABLE_ALL") -> np.ndarray:
    return np.asarray(session(model, level=level).run(None, images(128))[0])


def as_run(model: Model, tmp_path) -> onnx.GraphProto:
    """The graph that ONNX Runtime runs."""
    path = str(tmp_path / "optimized.onnx")
    session(model, path)
    return onnx.load(path).graph


def initializers(model: Model) -> dict[str, np.ndarray]:
    return {i.name: numpy_helper.to_array(i) for i in model.to_proto().graph.initializer}


def lost(model: Model) -> float:
    wanted = outputs(layers())
    return float(np.square(outputs(model) - wanted).sum() / np.square(wanted).sum())


@pytest.mark.parametrize(
    ("clusters", "fitted"),
    [(4, True), (16, True), (2, False), (3, False), (4, False), (6, False), (40, False)],
)
def test_it_computes_bit_by_bit_what_clustered_floats_do(
    clusters: int, fitted: bool, tmp_path
) -> None:
    stored = clustered(f"clusters={clusters}", fitted=fitted)
    floats = clustered(f"clusters={clusters},materialize=true", fitted=fitted)
    for level in ("ORT_ENABLE_ALL", "ORT_DISABLE_ALL"):
        np.testing.assert_array_equal(outputs(stored, level), outputs(floats, level))
    run, wanted = as_run(stored, tmp_path), as_run(floats, tmp_path)
    assert [node.op_type for node in run.node] == [node.op_type for node in wanted.node]
    assert not {"Gather", "Cast", "Slice"} & {node.op_type for node in run.node}
    held = initializers(floats)
    assert all(len(np.unique(held[name])) <= clusters for name in NAMES)
    assert stored.weight_bytes() < floats.weight_bytes()


@pytest.mark.parametrize(
    ("clusters", "opset", "factor", "raised"),
    [
        (256, 17, 3.99, 17),
        (16, 17, 7.99, 21),
        (4, 17, 15.9, 21),
        (4, 25, 15.9, 25),
        (2, 17, 31, 21),
    ],
)
def test_a_large_layer_takes_the_bits_of_its_codes(
    clusters: int, opset: int, factor: float, raised: int
) -> None:
    text = f"""<ir_version: 8, opset_import: ["" : {opset}]>
    g (float[N,256,8,8] x, float[256,256,3,3] w) => (float[N,256,6,6] y) {{ y = Conv(x, w) }}"""
    model = parse(text, ("w",))
    found = Stage([ClusterWeights(clusters)]).run(model).model
    assert found.opset == raised
    assert model.weight_bytes() / found.weight_bytes() >= factor
    assert len(model.to_bytes()) / len(found.to_bytes()) >= factor - 0.1
    small = next(i for i in found.to_proto().graph.initializer if "codes" in i.name)
    bits = {256: 8, 16: 4, 4: 2 if opset == 25 else 4, 2: 4}[clusters]
    assert len(small.raw_data) == np.prod(small.dims) * bits // 8


def test_where_the_operator_set_cannot_be_raised_bytes_hold_the_codes() -> None:
    text = """<ir_version: 5, opset_import: ["" : 10]>
    g (float[N, 64] x, float[64, 96] w, float[A, B] q, float[2] s) => (float[N, 96] y, float[C, D] o) {
      y = MatMul(x, w) o = Resize(q, s)
    }"""
    model = parse(text, ("w",))
    found = Stage([ClusterWeights(16)]).run(model).model
    assert found.opset == 10
    held = initializers(found)
    assert held["w_codes"].dtype == np.uint8
    assert held["w_codes"].nbytes + held["w_table"].nbytes == 64 * 96 // 2 + 256 * 2 * 2


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("values", range(2, 257))
def test_no_packing_has_more_codes_than_fit(values: int, half: bool) -> None:
    found = packings(values, 10_000, Numbers(4, half))
    assert cost(found[0]) == min(cost(each) for each in found)
    for each in found:
        planes = [each] if isinstance(each, Packing) else [each.high, each.low]
        assert all(plane.rows <= 2**plane.bits for plane in planes)
        assert np.prod([plane.values for plane in planes]) >= values
    assert any(each.opset == 7 for each in found)


@pytest.mark.parametrize(
    ("values", "bits"), [(3, 1.6), (6, 2.61), (8, 3), (12, 3.6), (32, 5), (64, 6), (96, 6.67)]
)
def test_codes_in_planes_take_fractions_of_bits(values: int, bits: float) -> None:
    found = packings(values, 1 << 22, Numbers(4))[0]
    assert found.nbytes * 8 / (1 << 22) == pytest.approx(bits, abs=0.02)


@pytest.mark.parametrize("clusters", [8, 24, 32, 64, 96])
@pytest.mark.parametrize("opset", [17, 25])
def test_planes_are_bit_by_bit_the_clustered_floats(clusters: int, opset: int) -> None:
    text = f"""<ir_version: 8, opset_import: ["" : {opset}]>
    g (float[N,90] x, float[90,901] w) => (float[N,901] y) {{ y = MatMul(x, w) }}"""
    model = parse(text, ("w",))
    floats, packed = (
        Stage([ClusterWeights(clusters, 256, way)]).run(model).model for way in (True, False)
    )
    x = np.random.default_rng(0).standard_normal((3, 90)).astype(np.float32)
    results = [
        onnxruntime.InferenceSession(found.to_bytes()).run(None, {"x": x})[0]
        for found in (floats, packed)
    ]
    assert np.array_equal(*results)
    assert any("low_codes" in name for name in initializers(packed))


@pytest.mark.parametrize("clusters", [4, 16])
def test_what_is_fitted_to_the_data_loses_less(clusters: int) -> None:
    fitted, alone = (lost(clustered(f"clusters={clusters}", fitted=way)) for way in (True, False))
    assert fitted < 0.5 * alone


@pytest.mark.parametrize("whole", [True, False])
def test_layers_of_many_features_are_fitted_in_blocks(monkeypatch, whole: bool) -> None:
    monkeypatch.setattr(_fits, "WHOLE", 8 if whole else 40)
    monkeypatch.setattr(_fits, "BLOCK", 16)
    model = clustered("clusters=4", layers())
    assert lost(model) < 0.8 * lost(clustered("clusters=4", fitted=False))
    assert model.to_bytes() != clustered("clusters=4").to_bytes()


def test_how_each_weight_was_clustered_is_said() -> None:
    text = LAYERS.replace("float[12,64] w5", "float[12,64] w5, float[40,12] t, int64[N] i")
    text = text.replace("m = MatMul(f, w4)", "m = MatMul(f, w4) z = Gather(t, i)")
    text = text.replace("(float[N,12] y)", "(float[N,12] y, float[N,12] z)")
    data = {**images(), "i": np.arange(64) % 40}
    step = "cluster-weights:smallest=100"
    model = parse(text, (*NAMES, "b1", "t"))
    result = graphopt.optimize(model, passes=[step], data=data, budget=FREE)
    said = {edit.what.split()[0]: edit.what for edit in result.report.steps[-1].edits}
    assert all("fitted to what the original gives" in said[name] for name in NAMES)
    assert "by k-means" in said["t"] and "Gather" in said["t"]
    without = Stage([ClusterWeights(smallest=100)]).run(model)
    assert "without data weights are clustered for themselves" in str(without.skips)
    assert all("by k-means: there is no data" in edit.what for edit in without.edits)


GRANULAR = [
    ("clusters=4,granularity=channel", True),
    ("clusters=5,granularity=group,group=5", True),
    ("clusters=16,granularity=group,group=4", False),
    ("clusters=3,granularity=channel", False),
]


@pytest.mark.parametrize(("options", "fitted"), GRANULAR)
def test_codebooks_of_channels_fold_to_clustered_floats(
    options: str, fitted: bool, tmp_path
) -> None:
    stored = clustered(options, fitted=fitted)
    floats = clustered(f"{options},materialize=true", fitted=fitted)
    for level in ("ORT_ENABLE_ALL", "ORT_DISABLE_ALL"):
        np.testing.assert_array_equal(outputs(stored, level), outputs(floats, level))
    run, wanted = as_run(stored, tmp_path), as_run(floats, tmp_path)
    assert [node.op_type for node in run.node] == [node.op_type for node in wanted.node]
    assert any(node.op_type == "GatherElements" for node in stored.to_proto().graph.node)
    held = initializers(floats)
    k = int(options.split(",")[0].removeprefix("clusters="))
    for number in range(12):
        assert len(np.unique(held["w5"][number])) <= k
    assert len(np.unique(held["w5"])) > k
    assert stored.weight_bytes() < floats.weight_bytes()


def test_codebooks_of_channels_are_fitted_and_serve_unequal_channels() -> None:
    model = layers()
    unequal = np.logspace(-2, 1, 12)[:, None].astype(np.float32)
    held(model, "w5").values = held(model, "w5").values * unequal
    data, found = images(128), {}
    wanted = np.asarray(session(model).run(None, data)[0])
    for kind in ("tensor", "channel"):
        for fitted in (True, False):
            changed = clustered(f"clusters=4,granularity={kind}", model.copy(), fitted)
            gap = np.asarray(session(changed).run(None, data)[0]) - wanted
            found[kind, fitted] = float((np.square(gap).sum(0) / np.square(wanted).sum(0)).mean())
    assert found["channel", True] < 0.5 * found["tensor", True]
    assert found["channel", True] < 0.5 * found["channel", False]


VECTORS = [
    ("clusters=16,vector=2", True),
    ("clusters=5,vector=4", False),
    ("clusters=64,vector=3", True),
    ("clusters=256,vector=8", False),
]


@pytest.mark.parametrize(("options", "fitted"), VECTORS)
def test_vectors_fold_to_clustered_floats(options: str, fitted: bool, tmp_path) -> None:
    model = layers() if "256" not in options else large()
    data = {i.name: images(128)["x"].reshape(128, *i.shape[1:]) for i in model.graph.inputs}
    stored = clustered(options, model.copy(), fitted)
    floats = clustered(f"{options},materialize=true", model.copy(), fitted)
    made, wanted = (session(each).run(None, data)[0] for each in (stored, floats))
    np.testing.assert_array_equal(made, wanted)
    run, wanted = as_run(stored, tmp_path), as_run(floats, tmp_path)
    assert [node.op_type for node in run.node] == [node.op_type for node in wanted.node]
    assert stored.weight_bytes() < floats.weight_bytes()
    clusters, width = (int(part.split("=")[1]) for part in options.split(","))
    last = held(floats, "w5").values  # transposed: outputs, of which there are 12, come first
    width = max(d for d in range(1, width + 1) if 12 % d == 0) if "256" not in options else width
    assert len(np.unique(last.T.reshape(-1, width), axis=0)) <= clusters


def large() -> Model:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[N,288] x, float[288,96] w4, float[64,96] w5) => (float[N,64] y) {
      m = MatMul(x, w4)
      n = Relu(m)
      y = Gemm<transB = 1>(n, w5)
    }"""
    return parse(text, ("w4", "w5"))


def test_vectors_lose_less_than_single_values_of_as_many_bits() -> None:
    data, model = {"x": images(256)["x"].reshape(256, -1)}, large()
    wanted, lost = np.asarray(session(model).run(None, data)[0]), {}
    for options in ("clusters=4", "clusters=16,vector=2"):
        passes = [f"cluster-weights:{options}"]
        found = graphopt.optimize(model, passes=passes, data=data, budget=FREE).model
        lost[options] = float(np.square(session(found).run(None, data)[0] - wanted).sum())
    assert lost["clusters=16,vector=2"] < lost["clusters=4"]


def test_weights_of_many_zeros_have_no_vectors() -> None:
    model = large()
    constant = held(model, "w4")
    constant.values = np.where(np.abs(constant.values) < 0.5, 0, constant.values)
    zeros = constant.values == 0
    found = held(clustered("clusters=16,vector=2,materialize=true", model, False), "w4").values
    assert (found[zeros] == 0).all()
    assert len(np.unique(found)) == 4


def test_behind_256_vectors_come_single_values() -> None:
    choices = [c for c in proposed(ClusterWeights(64, vector=4), large()) if c.where == "w4"]
    said = [choice.what.removeprefix("takes ") for choice in choices]
    assert said[0] == "64 vectors of 4"
    assert {"8 values", "16 values"} & set(said)
    for before, after in itertools.pairwise(choices):
        assert before.level < after.level and before.loss > after.loss
        assert before.saving >= after.saving


def test_vectors_of_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="one codebook for a tensor"):
        ClusterWeights(vector=2, granularity="channel")


def entropy(values: np.ndarray) -> float:
    counts = np.unique(values, return_counts=True)[1]
    shares = counts / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


@pytest.mark.parametrize("fitted", [True, False])
def test_merged_clusters_take_fewer_bits_for_a_little_loss(fitted: bool) -> None:
    model = large()
    found = {
        merge: clustered(f"clusters=32,materialize=true,merge={merge}", model.copy(), fitted)
        for merge in (0, 0.5)
    }
    before, after = (
        sum(entropy(held(each, name).values) for name in ("w4", "w5")) for each in found.values()
    )
    assert after < before - 0.1
    for name in ("w4", "w5"):
        few = (len(np.unique(held(each, name).values)) for each in found.values())
        assert next(few) > next(few)
    if not fitted:
        gaps = [
            np.square(held(each, "w4").values - held(model, "w4").values).sum()
            for each in found.values()
        ]
        assert gaps[0] < gaps[1] <= 1.5 * gaps[0] * (1 + 1e-6)


def test_without_merging_is_the_next_level() -> None:
    choices = [c for c in proposed(ClusterWeights(16, merge=1.0), large()) if c.where == "w4"]
    said = [choice.what.removeprefix("takes ") for choice in choices]
    assert said[:3] == ["at most 16 values", "16 values", "32 values"]
    for before, after in itertools.pairwise(choices):
        assert before.level < after.level
        assert before.loss >= after.loss * (1 - 1e-9)


def test_zeros_stay_when_clusters_are_merged() -> None:
    model = large()
    constant = held(model, "w4")
    constant.values = np.where(np.abs(constant.values) < 0.5, 0, constant.values)
    zeros = constant.values == 0
    for fitted in (True, False):
        options = "clusters=16,merge=0.5,materialize=true"
        found = held(clustered(options, model.copy(), fitted), "w4").values
        assert (found[zeros] == 0).all()
        assert len(np.unique(found)) < 16


@pytest.mark.parametrize("options", [{"vector": 2}, {"granularity": "group"}])
def test_only_single_values_of_a_tensor_are_merged(options: dict) -> None:
    with pytest.raises(ValueError, match="single values for a tensor"):
        ClusterWeights(merge=0.1, **options)
    with pytest.raises(ValueError, match="share from 0 to 1"):
        ClusterWeights(merge=-0.1)


@pytest.mark.parametrize("fitted", [True, False])
def test_zeros_stay_zeros_with_codebooks_of_channels(fitted: bool) -> None:
    model = layers()
    for name in NAMES:
        constant = held(model, name)
        constant.values = np.where(np.abs(constant.values) < 0.8, 0, constant.values)
    zeros = {name: held(model, name).values == 0 for name in NAMES}
    found = clustered("clusters=4,granularity=channel,materialize=true", model, fitted)
    for name, where in zeros.items():
        assert (held(found, name).values[where] == 0).all()


def test_it_is_deterministic() -> None:
    assert clustered("clusters=4").to_bytes() == clustered("clusters=4", layers()).to_bytes()


def held(model: Model, name: str) -> Constant:
    found = next(constant for constant in model.constants() if constant.name == name)
    assert isinstance(found, Constant)
    return found


@pytest.mark.parametrize("fitted", [True, False])
def test_zeros_stay_zeros(fitted: bool) -> None:
    model = layers()
    for name in NAMES:
        constant = held(model, name)
        constant.values = np.where(np.abs(constant.values) < 0.8, 0, constant.values)
    zeros = {name: held(model, name).values == 0 for name in NAMES}
    found = initializers(clustered("clusters=4,materialize=true", model, fitted))
    for name, where in zeros.items():
        assert where.mean() > _sharing.NOTABLE
        assert (found[name][where] == 0).all()
        assert len(np.unique(found[name])) == 4


def test_few_zeros_are_like_other_numbers() -> None:
    model = layers()
    constant = held(model, "w4")
    constant.values = np.where(np.arange(64) < 4, 0, constant.values)
    found = initializers(clustered("clusters=2,materialize=true", model, False))
    assert (found["w4"] != 0).all()


def proposed(step: ClusterWeights, model: Model) -> Sequence[Choice]:
    entries = step.propose(Stage([step]).context(model))
    return [entry for entry in entries if isinstance(entry, Choice)]


def test_levels_are_on_the_hull_and_say_what_they_save_and_lose() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[N,90] x, float[90,600] w) => (float[N,600] y) { y = MatMul(x, w) }"""
    model = parse(text, ("w",))
    choices = proposed(ClusterWeights(3, 512), model)
    levels = [int(choice.level) for choice in choices]
    assert levels[0] == 3
    assert {16, 32, 64} <= set(levels)
    assert 48 not in levels
    prices = [(a.loss - b.loss) / (a.saving - b.saving) for a, b in itertools.pairwise(choices)]
    assert prices == sorted(prices, reverse=True) and prices[-1] > 0
    before = held(model, "w").values
    for choice in choices:
        one = ClusterWeights(int(choice.level), 512)
        saved = len(model.to_bytes()) - len(Stage([one]).run(model).model.to_bytes())
        assert choice.saving == pytest.approx(saved, abs=700)
        floats = Stage([ClusterWeights(int(choice.level), 512, True)]).run(model).model
        gap = held(floats, "w").values - before
        loss = np.square(gap).sum() / np.square(before).sum()
        assert choice.loss == pytest.approx(float(loss), rel=5e-3, abs=1e-9)


def test_bits_are_another_way_to_say_clusters() -> None:
    model = layers()
    bits = Stage([ClusterWeights(bits=3, smallest=100)]).run(model).model
    assert bits.to_bytes() == Stage([ClusterWeights(8, 100)]).run(model).model.to_bytes()
    with pytest.raises(ValueError, match="bits are 1 to 8"):
        ClusterWeights(bits=9)


@pytest.mark.parametrize("size", ["12%", "20%", "40000"])
def test_a_size_is_shared_out_by_what_is_lost(size: str) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[N,90] x, float[90,600] v, float[600,90] w) => (float[N,90] y) {
      a = MatMul(x, v) b = Relu(a) y = MatMul(b, w)
    }"""
    model = parse(text, ("v", "w"))
    v = held(model, "v")
    v.values = np.sign(v.values) + v.values.dtype.type(0.01) * v.values
    whole = 2 * 90 * 600 * 4
    target = float(size.rstrip("%")) / 100 * whole if "%" in size else float(size)
    found = Stage([ClusterWeights(size=size)]).run(model).model
    assert found.weight_bytes() <= target
    assert found.weight_bytes() > 0.8 * target
    k = {
        name: int(c.level)
        for c in proposed(ClusterWeights(size=size), model)[::-1]
        for name in [c.where]
    }
    assert k["v"] < k["w"]  # two values say nearly all of v


def test_a_size_that_cannot_be_reached_is_refused() -> None:
    with pytest.raises(UsageError, match="the fewest"):
        Stage([ClusterWeights(size="1%")]).run(layers())
    for size in ("0", "-5%", "many"):
        with pytest.raises(ValueError):
            ClusterWeights(size=size)


def test_a_budget_eases_to_milder_levels() -> None:
    result = graphopt.optimize(
        parse(PRODUCT, ("w",)),
        passes=["cluster-weights:clusters=2"],
        data={"x": images()["x"].reshape(64, -1)[:, :64]},
        budget=Budget(0.01),
        metric="cosine",
    )
    step = result.report.steps[-1]
    assert step.status == "eased"
    assert [edit.what.split(",")[0] for edit in step.edits] == ["w takes 4 values"]


@pytest.mark.parametrize("value", [0.0, 1e-30, -3.5])
def test_weights_of_one_value_survive(value: float) -> None:
    model = layers()
    for name in NAMES:
        constant = held(model, name)
        constant.values = np.full_like(constant.values, value)
    found = clustered("clusters=4", model, False)
    np.testing.assert_array_equal(outputs(found), outputs(model))


@pytest.mark.parametrize("clusters", [1, 257])
def test_other_numbers_of_clusters_are_refused(clusters: int) -> None:
    with pytest.raises(ValueError, match="clusters are 2 to 256"):
        ClusterWeights(clusters)


def test_halves_of_the_data_are_exchanged_where_one_leaves_doubt(monkeypatch) -> None:
    """By messages: no distance is likely, so both halves are asked of each tolerable candidate."""
    monkeypatch.setattr(gate, "MARGIN", 1e9)
    said: list[str] = []
    result = graphopt.optimize(
        layers(),
        passes=["cluster-weights:clusters=2,smallest=100"],
        data=images(32),
        budget=Budget(0.005),
        listener=lambda progress: said.append(progress.what),
    )
    doubtful = [e for e in result.report.gates if e.accepted and e.verdict == "unsure"]
    exchanged = [what for what in said if "halves of the data exchanged" in what]
    assert len(exchanged) == len(doubtful) > 0
    assert result.report.steps[-1].status == "eased"
