"""Removal of units: against brute force on small layers, and on the kinds of H that real layers have."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphopt.numerics import obs
from graphopt.numerics.obs import Hessian, Removal, damped, joint_removal_order
from graphopt.numerics.positive import factor, inverse, solve

Blocks = list[np.ndarray]


def layer(
    rows: int = 300, units: int = 6, size: int = 2, outputs: int = 3, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, Blocks]:
    """Correlated inputs X, weights W, and the rows of each unit."""
    rng = np.random.default_rng(seed)
    features = units * size
    mixed = np.eye(features) + rng.normal(size=(features, features)) / np.sqrt(features)
    x = rng.normal(size=(rows, features)) @ mixed
    weights = rng.normal(size=(features, outputs))
    return x, weights, list(np.arange(features).reshape(units, size))


def removal_order(
    hessian: Hessian, weights: np.ndarray, blocks: Blocks, stop: int | None = None
) -> Removal:
    """The order for one reader."""
    return joint_removal_order([(hessian, weights, blocks)], stop)


def best_without(x: np.ndarray, w: np.ndarray, rows: np.ndarray) -> float:
    """The least ``|X W - X W'|^2`` with these rows of W' zero."""
    kept = np.setdiff1d(np.arange(len(w)), rows)
    best = np.linalg.lstsq(x[:, kept], x @ w, rcond=None)[0]
    return float(np.square(x @ w - x[:, kept] @ best).sum())


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_the_first_unit_is_the_best_and_its_error_exact(size: int, seed: int) -> None:
    x, w, blocks = layer(size=size, seed=seed)
    errors = [best_without(x, w, rows) for rows in blocks]
    order, found = removal_order(x.T @ x, w, blocks, stop=1)
    assert order.tolist() == [int(np.argmin(errors))]
    assert found[0] * np.square(x @ w).sum() == pytest.approx(min(errors), rel=1e-5)


def test_errors_of_a_whole_pass_are_those_of_the_best_weights() -> None:
    x, w, blocks = layer(units=7, size=3)
    order, errors = removal_order(x.T @ x, w, blocks)
    assert sorted(order) == list(range(7))
    for count in range(1, 8):
        rows = np.concatenate([blocks[unit] for unit in order[:count]])
        least = best_without(x, w, rows)
        assert errors[count - 1] * np.square(x @ w).sum() == pytest.approx(least, rel=1e-5)
    assert errors[-1] == pytest.approx(1, rel=1e-12)


def test_each_step_is_the_best_one_from_where_it_starts() -> None:
    x, w, blocks = layer(units=6, size=2, seed=5)
    order, _ = removal_order(x.T @ x, w, blocks)
    for count in range(6):
        gone = [blocks[unit] for unit in order[:count]]
        errors = {
            unit: best_without(x, w, np.concatenate([*gone, blocks[unit]]))
            for unit in set(range(6)) - set(order[:count].tolist())
        }
        assert order[count] == min(errors, key=errors.__getitem__)


@pytest.mark.parametrize("panel", [1, 5, 7])
def test_a_pass_in_many_panels_is_the_same(panel: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, w, blocks = layer(units=20, size=3, outputs=5)
    whole = removal_order(x.T @ x, w, blocks)
    monkeypatch.setattr(obs, "PANEL", panel)
    parts = removal_order(x.T @ x, w, blocks)
    assert np.array_equal(parts.order, whole.order)
    assert np.allclose(parts.errors, whole.errors, rtol=1e-7)


def test_units_of_unequal_size_and_rows_of_no_unit() -> None:
    x, w, _ = layer(units=9, size=1, seed=3)
    blocks = [np.array([4]), np.array([0, 7, 2]), np.array([1, 5]), np.array([8])]
    order, errors = removal_order(x.T @ x, w, blocks)
    for count in range(1, 5):
        rows = np.concatenate([blocks[unit] for unit in order[:count]])
        expected = best_without(x, w, rows)
        assert errors[count - 1] * np.square(x @ w).sum() == pytest.approx(expected, rel=1e-5)
    firsts = [best_without(x, w, rows) for rows in blocks]
    assert order[0] == np.argmin(firsts)
    assert errors[-1] < 1  # rows 3 and 6 stay


def test_several_consumers_share_the_choice() -> None:
    first, second = layer(units=6, size=1, seed=1), layer(units=6, size=4, outputs=2, seed=2)
    shares = np.zeros(6)
    for x, w, blocks in (first, second):
        shares += [best_without(x, w, rows) / np.square(x @ w).sum() for rows in blocks]
    consumers = [(x.T @ x, 1e3 * w, blocks) for x, w, blocks in (first, second)]
    order, errors = joint_removal_order(consumers)
    assert order[0] == np.argmin(shares)
    assert errors[0] == pytest.approx(shares.min(), rel=1e-5)
    assert errors[-1] == pytest.approx(2, rel=1e-12)
    alone = [removal_order(h, w, b).order.tolist() for h, w, b in consumers]
    assert alone[0] != alone[1]


@pytest.mark.parametrize("cut", ["position", "channel", "halves"])
def test_a_block_diagonal_matrix_is_that_matrix_with_zeros(cut: str) -> None:
    x, w, blocks = layer(units=8, size=3, outputs=4)
    h = x.T @ x
    split = {
        "position": [np.arange(24).reshape(8, 3)[:, p] for p in range(3)],
        "channel": blocks,
        "halves": [np.arange(12), np.arange(12, 24)],
    }[cut]
    diagonal = np.zeros(h.shape)
    for rows in split:
        diagonal[np.ix_(rows, rows)] = h[np.ix_(rows, rows)]
    parts = removal_order([(rows, h[np.ix_(rows, rows)]) for rows in split], w, blocks)
    whole = removal_order(diagonal, w, blocks)
    assert np.array_equal(parts.order, whole.order)
    assert np.allclose(parts.errors, whole.errors, rtol=1e-6)


def test_a_unit_without_weights_and_one_that_another_repeats_cost_nothing() -> None:
    x, w, blocks = layer(units=6, size=1, seed=4)
    x[:, 3] = 2 * x[:, 1]
    w[5] = 0
    order, errors = removal_order(damped(x.T @ x, 1e-8), w, blocks)
    assert order[0] == 5
    assert order[1] in (1, 3)
    assert errors[1] < 1e-6 < errors[2]


def test_a_unit_that_never_moves_costs_nothing() -> None:
    x, w, blocks = layer(units=5, size=2)
    x[:, 4:6] = 0.0
    order, errors = removal_order(damped(x.T @ x, 1e-6), w, blocks)
    assert order[0] == 2
    assert errors[0] < 1e-5


@given(seed=st.integers(0, 10**6), rank=st.integers(0, 6), scale=st.integers(-12, 12))
@settings(max_examples=40, deadline=None)
def test_any_rank_and_scale_give_a_full_order(seed: int, rank: int, scale: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rank, 12)) * 10.0**scale
    w = rng.normal(size=(12, 3))
    order, errors = removal_order(x.T @ x, w, list(np.arange(12).reshape(6, 2)))
    assert sorted(order) == list(range(6))
    assert np.isfinite(errors).all()
    assert (np.diff(errors) >= 0).all()
    assert errors[-1] == pytest.approx(1, rel=1e-5)


def test_nothing_counts_where_all_weights_are_zero() -> None:
    x, w, blocks = layer(units=4)
    order, errors = removal_order(x.T @ x, 0 * w, blocks)
    assert order.tolist() == [0, 1, 2, 3]
    assert errors.tolist() == [0, 0, 0, 0]


def test_the_scale_of_weights_and_inputs_does_not_count() -> None:
    x, w, blocks = layer(units=8, size=2)
    plain = removal_order(damped(x.T @ x), w, blocks)
    scaled = removal_order(damped(1e6 * x.T @ x), 1e-3 * w, blocks)
    assert np.array_equal(plain.order, scaled.order)
    assert np.allclose(plain.errors, scaled.errors, rtol=1e-9)


def test_stop_cuts_the_order_short() -> None:
    x, w, blocks = layer()
    whole = removal_order(x.T @ x, w, blocks)
    assert np.array_equal(removal_order(x.T @ x, w, blocks, stop=2).order, whole.order[:2])
    assert removal_order(x.T @ x, w, blocks, stop=0).order.size == 0
    assert removal_order(x.T @ x, w, blocks, stop=99).order.size == 6


def test_greedy_is_near_the_best_set() -> None:
    x, w, blocks = layer(units=8, size=1, outputs=6, seed=9)
    order, errors = removal_order(x.T @ x, w, blocks, stop=4)
    sets = itertools.combinations(range(8), 4)
    best = min(best_without(x, w, np.array(rows)) for rows in sets)
    assert best <= errors[3] * np.square(x @ w).sum() * (1 + 1e-6) <= 1.5 * best
    assert len(set(order)) == 4


def test_what_does_not_fit_is_refused() -> None:
    x, w, blocks = layer()
    h = x.T @ x
    with pytest.raises(ValueError, match="two units"):
        removal_order(h, w, [*blocks, blocks[0]])
    with pytest.raises(ValueError, match="no such row"):
        removal_order(h, w, [np.array([12])])
    with pytest.raises(ValueError, match="12 rows"):
        removal_order(h[:4, :4], w, blocks)
    with pytest.raises(ValueError, match="exactly once"):
        removal_order([(np.arange(4), h[:4, :4])], w, blocks)
    with pytest.raises(ValueError, match="finite"):
        removal_order(h * np.nan, w, blocks)
    with pytest.raises(ValueError, match="finite"):
        removal_order(h, w * np.inf, blocks)
    with pytest.raises(ValueError, match=r"\[5, 6\] units"):
        joint_removal_order([(h, w, blocks), (h, w, blocks[1:])])


def test_damping_is_a_share_of_the_mean_diagonal() -> None:
    assert np.diag(damped(np.diag([1.0, 3.0]), 0.5)).tolist() == [2, 4]
    assert np.diag(damped(np.zeros((2, 2)), 0.5)).tolist() == [0.5, 0.5]


@pytest.mark.parametrize("size", [1, 5, 64, 65, 200])
def test_positive_matrices_are_solved_and_inverted(size: int) -> None:
    rng = np.random.default_rng(size)
    x = rng.normal(size=(2 * size, size))
    a, b = x.T @ x, rng.normal(size=(size, 3))
    lower = factor(a)
    assert np.array_equal(lower, np.tril(lower))
    assert np.allclose(lower @ lower.T, a)
    assert np.allclose(a @ solve(a, b), b)
    assert np.allclose(inverse(a) @ a, np.eye(size), atol=1e-8)
    stack = np.stack([a, 2 * a])
    assert np.allclose(solve(stack, np.stack([b, b]))[1], solve(a, b) / 2)


def test_a_matrix_that_is_not_quite_positive_is_mended() -> None:
    a = np.array([[1.0, 1.0], [1.0, 1.0 - 1e-15]])
    lower = factor(a)
    assert np.abs(lower @ lower.T - a).max() < 1e-12
    stack = factor(np.stack([np.eye(2), -np.eye(2), np.zeros((2, 2))]))
    assert np.array_equal(stack[0], np.eye(2))
    assert np.isfinite(stack).all()
    with pytest.raises(ValueError, match="finite"):
        factor(np.array([[np.inf]]))
