"""Verdicts: what the rows of two models say against a budget."""

from __future__ import annotations

import math

import numpy as np
import pytest

from graphopt.errors import UsageError
from graphopt.ir.model import Model
from graphopt.quality.gate import Budget, confidence_of_trial, fraction, verdict
from graphopt.quality.metrics import Metric, parse_metric
from graphopt.testing import parse

MODEL = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N,4] x) => (float[N,4] y) { y = Relu(x) }"""


@pytest.fixture(scope="module")
def model() -> Model:
    return parse(MODEL)


@pytest.fixture(scope="module")
def top1(model: Model) -> Metric:
    return parse_metric("top1", model)


def rows(right: int, samples: int) -> np.ndarray:
    return (np.arange(samples) < right).astype(np.float64)[:, None]


def test_no_loss_on_many_samples_passes(top1: Metric) -> None:
    same = rows(900, 1000)
    found = verdict(Budget(0.01), top1, same, same, 0.95)
    assert (found.verdict, found.drop.value, found.more) == ("pass", 0.0, None)
    assert (found.before, found.after, found.samples) == (0.9, 0.9, 1000)


def test_no_loss_on_few_samples_is_unsure_and_says_how_many_more(top1: Metric) -> None:
    same = rows(50, 50)
    found = verdict(Budget(0.01), top1, same, same, 0.95)
    assert found.verdict == "unsure"
    assert found.tolerable
    assert found.more is not None
    assert f"about {found.more} more would" in found.why
    enough = rows(50 + found.more, 50 + found.more)
    assert verdict(Budget(0.01), top1, enough, enough, 0.95).verdict == "pass"


def test_a_loss_beyond_the_limit_fails(top1: Metric) -> None:
    found = verdict(Budget(0.01), top1, rows(960, 1000), rows(920, 1000), 0.95)
    assert found.verdict == "fail"
    assert not found.tolerable
    assert "exceeds 1 %" in found.why


def test_a_loss_near_the_limit_is_unsure_and_only_tolerable_below_it(top1: Metric) -> None:
    below = verdict(Budget(0.01), top1, rows(960, 1000), rows(952, 1000), 0.95)
    above = verdict(Budget(0.01), top1, rows(960, 1000), rows(948, 1000), 0.95)
    assert (below.verdict, above.verdict) == ("unsure", "unsure")
    assert (below.tolerable, above.tolerable) == (True, False)


def test_a_likely_drop_keeps_a_distance_from_the_limit(top1: Metric) -> None:
    near = verdict(Budget(0.01), top1, rows(960, 1000), rows(952, 1000), 0.95)
    assert near.tolerable
    assert not near.likely
    assert near.drop.spread == pytest.approx(math.sqrt(0.008 * 0.992 / 1000))
    far = verdict(Budget(0.02), top1, rows(960, 1000), rows(952, 1000), 0.999999)
    assert far.verdict == "unsure"
    assert far.likely


def test_two_halves_of_the_data_tell_more_than_one(top1: Metric) -> None:
    near = verdict(Budget(0.01), top1, rows(960, 1000), rows(952, 1000), 0.95)
    better = verdict(Budget(0.01), top1, rows(960, 1000), rows(957, 1000), 0.95)
    assert near.likely_with(better)
    assert near.likely_with(near) == (0.008 + near.drop.spread / math.sqrt(2) <= 0.01)
    worse = verdict(Budget(0.01), top1, rows(960, 1000), rows(940, 1000), 0.95)
    assert not near.likely_with(worse)
    assert not worse.likely_with(better)  # what is judged itself must be tolerable


def test_the_spread_of_resamples_is_the_standard_error(model: Model) -> None:
    cosine = parse_metric("cosine", model)
    near = 1 - np.random.default_rng(0).exponential(0.002, (200, 1))
    shape, other = (cosine_rows(cosine, part) for part in (np.ones((200, 1)), near))
    found = verdict(Budget(0.01), cosine, shape, other, 0.95)
    assert found.drop.spread == pytest.approx(near.std() / math.sqrt(200), rel=0.1)


def test_a_drop_exactly_at_the_limit_cannot_be_decided(top1: Metric) -> None:
    found = verdict(Budget(0.01), top1, rows(960, 1000), rows(950, 1000), 0.95)
    assert (found.verdict, found.more) == ("unsure", None)
    assert "no number of samples" in found.why


def test_losses_and_gains_are_paired(top1: Metric) -> None:
    before = rows(500, 1000)
    shifted = np.roll(before, 500, axis=0)  # as many right, all others
    found = verdict(Budget(0.01), top1, before, shifted, 0.95)
    assert found.drop.value == 0.0
    assert found.verdict == "unsure"  # the same accuracy, but nothing like the same model


def test_the_floor_is_a_limit_too(top1: Metric) -> None:
    before, after = rows(9000, 10_000), rows(8800, 10_000)
    assert verdict(Budget(None, floor=0.85), top1, before, after, 0.95).verdict == "pass"
    assert verdict(Budget(None, floor=0.89), top1, before, after, 0.95).verdict == "fail"
    assert verdict(Budget(0.01, floor=0.5), top1, before, after, 0.95).limit == 0.01


def test_nothing_limits(top1: Metric) -> None:
    found = verdict(Budget(None), top1, rows(100, 100), rows(0, 100), 0.95)
    assert (found.verdict, found.limit) == ("pass", None)


def test_a_measure_of_fidelity_is_judged_by_drawing_samples_anew(model: Model) -> None:
    cosine = parse_metric("cosine", model)
    before = np.ones((200, 1))
    near = 1 - np.random.default_rng(0).exponential(0.002, (200, 1))
    shape = cosine_rows(cosine, before)
    good = verdict(Budget(0.01), cosine, shape, cosine_rows(cosine, near), 0.95)
    bad = verdict(Budget(0.001), cosine, shape, cosine_rows(cosine, near), 0.95)
    assert (good.verdict, bad.verdict) == ("pass", "fail")
    assert good.drop.low < good.drop.value < good.drop.high


def cosine_rows(metric: Metric, values: np.ndarray) -> np.ndarray:
    """Rows as the metric itself makes them, of vectors with the given cosines."""
    from graphopt.quality.metrics import Observed

    angle = np.arccos(np.clip(values[:, 0], -1, 1))
    outputs = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    reference = np.stack([np.ones(len(angle)), np.zeros(len(angle))], axis=1)
    seen = Observed({"y": outputs}, {"y": reference}, None, len(angle))
    return metric.rows(seen)


def test_noise_that_never_ends_fails(model: Model) -> None:
    sqnr = parse_metric("sqnr", model)
    from graphopt.quality.metrics import Observed

    reference = np.ones((10, 4))
    broken = np.full((10, 4), np.nan)
    before = sqnr.rows(Observed({"y": reference}, {"y": reference}, None, 10))
    after = sqnr.rows(Observed({"y": broken}, {"y": reference}, None, 10))
    assert verdict(Budget(0.5), sqnr, before, after, 0.95).verdict == "fail"


def test_all_trials_together_keep_to_the_confidence() -> None:
    errors = [1 - confidence_of_trial(0.95, k) for k in range(1, 100_000)]
    assert sum(errors) == pytest.approx(0.05, rel=1e-4)
    assert sum(errors) < 0.05
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize(
    ("text", "value"),
    [("0.5%", 0.005), (" 1 %", 0.01), ("0.005", 0.005), ("0", 0.0), ("100%", 1.0)],
)
def test_fractions(text: str, value: float) -> None:
    assert fraction(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["1", "5", "half", "", "%"])
def test_what_is_no_fraction_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        fraction(text)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_drop": -0.1},
        {"max_drop": math.nan},
        {"confidence": 0.4},
        {"confidence": 1.0},
        {"floor": math.inf},
    ],
)
def test_budgets_that_make_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Budget(**wrong)
