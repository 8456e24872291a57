"""Weights that share values: never worse for the outputs than plain k-means, near the best of all."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphopt.numerics import codebooks
from graphopt.numerics.codebook_fitting import Clustered, Problem
from graphopt.numerics.codebooks import Codebook, clustered_to_fit
from graphopt.numerics.grids import AffineGrid
from graphopt.numerics.kmeans import cluster
from graphopt.numerics.rounding import output_error, rounded_to_fit


def moments(seed: int, groups: int, features: int, rows: int = 300) -> np.ndarray:
    """Of correlated features of unequal size, ``(groups, features, features)``."""
    rng = np.random.default_rng(seed)
    rank = max(features // 4, 1)
    x = rng.normal(size=(groups, rows, rank)) @ rng.normal(size=(groups, rank, features))
    x = (x + 0.5 * rng.normal(size=x.shape)) * rng.lognormal(size=(groups, 1, features))
    return np.asarray(np.swapaxes(x, 1, 2) @ x / rows)


def weights_of(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed + 99).normal(size=shape).astype(np.float32)


def error(values: np.ndarray, weights: np.ndarray, gram: np.ndarray) -> float:
    return float(output_error(values - weights.astype(np.float64), gram).sum())


def plain(weights: np.ndarray, k: int, gram: np.ndarray, zero: bool = False) -> np.ndarray:
    """The weighted k-means clustering."""
    diagonal = np.diagonal(gram, axis1=1, axis2=2)[:, :, None]
    centres, index = cluster(weights, k, np.broadcast_to(diagonal, weights.shape), zero)
    return np.asarray(centres[index])


@pytest.mark.parametrize("shape", [(1, 24, 6), (5, 9, 1), (3, 18, 4), (1, 200, 10)])
@pytest.mark.parametrize("k", [2, 4, 16])
def test_outputs_change_less_than_with_plain_clusters(k: int, shape: tuple[int, int, int]) -> None:
    gram, w = moments(k, *shape[:2]), weights_of(k, *shape)
    found = clustered_to_fit(w, k, gram)
    assert found.centres.size <= k and (np.diff(found.centres) >= 0).all()
    before, after = (error(v, w, gram) for v in (plain(w, k, gram), found.values()))
    assert after <= before
    if shape[1] >= 18:
        assert after < 0.5 * before


@given(st.integers(0, 10**6), st.integers(1, 10), st.integers(1, 4), st.integers(1, 20))
@settings(max_examples=60, deadline=None)
def test_it_is_never_worse_whatever_the_moments(
    seed: int, features: int, outputs: int, rows: int
) -> None:
    """Also where fewer rows than features were seen, or features are constant 0, or weights are."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, rows, features)) * rng.integers(0, 2, features)
    w = rng.normal(size=(2, features, outputs)) * rng.integers(0, 2, (2, features, outputs))
    gram, k = np.swapaxes(x, 1, 2) @ x / rows, int(rng.integers(1, 6))
    zeros = w == 0 if seed % 2 else None
    if not gram.any():
        return
    found = clustered_to_fit(w, k, gram, zeros)
    wanted = error(plain(w, k, gram, zeros is not None), w, gram)
    assert error(found.values(), w, gram) <= wanted * (1 + 1e-9) + 1e-12
    if zeros is not None:
        assert (found.values()[zeros] == 0).all()


@pytest.mark.parametrize("seed", range(4))
def test_it_is_near_the_best_of_all_assignments(seed: int) -> None:
    """Brute force: all assignments of 5 weights of one output to 2 values, each with its best values."""
    gram, w = moments(seed, 1, 5), weights_of(seed, 1, 5, 1)
    least = np.inf
    for steps in itertools.product(range(2), repeat=5):
        one_hot = np.eye(2)[list(steps)]
        best = np.linalg.pinv(one_hot.T @ gram[0] @ one_hot) @ one_hot.T @ gram[0] @ w[0]
        least = min(least, error((one_hot @ best)[None], w, gram))
    found = error(clustered_to_fit(w, 2, gram).values(), w, gram)
    assert least * (1 - 1e-6) <= found
    assert found - least <= 0.5 * (error(plain(w, 2, gram), w, gram) - least) + 1e-6


@pytest.mark.parametrize("k", [2, 5, 12])
def test_the_codebook_is_the_best_for_an_assignment(k: int) -> None:
    """Conjugate gradients come to what the normal equations say."""
    gram, w = moments(k, 2, 20), weights_of(k, 2, 20, 7).astype(np.float64)
    problem = Problem.of(w, gram, w > 99, np.zeros((1, 1), np.int64))
    steps = np.random.default_rng(k).integers(0, k, w.shape)
    one_hot = np.eye(k)[steps]
    normal = np.einsum("gioa,gij,gjob->ab", one_hot, gram, one_hot)
    right = np.einsum("gioa,gij,gjo->a", one_hot, gram, w)
    start = Clustered(np.linspace(-1, 1, k)[None], steps, problem.books)
    found = problem.refitted(start, zero=False)
    np.testing.assert_allclose(found[0], np.linalg.solve(normal, right), atol=1e-6)


def test_zeros_stay_and_one_value_is_zero() -> None:
    gram, w = moments(0, 1, 40), weights_of(0, 1, 40, 8)
    zeros = np.abs(w) < 0.5
    found = clustered_to_fit(w, 4, gram, zeros)
    assert (found.values()[zeros] == 0).all()
    assert np.count_nonzero(found.centres) == 3
    assert error(found.values(), np.where(zeros, 0, w), gram) < 0.5 * error(
        plain(np.where(zeros, 0, w), 4, gram, True), np.where(zeros, 0, w), gram
    )


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_values_are_of_the_type_that_they_are_stored_in(dtype: type) -> None:
    gram, w = moments(1, 1, 30), weights_of(1, 1, 30, 5)
    found = clustered_to_fit(w, 8, gram, dtype=dtype)
    np.testing.assert_array_equal(found.values(), found.values().astype(dtype))


def test_groups_and_blocks_are_the_same() -> None:
    gram, w = moments(4, 3, 9), weights_of(4, 3, 9, 2)
    blocks = [(np.arange(9) + 9 * g, gram[g]) for g in (2, 0, 1)]
    whole, parts = clustered_to_fit(w, 4, gram), clustered_to_fit(w, 4, blocks)
    np.testing.assert_allclose(parts.values(), whole.values(), rtol=1e-12)


def test_an_even_codebook_rounds_like_a_grid() -> None:
    gram, w = moments(5, 1, 30), weights_of(5, 1, 30, 6)
    grid, scale, zero = AffineGrid(0, 15), np.full(6, 0.5), np.full(6, 7)
    wanted = rounded_to_fit(w, scale, zero, grid, gram)
    found = rounded_to_fit(w, scale, zero, Codebook(np.arange(16.0)), gram)
    np.testing.assert_array_equal(found, wanted)


def test_pinned_weights_go_to_the_nearest_and_a_start_is_bettered() -> None:
    gram, w = moments(6, 1, 30), weights_of(6, 1, 30, 6)
    book = Codebook(np.array([-1.0, 0.0, 0.3, 1.2]))
    pinned = np.arange(30)[:, None] % 3 == 0
    found = rounded_to_fit(w, 1.0, 0.0, book, gram, pinned=pinned)
    nearest = book.quantized(w)
    np.testing.assert_array_equal(found[0, ::3], nearest[0, ::3])
    assert (found != nearest).any()
    start = np.random.default_rng(0).integers(0, 4, w.shape)
    again = rounded_to_fit(w, 1.0, 0.0, book, gram, start=start)
    for other in (start, nearest):
        assert error(book.dequantized(again), w, gram) <= error(book.dequantized(other), w, gram)


def test_all_weights_may_be_alike() -> None:
    found = clustered_to_fit(np.full((1, 3, 2), 2.5), 4, moments(0, 1, 3))
    assert isinstance(found, Clustered) and found.centres.tolist() == [[2.5]]


@pytest.mark.parametrize(
    ("shape", "books"), [((1, 30, 6), [[2, 0, 0, 1, 2, 2]]), ((3, 9, 2), None)]
)
def test_codebooks_of_outputs_are_each_like_the_only_one(shape, books, monkeypatch) -> None:
    """What outputs with a codebook of their own are given depends on nothing else."""
    gram, w = moments(8, *shape[:2]), weights_of(8, *shape)
    numbers = np.array(books or [[0, 1], [0, 1], [1, 0]])
    found = clustered_to_fit(w, 4, gram, books=numbers).values()
    started = codebooks.cluster_rows

    def alone(values, k, *rest):
        return started(values.reshape(1, -1), k, *(part.reshape(1, -1) for part in rest[:1])), None

    monkeypatch.setattr(codebooks, "cluster", lambda *a: (alone(*a)[0][0], None))
    for number in range(numbers.max() + 1):
        if shape[0] == 1:
            own = numbers[0] == number
            one = clustered_to_fit(w[:, :, own], 4, gram).values()
            np.testing.assert_allclose(found[:, :, own], one, rtol=1e-9)
        assert all(len(np.unique(found[..., :][_of(numbers, n, shape)])) <= 4 for n in (0, 1))


def _of(numbers: np.ndarray, number: int, shape: tuple[int, int, int]) -> np.ndarray:
    return np.broadcast_to((numbers == number)[:, None, :], shape)


@given(st.integers(0, 10**6), st.integers(1, 8), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_no_codebook_is_worse_than_its_clusters(seed: int, features: int, outputs: int) -> None:
    """Also where a group of the layer reads nothing, or a codebook serves weights of 0 only."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, 20, features)) * rng.integers(0, 2, (2, 1, 1))
    w = rng.normal(size=(2, features, outputs)) * rng.integers(0, 2, (2, 1, outputs))
    if not x.any():
        return
    gram = np.swapaxes(x, 1, 2) @ x / 20
    numbers = np.arange(2 * outputs).reshape(2, outputs) // 2
    zeros = w == 0 if seed % 2 else None
    begun = clustered_to_fit(w, 3, gram, zeros, turns=0, books=numbers)
    found = clustered_to_fit(w, 3, gram, zeros, books=numbers)
    before, after = (output_error(f.values() - w, gram) for f in (begun, found))
    for number in range(numbers.max() + 1):
        own = numbers == number
        assert after[own].sum() <= before[own].sum() * (1 + 1e-9) + 1e-15
    if zeros is not None:
        assert (found.values()[zeros] == 0).all()
