"""Binary bases and power-of-two grids: optimal where that is claimed, and packed without loss."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphopt.numerics.binarization import (
    Bases,
    binarized,
    binary_bases,
    packed,
    shifted,
    unpacked,
)
from graphopt.numerics.grids import AffineGrid

matrices = st.integers(1, 9).flatmap(
    lambda size: st.lists(
        st.lists(st.floats(-100, 100, width=32), min_size=size, max_size=size),
        min_size=1,
        max_size=4,
    ).map(lambda rows: np.array(rows, np.float32))
)


def error(weights: np.ndarray, bases: Bases) -> np.ndarray:
    return np.asarray(np.square(bases.sum().astype(np.float64) - weights).sum(axis=1))


def slack(weights: np.ndarray) -> np.ndarray:
    """What rounding the factors to float32 may cost."""
    return np.asarray(1e-5 * (np.square(weights.astype(np.float64)).sum(axis=1) + 1e-30))


@given(matrices)
@settings(max_examples=100, deadline=None)
def test_one_base_is_the_best_of_all(weights: np.ndarray) -> None:
    """Brute force over the signs, with the best factor of each; and the error by its formula."""
    bases = binarized(weights)
    assert bases.factors.shape == (len(weights), 1) and bases.factors.dtype == np.float32
    assert bases.signs.shape == (len(weights), 1, weights.shape[1]) and bases.signs.dtype == np.int8
    wide = weights.astype(np.float64)
    every = np.array(list(itertools.product([-1, 1], repeat=weights.shape[1])))
    factor = wide @ every.T / weights.shape[1]
    least = np.square(wide[:, None] - factor[..., None] * every).sum(axis=2).min(axis=1)
    assert (error(weights, bases) <= least + slack(weights)).all()
    mean = np.abs(wide).mean(axis=1)
    formula = np.square(wide).sum(axis=1) - weights.shape[1] * mean**2
    assert (np.abs(error(weights, bases) - formula) <= slack(weights)).all()


@given(matrices)
@settings(max_examples=60, deadline=None)
def test_a_further_base_makes_no_error_larger(weights: np.ndarray) -> None:
    before = error(weights, binarized(weights))
    for count in range(1, 6):
        bases = binary_bases(weights, count)
        assert set(np.unique(bases.signs)) <= {-1, 1}
        assert (bases.factors >= 0).all() and (np.diff(bases.factors, axis=1) <= 0).all()
        now = error(weights, bases)
        assert (now <= before + slack(weights)).all()
        before = now


def greedy(row: np.ndarray, count: int) -> float:
    """The error of Guo et al. by its definition: signs of the residual, factors by least squares."""
    signs, rest = np.zeros((row.size, 0)), row
    for _ in range(count):
        signs = np.column_stack([signs, np.where(rest < 0, -1.0, 1.0)])
        rest = row - signs @ np.linalg.lstsq(signs, row, rcond=None)[0]
    return float(np.square(rest).sum())


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_bases_are_no_worse_than_greedy_ones(count: int) -> None:
    weights = np.random.default_rng(count).normal(size=(30, 200))
    found = error(weights, binary_bases(weights, count))
    plain = np.array([greedy(row, count) for row in weights])
    assert found.sum() <= plain.sum() * (1.0 + 1e-6 if count == 1 else 0.97)


@pytest.mark.parametrize("seed", range(5))
def test_two_bases_are_near_the_best_of_all(seed: int) -> None:
    """Brute force over the signs of both."""
    row = np.random.default_rng(seed).normal(size=6)
    every = np.array(list(itertools.product([-1.0, 1.0], repeat=6)))
    least = np.inf
    for a, b in itertools.combinations(every, 2):
        signs = np.column_stack([a, b])
        rest = row - signs @ np.linalg.lstsq(signs, row, rcond=None)[0]
        least = min(least, float(np.square(rest).sum()))
    found = error(row[None], binary_bases(row[None], 2))[0]
    assert least - 1e-6 <= found <= least + 0.1 * float(np.square(row).sum())


def test_what_is_a_sum_of_bases_is_found() -> None:
    rng = np.random.default_rng(0)
    factors = np.array([4.0, 2.0, 1.0])
    weights = np.stack([factors @ rng.choice([-1.0, 1.0], size=(3, 500)) for _ in range(4)])
    bases = binary_bases(weights, 3)
    assert np.allclose(bases.factors, factors, atol=1e-5)
    assert np.allclose(bases.sum(), weights, atol=1e-5)


def test_degenerate_channels() -> None:
    weights = np.array([[0.0] * 5, [2.5] * 5, [-1.0] * 5, [1.0, -1.0, 1.0, 1.0, -1.0]])
    for count in (1, 2, 4, 8):
        assert np.allclose(binary_bases(weights, count).sum(), weights, atol=1e-6)
    assert binary_bases(np.zeros((0, 5)), 2).signs.shape == (0, 2, 5)
    assert binary_bases(np.zeros((3, 0)), 2).sum().shape == (3, 0)
    assert binarized(np.zeros((3, 0))).factors.tolist() == [[0.0]] * 3


@pytest.mark.parametrize("weights", [np.ones(3), np.array([[np.nan]]), np.array([[np.inf]])])
def test_what_is_no_matrix(weights: np.ndarray) -> None:
    for make in (binarized, lambda w: binary_bases(w, 2)):
        with pytest.raises(ValueError, match="no matrix"):
            make(weights)


@pytest.mark.parametrize("count", [0, -1, 9])
def test_what_is_no_number_of_bases(count: int) -> None:
    with pytest.raises(ValueError, match="1 to 8"):
        binary_bases(np.ones((1, 1)), count)


@given(st.integers(0, 40), st.integers(1, 3), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_packing_round_trips(size: int, rows: int, seed: int) -> None:
    signs = np.random.default_rng(seed).choice(np.array([-1, 1], np.int8), size=(rows, 2, size))
    bits = packed(signs)
    assert bits.dtype == np.uint8 and bits.shape == (rows, 2, -(-size // 8))
    again = unpacked(bits, size)
    assert again.dtype == np.int8
    assert np.array_equal(again, signs)


def test_the_first_sign_is_the_lowest_bit() -> None:
    signs = np.array([1, -1, -1, 1, -1, -1, -1, -1, -1, 1])
    assert packed(signs).tolist() == [0b00001001, 0b00000010]
    with pytest.raises(ValueError, match="10 signs are not in 1 bytes"):
        unpacked(np.zeros(1, np.uint8), 10)


@pytest.mark.parametrize(
    "grid", [AffineGrid(-1, 1), AffineGrid(-8, 7), AffineGrid(-128, 127)], ids=str
)
@pytest.mark.parametrize("seed", range(3))
def test_a_power_of_two_grid_has_the_best_exponent(seed: int, grid: AffineGrid) -> None:
    """Against every exponent, computed as it is written: clip(round(W 2^-e)) 2^e."""
    rng = np.random.default_rng(seed)
    weights = (rng.standard_t(4, size=(6, 3, 20)) * rng.lognormal(size=(6, 1, 1))).astype(
        np.float32
    )
    steps, exponent = shifted(weights, grid, (1, 2))
    assert steps.dtype == grid.dtype and exponent.dtype == np.int32 and exponent.shape == (6, 1, 1)
    found = np.square(np.ldexp(steps.astype(float), exponent) - weights).sum(axis=(1, 2))
    tried = []
    for e in range(-20, 20):
        rounded = np.clip(np.rint(np.ldexp(weights, -e)), grid.low, grid.high)
        tried.append(np.square(np.ldexp(rounded.astype(float), e) - weights).sum(axis=(1, 2)))
    assert np.allclose(found, np.min(tried, axis=0), rtol=1e-6)


def test_powers_of_two_are_exact_on_such_a_grid() -> None:
    weights = np.array([[0.5, -0.25, 0.0, 4.0], [0.0, 0.0, 0.0, 0.0], [2.0**-130, 0.0, 0.0, 0.0]])
    steps, exponent = shifted(weights, AffineGrid(-128, 127), (1,))
    assert np.array_equal(np.ldexp(steps.astype(float), exponent)[:2], weights[:2])
    with pytest.raises(ValueError, match="both sides"):
        shifted(weights, AffineGrid(0, 15), (1,))
    with pytest.raises(ValueError, match="finite"):
        shifted(np.array([[np.nan]]), AffineGrid(-8, 7), (1,))
