"""Refits: against ordinary least squares, on layers of which the data say little, and in blocks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphopt.numerics.least_squares import (
    STRENGTHS,
    cross_validated,
    match_moments,
    ridge,
    ridge_in_blocks,
)
from graphopt.numerics.streaming import CrossSpec

Moments = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def moments(x: np.ndarray, y: np.ndarray) -> Moments:
    """H, G and the means of X and Y."""
    a, b = x - x.mean(axis=0), y - y.mean(axis=0)
    return a.T @ a / len(x), a.T @ b / len(x), x.mean(axis=0), y.mean(axis=0)


def squared(x: np.ndarray, y: np.ndarray, w: np.ndarray, b: np.ndarray) -> float:
    return float(np.square(y - x @ w - b).sum())


def data(seed: int, rows: int = 200, features: int = 8, targets: int = 3) -> list[np.ndarray]:
    """X with means far from 0, Y that is not linear in it, and other weights."""
    rng = np.random.default_rng(seed)
    mixed = np.eye(features) + rng.normal(size=(features, features)) / features
    x = rng.normal(size=(rows, features)) @ mixed + 5
    y = np.tanh(x @ rng.normal(size=(features, targets))) + 2
    return [x, y, rng.normal(size=(features, targets))]


@pytest.mark.parametrize("seed", range(3))
def test_without_a_ridge_it_is_least_squares(seed: int) -> None:
    x, y, towards = data(seed)
    weights, bias = ridge(*moments(x, y), towards, strength=0)
    expected = np.linalg.lstsq(np.c_[x, np.ones(len(x))], y, rcond=None)[0]
    assert np.allclose(weights, expected[:-1], rtol=1e-6)
    assert np.allclose(bias, expected[-1], rtol=1e-6)


def test_it_solves_the_equations_with_the_ridge() -> None:
    x, y, towards = data(3)
    h, g, mx, my = moments(x, y)
    c = 0.1 * np.trace(h) / len(h)
    expected = np.linalg.solve(h + c * np.eye(len(h)), g + c * towards)
    weights, bias = ridge(h, g, mx, my, towards, strength=0.1)
    assert np.allclose(weights, expected)
    assert np.allclose(bias, my - mx @ weights)


def test_what_is_linear_is_recovered() -> None:
    x, _, truth = data(4)
    weights, bias = ridge(*moments(x, x @ truth + 7), 0 * truth, strength=1e-12)
    assert np.allclose(weights, truth)
    assert np.allclose(bias, 7)


@given(seed=st.integers(0, 10**6), rank=st.integers(0, 5), strength=st.sampled_from([0, 1e-3, 1]))
@settings(max_examples=40, deadline=None)
def test_where_the_data_say_nothing_the_weights_stay(seed: int, rank: int, strength: float) -> None:
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    x = rng.normal(size=(40, rank)) @ basis[:, :rank].T
    y, towards = rng.normal(size=(40, 2)), rng.normal(size=(6, 2))
    weights, bias = ridge(*moments(x, y), towards, strength)
    moved = basis[:, rank:].T @ (weights - towards)
    assert np.abs(moved).max(initial=0) < (1e-9 if strength else 1e-3)
    before = y.mean(axis=0) - x.mean(axis=0) @ towards
    assert squared(x, y, weights, bias) <= squared(x, y, towards, before) * (1 + 1e-9)


def test_constant_inputs_give_back_the_weights_and_the_right_mean() -> None:
    x, y, towards = data(5)
    x[:] = 3.0
    weights, bias = ridge(*moments(x, y), towards)
    assert np.array_equal(weights, towards)
    assert np.allclose(x[0] @ weights + bias, y.mean(axis=0))


def test_a_stack_is_refitted_layer_by_layer() -> None:
    layers = [data(seed, features=4, targets=1) for seed in range(7)]
    layers[2][0][:] = 0.0  # a channel that is dead
    towards = np.stack([w for _, _, w in layers])
    stack = [np.stack(part) for part in zip(*(moments(x, y) for x, y, _ in layers), strict=True)]
    weights, bias = ridge(*stack, towards)
    assert weights.shape == (7, 4, 1)
    assert bias.shape == (7, 1)
    for number, (x, y, w) in enumerate(layers):
        alone = ridge(*moments(x, y), w)
        assert np.allclose(weights[number], alone.weights)
        assert np.allclose(bias[number], alone.bias)
    assert np.array_equal(weights[2], towards[2])


def test_sums_of_products_do_as_well_as_means() -> None:
    x, y, towards = data(6)
    h, g, mx, my = moments(x, y)
    assert np.allclose(ridge(h, g, mx, my, towards)[0], ridge(200 * h, 200 * g, mx, my, towards)[0])


def test_it_takes_what_is_observed() -> None:
    x, y, towards = data(7)
    found = CrossSpec().start()
    found.add(x, y)
    weights, bias = ridge(
        found.gram.covariance(), found.covariance(), found.gram.mean, found.mean, towards
    )
    expected = ridge(*moments(x, y), towards)
    assert np.allclose(weights, expected.weights)
    assert np.allclose(bias, expected.bias)


@given(seed=st.integers(0, 10**6), cuts=st.sampled_from([1, 2, 3, 12]))
@settings(max_examples=40, deadline=None)
def test_a_step_in_blocks_never_does_harm(seed: int, cuts: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(60, 3)) @ rng.normal(size=(3, 12)) + 0.1 * rng.normal(size=(60, 12)) + 1
    truth, towards = rng.normal(size=(2, 12, 2))
    y = x @ truth
    last = squared(x, y, towards, (y - x @ towards).mean(axis=0))
    start = last
    for _ in range(10):
        h, g, mx, _ = moments(x, y - x @ towards)
        parts = np.array_split(rng.permutation(12), cuts)
        blocks = [(part, h[np.ix_(part, part)]) for part in parts]
        towards, bias = ridge_in_blocks(blocks, g, mx, y.mean(axis=0), towards)
        error = squared(x, y, towards, bias)
        assert error <= last * (1 + 1e-9)
        last = error
    assert last < 0.5 * start


def test_one_block_is_the_whole() -> None:
    x, y, towards = data(8)
    h, g, mx, my = moments(x, y)
    whole = ridge(h, g, mx, my, towards)
    part = ridge_in_blocks([(np.arange(8), h)], g - h @ towards, mx, my, towards)
    assert np.allclose(whole.weights, part.weights)
    assert np.allclose(whole.bias, part.bias)


def test_what_does_not_fit_is_refused() -> None:
    x, y, towards = data(9)
    h, g, mx, my = moments(x, y)
    with pytest.raises(ValueError, match="not of one layer"):
        ridge(h[:4, :4], g, mx, my, towards)
    with pytest.raises(ValueError, match="not of one layer"):
        ridge(h, g, mx, my, towards[:, :2])
    for bad in ((h * np.nan, g, mx, my), (h, g * np.nan, mx, my), (h, g, mx, my * np.inf)):
        with pytest.raises(ValueError, match="finite"):
            ridge(*bad, towards)


def test_moments_are_matched() -> None:
    rng = np.random.default_rng(0)
    before = rng.normal(size=(500, 4)) * [1, 2, 3, 4] + [0, 10, -5, 1]
    after = 0.6 * before + rng.normal(size=(500, 4))
    scale, shift = match_moments(
        before.mean(axis=0), before.var(axis=0), after.mean(axis=0), after.var(axis=0)
    )
    matched = after * scale + shift
    assert np.allclose(matched.mean(axis=0), before.mean(axis=0))
    assert np.allclose(matched.var(axis=0), before.var(axis=0))


def test_moments_that_cannot_be_matched() -> None:
    before, was = np.array([2.0, 2, 2, np.nan, 2]), np.array([1.0, 1e9, 0, 1, 1])
    after, now = np.array([5.0, 1, 1, 1, 1]), np.array([0.0, 1, 1, 1, 1e-320])
    scale, shift = match_moments(before, was, after, now)
    assert scale.tolist() == [1, 5, 0.2, 1, 5]
    assert shift.tolist() == [-3, -3, 1.8, 0, -3]


def problem(rows: int, noise: float, seed: int = 0) -> tuple[np.ndarray, ...]:
    """X, Y and weights near those that made Y."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, 20)) * rng.lognormal(size=20)
    true = rng.standard_normal((20, 4))
    y = x @ true + noise * rng.standard_normal((rows, 4))
    return x, y, true + 0.1 * rng.standard_normal((20, 4))


def test_cross_validation_is_that_of_the_hat_matrix() -> None:
    x, y, towards = problem(40, 2.0)
    h, g = x.T @ x / 40, x.T @ y / 40
    scores = []
    for strength in STRENGTHS:
        ridge_ = strength * np.trace(h) / 20 * np.eye(20)
        hat = x @ np.linalg.inv(h + ridge_) @ x.T / 40
        rest = (np.eye(40) - hat) @ (y - x @ towards)
        scores.append(np.square(rest).sum() / (1 - np.trace(hat) / 40) ** 2)
    found = cross_validated(h, g, np.square(y).mean(axis=0), towards, 40)
    assert found == STRENGTHS[int(np.argmin(scores))]


def test_the_fewer_and_the_noisier_the_rows_the_stronger_the_ridge() -> None:
    found = []
    for rows, noise in ((30, 10.0), (30, 1e-3), (5000, 0.1)):
        x, y, towards = problem(rows, noise)
        h, g = x.T @ x / rows, x.T @ y / rows
        found.append(cross_validated(h, g, np.square(y).mean(axis=0), towards, rows))
    assert found[0] == STRENGTHS[-1]
    assert found[1] == found[2] == STRENGTHS[0]


def test_groups_share_one_strength() -> None:
    parts = [problem(60, 1.0, seed) for seed in (1, 2)]
    h = np.stack([x.T @ x / 60 for x, _, _ in parts])
    g = np.stack([x.T @ y / 60 for x, y, _ in parts])
    variance = np.stack([np.square(y).mean(axis=0) for _, y, _ in parts])
    towards = np.stack([w for _, _, w in parts])
    assert cross_validated(h, g, variance, towards, 60) in STRENGTHS
    alone = cross_validated(h[0], g[0], variance[0], towards[0], 60)
    assert cross_validated(h[:1], g[:1], variance[:1], towards[:1], 60) == alone
