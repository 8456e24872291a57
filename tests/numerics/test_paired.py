from __future__ import annotations

import numpy as np
import pytest

from graphopt.numerics.paired import (
    Drop,
    binary_drop,
    drop_of_counts,
    resampled_drop,
    samples_to_decide,
    widened,
)


def test_no_difference_proves_only_the_rule_of_three() -> None:
    drop = drop_of_counts(0, 0, 1000, 0.95)
    assert drop.value == 0.0
    assert 1 - 0.05 ** (1 / 1000) <= drop.high < 4 / 1000  # exact: (1 - p)^n = 5 %
    assert drop.low == pytest.approx(-drop.high)


def test_the_published_example() -> None:
    # Against the root of the score equation, its nuisance found on a grid, written
    # independently of the code.
    lost, gained, n, z = 12, 2, 32, 1.959963984540054
    drop = drop_of_counts(lost, gained, n, 0.975)

    def statistic(d: float) -> float:
        q = np.linspace(max(0.0, -d), (1 - d) / 2, 200_001)[1:-1]
        likelihood = (
            lost * np.log(q + d) + gained * np.log(q) + (n - lost - gained) * np.log(1 - 2 * q - d)
        )
        best = q[np.nanargmax(likelihood)]
        return float(
            (lost - gained - n * d + 0.5 * np.sign(d - (lost - gained) / n))
            / np.sqrt(n * (2 * best + d * (1 - d)))
        )

    assert statistic(drop.high) == pytest.approx(-z, abs=2e-3)
    assert statistic(drop.low) == pytest.approx(z, abs=2e-3)


@pytest.mark.parametrize(
    ("p10", "p01"), [(0.004, 0.0), (0.01, 0.004), (0.02, 0.01), (0.05, 0.03), (0.2, 0.1)]
)
@pytest.mark.parametrize("n", [300, 2000])
def test_the_interval_covers_as_often_as_it_says(p10: float, p01: float, n: int) -> None:
    rng = np.random.default_rng(5)
    counts = rng.multinomial(n, [p10, p01, 1 - p10 - p01], 1500)
    pairs, times = np.unique(counts[:, :2], axis=0, return_counts=True)
    too_low = too_high = 0
    for (lost, gained), often in zip(pairs, times, strict=True):
        drop = drop_of_counts(int(lost), int(gained), n, 0.95)
        too_low += often * (drop.high < p10 - p01)
        too_high += often * (drop.low > p10 - p01)
    error = 3 * np.sqrt(0.05 * 0.95 / 1500)
    assert too_low / 1500 < 0.05 + error
    assert too_high / 1500 < 0.05 + error


def test_binary_drop_counts_pairs() -> None:
    before = np.array([1, 1, 1, 0, 0, 1.0])
    after = np.array([1, 0, 0, 1, 0, 1.0])
    assert binary_drop(before, after, 0.9) == drop_of_counts(2, 1, 6, 0.9)


def test_the_bootstrap_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    wrong = 0
    for _ in range(200):
        gaps = rng.exponential(1.0, 120) - 0.5  # skewed; true mean 0.5
        drop = resampled_drop(lambda w, g=gaps: w @ g / w.sum(axis=1), 120, 0.95)
        wrong += drop.high < 0.5
    assert wrong / 200 < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)


def test_a_bounded_measure_allows_for_what_was_not_seen() -> None:
    drop = resampled_drop(lambda w: np.zeros(len(w)), 100, 0.95, worst=1.0)
    assert drop.high == pytest.approx(0.03, rel=0.01)
    assert resampled_drop(lambda w: np.zeros(len(w)), 100, 0.95).high == 0.0


def test_a_smaller_tail_is_wider() -> None:
    gaps = np.random.default_rng(0).normal(0, 1, 500)

    def measure(w: np.ndarray) -> np.ndarray:
        return np.asarray(w @ gaps / w.sum(axis=1))

    ends = [resampled_drop(measure, 500, c).high for c in (0.9, 0.95, 0.99, 0.999)]
    assert ends == sorted(ends)
    error = 1 / np.sqrt(500)
    assert ends[-1] - gaps.mean() == pytest.approx(3.09 * error, rel=0.15)


def test_samples_to_decide() -> None:
    def interval(times: float) -> Drop:
        return drop_of_counts(0, 0, 100 * times, 0.95)

    more = samples_to_decide(interval, 100, 0.01)
    assert more is not None
    assert drop_of_counts(0, 0, 100 + more, 0.95).high <= 0.01
    assert drop_of_counts(0, 0, 100 + more - 3, 0.95).high > 0.01
    at_limit = Drop(0.01, 0.0, 0.02)
    assert samples_to_decide(lambda times: widened(at_limit, times), 100, 0.01) is None
