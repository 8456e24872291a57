"""Metrics of fidelity against plain formulas; special values; outputs of every form."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from graphopt.errors import UsageError
from graphopt.quality.metrics import Metric, Observed
from graphopt.quality.metrics.fidelity import Agreement, Cosine, Equal
from graphopt.quality.metrics.kl import KL
from graphopt.quality.metrics.noise import SQNR, WorstDifference

FLOATS = st.floats(-8, 8, width=32)
WORST_KL = -math.log(float(np.finfo(np.float32).tiny))


def seen(reference, candidate, size: int | None = None) -> Observed:
    reference, candidate = (
        side if isinstance(side, dict) else {"y": np.asarray(side)}
        for side in (reference, candidate)
    )
    count = len(next(iter(reference.values()))) if size is None else size
    return Observed(candidate, reference, None, count)


def value(metric: Metric, reference, candidate, size: int | None = None) -> float:
    return metric.value(metric.rows(seen(reference, candidate, size)))


def drop(metric: Metric, after: float) -> float:
    before = np.array([value(metric, [[1.0, 2.0]], [[1.0, 2.0]])])
    return float(metric.drop(before, np.array([after]))[0])


def refused(metric: Metric, batch: Observed) -> str:
    with pytest.raises(UsageError) as caught:
        metric.rows(batch)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@settings(max_examples=60, deadline=None)
@given(arrays(np.float32, (3, 4), elements=FLOATS), arrays(np.float32, (3, 4), elements=FLOATS))
def test_formulas(a: np.ndarray, b: np.ndarray) -> None:
    first, second = a.astype(np.float64), b.astype(np.float64)
    assert value(Agreement(), a, b) == np.mean(a.argmax(1) == b.argmax(1))
    assert value(Equal(), a, b) == np.mean(a == b)
    gap = np.abs(first - second).max()
    peak = np.abs(first).max()
    if peak:
        assert value(WorstDifference(), a, b) == pytest.approx(gap / peak)
    noise = np.square(first - second).sum()
    if noise and np.square(first).sum():
        expected = 10 * math.log10(np.square(first).sum() / noise)
        assert value(SQNR(), a, b) == pytest.approx(expected)
    cosines = [
        np.dot(x, y) / (np.linalg.norm(x) * np.linalg.norm(y)) for x, y in zip(first, second, strict=True)
        if x.any() and y.any()
    ]  # fmt: skip
    if len(cosines) == 3:
        assert value(Cosine(), a, b) == pytest.approx(np.mean(cosines), abs=1e-9)
    p, q = (np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in (first, second))
    divergence = (p * np.log(p / q)).sum(1).mean()
    assert value(KL(scores="logits"), a, b) == pytest.approx(divergence, abs=1e-9)
    assert value(KL(), p, q) == pytest.approx(divergence, abs=1e-9)


def test_drops_are_in_the_units_of_a_budget() -> None:
    assert drop(SQNR(), 20.0) == pytest.approx(0.01)
    assert drop(SQNR(), math.inf) == 0
    assert drop(SQNR(), -math.inf) == math.inf
    assert drop(Cosine(), 0.99) == pytest.approx(0.01)
    assert drop(Agreement(), 0.99) == pytest.approx(0.01)
    assert drop(KL(), 0.02) == pytest.approx(0.02)
    assert drop(WorstDifference(), 0.03) == pytest.approx(0.03)


def test_equal_outputs_are_perfect_whatever_they_hold() -> None:
    odd = np.array([[np.nan, 1, np.inf], [0, 0, 0], [-np.inf, 2, 3]], np.float32)
    perfect = {Agreement: 1, Equal: 1, Cosine: 1, SQNR: math.inf, WorstDifference: 0, KL: 0}
    for kind, best in perfect.items():
        assert value(kind(), odd, odd.copy()) == best
    for metric in (Cosine(), SQNR(), WorstDifference(), Equal()):
        best = perfect[type(metric)]
        assert value(metric, np.zeros((2, 0), np.float32), np.zeros((2, 0), np.float32)) == best
        assert value(metric, np.array(np.nan), np.array(np.nan), 1) == best
        assert value(metric, np.zeros((0, 4)), np.zeros((0, 4)), 2) == best
    named = KL(output="y")
    assert value(named, np.zeros((2, 0, 4), np.float32), np.zeros((2, 0, 4), np.float32)) == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_becomes_infinite_or_nan_is_the_worst(bad: float) -> None:
    good = np.array([[1.0, 2, 3], [3, 2, 1]], np.float32)
    broken = good.copy()
    broken[0, 0] = bad
    for a, b in ((good, broken), (broken, good)):
        rows = Cosine().rows(seen(a, b))
        assert rows[:, 0].tolist() == [-1, pytest.approx(1)]
        assert value(SQNR(), a, b) == -math.inf
        assert value(WorstDifference(), a, b) == math.inf
        weights = np.array([[0, 1], [1, 1]])
        for metric, values in ((SQNR(), [math.inf, -math.inf]), (WorstDifference(), [0, math.inf])):
            assert metric.values(metric.rows(seen(a, b)), weights).tolist() == values
    if bad != -np.inf:  # a logit of minus infinity is a probability of 0
        assert KL().rows(seen(good, broken))[:, 0].tolist() == [pytest.approx(WORST_KL), 0]
    if np.isnan(bad):
        assert Agreement().rows(seen(good, broken))[:, 0].tolist() == [0, 1]


def test_zero_vectors() -> None:
    zero, one = np.zeros((1, 3)), np.ones((1, 3))
    assert value(Cosine(), zero, zero) == 1
    assert value(Cosine(), zero, one) == 0
    assert value(Cosine(), one, zero) == 0
    assert value(Cosine(), one, -one) == -1
    assert value(SQNR(), zero, one) == -math.inf
    assert value(SQNR(), one, zero) == 0
    assert value(WorstDifference(), zero, one) == math.inf
    assert value(WorstDifference(), zero, zero) == 0


def test_extremes_of_the_range() -> None:
    for scale in (1e300, 1e-300, 5e-324):
        assert value(Cosine(), [[scale, 0]], [[scale, scale]]) == pytest.approx(math.sqrt(0.5))
    assert value(WorstDifference(), [[1.7e308]], [[-1.7e308]]) == math.inf
    assert value(SQNR(), [[1e200]], [[2e200]]) == -math.inf
    assert value(SQNR(), [[1.0, 1.0]], [[1.0, 1.0 + 1e-12]]) == pytest.approx(243, abs=0.5)


def test_kl_is_safe_at_zero_and_bounded() -> None:
    p = np.array([[1.0, 0, 0], [0.5, 0.5, 0]])
    q = np.array([[0.0, 1, 0], [0.5, 0, 0.5]])
    half = 0.5 * (math.log(0.5) + WORST_KL)
    assert KL().rows(seen(p, q))[:, 0].tolist() == pytest.approx([WORST_KL, half])
    assert KL().rows(seen(p, p))[:, 0].tolist() == [0, 0]
    assert KL().rows(seen(p, np.zeros((2, 3))))[:, 0].tolist() == pytest.approx([WORST_KL] * 2)
    logits = np.array([[0.0, -1e30, -np.inf], [1e30, 0, 0]])
    assert KL().rows(seen(logits, logits))[:, 0].tolist() == [0, 0]
    assert KL().rows(seen(logits, logits[:, ::-1]))[:, 0].max() == pytest.approx(WORST_KL)
    rounded = KL().rows(seen([[0.25, 0.75]], [[0.2501, 0.7502]]))
    assert 0 <= rounded[0, 0] < 1e-6
    unsure = np.array([[0.3, 0.7]])
    assert value(KL(scores="logits"), unsure, unsure[:, ::-1]) < value(
        KL(), unsure, unsure[:, ::-1]
    )


def test_coarse_probabilities_are_probabilities() -> None:
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(40), 20)
    q = rng.dirichlet(np.ones(40), 20)
    exact = value(KL(), p, q)
    for dtype in (np.float16, ml_dtypes.bfloat16):
        narrow = p.astype(dtype), q.astype(dtype)
        assert value(KL(), *narrow) == pytest.approx(exact, rel=0.02)
        assert value(KL(), narrow[0].astype(np.float32), narrow[1]) == pytest.approx(
            exact, rel=0.02
        )


def test_kl_along_an_axis() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((2, 2, 3, 4, 5))
    p, q = (np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in (a, b))
    expected = (p * np.log(p / q)).sum(1).mean()
    assert value(KL(output="y", axis=1), a, b) == pytest.approx(expected)
    last = np.moveaxis(a, 1, -1), np.moveaxis(b, 1, -1)
    assert value(KL(output="y"), *last) == pytest.approx(expected)
    assert value(KL(output="y", axis=-3), a, b) == pytest.approx(expected)
    whole = seen({"y": a[0]}, {"y": b[0]}, 1)  # one sample without a batch axis
    found = KL(output="y", axis=0).rows(whole)
    assert found.tolist() == [[pytest.approx((p * np.log(p / q)).sum(1)[0].mean())]]
    for axis in (0, 4, -5):
        assert "is no axis of classes" in refused(KL(output="y", axis=axis), seen(a, b))
    assert "wants scores of at least two classes" in refused(KL(), seen(a, b))
    pooled = a[:, :, :1, :1], b[:, :, :1, :1]
    assert value(KL(), *pooled) == pytest.approx(
        value(KL(), pooled[0][..., 0, 0], pooled[1][..., 0, 0])
    )


def test_several_outputs_count_as_the_worst() -> None:
    rng = np.random.default_rng(2)
    a = {name: rng.standard_normal((6, 3)).astype(np.float32) for name in "pq"}
    b = {name: array + 0.3 * rng.standard_normal((6, 3)) for name, array in a.items()}
    ids = np.arange(6)
    a["ids"], b["ids"] = ids, ids + 1
    for kind in (Cosine, Agreement):
        each = [kind(output=name).rows(seen(a, b)) for name in "pq"]
        np.testing.assert_array_equal(kind().rows(seen(a, b)), np.minimum(*each))
    each = [KL(output=name).rows(seen(a, b)) for name in "pq"]
    np.testing.assert_array_equal(KL().rows(seen(a, b)), np.maximum(*each))
    noisy = b | {"q": a["q"]}
    assert value(SQNR(), a, noisy) == value(SQNR(output="p"), a, noisy)
    assert value(SQNR(output="q"), a, noisy) == math.inf
    assert value(WorstDifference(), a, noisy) == value(WorstDifference(output="p"), a, noisy)
    assert value(Equal(), a, noisy) == 0
    assert value(Equal(output="q"), a, noisy) == 1


def test_outputs_that_are_not_of_the_batch_make_one_row() -> None:
    batch = {"y": np.ones((4, 3)), "total": np.array(7.0)}
    other = {"y": np.ones((4, 3)), "total": np.array(7.7)}
    for metric in (Cosine(), SQNR(), WorstDifference(), Equal()):
        assert len(metric.rows(seen(batch, other, 4))) == 1
    assert value(SQNR(), batch, other, 4) == pytest.approx(20)
    assert len(Cosine(output="y").rows(seen(batch, other, 4))) == 4
    rows = np.eye(3)[[0, 1, 2]]
    assert Agreement().rows(seen(rows, rows, 1)).tolist() == [[1]]
    assert Agreement().rows(seen(rows, np.eye(3)[[0, 1, 1]], 1)).tolist() == [[0]]
    assert Agreement().rows(seen(rows[0], rows[0] + 1, 1)).tolist() == [[1]]
    found = {"boxes": np.ones((9, 4))}
    assert len(Cosine().rows(seen(found, found, 2))) == 1
    assert len(Cosine().rows(seen(found, found, 1))) == 1


def test_other_shapes_are_the_worst() -> None:
    a, b = np.ones((2, 5)), np.ones((2, 6))
    worst = {Agreement: 0, Equal: 0, Cosine: -1, SQNR: -math.inf, WorstDifference: math.inf}
    for kind, least in worst.items():
        assert value(kind(), a, b) == least
    assert value(KL(), a, b) == pytest.approx(WORST_KL)
    assert value(Cosine(), a, a.astype(str)) == -1
    detections = {"y": np.ones((3, 4))}, {"y": np.ones((2, 4))}
    assert Cosine().rows(seen(*detections, 8)).tolist() == [[-1]]


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn])
def test_narrow_floats(dtype) -> None:
    a = np.array([[1.0, 2, 3], [4, 5, 6]]).astype(dtype)
    b = np.array([[1.0, 2, 3], [4, 5, 7]]).astype(dtype)
    expected = 10 * math.log10(91)
    assert value(SQNR(), a, b) == pytest.approx(expected)
    assert value(SQNR(), a.astype(np.float32), b) == pytest.approx(expected)  # as kept on disk
    assert value(Equal(), a, b) == pytest.approx(5 / 6)
    assert value(WorstDifference(), a, b) == pytest.approx(1 / 6)


def test_what_cannot_be_compared_is_refused() -> None:
    ids = {"ids": np.arange(3)}
    words = {"words": np.array(["a", "b"], object)}
    for metric in (Cosine(), SQNR(), WorstDifference(), KL(), Agreement()):
        assert "no output is that. Outputs: ids int64[3]" in refused(metric, seen(ids, ids))
        named = type(metric)(output="ids")
        assert "the output 'ids' is int64[3]" in refused(named, seen(ids, ids))
        assert "'gone' is no tensor" in refused(type(metric)(output="gone"), seen(ids, ids))
    assert "words string[2]" in refused(Equal(), seen(words, words))
    floats = {"y": np.ones((2, 2))}
    assert "'y' is no tensor" in refused(Cosine(), seen(floats, {}))
    assert "'y' is no tensor" in refused(Cosine(output="y"), seen({"y": [floats]}, {}))
