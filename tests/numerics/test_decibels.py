"""Decibels, and what has none."""

from __future__ import annotations

import math

import numpy as np
import pytest

from graphopt.numerics.decibels import ratio_db, sqnr_db


@pytest.mark.parametrize("factor", [1.0, 1e-160, 1e160])
def test_a_tenth_of_the_amplitude_is_20_db(factor: float) -> None:
    assert ratio_db(factor, factor / 100) == pytest.approx(20.0)


@pytest.mark.parametrize(
    ("signal", "noise"), [(0.0, 1.0), (1.0, 0.0), (1.0, math.inf), (math.nan, 1.0), (1.0, math.nan)]
)
def test_what_has_no_ratio(signal: float, noise: float) -> None:
    assert ratio_db(signal, noise) is None


def test_arrays_are_compared_in_double_precision() -> None:
    values = np.full(1000, 3.0, np.float16)
    assert sqnr_db(values, values + np.float16(0.25)) == pytest.approx(20 * math.log10(12))
    assert sqnr_db(values, values) is None
