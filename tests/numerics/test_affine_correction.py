"""Corrections of mean and spread: the best there are, and judged by moments alone."""

from __future__ import annotations

import numpy as np
import pytest

from graphopt.numerics.affine_correction import GAINS, Deviation
from graphopt.numerics.streaming import Cross, CrossSpec, ElementRows, Moments, MomentsSpec

SEEDS = range(6)


def pair(seed: int, rows: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """What a layer of five channels gave, and what it gives."""
    rng = np.random.default_rng(seed)
    was = rng.standard_normal((rows, 5)) * rng.uniform(0.1, 9.0, 5) + rng.uniform(-20.0, 20.0, 5)
    gain = rng.uniform(0.7, 1.4, 5)
    now = (was - rng.uniform(-1.0, 1.0, 5)) / gain + 0.05 * rng.standard_normal((rows, 5))
    return was, now


def moments(values: np.ndarray) -> Moments:
    found = MomentsSpec(1).start()
    found.add(values)
    return found


def deviation(was: np.ndarray, now: np.ndarray) -> Deviation:
    return Deviation(moments(was), moments(now), moments(was - now))


@pytest.mark.parametrize("seed", SEEDS)
def test_errors_follow_from_moments(seed: int) -> None:
    was, now = pair(seed)
    known = deviation(was, now)
    for correction in (known.shifting(), known.scaling()):
        left = was - (correction.gain * now + correction.shift)
        real = np.square(left).mean(axis=0).sum()
        assert known.error(correction) == pytest.approx(real, rel=1e-9)
    assert known.error() == pytest.approx(np.square(was - now).mean(axis=0).sum(), rel=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_other_correction_is_better(seed: int) -> None:
    known = deviation(*pair(seed))
    rng = np.random.default_rng(seed)
    for best in (known.shifting(), known.scaling()):
        for _ in range(20):
            moved = type(best)(
                best.gain + (0.01 * rng.standard_normal(5) if (best.gain != 1).any() else 0.0),
                best.shift + 0.01 * rng.standard_normal(5),
            )
            assert known.error(moved) >= known.error(best)
    assert known.error(known.scaling()) < known.error(known.shifting()) < known.error()


@pytest.mark.parametrize("seed", SEEDS)
def test_samples_held_back_are_what_the_first_ones_leave(seed: int) -> None:
    was, now = pair(seed)
    rest = deviation(was, now).without(deviation(was[:150], now[:150]))
    held = deviation(was[150:], now[150:])
    correction = deviation(was[:150], now[:150]).scaling()
    assert rest.known
    assert rest.error(correction) == pytest.approx(held.error(correction), rel=1e-9)
    assert rest.spread == pytest.approx(held.spread, rel=1e-9)


def test_a_channel_that_stands_still_keeps_its_gain() -> None:
    was, now = pair(0)
    now[:, 2] = 7.0
    found = deviation(was, now).scaling()
    assert found.gain[2] == 1.0
    assert found.shift[2] == pytest.approx(was[:, 2].mean() - 7.0)


def test_gains_stay_within_bounds() -> None:
    was, now = pair(0)
    found = deviation(100.0 * was, now).scaling()
    assert (found.gain == GAINS[1]).all()
    assert (deviation(-was, now).scaling().gain == GAINS[0]).all()


def test_what_is_not_finite_or_of_different_counts_is_not_known() -> None:
    was, now = pair(0)
    assert deviation(was, now).known
    assert not Deviation(moments(was), moments(now[:10]), moments(was - now)).known
    was[0, 0] = np.nan
    assert not deviation(was, now).known
    assert not Deviation(Moments(1), Moments(1), Moments(1)).known


def test_without_is_the_inverse_of_merge() -> None:
    rng = np.random.default_rng(0)
    for scale, mean in ((1.0, 0.0), (1e-3, 1e4), (5.0, -30.0)):
        values = (scale * rng.standard_normal((90, 5)) + mean).astype(np.float64)
        whole, part, rest = moments(values), moments(values[:30]), moments(values[30:])
        found = whole.without(part)
        np.testing.assert_array_equal(found.count, rest.count)
        np.testing.assert_allclose(found.mean, rest.mean, rtol=1e-12)
        np.testing.assert_allclose(found.variance, rest.variance, rtol=1e-6)
        nothing = whole.without(whole)
        assert not nothing.count.any()
        assert not nothing.second.any()
    with pytest.raises(ValueError, match="more elements"):
        part.without(whole)


def test_elements_are_rows_of_one_feature() -> None:
    was, now = pair(3)
    found: Cross = CrossSpec(ElementRows(), ElementRows()).start()
    for start in range(0, len(was), 70):
        found.add(now[start : start + 70], was[start : start + 70])
    assert found.gram.rows == was.size
    assert found.covariance()[0, 0] == pytest.approx(np.cov(now.ravel(), was.ravel(), ddof=0)[0, 1])
    assert found.variance[0] == pytest.approx(was.var())
