"""Targets of a refit behind which a function hides a part, or to which a skip connection is added."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from graphopt.numerics.streaming import CrossSpec, FeatureRows, RestoredSpec

ROWS = FeatureRows(1)


def drawn(seed: int = 0) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    x, y, own, skip = (rng.standard_normal((200, width)) for width in (5, 3, 3, 3))
    return x, y, own, skip


def moments(spec: CrossSpec, *arrays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    found = spec.start()
    found.add(*(array.astype(np.float32) for array in arrays))
    return found.mean, found.covariance()


def test_without_bounds_and_skip_it_is_a_plain_cross() -> None:
    x, y, _, _ = drawn()
    plain = moments(CrossSpec(ROWS, ROWS), x, y)
    for mine, theirs in zip(moments(RestoredSpec(ROWS, ROWS), x, y), plain, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize(("low", "high"), [(0.0, math.inf), (-0.5, 0.5), (-math.inf, 0.3)])
def test_what_the_function_hides_takes_up_what_is_there(low: float, high: float) -> None:
    x, y, own, _ = drawn()
    wanted = np.array(
        [
            min(o, low) if t <= low else max(o, high) if t >= high else t
            for t, o in zip(y.ravel(), own.ravel(), strict=True)
        ]
    ).reshape(y.shape)
    found = moments(RestoredSpec(ROWS, ROWS, bounds=(low, high)), x, y, own)
    expected = moments(CrossSpec(ROWS, ROWS), x, wanted)
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-6)


def test_the_target_of_a_layer_beside_a_skip_connection_is_what_the_sum_lacks() -> None:
    x, y, own, skip = drawn()
    spec = RestoredSpec(ROWS, ROWS, bounds=(0.0, math.inf), skip=True)
    assert spec.arrays == 4
    wanted = np.where(y <= 0, np.minimum(own, 0), y) - skip
    for mine, theirs in zip(
        moments(spec, x, y, own, skip), moments(CrossSpec(ROWS, ROWS), x, wanted), strict=True
    ):
        np.testing.assert_allclose(mine, theirs, atol=1e-6)


def test_fitting_again_never_raises_the_error_behind_a_relu() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((500, 4)).astype(np.float32)
    y = np.tanh(x @ rng.standard_normal((4, 6)) * 2).astype(np.float32)
    spec = RestoredSpec(ROWS, ROWS, bounds=(0.0, math.inf))
    weights, bias, errors = np.zeros((4, 6)), np.zeros(6), []
    for turn in range(6):
        found = spec.start() if turn else RestoredSpec(ROWS, ROWS).start()
        found.add(x, y, *([(x @ weights + bias).astype(np.float32)] if turn else []))
        weights = np.linalg.solve(found.gram.covariance(), found.covariance())
        bias = found.mean - found.gram.mean @ weights
        errors.append(np.square(np.maximum(x @ weights + bias, 0) - np.maximum(y, 0)).sum())
    assert errors[-1] < 0.97 * errors[0]
    assert all(after <= before * (1 + 1e-6) for before, after in itertools.pairwise(errors[1:]))


def test_arrays_of_other_shapes_are_refused() -> None:
    x, y, own, _ = drawn()
    with pytest.raises(ValueError, match="shapes"):
        RestoredSpec(ROWS, ROWS, skip=True).start().add(x, y, own[:, :1])
