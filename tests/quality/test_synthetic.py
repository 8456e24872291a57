"""Inputs that are drawn to observe with: they fit, they are the same each time, and they stay small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graphopt.ir.model import Model
from graphopt.numerics.streaming import RangeSpec
from graphopt.quality import synthetic as module
from graphopt.quality.equivalence import Equivalence
from graphopt.quality.input_drawing import BATCH, LENGTH, Drawing
from graphopt.quality.synthetic import Synthetic, SyntheticObserver, synthetic
from graphopt.runtime.observer import Observer
from graphopt.runtime.observing import Request, Stream
from graphopt.testing import parse

HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'
DIGITS = Path(__file__).parent.parent.parent / "models" / "digits_cnn"


def drawn(model: Model, native, seed: int = 0) -> Synthetic:
    return synthetic(Equivalence(model, native), seed)


def passing(inputs: str) -> Model:
    """A model that accepts any values of these inputs."""
    names = [part.split()[-1] for part in inputs.split(",  ")]
    outputs = ", ".join(f"float y{n}" for n in range(len(names)))
    body = "".join(
        f"c{n} = Cast<to=1>({name}) y{n} = ReduceSum<keepdims=0>(c{n}) "
        for n, name in enumerate(names)
    )
    return parse(f"{HEAD} g ({inputs}) => ({outputs}) {{ {body} }}")


def kinds(found: Synthetic) -> dict[str, tuple[str, tuple[int, ...], tuple[int, ...]]]:
    return {entry.name: (entry.kind, entry.shape, entry.axes) for entry in found.drawn}


@pytest.mark.parametrize(
    ("declared", "kind", "shape", "axes"),
    [
        ("float[N,3,24,20] x", "floats", (BATCH, 3, 24, 20), (2, 3)),
        ("float[N,24,20,3] x", "floats", (BATCH, 24, 20, 3), (1, 2)),
        ("float[2,1,9,8,10] x", "floats", (2, 1, 9, 8, 10), (2, 3, 4)),
        ("float[N,3,H,W] x", "floats", (BATCH, 3, LENGTH, LENGTH), (2, 3)),
        ("float[N,3,4,4] x", "floats", (BATCH, 3, 4, 4), ()),
        ("float16[N,20,7] x", "floats", (BATCH, 20, 7), (1,)),
        ("float[N,1,400] x", "floats", (BATCH, 1, 400), (2,)),
        ("float[N,80,T] x", "floats", (BATCH, 80, LENGTH), (2,)),
        ("double[N,400] x", "floats", (BATCH, 400), (1,)),
        ("float[N,12] x", "floats", (BATCH, 12), ()),
        ("float[2,N,128] x", "floats", (2, BATCH, 128), ()),
        ("uint8[N,3,24,20] x", "pixels", (BATCH, 3, 24, 20), (2, 3)),
        ("int64[N,30] x", "integers", (BATCH, 30), ()),
        ("bool[N,30] x", "flags", (BATCH, 30), ()),
        ("int64[N,30] attention_mask", "kept", (BATCH, 30), ()),
    ],
)
def test_what_an_input_is_taken_for(native, declared, kind, shape, axes) -> None:
    found = drawn(passing(declared), native)
    name = declared.split()[-1]
    if kind == "kept":  # alone it gives nothing to draw
        assert not found.drawn
        return
    assert kinds(found) == {name: (kind, shape, axes)}
    value = found.batch(0)[name]
    assert value.shape == shape
    assert value.dtype == found.drawn[0].known.dtype
    assert not np.array_equal(value, found.batch(1)[name])


def test_a_mask_hides_nothing_and_a_length_is_kept(native) -> None:
    found = drawn(
        passing("float[N,T,8] x,  int64[N] lengths,  int64 rate,  int64[N,T] x_mask"), native
    )
    assert {name: kind for name, (kind, _, _) in kinds(found).items()} == {
        "x": "floats",
        "lengths": "kept",
        "rate": "kept",
        "x_mask": "kept",
    }
    first, second = found.batch(0), found.batch(1)
    assert first["lengths"].shape == (BATCH,)
    assert (first["x_mask"] == 1).all()
    assert all(np.array_equal(first[n], second[n]) for n in ("lengths", "rate", "x_mask"))


def test_indices_stay_inside_the_table(native) -> None:
    model = parse(
        HEAD + "g (int64[N,6] ids) => (float[N,6,4] y)"
        "<float[10,4] table = {" + ",".join(["1"] * 40) + "}> { y = Gather(table, ids) }"
    )
    found = drawn(model, native)
    values = np.concatenate([feeds["ids"] for feeds in found])
    assert len(values) == module.SAMPLES
    assert values.min() >= 0
    assert values.max() <= 9
    assert len(np.unique(values)) > 8


def test_the_same_seed_gives_the_same_batches_each_time_and_another_gives_others(native) -> None:
    model = passing("float[N,3,16,16] x")
    first, again, other = (drawn(model, native, seed) for seed in (0, 0, 1))
    for one, two, three in zip(first, again, other, strict=True):
        assert np.array_equal(one["x"], two["x"])
        assert not np.array_equal(one["x"], three["x"])
    assert np.array_equal(next(iter(first))["x"], next(iter(first))["x"])
    assert first.digest == again.digest != other.digest


def test_the_digest_tells_the_recipe_from_another(native, monkeypatch) -> None:
    found = drawn(passing("float[N,3,16,16] x"), native)
    plain = Synthetic((Drawing("x", "floats", found.drawn[0].known),), 0)
    assert plain.digest != found.digest
    assert drawn(passing("float[N,3,16,17] x"), native).digest != found.digest
    before = found.digest
    monkeypatch.setattr(module, "VERSION", "another")
    assert found.digest != before


def test_large_inputs_come_batch_by_batch_and_no_more_than_a_bound() -> None:
    class Counted(Drawing):
        made = 0

        def draw(self, rng):
            Counted.made += 1
            return super().draw(rng)

    image = np.broadcast_to(np.float32(0), (1, 3, 2048, 1024))  # 24 MiB that take no memory
    found = Synthetic((Counted("x", "floats", image),), 0)
    assert len(found) * image.nbytes <= module.TOTAL_BYTES < (len(found) + 1) * image.nbytes
    stream = iter(found)
    assert Counted.made == 0
    assert next(stream)["x"].nbytes == image.nbytes
    assert Counted.made == 1
    huge = np.broadcast_to(np.float32(0), (1, 1 << 40))
    assert len(Synthetic((Drawing("x", "floats", huge),), 0)) == 1


def test_many_small_samples_are_as_many_as_wanted(native) -> None:
    assert sum(len(feeds["x"]) for feeds in drawn(passing("float[N,8] x"), native)) == 256
    fixed = drawn(passing("float[1,8] x"), native)
    assert len(fixed) == 256
    assert len(drawn(passing("float[1000,8] x"), native)) == 1


def test_numbers_that_a_model_refuses_are_drawn_otherwise(native) -> None:
    positive = parse(
        HEAD + "g (float[N,16,16,1] x) => (float[N,16,16,1] y) { l = Sqrt(x) y = Identity(l) }"
    )
    found = drawn(positive, native)
    assert np.isfinite(np.sqrt(found.batch(0)["x"])).all()


def test_sizes_that_a_model_refuses_to_grow_are_kept(native) -> None:
    model = parse(
        HEAD + "g (float[N,T] x) => (float[N,T] y)"
        "<float[8] w = {1,2,3,4,5,6,7,8}> { y = Mul(x, w) }"
    )
    assert drawn(model, native).batch(0)["x"].shape == (BATCH, 8)


def picky(inputs: str, picked: str) -> Model:
    """A model that accepts nothing but zeros as one of its inputs, for it makes an index of it."""
    return parse(
        f"{HEAD} g ({inputs}) => (float[N,40] y)"
        "<float[1] table = {1}, float big = {1e6}> {"
        f" m = Mul({picked}, big) i = Cast<to=7>(m) t = Gather(table, i)"
        " r = ReduceMax<keepdims=0>(t) y = Mul(x, r) }"
    )


def fed(model: Model, native, **feeds: np.ndarray) -> Synthetic:
    return synthetic(Equivalence(model, native, [feeds]), 0)


def test_only_the_largest_floats_are_drawn_where_the_rest_must_stay(native) -> None:
    x, k = np.ones((2, 40), np.float32), np.zeros((2, 9), np.float32)
    found = fed(picky("float[N,40] x, float[2,9] k", "k"), native, x=x, k=k)
    assert kinds(found)["x"][:2] == ("floats", (BATCH, 40))
    assert kinds(found)["k"][0] == "kept"
    assert all(np.array_equal(feeds["k"], k) for feeds in found)


def test_nothing_is_drawn_where_the_original_accepts_nothing_else(native) -> None:
    x = np.zeros((2, 40), np.float32)
    found = fed(picky("float[N,40] x", "x"), native, x=x)
    assert [list(feeds) for feeds in found] == [["x"]]
    assert found.batch(0)["x"] is x


@pytest.mark.parametrize(
    "declared",
    [
        "float[0,3] x",
        "float[N,0,8,8] x",
        "float x",
        "int64 x",
        "bool x",
        "string[N] x",
        "uint64[N,3] x",
        "int8[N,9,9] x",
        "bfloat16[N,70] x",
        "float[1,1,1,1,1,1,1,1,1] x",
        "float[N,1500,1500] x",
        "float[A,B,C,D] x",
        "string[N,4] s,  float[N,80] x",
    ],
)
def test_odd_inputs(native, declared: str) -> None:
    text = "string" in declared
    body = "y = Identity(x)"
    kind = declared.split(",  ")[-1].rsplit(" ", 1)[0]
    extra = ", string[N,4] t) { t = Identity(s) " if ",  " in declared else ") { "
    model = parse(f"{HEAD} g ({declared}) => ({kind} y{extra}{body} }}")
    found = drawn(model, native)
    batches = iter(found)
    feeds = next(batches)
    assert "x" in feeds
    assert text or feeds["x"].dtype != object
    assert len(found.digest) == 64


def test_a_model_without_inputs_is_fed_nothing(native) -> None:
    model = parse(HEAD + "g () => (float[2] y) <float[2] w = {1,2}> { y = Relu(w) }")
    assert all(feeds == {} for feeds in drawn(model, native))


def test_the_first_normalization_tells_how_large_inputs_are(native) -> None:
    found = drawn(Model.load(DIGITS / "digits_cnn.onnx"), native).drawn[0]
    with np.load(DIGITS / "digits_calib.npz") as data:
        x = data["x"]
    assert found.offset == pytest.approx(x.mean(), abs=0.1)
    assert found.scale == pytest.approx(x.std(), rel=0.3)


def normalized(mean: str, variance: str, before: str = "i = Identity(x)") -> Model:
    return parse(
        HEAD + "g (float[N,1,16,16] x) => (float[N,2,16,16] y)"
        "<float[2,1,1,1] w = {1, -2}, float[2] one = {1, 1}, float[2] zero = {0, 0},"
        f" float two = {{2}}, float[2] m = {{{mean}}}, float[2] v = {{{variance}}}> {{"
        f" {before} c = Conv(i, w) y = BatchNormalization(c, one, zero, m, v) }}"
    )


@pytest.mark.parametrize(
    ("model", "scale", "offset"),
    [
        (normalized("10, -20", "9, 36"), 3.0, 10.0),
        (normalized("10, -20", "9, 36", "i = Div(x, two)"), 6.0, 20.0),
        (normalized("10, -20", "nan, 36"), 1.0, 0.0),
        (normalized("10, -20", "0, 0"), 1.0, 0.0),
        (normalized("10, -20", "1e30, 1e30"), 1.0, 0.0),
        (normalized("10, -20", "9, 36", "i = Abs(x)"), 1.0, 0.0),
        (normalized("10, -20", "9, 36", "i = Div(two, x)"), 1.0, 0.0),
        (normalized("10, -20", "9, 36", "i = Mul(x, x)"), 1.0, 0.0),
    ],
)
def test_scale_and_offset_by_statistics(native, model, scale, offset) -> None:
    found = drawn(model, native).drawn[0]
    assert found.scale == pytest.approx(scale, rel=0.02)
    assert found.offset == pytest.approx(offset, rel=0.06, abs=1e-6)  # drawn to 0


def test_what_cannot_be_observed_is_answered_with_a_reason(native) -> None:
    model = parse(HEAD + "g (float[2,3] x) => (float[2,3] y) { y = Relu(x) }")
    wrong = Observer(native, Stream(lambda: [{"x": np.zeros((5, 5, 5), np.float32)}]))
    observe = SyntheticObserver(lambda: wrong, model)
    assert not observe.asked
    request = Request("y", RangeSpec())
    answer = observe(model, [request])[request]
    assert observe.asked
    assert answer.value is None
    assert "rank" in answer.why
