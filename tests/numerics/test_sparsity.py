"""Sparse weights: counts, patterns, and which way loses least."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphopt.numerics.importance import (
    activation_scores,
    l1_scores,
    l2_scores,
    random_scores,
)
from graphopt.numerics.obs import damped
from graphopt.numerics.sparsity import Sparsity, inverse_factor, kept, refitted, swept


def layer(seed: int, outputs: int = 24, inputs: int = 160) -> tuple[np.ndarray, np.ndarray]:
    """Correlated inputs of unequal size, and weights ``(outputs, inputs)`` of float32."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(800, inputs // 4)) @ rng.normal(size=(inputs // 4, inputs))
    x = (hidden + rng.normal(size=hidden.shape)) * rng.lognormal(size=inputs)
    return x, rng.normal(size=(outputs, inputs)).astype(np.float32)


def magnitude(w: np.ndarray, sparsity: Sparsity) -> np.ndarray:
    """The smallest ``|w|`` of each output at zero, the others as they are."""
    return np.where(kept(np.abs(w), sparsity), w, w.dtype.type(0))


def wanda(w: np.ndarray, h: np.ndarray, sparsity: Sparsity) -> np.ndarray:
    """The smallest ``|w_i| sqrt(H_ii)`` of each output at zero, the others as they are."""
    return np.where(kept(np.abs(w) * np.sqrt(np.diag(h)), sparsity), w, w.dtype.type(0))


def sparsegpt(
    w: np.ndarray, h: np.ndarray, sparsity: Sparsity, damping: float = 0.01
) -> np.ndarray:
    """Swept, from H."""
    return swept(w, inverse_factor(h, damping), sparsity)


@pytest.mark.parametrize("sparsity", [0.5, 0.7, (2, 4), (1, 4), (4, 8)])
@pytest.mark.parametrize("seed", range(3))
def test_each_way_is_better_than_the_one_before(seed: int, sparsity: Sparsity) -> None:
    x, w = layer(seed)
    h = x.T @ x / len(x)
    ways = [magnitude(w, sparsity), wanda(w, h, sparsity), sparsegpt(w, h, sparsity)]
    errors = [float(np.square(x @ (w - new).T).sum()) for new in ways]
    assert errors[0] > errors[1] > errors[2]
    assert {new.dtype for new in ways} == {np.dtype(np.float32)}
    zeros = {np.count_nonzero(new == 0) for new in ways}
    assert len(zeros) == 1


@pytest.mark.parametrize("inputs", [4, 128, 130, 262])
@pytest.mark.parametrize("pattern", [(2, 4), (1, 3), (3, 4), (4, 4), (0, 2)])
def test_of_every_m_exactly_n_stay(inputs: int, pattern: tuple[int, int]) -> None:
    x, w = layer(1, inputs=inputs)
    h = x.T @ x
    n, m = pattern
    for new in (magnitude(w, pattern), wanda(w, h, pattern), sparsegpt(w, h, pattern)):
        whole = inputs // m * m
        groups = np.count_nonzero(new[:, :whole].reshape(len(w), -1, m), axis=2)
        assert (groups == n).all()
        assert (np.count_nonzero(new[:, whole:], axis=1) == min(n, inputs - whole)).all()


@given(share=st.floats(0, 1), seed=st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_the_share_is_met_exactly(share: float, seed: int) -> None:
    scores = np.random.default_rng(seed).integers(0, 4, size=(7, 30)).astype(float)
    rows, whole = kept(scores, share), kept(scores, share, "tensor")
    assert (np.count_nonzero(~rows, axis=1) == round(share * 30)).all()
    assert np.count_nonzero(~whole) == round(share * 210)
    if whole.any() and not whole.all():
        assert scores[~whole].max() <= scores[whole].min()


def test_nothing_and_everything() -> None:
    x, w = layer(2)
    h = x.T @ x
    for none in (0.0, (4, 4)):
        for new in (magnitude(w, none), wanda(w, h, none), sparsegpt(w, h, none)):
            assert np.array_equal(new, w)
    for new in (magnitude(w, 1.0), wanda(w, h, 1.0), sparsegpt(w, h, 1.0)):
        assert not new.any()


def test_a_tensor_gives_up_small_rows_first() -> None:
    w = np.array([[1.0, 2.0], [10.0, 20.0]])
    assert kept(w, 0.5, "tensor").tolist() == [[False, False], [True, True]]
    assert kept(w, 0.5, "row").tolist() == [[False, True], [False, True]]


def test_sparsegpt_of_one_output_makes_up_for_its_mask_as_well_as_it_can() -> None:
    """What goes first is made up for by all others; so removing only the first is optimal brain surgery."""
    x, w = layer(3, outputs=1, inputs=12)
    w[0, 0] = 1e-3  # the only one that is worth removing
    h, wide = damped(x.T @ x), w.astype(np.float64)
    new = sparsegpt(wide, x.T @ x, 1 / 12)
    assert np.flatnonzero(new == 0).tolist() == [0]
    best = np.linalg.solve(h[1:, 1:], h[1:] @ wide[0])  # the least squares of what is left
    assert np.allclose(new[0, 1:], best)


def test_the_same_input_gives_the_same_bits_and_is_left_alone() -> None:
    x, w = layer(4)
    h, before = x.T @ x, w.copy()
    first = sparsegpt(w, h, (2, 4))
    assert first.tobytes() == sparsegpt(w, h, (2, 4)).tobytes()
    assert np.array_equal(w, before)
    assert np.array_equal(h, x.T @ x)


def test_inputs_that_are_dead_or_repeated_go_first() -> None:
    x, w = layer(5, inputs=16)
    x[:, 3] = 0
    x[:, 9] = x[:, 8]
    new = sparsegpt(w, x.T @ x, 2 / 16, damping=1e-9)
    assert np.flatnonzero((new == 0).any(axis=0)).tolist() == [3, 8]
    assert np.abs(x @ (w - new).T).max() < 1e-4 * np.abs(x @ w.T).max()
    assert np.count_nonzero(sparsegpt(w, 0 * x.T @ x, 0.5) == 0) == w.size / 2


@pytest.mark.parametrize("sparsity", [-0.1, 1.1, float("nan"), (3, 2), (-1, 4), (0, 0)])
def test_what_is_no_sparsity_is_refused(sparsity: Sparsity) -> None:
    w = np.ones((2, 4))
    for call in (
        lambda: kept(w, sparsity),
        lambda: kept(w, sparsity, "tensor"),
        lambda: swept(w, np.eye(4), sparsity),
    ):
        with pytest.raises(ValueError, match="cannot be"):
            call()


def test_magnitudes_of_units_add_up_over_slices() -> None:
    slices = [np.array([[3.0, -4.0], [1.0, 0.0]]), np.array([[[12.0]], [[-1.0]]])]
    assert l1_scores(slices).tolist() == [19, 2]
    assert np.allclose(l2_scores(slices), [13, np.sqrt(2)])
    with pytest.raises(ValueError, match=r"\[2, 3\] units"):
        l1_scores([np.ones((2, 1)), np.ones((3, 1))])


def test_random_scores_follow_the_seed() -> None:
    assert np.array_equal(random_scores(9, 1), random_scores(9, 1))
    assert not np.array_equal(random_scores(9, 1), random_scores(9, 2))
    rng = np.random.default_rng(1)
    assert np.array_equal(random_scores(9, rng), random_scores(9, 1))
    assert not np.array_equal(random_scores(9, rng), random_scores(9, 1))


def test_activation_scores_are_activation_times_weight() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(50, 4)) * [1, 2, 3, 4], rng.normal(size=(4, 3))
    second = np.square(x).mean(axis=0)
    alone = activation_scores([(second, w, list(np.arange(4)[:, None]))])
    expected = np.sqrt(second) * np.linalg.norm(w, axis=1)
    assert np.allclose(alone / alone[0], expected / expected[0])
    pairs = activation_scores([(second, w, [np.array([0, 1]), np.array([2, 3])])])
    assert np.allclose(np.square(pairs), np.square(alone).reshape(2, 2).sum(axis=1))
    twice = [(second, w, list(np.arange(4)[:, None])), (9 * second, w, list(np.arange(4)[:, None]))]
    assert np.allclose(activation_scores(twice), np.sqrt(2) * alone)
    assert activation_scores([(second, 0 * w, list(np.arange(4)[:, None]))]).tolist() == [0] * 4


def test_sparsegpt_leaves_zeros_alone_and_counts_them() -> None:
    x, w = layer(6)
    h = x.T @ x
    w[:, :20] = 0
    for share in (0.05, 0.4, 0.437):
        new = sparsegpt(w, h, share)
        assert not new[:, :20].any()
        assert np.count_nonzero(new == 0) == max(round(share * w.size), 20 * len(w))
    groups = np.count_nonzero(sparsegpt(w, h, (2, 4)).reshape(len(w), -1, 4), axis=2)
    assert (groups == np.where(np.arange(40) < 5, 0, 2)).all()


def test_what_stays_is_refitted_as_well_as_it_can_be() -> None:
    x, w = layer(7, outputs=5, inputs=40)
    w = w.astype(np.float64)
    h = damped(x.T @ x / len(x))
    sparse = wanda(w, h, 0.5)
    new = refitted(sparse, h, w @ h, w, damping=0.0, steps=200)
    for row, old, start in zip(new, w, sparse, strict=True):
        left = start != 0
        best = np.linalg.solve(h[np.ix_(left, left)], (h @ old)[left])
        assert np.allclose(row[left], best, atol=1e-6)
        assert not row[~left].any()
    few = refitted(sparse, h, w @ h, w, steps=3)
    errors = [np.einsum("oi,ij,oj", w - v, h, w - v) for v in (sparse, few, new)]
    assert errors[0] > errors[1] > errors[2]
