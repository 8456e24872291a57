"""Judging: inputs that a model accepts are found, results are compared as documented."""

from __future__ import annotations

import threading

import ml_dtypes
import numpy as np
import pytest

from graphopt.bench import claim
from graphopt.errors import NativeError
from graphopt.ir.model import Model
from graphopt.numerics.statistics import Ratio, spread
from graphopt.numerics.tolerance import RELATIVE, compare, jitter
from graphopt.quality.equivalence import Equivalence, compare_any
from graphopt.quality.inputs import specs
from graphopt.quality.search import compared_integers, find_feeds
from graphopt.quality.witnesses import witnesses
from graphopt.runtime.native import Native
from graphopt.testing import parse

HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_the_tolerance_is_where_it_says(dtype) -> None:
    values = np.linspace(-3, 3, 100).astype(dtype)
    scale = np.abs(values) + np.sqrt(np.mean(values.astype(float) ** 2))
    near = (values + 0.5 * RELATIVE[dtype] * scale).astype(dtype)
    far = (values + 2.5 * RELATIVE[dtype] * scale).astype(dtype)
    assert compare(values, near).equal
    assert not compare(values, far).equal
    assert compare(values, far, noise=float(np.abs(far - values).max())).equal


def test_special_values() -> None:
    values = np.array([1, np.nan, np.inf, -np.inf], np.float32)
    assert compare(values, values.copy()).equal
    for index, other in ((1, 0), (2, -np.inf), (2, 1e30), (0, np.nan)):
        changed = values.copy()
        changed[index] = other
        assert not compare(values, changed).equal


def test_integers_strings_and_types_must_be_equal() -> None:
    assert compare(np.array([1, 2]), np.array([1, 2])).equal
    assert compare(np.array([1, 2]), np.array([1, 4])).largest == 2
    assert not compare(np.array(["a"], object), np.array(["b"], object)).equal
    assert not compare(np.zeros(2, np.float32), np.zeros(2, np.float64)).equal
    assert not compare(np.zeros(2, np.float32), np.zeros((2, 1), np.float32)).equal
    narrow = np.array([1, 2], ml_dtypes.bfloat16)
    assert compare(narrow, narrow.copy()).equal
    assert not compare(narrow, (narrow * 2).astype(ml_dtypes.bfloat16)).equal


def test_sequences_maps_and_absent_values() -> None:
    one = np.ones(2, np.float32)
    assert compare_any([one, one], [one, one]).equal
    assert not compare_any([one], [one, one]).equal
    assert not compare_any([one, one], [one, one * 2]).equal
    assert compare_any(None, None).equal
    assert not compare_any(None, one).equal
    assert compare_any({"a": 1.0}, {"a": 1.0}).equal
    assert not compare_any({"a": 1.0}, {"b": 1.0}).equal


def test_jitter_moves_floats_a_little_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal(1000).astype(np.float32)
    moved = jitter(values, rng)
    assert 0 < np.abs(moved / values - 1).max() < 2e-6
    whole = np.arange(3)
    assert jitter(whole, rng) is whole


def feeds_of(text: str, native: Native) -> list[dict[str, np.ndarray]]:
    model = parse(HEAD + text)
    judge = Equivalence(model, native)
    judge.prepare()
    assert judge.references, judge.why
    return judge.feeds


def test_sizes_that_depend_on_each_other_are_found(native) -> None:
    feeds = feeds_of(
        "g (float[N,A] x, float[B,5] y) => (float[N,5] z) { m = MatMul (x, y)\n z = Relu (m) }",
        native,
    )
    assert all(f["x"].shape[1] == f["y"].shape[0] for f in feeds)
    assert len({f["x"].shape for f in feeds}) > 1


def test_a_size_that_must_divide_is_found(native) -> None:
    feeds = feeds_of(
        "g (float[N,T] x) => (float[A,B] z) <int64[2] s = {-1, 96}> { z = Reshape (x, s) }", native
    )
    assert all(f["x"].size % 96 == 0 for f in feeds)


def test_indices_stay_within_what_the_model_accepts(native) -> None:
    text = "g (int64[N] i, float[30,2] t) => (float[N,2] z) { z = Gather (t, i) }"
    model = parse(HEAD + text, random=("t",))
    judge = Equivalence(model, native)
    judge.prepare()
    ids = np.concatenate([f["i"].reshape(-1) for f in judge.feeds])
    assert 2 < ids.max() < 30
    assert ids.min() >= 0


def test_both_branches_are_reached(native) -> None:
    text = """g (float[N] x, int64 rate) => (float[N] y)
    <int64 known = {16000}> {
      c = Equal (rate, known)
      y = If (c) <
        then_branch = t () => (float[N] a) { a = Neg (x) },
        else_branch = e () => (float[N] b) { b = Abs (x) }
      > }"""
    assert compared_integers(parse(HEAD + text)) == [16000]
    rates = {int(f["rate"]) for f in feeds_of(text, native)}
    assert 16000 in rates
    assert len(rates) > 1


def test_a_difference_behind_a_saturated_output_is_seen(native) -> None:
    text = (
        HEAD
        + """g (float[N,3] x) => (float[N,3] y) <float big = {-60}, float one = {1}> {
      m = Mul (x, one)
      b = Add (m, big)
      y = Sigmoid (b) }"""
    )
    model = parse(text)
    assert witnesses(model) == ["b"]
    verdict = Equivalence(model, native).judge(parse(text.replace("one = {1}", "one = {2}")))
    assert verdict.passed is False
    assert "inner tensor 'b'" in verdict.why


def test_rounding_that_a_model_magnifies_is_no_difference(native) -> None:
    text = (
        HEAD
        + """g (float[N,3] x) => (float[N,3] y) <float k = {1000000}> {
      a = Add (x, k)
      y = Sub (a, k) }"""
    )
    model = parse(text)
    other = parse(
        text.replace("a = Add (x, k)", "h = Add (x, x)\n      n = Sub (h, x)\n      a = Add (k, n)")
    )
    assert Equivalence(model, native).judge(other).passed


def test_what_cannot_run_is_unproven(native) -> None:
    text = (
        HEAD.replace('"" : 17', '"" : 17, "custom" : 1')
        + "g (float[N] x) => (float[N] y) { y = custom.F (x) }"
    )
    model = parse(text)
    verdict = Equivalence(model, native).judge(model.copy())
    assert verdict.passed is None
    assert "cannot be run" in verdict.why


def test_types_that_only_the_reference_evaluator_knows(native) -> None:
    text = HEAD.replace("17", "21") + "g (bfloat16[N,3] x) => (bfloat16[N,3] y) { y = Neg (x) }"
    model = parse(text)
    verdict = Equivalence(model, native).judge(model.copy())
    assert verdict.passed
    assert verdict.backend in ("ort", "reference")


def test_inputs_with_defaults_need_not_be_fed() -> None:
    proto = parse(
        HEAD + "g (float[N,2] x, float[2] b) => (float[N,2] y) { y = Add (x, b) }"
    ).to_proto()
    proto.graph.initializer.add(name="b", data_type=1, dims=[2], float_data=[1, 2])
    assert [spec.name for spec in specs(Model.load(proto))] == ["x"]


def test_a_model_that_takes_nothing_is_given_up(native) -> None:
    def refuse(feeds: object) -> list[object]:
        raise NativeError("no")

    samples, why = find_feeds(
        parse(HEAD + "g (float[N] x) => (float[N] y) { y = Relu (x) }"), refuse
    )
    assert samples == []
    assert why == "no"


def test_statistics_of_timings() -> None:
    assert spread([1.0, 2.0, 3.0]).p50 == 2


@pytest.mark.parametrize(
    ("found", "control", "says"),
    [
        (Ratio(0.8, 0.75, 0.85), Ratio(1, 0.99, 1.01), "faster"),
        (Ratio(1.3, 1.2, 1.4), Ratio(1, 0.99, 1.01), "slower"),
        (Ratio(0.8, 0.75, 0.85), Ratio(1, 0.7, 1.2), "no difference beyond noise"),
        (Ratio(0.99, 0.985, 0.995), Ratio(1, 1, 1), "no difference beyond noise"),
        (Ratio(0.8, 0.6, 1.1), Ratio(1, 1, 1), "no difference beyond noise"),
    ],
)
def test_no_claim_smaller_than_the_noise(found, control, says) -> None:
    assert claim(found, control) == says


def test_the_native_process_may_die_hang_and_starve() -> None:
    with Native(memory_bytes=512 << 20, seconds=5) as native:
        with pytest.raises(NativeError, match="killed the process"):
            native.call("evaluate", _dividing(), "ort")
        assert native.call("describe")["onnx"]
        with pytest.raises(NativeError):
            native.call("evaluate", _huge(), "ort")
        with pytest.raises(NativeError, match=r"did not finish within 0\.01 s"):
            native.call("evaluate", _slow(), "reference", seconds=0.01)
        assert native.call("describe")["onnx"]


def _dividing() -> bytes:
    text = (
        HEAD
        + "g () => (int64[1] y) <int64[1] a = {-9223372036854775808}, int64[1] z = {-1}> { y = Div (a, z) }"
    )
    return parse(text).to_bytes()


def _huge() -> bytes:
    text = HEAD + "g () => (float[A] y) <int64[1] n = {1000000000000}> { y = ConstantOfShape (n) }"
    return parse(text).to_bytes()


def _slow() -> bytes:
    text = (
        HEAD
        + "g () => (float[A] y) <int64[1] n = {30000000}> { z = ConstantOfShape (n)\n y = Exp (z) }"
    )
    return parse(text).to_bytes()


def test_beside_other_threads_the_process_is_started_afresh() -> None:
    done = threading.Event()
    other = threading.Thread(target=done.wait, daemon=True)
    other.start()
    try:
        with Native(seconds=60) as native:
            assert native.call("describe")["onnx"]
    finally:
        done.set()
        other.join()
