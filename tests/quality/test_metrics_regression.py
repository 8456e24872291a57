"""Metrics of regression: formulas, the relative drop, and what is refused."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from graphopt.errors import UsageError
from graphopt.quality.metrics import Metric, Observed
from graphopt.quality.metrics.regression import MAE, MSE


def seen(labels, y: np.ndarray) -> Observed:
    labels = np.asarray(labels)
    return Observed({"y": y}, {"y": y}, labels, len(labels))


def refused(metric: Metric, batch: Observed) -> str:
    with pytest.raises(UsageError) as caught:
        metric.rows(batch)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_regression() -> None:
    labels = np.array([[1.0, 2], [3, 4]])
    off = labels + np.array([[1, -1], [0, 3]])
    batch = seen(labels, y=off.astype(np.float32))
    assert MSE().rows(batch).tolist() == [[2, 2, 0], [9, 2, 0]]
    assert MSE().value(MSE().rows(batch)) == pytest.approx(11 / 4)
    assert MAE().value(MAE().rows(batch)) == pytest.approx(5 / 4)
    assert MSE().rows(seen([1, 2], y=np.array([[1.5], [2]]))).tolist() == [[0.25, 1, 0], [0, 1, 0]]
    narrow = off.astype(ml_dtypes.bfloat16)
    assert MSE().rows(seen(labels, y=narrow)).tolist() == [[2, 2, 0], [9, 2, 0]]


def test_the_drop_of_an_error_is_relative() -> None:
    before, after = (
        np.array([2.0, 2.0, 0.0, 0.0, np.inf, 2.0]),
        np.array([3.0, 1, 0, 1e-9, 5, np.inf]),
    )
    expected = [0.5, -0.5, 0.0, np.inf, np.nan, np.inf]
    np.testing.assert_array_equal(MSE().drop(before, after), expected)
    assert np.isnan(MSE().drop(np.array([np.inf]), np.array([np.inf]))[0])


def test_what_is_not_finite_has_an_infinite_error() -> None:
    rows = MSE().rows(seen([[1.0], [2.0]], y=np.array([[np.nan], [2.5]])))
    weights = np.array([[1, 1], [0, 2]])
    assert MSE().values(rows, weights).tolist() == [np.inf, 0.25]
    huge = MSE().rows(seen([1.0, 2.0], y=np.array([1e200, 2.0])))
    assert MSE().values(huge, weights).tolist() == [np.inf, 0]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([1.0, np.inf], "a label is NaN or infinite"),
        (["a", "b"], "wants numbers; the labels are string[2]"),
        ([[1.0, 2], [3, 4]], "an output of the labels' shape [2, 2]"),
    ],
)
def test_labels_that_a_regression_refuses(labels, said: str) -> None:
    assert said in refused(MSE(), seen(labels, y=np.zeros((2, 3), np.float32)))
