"""Codebooks in half precision: where they are stored so, where not, and that nothing is lost by it."""

from __future__ import annotations

import numpy as np
import pytest

from graphopt.ir.graph import Constant
from graphopt.ir.model import Model
from graphopt.packing.entropy import entropy
from graphopt.passes.clustering._codes import Planes, packings
from graphopt.passes.clustering._numbers import HALF, Numbers, exact, shared_type
from graphopt.passes.clustering.cluster_weights import ClusterWeights
from graphopt.stage import Stage
from graphopt.testing import parse
from tests.test_weight_clustering import as_run, held, initializers, proposed, session

WAYS: list[dict] = [
    {"clusters": 256},
    {"clusters": 192},
    {"clusters": 3},
    {"clusters": 16, "granularity": "channel"},
    {"clusters": 16, "granularity": "group"},
    {"clusters": 256, "vector": 2},
]


def product(scale: float = 1.0, kind: str = "float") -> Model:
    text = f"""<ir_version: 10, opset_import: ["" : 21]>
    g ({kind}[N,90] x, {kind}[90,600] w) => ({kind}[N,600] y) {{ y = MatMul(x, w) }}"""
    model = parse(text, ("w",))
    weight = held(model, "w")
    drawn = np.random.default_rng(0).standard_normal((90, 600)) * scale
    weight.values = drawn.astype(weight.dtype)
    return model


def clustered(model: Model, **options) -> Model:
    return Stage([ClusterWeights(**options)]).run(model).model


def numbers(model: Model) -> dict[str, np.ndarray]:
    """The codebooks and tables of a model."""
    found = initializers(model)
    return {n: v for n, v in found.items() if "codebook" in n or "table" in n}


def run(model: Model) -> np.ndarray:
    wanted = model.graph.inputs[0].dtype
    x = np.random.default_rng(1).standard_normal((4, 90)).astype(wanted)
    return np.asarray(session(model).run(None, {"x": x})[0])


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_halves_are_bit_by_bit_the_clustered_floats(way: dict, tmp_path) -> None:
    stored, floats = (clustered(product(), materialize=m, **way) for m in (False, True))
    assert {v.dtype for v in numbers(stored).values()} == {HALF}
    assert exact(held(floats, "w").values)
    assert np.array_equal(run(stored), run(floats))
    assert [node.op_type for node in as_run(stored, tmp_path).node] == ["MatMul"]


@pytest.mark.parametrize("scale", [1e5, 1e-5])
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_values_out_of_range_stay_as_they_are(way: dict, scale: float) -> None:
    model = product(scale)
    stored, floats = (clustered(model, materialize=m, **way) for m in (False, True))
    assert {v.dtype for v in numbers(stored).values()} == {np.dtype(np.float32)}
    assert np.array_equal(run(stored), run(floats))
    same = held(clustered(product(), materialize=True, **way), "w").values * np.float32(scale)
    gap = held(floats, "w").values - same
    assert np.abs(gap).max() < 1e-2 * scale


def test_few_values_are_kept_exactly() -> None:
    model = product()
    weight = held(model, "w")
    book = np.random.default_rng(2).standard_normal(200).astype(np.float32)
    weight.values = book[np.random.default_rng(3).integers(0, 200, weight.values.shape)]
    assert not exact(book)
    found = clustered(model, clusters=256)
    assert np.array_equal(run(found), run(model))
    assert numbers(found)["w_codebook"].dtype == np.float32
    assert numbers(clustered(model, clusters=192))["w_codebook"].dtype == HALF


def test_values_that_half_precision_holds_are_kept_in_it() -> None:
    model = product()
    weight = held(model, "w")
    book = np.random.default_rng(2).standard_normal(200).astype(HALF).astype(np.float32)
    weight.values = book[np.random.default_rng(3).integers(0, 200, weight.values.shape)]
    found = clustered(model, clusters=256)
    assert np.array_equal(run(found), run(model))
    assert numbers(found)["w_codebook"].dtype == HALF


@pytest.mark.parametrize(("kind", "cast"), [("double", True), ("float16", False)])
def test_other_floats(kind: str, cast: bool) -> None:
    stored, floats = (
        clustered(product(kind=kind), clusters=256, materialize=m) for m in (False, True)
    )
    assert {v.dtype for v in numbers(stored).values()} == {HALF}
    casts = [node for node in stored.graph.nodes if node.op == "Cast"]
    assert len(casts) == 1 + cast
    assert np.array_equal(run(stored), run(floats))


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_what_is_predicted_to_be_saved_is(way: dict) -> None:
    for model in (product(), product(1e5)):
        step = ClusterWeights(**way)
        choice = proposed(step, model)[0]
        weighed = len(model.to_bytes()) - len(clustered(model, **way).to_bytes())
        assert choice.saving == pytest.approx(weighed, abs=500)


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([1.0], HALF),
        ([], np.float32),
        ([0.0, 0.0], np.float32),
        ([2.0**-10, 0.0], HALF),
        ([-(2.0**-11)], np.float32),
        ([-65504.0], HALF),
        ([65505.0], np.float32),
    ],
)
def test_the_type_that_suits(values: list[float], wanted) -> None:
    assert shared_type(np.array(values, np.float32), 0) == wanted


def test_a_table_is_halved_where_that_saves_more_than_a_node() -> None:
    assert not Numbers(4, True).halved(50)
    assert Numbers(4, True).halved(51)
    assert not Numbers(4).halved(1000)
    assert not Numbers(2, True).halved(1000)
    assert Numbers(8, True).halved(17)


@pytest.mark.parametrize("clusters", [8, 24, 32, 64, 96])
@pytest.mark.parametrize("zeros", [0.0, 0.5])
def test_codes_in_two_planes_tell_little_about_each_other(clusters: int, zeros: float) -> None:
    """So that a packed file, whose planes are coded apart, loses little by them."""
    model = product()
    weight = held(model, "w")
    empty = np.random.default_rng(4).random(weight.values.shape) < zeros
    weight.values = np.where(empty, 0, weight.values).astype(np.float32)
    stored, floats = (clustered(model, clusters=clusters, materialize=m) for m in (False, True))
    assert np.array_equal(run(stored), run(floats))
    _, codes, counts = np.unique(held(floats, "w").values, return_inverse=True, return_counts=True)
    given = initializers(stored)["w_codebook"].astype(np.float32)
    places = np.searchsorted(np.sort(given), np.unique(held(floats, "w").values))
    place = np.argsort(given)[places][codes].ravel()
    forms = packings(clusters, weight.values.size, Numbers(4, True))
    form = next(each for each in forms if each.opset <= stored.opset)
    assert isinstance(form, Planes)
    step = form.low.values
    apart = sum(entropy(np.bincount(part)) for part in np.divmod(place, step))
    rising = sum(entropy(np.bincount(part)) for part in np.divmod(codes.ravel(), step))
    assert apart <= rising
    assert entropy(counts) <= apart * (1 + 1e-9)
    if clusters == 8 and zeros:
        assert apart < 0.97 * rising


def test_a_codebook_is_stored_once_however_many_read_the_weight() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21]>
    g (float[N,90] x, float[90,90] w) => (float[N,90] y) { a = MatMul(x, w) y = MatMul(a, w) }"""
    model = parse(text, ("w",))
    found = clustered(model, clusters=256)
    books = [each for each in found.constants() if "codebook" in each.name]
    assert len(books) == 1 and isinstance(books[0], Constant)
    assert np.array_equal(run(found), run(clustered(model, clusters=256, materialize=True)))
