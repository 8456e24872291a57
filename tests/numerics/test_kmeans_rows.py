"""Rows that are clustered side by side: as each alone by Lloyd's algorithm from the same starts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphopt.numerics.kmeans import cluster
from graphopt.numerics.kmeans_rows import below, cluster_rows


def spread(values: np.ndarray, centres: np.ndarray, weights: np.ndarray) -> float:
    gaps = np.abs(values[:, None] - centres).min(axis=1)
    return float((weights * gaps**2).sum())


@pytest.mark.parametrize("k", [2, 5, 16])
@pytest.mark.parametrize("zero", [False, True])
def test_rows_are_near_the_best_of_each_alone(k: int, zero: bool) -> None:
    rng = np.random.default_rng(k)
    rows, mass = rng.normal(size=(9, 200)), rng.lognormal(size=(9, 200))
    found = cluster_rows(rows, k, mass, zero)
    assert found.shape == (9, k) and (np.diff(found, axis=1) >= 0).all()
    assert not zero or ((found == 0).sum(axis=1) >= 1).all()
    lost = []
    for row, own, centres in zip(rows, mass, found, strict=True):
        best, _ = cluster(row, k, own, zero)
        lost.append(spread(row, centres, own) / spread(row, best, own))
    assert np.mean(lost) <= 1.3


def test_what_weighs_nothing_has_no_say() -> None:
    rng = np.random.default_rng(3)
    rows, mass = rng.normal(size=(4, 60)), rng.lognormal(size=(4, 60))
    far = np.concatenate([rows, np.full((4, 7), -1e6)], axis=1)
    filled = np.concatenate([mass, np.zeros((4, 7))], axis=1)
    found, wanted = cluster_rows(far, 6, filled), cluster_rows(rows, 6, mass)
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_centres_are_the_means_of_their_clusters() -> None:
    rows = np.random.default_rng(5).normal(size=(3, 100))
    for row, centres in zip(rows, cluster_rows(rows, 4), strict=True):
        index = np.abs(row[:, None] - centres).argmin(axis=1)
        np.testing.assert_allclose([row[index == n].mean() for n in range(4)], centres)


def test_rows_of_few_numbers_are_met_exactly() -> None:
    rows = np.array([[1.0, 2.0, 2.0, 1.0], [5.0, 5.0, 5.0, 5.0]])
    found = cluster_rows(rows, 2)
    assert found.tolist() == [[1.0, 2.0], [5.0, 5.0]]


@given(st.integers(0, 10**6), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_numbers_are_counted_as_a_search_does(seed: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.integers(0, 9, (3, width)), axis=1).astype(float)
    numbers, own = rng.integers(-1, 10, (5, 3)).astype(float), np.arange(3)
    for strictly, side in ((True, "left"), (False, "right")):
        found = below(rows, numbers, own, strictly)
        wanted = [np.searchsorted(row, numbers[:, n], side=side) for n, row in enumerate(rows)]
        np.testing.assert_array_equal(found, np.array(wanted).T)
