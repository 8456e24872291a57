"""Grids, clusters and magnitudes: what can be done to weights, against brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphopt.numerics.grids import (
    covering_scale,
    dequantized,
    fitted_scale,
    largest,
    quantized,
)
from graphopt.numerics.importance import without_smallest
from graphopt.numerics.kmeans import cluster, nearest

numbers = st.lists(st.floats(-100, 100, width=32), min_size=2, max_size=40).map(np.array)


@pytest.mark.parametrize("bits", [2, 3, 4, 8, 16])
@given(values=numbers)
@settings(max_examples=30, deadline=None)
def test_inside_the_range_the_error_is_half_a_step(bits: int, values: np.ndarray) -> None:
    scale = covering_scale(values, bits, (0,))
    steps = quantized(values, scale, bits)
    assert np.abs(steps).max() <= largest(bits)
    gap = np.abs(dequantized(steps, scale) - values)
    assert (gap <= scale / 2 * (1 + 1e-12)).all()
    assert (steps[values == 0] == 0).all()


@given(values=numbers)
@settings(max_examples=50, deadline=None)
def test_a_fitted_scale_is_never_worse_than_the_covering_one(values: np.ndarray) -> None:
    def error(scale: np.ndarray) -> float:
        return float(np.square(dequantized(quantized(values, scale, 3), scale) - values).sum())

    assert error(fitted_scale(values, 3, (0,))) <= error(covering_scale(values, 3, (0,)))


def test_an_outlier_is_clipped_where_that_pays() -> None:
    values = np.concatenate([np.linspace(-1, 1, 999), [3.0]])
    assert fitted_scale(values, 4, (0,))[0] < covering_scale(values, 4, (0,))[0]


def test_each_channel_has_its_scale() -> None:
    values = np.array([[1.0, -2.0], [100.0, 50.0]])
    assert covering_scale(values, 8, (1,)).ravel().tolist() == [2 / 127, 100 / 127]
    assert covering_scale(np.zeros((2, 3)), 8, (1,)).ravel().tolist() == [1.0, 1.0]


@given(values=numbers, share=st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_the_smallest_go(values: np.ndarray, share: float) -> None:
    left = without_smallest(values, share)
    count = round(share * values.size)
    gone = (left == 0) & (values != 0)
    assert np.count_nonzero(left == 0) >= count
    assert gone.sum() <= count
    if gone.any() and (left != 0).any():
        assert np.abs(values[gone]).max() <= np.abs(values[left != 0]).min()


def _best_error(values: np.ndarray, k: int) -> float:
    """The least squared error of any division of sorted numbers into k runs."""
    ordered = np.sort(values)
    best = np.inf
    for cuts in itertools.combinations(range(1, len(ordered)), k - 1):
        parts = np.split(ordered, cuts)
        best = min(best, sum(float(np.square(p - p.mean()).sum()) for p in parts))
    return best


@pytest.mark.parametrize("seed", range(8))
def test_clusters_are_near_the_best_division(seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=14)
    centres, index = cluster(values, 3)
    error = float(np.square(centres[index] - values).sum())
    assert error <= 1.5 * _best_error(values, 3) + 1e-12
    assert np.array_equal(index, np.abs(values[:, None] - centres).argmin(axis=1))


def test_few_distinct_numbers_are_kept_as_they_are() -> None:
    values = np.array([[0.5, -1.0], [0.5, 2.0]])
    centres, index = cluster(values, 4)
    assert centres.tolist() == [-1.0, 0.5, 2.0]
    assert np.array_equal(centres[index], values)


def test_weights_pull_the_centres() -> None:
    values = np.array([0.0, 1.0, 10.0, 11.0])
    centres, _ = cluster(values, 2, np.array([1.0, 3.0, 1.0, 0.0]))
    assert centres.tolist() == [0.75, 10.0]


def test_nearest_takes_the_nearer_centre() -> None:
    assert nearest(np.array([0.0, 1.0, 4.0]), np.array([-5.0, 0.4, 0.6, 2.4, 2.6])).tolist() == [
        0,
        0,
        1,
        1,
        2,
    ]
