"""Clusters of single numbers: the best there are, and 0 kept where it is asked for; against brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphopt.numerics import kmeans
from graphopt.numerics.divisions import best_division
from graphopt.numerics.kmeans import cluster, nearest


def error(values: np.ndarray, centres: np.ndarray, weights: np.ndarray | float = 1.0) -> float:
    gap = centres[nearest(centres, values)] - values
    return float((weights * np.square(gap)).sum())


def least_error(values: np.ndarray, weights: np.ndarray, k: int, zero: bool) -> float:
    """Of all divisions of sorted numbers into runs; one of them, maybe empty, may have 0 as its centre."""
    best = np.inf
    for cuts in itertools.combinations_with_replacement(range(len(values) + 1), k - 1):
        parts = [
            (values[own], weights[own]) for own in map(slice, (0, *cuts), (*cuts, len(values)))
        ]
        free, pinned = [], []
        for own, weight in parts:
            mass = weight.sum()
            mean = (weight * own).sum() / mass if mass else 0.0
            free.append(float((weight * np.square(own - mean)).sum()))
            pinned.append(float((weight * np.square(own)).sum()))
        extra = min(p - f for f, p in zip(free, pinned, strict=True)) if zero else 0.0
        best = min(best, sum(free) + extra)
    return best


@given(st.integers(0, 10**6), st.integers(1, 4), st.booleans(), st.booleans())
@settings(max_examples=120, deadline=None)
def test_no_division_is_better(seed: int, k: int, zero: bool, weighted: bool) -> None:
    rng = np.random.default_rng(seed)
    values = np.sort(rng.normal(rng.normal(), rng.lognormal(), size=rng.integers(1, 11)))
    weights = rng.integers(0, 4, len(values)) * rng.random() if weighted else np.ones(len(values))
    centres, index = cluster(values, k, weights, zero)
    assert (np.diff(centres) > 0).all() and len(centres) <= k
    assert np.array_equal(index, nearest(centres, values))
    wanted = least_error(values, weights, k, zero) if len(values) > k else 0.0
    power = float((weights * np.square(values)).sum())
    assert error(values, centres, weights) <= wanted * (1 + 1e-9) + 1e-12 * power
    if zero and len(values) > k:
        assert 0.0 in centres


@pytest.mark.parametrize("k", [2, 4, 16, 256])
@pytest.mark.parametrize("zero", [False, True])
def test_it_is_never_worse_than_lloyd(k: int, zero: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(k).standard_t(3, size=(40, 500)).astype(np.float32)
    values[:, ::7] = 0.0
    found = error(values, cluster(values, k, zero=zero)[0])
    monkeypatch.setattr(kmeans._Points, "divided", lambda self, k, zero: self.even(k))
    assert found <= error(values, cluster(values, k, zero=zero)[0])


@pytest.mark.parametrize("k", [2, 8, 64])
def test_zeros_stay_zeros(k: int) -> None:
    values = np.random.default_rng(k).normal(0.3, size=3000)
    values[::2] = 0.0
    centres, index = cluster(values, k, zero=True)
    assert (centres[index][::2] == 0).all()
    assert np.count_nonzero(centres) == k - 1


def test_many_clusters_of_many_numbers() -> None:
    """More clusters than bins: what the other starts give."""
    values = np.random.default_rng(0).normal(size=8000)
    centres, _ = cluster(values, 3000)
    assert 2500 < len(centres) <= 3000
    even = np.linspace(values.min(), values.max(), 3000)
    assert error(values, centres) < 0.9 * error(values, even)


def test_items_cannot_be_divided_into_more_intervals() -> None:
    assert best_division(np.ones((3, 3)), 2).borders.tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="2 items cannot be divided into 3 intervals"):
        best_division(np.ones((3, 3)), 3)


@pytest.mark.parametrize(("draw", "constant"), [("standard_normal", 2.72), ("laplace", 4.5)])
def test_256_clusters_come_near_what_theory_allows(draw: str, constant: float) -> None:
    """``constant / k^2`` of the power (Panter and Dite, 1951); Lloyd alone stops at several times of it."""
    numbers = getattr(np.random.default_rng(0), draw)(size=100_000)
    centres, index = cluster(numbers, 256)
    error = np.square(numbers - centres[index]).mean() / np.square(numbers).mean()
    assert error <= 1.05 * constant / 256**2


def test_neighbouring_floats_are_told_apart() -> None:
    values = 1.0 + np.arange(6) * np.finfo(np.float64).eps
    assert np.array_equal(nearest(values, values), np.arange(6))
    centres, index = cluster(values, 8)
    assert np.array_equal(centres[index], values)
