"""Factors of channels: exact, repeatable, and foreseen to lose what rounding really loses."""

from __future__ import annotations

import numpy as np
import pytest

from graphopt.numerics.channel_scaling import (
    Channels,
    Product,
    best_exponents,
    exponents_of,
    largest_weights,
    outliers,
    predicted_loss,
)
from graphopt.numerics.grids import AffineGrid, covering_scale, dequantized, quantized

SEEDS = range(8)

GRID = AffineGrid.of(8, signed=False)


def drawn(seed: int, spread: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Rows and the weights that read them, of channels whose sizes spread over decades."""
    rng = np.random.default_rng(seed)
    size = 10.0 ** rng.uniform(-spread / 2, spread / 2, 24)
    x = rng.standard_normal((4000, 24)) * size
    return x, rng.standard_normal((12, 24)) / size


def channels_of(x: np.ndarray) -> Channels:
    return Channels(x.min(axis=0), x.max(axis=0), np.square(x).mean(axis=0))


def product_of(w: np.ndarray) -> Product:
    return Product.of(w[None, :, :, None])


def rounding_error(x: np.ndarray, w: np.ndarray) -> float:
    """What rounding both to 8 bits really loses."""
    scale, zero = GRID.parameters(x.min(), x.max())
    rows = GRID.dequantized(GRID.quantized(x, scale, zero), scale, zero)
    own = covering_scale(w, 8, (1,))
    weights = dequantized(quantized(w, own, 8), own)
    return float(np.square(rows @ weights.T - x @ w.T).mean(axis=0).sum())


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("spread", [0.0, 0.5, 1.0])
def test_the_loss_is_what_rounding_loses(seed: int, spread: float) -> None:
    x, w = drawn(seed, spread)
    foreseen = predicted_loss(channels_of(x), [product_of(w)])
    assert foreseen == pytest.approx(rounding_error(x, w), rel=0.25)


@pytest.mark.parametrize("seed", SEEDS)
def test_channels_below_half_a_step_lose_their_power_and_no_more(seed: int) -> None:
    x, w = drawn(seed)
    x[:, 1:] *= 1e-6
    w[:, 0] = 0.0
    foreseen = predicted_loss(channels_of(x), [product_of(w)])
    real = rounding_error(x, w)
    assert foreseen == pytest.approx(real, rel=0.05)
    assert real == pytest.approx(float(np.square(x @ w.T).mean(axis=0).sum()), rel=0.05)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_best_factors_really_lose_much_less(seed: int) -> None:
    x, w = drawn(seed)
    exponents = best_exponents(channels_of(x), [product_of(w)])
    factors = np.ldexp(1.0, exponents)
    assert rounding_error(x / factors, w * factors) < 0.1 * rounding_error(x, w)


@pytest.mark.parametrize("seed", SEEDS)
def test_channels_that_are_alike_are_left_alone(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, w = rng.uniform(-1.0, 1.0, (2000, 24)), np.sign(rng.standard_normal((12, 24)))
    assert not best_exponents(channels_of(x), [product_of(w)]).any()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_asked_again_the_factors_are_one(seed: int, alpha: float) -> None:
    x, w = drawn(seed)
    channels, weights = channels_of(x), largest_weights([product_of(w)])
    exponents = exponents_of(channels.reach, weights, alpha)
    again = exponents_of(
        channels.divided(exponents).reach, weights * np.ldexp(1.0, exponents), alpha
    )
    assert exponents.any()
    assert not again.any()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_no_channel_reaches_further_than_the_furthest_did(seed: int, alpha: float) -> None:
    x, w = drawn(seed)
    reach = channels_of(x).reach
    exponents = exponents_of(reach, np.abs(w).max(axis=0), alpha)
    scaled = np.ldexp(reach, -exponents).max()
    assert reach.max() / 2 < scaled <= reach.max()


@pytest.mark.parametrize("seed", SEEDS)
def test_weights_of_what_is_always_zero_decide_on_no_grid(seed: int) -> None:
    x, w = drawn(seed)
    x[:, :3] = 0.0
    channels, products = channels_of(x), [product_of(w)]
    weights = largest_weights(products)
    exponents = exponents_of(channels.reach, weights, 0.5)
    scaled = np.ldexp(weights, exponents)
    assert (np.abs(np.log2(scaled[:3] / np.median(scaled[3:]))) <= 0.5).all()
    again = exponents_of(channels.divided(exponents).reach, scaled, 0.5)
    assert not again.any()
    factors = np.ldexp(1.0, best_exponents(channels, products))
    assert rounding_error(x / factors, w * factors) < 0.1 * rounding_error(x, w)


def test_where_nothing_varies_or_is_read_nothing_is_scaled() -> None:
    reach, weights = np.array([0.0, 1.0, 1024.0]), np.array([1.0, 1.0, 0.0])
    assert np.abs(exponents_of(reach, weights, 0.5)).max() <= 24
    assert not exponents_of(np.zeros(3), weights, 0.5).any()
    assert not exponents_of(reach, np.zeros(3), 0.5).any()


def test_groups_and_positions_are_counted() -> None:
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((2, 3, 4, 5))
    product = Product.of(weights)
    assert (product.counts == 5).all()
    np.testing.assert_allclose(product.powers, np.square(weights).sum(axis=(1, 3)).ravel())
    np.testing.assert_allclose(product.largest, np.abs(weights).max(axis=(1, 3)).ravel())
    flat = Channels(-np.ones(8), np.ones(8), np.full(8, 1 / 3))
    step = (2 / 255) ** 2 / 12
    rounded = (np.abs(weights).max(axis=(2, 3)) / 127) ** 2 / 12 * 4 * 5 / 3
    expected = step * np.square(weights).sum() + rounded.sum()
    assert predicted_loss(flat, [product]) == pytest.approx(expected)
    assert predicted_loss(flat, [product, product]) == pytest.approx(2 * expected)
    weights[0, 1, 2, 3] = 0.0
    assert Product.of(weights).counts.sum() == weights.size - 1


@pytest.mark.parametrize("seed", SEEDS)
def test_the_few_that_reach_far_are_found(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = np.ones(64)
    far = np.sort(rng.choice(64, 2, replace=False))
    size[far] = 50.0
    x = rng.standard_normal((1000, 64)) * size
    w = rng.standard_normal((12, 64))
    assert outliers(channels_of(x), [product_of(w)], 8).tolist() == far.tolist()


def test_where_no_channel_may_go_none_does() -> None:
    x, w = drawn(0)
    assert not outliers(channels_of(x), [product_of(w)], 0).size
