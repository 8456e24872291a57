"""Clusters merged away: the cheapest per bit first, as far as an error allows."""

from __future__ import annotations

import numpy as np
import pytest

from graphopt.numerics.cluster_merging import furthest, merges
from graphopt.numerics.codebooks import clustered_to_fit
from graphopt.numerics.kmeans import cluster
from graphopt.numerics.rounding import output_error


def entropy(steps: np.ndarray) -> float:
    counts = np.bincount(steps.ravel())
    shares = counts[counts > 0] / steps.size
    return float(-(shares * np.log2(shares)).sum())


def test_a_small_cluster_goes_before_large_ones_as_near() -> None:
    found = merges(
        np.array([0.0, 1.0, 2.0, 3.0]), np.array([50, 50, 2, 50]), np.array([50, 50, 2, 50])
    )
    assert found[1].tolist() in (
        [0.0, 52 * (54 / 52) / 52, 54 / 52, 3.0],
        [0.0, 54 / 52, 54 / 52, 3.0],
    )


def test_near_ones_go_before_far_ones_as_small() -> None:
    found = merges(np.array([0.0, 0.1, 2.0, 4.0]), np.full(4, 9), np.full(4, 9.0))
    np.testing.assert_allclose(found[1], [0.05, 0.05, 2.0, 4.0])
    assert [len(np.unique(row)) for row in found] == [4, 3, 2]


def test_the_centre_that_is_zero_stays() -> None:
    found = merges(
        np.array([-0.1, 0.0, 0.1, 5.0]), np.array([3, 90, 3, 9]), np.array([3.0, 90, 3, 9]), True
    )
    assert found[1][1] == 0.0 and found[2].tolist() == [0.0, 0.0, 0.0, 5.0]


def test_each_row_costs_more_and_takes_fewer_bits() -> None:
    values = np.random.default_rng(0).normal(size=5000)
    centres, index = cluster(values, 24)
    counts = np.bincount(index)
    rows = merges(centres, counts, counts)
    errors = [np.square(row[index] - values).sum() for row in rows]
    bits = [entropy(np.unique(row[index], return_inverse=True)[1]) for row in rows]
    assert (np.diff(errors) > 0).all() and (np.diff(bits) < 0).all()


def test_clusters_without_weights_cost_nothing() -> None:
    found = merges(np.array([0.0, 1.0, 2.0]), np.array([4, 0, 4]), np.array([4.0, 0.0, 4.0]))
    assert found[1][[0, 2]].tolist() == [0.0, 2.0]


@pytest.mark.parametrize(("limit", "wanted"), [(0.5, None), (3.0, 3), (9.5, 9), (99.0, 20)])
def test_the_furthest_that_a_limit_allows_is_found(limit: float, wanted: int | None) -> None:
    assert furthest(20, lambda number: (float(number), number), limit) == wanted


@pytest.mark.parametrize("merge", [0.3, 1.0])
def test_the_outputs_lose_no_more_than_was_allowed(merge: float) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(300, 8)) @ rng.normal(size=(8, 32)) + 0.3 * rng.normal(size=(300, 32))
    gram, w = (x.T @ x / 300)[None], rng.normal(size=(1, 32, 40))
    before, after = (clustered_to_fit(w, 32, gram, merge=m) for m in (0.0, merge))
    lost = [output_error(found.values() - w, gram).sum() for found in (before, after)]
    assert lost[1] <= (1 + merge) * lost[0] * (1 + 1e-9)
    assert after.centres.shape[1] < before.centres.shape[1]
    assert entropy(after.steps) < entropy(before.steps)
