"""Rounding that fits: never worse than plain rounding, better where inputs are correlated."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphopt.numerics import rounding
from graphopt.numerics.grids import AffineGrid, fitted_parameters
from graphopt.numerics.rounding import output_error, rounded_to_fit

S4, U4, S8 = AffineGrid(-8, 7), AffineGrid(0, 15), AffineGrid(-128, 127)


def inputs(seed: int, groups: int, features: int, rows: int = 400) -> np.ndarray:
    """Correlated features of unequal size, ``(groups, rows, features)``."""
    rng = np.random.default_rng(seed)
    rank = max(features // 4, 1)
    hidden = rng.normal(size=(groups, rows, rank)) @ rng.normal(size=(groups, rank, features))
    return (hidden + 0.5 * rng.normal(size=hidden.shape)) * rng.lognormal(
        size=(groups, 1, features)
    )


def gram_of(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.swapaxes(x, 1, 2) @ x / x.shape[1])


def weights_of(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed + 99).normal(size=shape).astype(np.float32)


def errors(
    steps: np.ndarray,
    w: np.ndarray,
    scale: np.ndarray,
    zero: np.ndarray,
    grid: AffineGrid,
    gram: np.ndarray,
) -> np.ndarray:
    return output_error(grid.dequantized(steps, scale, zero) - w.astype(np.float64), gram)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 24, 6), (5, 9, 1), (3, 18, 4), (1, 300, 10)])
@pytest.mark.parametrize("grid", [AffineGrid(-2, 1), S4, U4, S8], ids=str)
@pytest.mark.parametrize("seed", range(2))
def test_no_output_is_worse(seed: int, grid: AffineGrid, shape: tuple[int, int, int]) -> None:
    gram, w = gram_of(inputs(seed, *shape[:2])), weights_of(seed, *shape)
    scale, zero = fitted_parameters(w, grid, (1,), symmetric=grid.low < 0)
    plain = grid.quantized(w, scale, zero)
    found = rounded_to_fit(w, scale, zero, grid, gram)
    assert found.dtype == grid.dtype and found.shape == w.shape
    assert grid.low <= found.min() and found.max() <= grid.high
    before = errors(plain, w, scale, zero, grid, gram)
    after = errors(found, w, scale, zero, grid, gram)
    assert (after <= before).all()
    if shape[1] >= 18:
        assert after.sum() < 0.3 * before.sum()


@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 4), st.integers(1, 20))
@settings(max_examples=60, deadline=None)
def test_no_output_is_worse_whatever_the_moments(
    seed: int, features: int, outputs: int, rows: int
) -> None:
    """Also where fewer rows than features were seen, or features are constant 0."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, rows, features)) * rng.integers(0, 2, features)
    w = rng.normal(size=(2, features, outputs))
    gram, grid = gram_of(x), AffineGrid(-2, 1)
    scale, zero = grid.parameters(w.min(axis=1, keepdims=True), w.max(axis=1, keepdims=True))
    before = errors(grid.quantized(w, scale, zero), w, scale, zero, grid, gram)
    found = rounded_to_fit(w, scale, zero, grid, gram)
    assert (errors(found, w, scale, zero, grid, gram) <= before).all()


@pytest.mark.parametrize(
    "diagonal", [np.ones(40), np.random.default_rng(1).lognormal(size=40), np.zeros(40)]
)
def test_uncorrelated_features_are_rounded_plainly(diagonal: np.ndarray) -> None:
    w = weights_of(3, 1, 40, 7)
    scale, zero = S4.parameters(w.min(axis=1, keepdims=True), w.max(axis=1, keepdims=True))
    found = rounded_to_fit(w, scale, zero, S4, np.diag(diagonal)[None])
    assert np.array_equal(found, S4.quantized(w, scale, zero))


@pytest.mark.parametrize("seed", range(6))
def test_it_is_near_the_best_of_all_roundings(seed: int) -> None:
    """Brute force: all integers for all weights."""
    gram, w = gram_of(inputs(seed, 1, 4)), weights_of(seed, 1, 4, 3)
    grid = AffineGrid(-4, 3)
    scale, zero = grid.parameters(w.min(axis=1, keepdims=True), w.max(axis=1, keepdims=True), True)
    every = np.array(list(itertools.product(range(-4, 4), repeat=4))).T
    gaps = grid.dequantized(every[None, :, None, :], scale[..., None], 0) - w[..., None]
    tried = [output_error(gaps[:, :, j].astype(np.float64), gram).min() for j in range(3)]
    found = errors(rounded_to_fit(w, scale, zero, grid, gram), w, scale, zero, grid, gram)[0]
    before = errors(grid.quantized(w, scale, zero), w, scale, zero, grid, gram)[0]
    assert (found >= np.array(tried) * (1 - 1e-5)).all()
    assert found.sum() - sum(tried) <= 0.25 * (before.sum() - sum(tried)) + 1e-5


def test_no_single_move_helps_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounding, "SWEEPS", 100)
    gram, w = gram_of(inputs(0, 1, 30)), weights_of(0, 1, 30, 4)
    scale, zero = S4.parameters(w.min(axis=1, keepdims=True), w.max(axis=1, keepdims=True), True)
    found = rounded_to_fit(w, scale, zero, S4, gram)
    least = errors(found, w, scale, zero, S4, gram)[0]
    for i, j, step in itertools.product(range(30), range(4), (-1, 1)):
        other = found.copy()
        other[0, i, j] = np.clip(other[0, i, j] + step, S4.low, S4.high)
        assert errors(other, w, scale, zero, S4, gram)[0, j] >= least[j] * (1 - 1e-9)


def test_it_holds_on_rows_that_were_not_seen() -> None:
    x = inputs(5, 1, 96, 6000)
    seen, unseen = gram_of(x[:, :3000]), gram_of(x[:, 3000:])
    w = weights_of(5, 1, 96, 16)
    scale, zero = fitted_parameters(w, S4, (1,), symmetric=True)
    before = errors(S4.quantized(w, scale, zero), w, scale, zero, S4, unseen).sum()
    assert (
        errors(rounded_to_fit(w, scale, zero, S4, seen), w, scale, zero, S4, unseen).sum()
        < 0.1 * before
    )


@pytest.mark.parametrize("panel", [1, 7, 1000])
def test_the_panel_changes_nothing(panel: int, monkeypatch: pytest.MonkeyPatch) -> None:
    gram, w = gram_of(inputs(2, 2, 150)), weights_of(2, 2, 150, 5)
    scale, zero = fitted_parameters(w, S4, (1,))
    whole = rounded_to_fit(w, scale, zero, S4, gram)
    monkeypatch.setattr(rounding, "PANEL", panel)
    assert np.array_equal(rounded_to_fit(w, scale, zero, S4, gram), whole)


def test_groups_do_not_know_of_each_other() -> None:
    gram, w = gram_of(inputs(4, 6, 9)), weights_of(4, 6, 9, 2)
    scale, zero = fitted_parameters(w, S4, (1,))
    whole = rounded_to_fit(w, scale, zero, S4, gram)
    for k in range(6):
        one = slice(k, k + 1)
        assert np.array_equal(
            rounded_to_fit(w[one], scale[one], zero[one], S4, gram[one]), whole[one]
        )
    blocks = [(np.arange(9) + 9 * k, gram[k]) for k in (3, 0, 1, 5, 4, 2)]
    assert np.array_equal(rounded_to_fit(w, scale, zero, S4, blocks), whole)


def test_blocks_of_features() -> None:
    """A block-diagonal H, its blocks interleaved, is the same as the whole matrix."""
    gram, w = gram_of(inputs(6, 1, 20)), weights_of(6, 1, 20, 3)
    parts = [np.arange(0, 20, 2), np.arange(1, 20, 2)]
    whole = np.zeros((1, 20, 20))
    for rows in parts:
        whole[0, rows[:, None], rows] = gram[0][rows[:, None], rows]
    scale, zero = fitted_parameters(w, S4, (1,))
    blocks = [(rows, gram[0][rows[:, None], rows]) for rows in parts]
    before = errors(S4.quantized(w, scale, zero), w, scale, zero, S4, whole)
    after = errors(rounded_to_fit(w, scale, zero, S4, blocks), w, scale, zero, S4, whole)
    assert (after < 0.5 * before).all()


def test_each_block_of_features_may_have_its_scale() -> None:
    gram, w = gram_of(inputs(7, 1, 64)), weights_of(7, 1, 64, 5)
    parts = fitted_parameters(w.reshape(4, 16, 5), U4, (1,))
    scale, zero = (np.repeat(part[:, 0], 16, axis=0) for part in parts)
    found = rounded_to_fit(w, scale, zero, U4, gram)
    before = errors(U4.quantized(w, scale, zero), w, scale, zero, U4, gram)
    assert (errors(found, w, scale, zero, U4, gram) < 0.5 * before).all()


def test_nothing_to_round() -> None:
    assert rounded_to_fit(np.zeros((1, 0, 3)), 1.0, 0, S4, np.zeros((1, 0, 0))).shape == (1, 0, 3)
    assert rounded_to_fit(np.zeros((0, 2, 3)), 1.0, 0, S4, np.zeros((0, 2, 2))).shape == (0, 2, 3)


def test_what_does_not_fit_is_refused() -> None:
    w, gram = weights_of(0, 2, 3, 1), gram_of(inputs(0, 2, 3))
    cases: list[tuple[np.ndarray, rounding.Gram, str]] = [
        (w[0], gram, "no stack"),
        (w * np.nan, gram, "no stack"),
        (w, gram[:1], "is not of weights"),
        (w, gram * np.inf, "not finite"),
        (w, [(np.arange(3), gram[0])], "exactly once"),
        (w, [(np.arange(3), gram[0]), (np.arange(3), gram[1])], "exactly once"),
        (w, [(np.arange(6), gram[0])], "is not of 6 rows"),
        (w, [(np.arange(6), np.eye(6))], "several groups"),
    ]
    for weights, moments, why in cases:
        with np.errstate(invalid="ignore"), pytest.raises(ValueError, match=why):
            rounded_to_fit(weights, 0.1, 0, S4, moments)
