"""Codebooks of vectors: k-means by splitting, and vectors that are fitted to the outputs of a layer."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphopt.numerics.codebooks import clustered_to_fit
from graphopt.numerics.rounding import output_error, rounded_to_fit
from graphopt.numerics.vector_codebooks import (
    VectorGrid,
    cluster_vectors,
    nearest_vectors,
    vectors_to_fit,
)


def moments(seed: int, groups: int, features: int, rows: int = 300) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(groups, rows, max(features // 4, 1)))
    x = x @ rng.normal(size=(groups, x.shape[2], features))
    x = (x + 0.5 * rng.normal(size=x.shape)) * rng.lognormal(size=(groups, 1, features))
    return np.asarray(np.swapaxes(x, 1, 2) @ x / rows)


def error(values: np.ndarray, weights: np.ndarray, gram: np.ndarray) -> float:
    return float(output_error(values - weights, gram).sum())


def test_the_nearest_are_found_and_of_equal_ones_the_first() -> None:
    rng = np.random.default_rng(0)
    centres, vectors = rng.integers(-3, 4, (9, 3)), rng.integers(-3, 4, (40_000, 3))
    wanted = np.square(vectors[:, None] - centres).sum(axis=2).argmin(axis=1)
    np.testing.assert_array_equal(nearest_vectors(centres * 1.0, vectors * 1.0), wanted)


def test_clusters_that_lie_apart_are_found() -> None:
    rng = np.random.default_rng(1)
    corners = np.array(list(itertools.product((-4.0, 0.0, 5.0), repeat=2)))
    vectors = (corners[:, None] + 0.1 * rng.normal(size=(9, 30, 2))).reshape(-1, 2)
    found = cluster_vectors(vectors, 9)
    wanted = vectors.reshape(9, 30, 2).mean(axis=1)
    order, other = np.lexsort(found.T.round(1)), np.lexsort(wanted.T.round(1))
    np.testing.assert_allclose(found[order], wanted[other], atol=1e-9)


def test_vectors_are_better_than_single_values_of_as_many_bits() -> None:
    """Normal numbers at 2 bits: 0.1175 is the best of single values (Max, 1960); of pairs about 0.107."""
    drawn = np.random.default_rng(2).normal(size=(20_000, 2))
    found = cluster_vectors(drawn, 16)
    lost = np.square(drawn - found[nearest_vectors(found, drawn)]).mean()
    assert lost < 0.1145


def test_weights_count_and_what_weighs_nothing_does_not() -> None:
    drawn = np.random.default_rng(3).normal(size=(50, 2))
    mass = (np.arange(50) < 25).astype(float)
    twice = np.concatenate([drawn[:25], drawn[:25]])
    np.testing.assert_allclose(cluster_vectors(drawn, 4, mass), cluster_vectors(twice, 4))
    np.testing.assert_array_equal(cluster_vectors(drawn, 4, 0 * mass), cluster_vectors(drawn, 4))


def test_few_vectors_are_met_exactly() -> None:
    few = np.array([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]])
    assert cluster_vectors(few, 4).tolist() == [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize(("k", "together"), [(16, 2), (64, 3), (16, 4)])
@pytest.mark.parametrize("shape", [(1, 60, 12), (3, 18, 12)])
def test_outputs_change_less_than_with_the_nearest_vectors(k: int, together: int, shape) -> None:
    gram, w = moments(k, *shape[:2]), np.random.default_rng(k).normal(size=shape)
    found = vectors_to_fit(w, k, together, gram)
    vectors = w.reshape(-1, together)
    mass = np.broadcast_to(np.diagonal(gram, axis1=1, axis2=2)[:, :, None], shape)
    centres = cluster_vectors(vectors, k, mass.reshape(-1, together)[:, 0])
    plain = centres[nearest_vectors(centres, vectors)].reshape(shape)
    assert error(found.values(), w, gram) < 0.7 * error(plain, w, gram)
    rows = np.unique(found.values().reshape(-1, together), axis=0)
    assert len(rows) <= k


def test_fitted_vectors_are_better_than_fitted_values_of_as_many_bits() -> None:
    gram, w = moments(7, 1, 96), np.random.default_rng(7).normal(size=(1, 96, 64))
    pairs, single = vectors_to_fit(w, 16, 2, gram), clustered_to_fit(w, 4, gram)
    assert error(pairs.values(), w, gram) < error(single.values(), w, gram)


def test_vectors_of_one_weight_are_single_values() -> None:
    gram, w = moments(4, 1, 20), np.random.default_rng(4).normal(size=(1, 20, 5))
    centres = np.array([[-1.0, -0.2, 0.4, 1.5]])
    books = np.zeros((1, 1, 5), np.int64)
    found = rounded_to_fit(w, 1.0, books, VectorGrid(centres), gram)
    plain = centres[0][found]
    assert error(plain, w, gram) < error(
        centres[0][np.abs(w[..., None] - centres).argmin(-1)], w, gram
    )


@given(st.integers(0, 10**6), st.integers(1, 8), st.integers(1, 3), st.integers(2, 4))
@settings(max_examples=40, deadline=None)
def test_outputs_of_a_vector_share_their_place_and_lose_no_more_than_with_the_nearest(
    seed: int, features: int, vectors: int, together: int
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(30, features))
    gram, w = (x.T @ x / 30)[None], rng.normal(size=(1, features, vectors * together))
    centres = rng.normal(size=(together, 4))
    books = (np.arange(vectors * together) % together)[None, None]
    grid = VectorGrid(centres)
    nearest = grid.dequantized(grid.quantized(w), 1.0, books)
    steps = rounded_to_fit(w, 1.0, books, grid, gram, together=together)
    values = grid.dequantized(steps, 1.0, books)
    assert error(values, w, gram) <= error(nearest, w, gram) * (1 + 1e-12)
    same = steps.reshape(-1, together)
    assert (same == same[:, :1]).all()


def test_outputs_that_are_no_vectors_are_refused() -> None:
    with pytest.raises(ValueError, match="7 outputs are no vectors of 2"):
        vectors_to_fit(np.zeros((1, 3, 7)), 4, 2, np.eye(3)[None])
