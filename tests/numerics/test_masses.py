"""Points of many numbers: sums are kept, and clusters of them are about as good as those of the numbers."""

from __future__ import annotations

import numpy as np
import pytest

from graphopt.numerics import large_codebooks, masses
from graphopt.numerics.kmeans import cluster, divided
from graphopt.numerics.large_codebooks import LARGE, shared_to_fit
from graphopt.numerics.masses import Masses

DRAWN = {
    "t": lambda rng: rng.standard_t(5, (300, 400)),
    "heavy": lambda rng: rng.standard_t(2, 120_000),
    "far": lambda rng: 5 + 1e-3 * rng.standard_normal(120_000),
    "sided": lambda rng: rng.exponential(size=120_000),
}


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize("weighted", [False, True])
def test_clusters_of_points_are_as_good_as_those_of_numbers(monkeypatch, name, weighted) -> None:
    rng = np.random.default_rng(1)
    values = DRAWN[name](rng).astype(np.float32)
    weights = rng.lognormal(size=values.shape) if weighted else None
    errors = {}
    for few in (False, True):
        monkeypatch.setattr(masses, "EXACT", 0 if few else values.size)
        points = Masses(values, weights)
        assert (len(points.values) < masses.BINS) == few
        assert (np.diff(points.values) >= 0).all()
        mass = np.ones(values.shape) if weights is None else weights
        wide = values.astype(np.float64)
        for sums, wanted in ((points.mass, mass), (points.second, mass * wide**2)):
            assert sums[-1] == pytest.approx(wanted.sum(), rel=1e-9)
        for k in (3, 16, 64):
            centres, index = cluster(values, k, weights)
            errors[few, k] = float((mass * np.square(centres[index] - wide)).sum())
            assert divided(points, k)[1] == pytest.approx(errors[few, k], rel=1e-2)
    assert all(errors[True, k] <= 1.003 * errors[False, k] for k in (3, 16, 64))


def test_few_values_of_many_numbers_are_kept(monkeypatch) -> None:
    monkeypatch.setattr(masses, "EXACT", 0)
    values = np.random.default_rng(0).choice(np.float32([-3, 0, 1, 1.0000001, 9]), 30_000)
    centres, index = cluster(values, 8)
    assert np.array_equal(centres[index], values)
    assert np.array_equal(cluster(np.full(20_000, 7.0), 4)[0], [7.0])


@pytest.mark.parametrize("zero", [False, True])
def test_large_layers_are_rounded_to_fit(zero: bool) -> None:
    rng = np.random.default_rng(3)
    weights = rng.standard_t(5, (1, 32, LARGE // 32 + 32)).astype(np.float32)
    x = rng.standard_normal((200, 32)) @ rng.standard_normal((32, 32))
    gram = (x.T @ x / 200)[None]
    zeros = rng.random(weights.shape) < 0.3 if zero else None
    if zeros is not None:
        weights[zeros] = 0.0
    found = shared_to_fit(weights, 8, gram, zeros, np.float32)
    centres, index = cluster(
        weights, 8, np.broadcast_to(np.diagonal(gram[0])[:, None], weights.shape), zero
    )

    def lost(values: np.ndarray) -> float:
        gap = values.astype(np.float64) - weights
        return float(np.vdot(gap, gram @ gap))

    assert found.dtype == np.float32
    assert len(np.unique(found)) <= 8
    assert lost(found) < 0.8 * lost(centres[index])
    assert zeros is None or not found[zeros].any()


def test_values_of_a_large_layer_reach_its_largest_output(monkeypatch) -> None:
    """One output among many that is ten times as large, as the blank of a CTC decoder is."""
    rng = np.random.default_rng(3)
    weights = rng.standard_normal((1, 32, 600))
    weights[:, :, 101] *= 10
    monkeypatch.setattr(large_codebooks, "LARGE", 0)
    found = shared_to_fit(weights, 64, np.eye(32)[None])
    gap = np.square(found - weights).sum(axis=(0, 1)) / np.square(weights).sum(axis=(0, 1))
    assert gap[101] < 0.01


def test_few_outputs_of_many_weights_are_all_looked_at(monkeypatch) -> None:
    """Two outputs of unlike values: a codebook of the larger one alone would serve the other badly."""
    rng = np.random.default_rng(3)
    weights = rng.standard_normal((1, 300, 2)) * 0.1 + [0.0, 2.7]
    weights[0, 0, 0] = 10.0
    monkeypatch.setattr(large_codebooks, "LARGE", 0)
    monkeypatch.setattr(large_codebooks, "SAMPLE", 300)
    found = shared_to_fit(weights, 16, np.eye(300)[None])
    centres, index = cluster(weights, 16)
    gap, least = (np.square(v - weights).sum() for v in (found, centres[index]))
    assert gap <= 1.01 * least
