"""The spectrum of drawn noise, measured on what was drawn."""

from __future__ import annotations

import numpy as np
import pytest

from graphopt.numerics import noise
from graphopt.numerics.noise import LEVEL, coloured


def slope(fields: np.ndarray) -> float:
    """The exponent of the amplitude's fall with frequency, fitted over fields of one or two axes."""
    axes = tuple(range(1, fields.ndim))
    found = np.sqrt((np.abs(np.fft.fftn(fields, axes=axes)) ** 2).mean(axis=0)).ravel()
    every = np.meshgrid(*map(np.fft.fftfreq, fields.shape[1:]), indexing="ij")
    frequency = np.sqrt(sum(part**2 for part in every)).ravel()
    used = (frequency > 0) & (frequency < 0.5)
    return float(np.polyfit(np.log(frequency[used]), np.log(found[used]), 1)[0])


def test_pictures_fall_as_one_over_f_and_series_as_its_root() -> None:
    rng = np.random.default_rng(0)
    assert slope(coloured(rng, (200, 32, 24), (1, 2))) == pytest.approx(-1.0, abs=0.03)
    assert slope(coloured(rng, (400, 256), (1,))) == pytest.approx(-0.5, abs=0.03)
    assert slope(coloured(rng, (200, 32, 24), ())) == pytest.approx(0.0, abs=0.03)


def test_each_field_lies_along_its_own_axes() -> None:
    made = coloured(np.random.default_rng(1), (2, 16, 12, 3), (1, 2))
    assert made.shape == (2, 16, 12, 3)
    assert made.dtype == np.float32
    assert made.flags.c_contiguous
    assert made.std(axis=(1, 2)) == pytest.approx(np.full((2, 3), np.sqrt(1 - LEVEL**2)), abs=1e-5)
    near = (made[:, 1:] * made[:, :-1]).mean()
    across = (made[..., 1:] * made[..., :-1]).mean()
    assert near > 0.5
    assert abs(across) < near / 2


def test_pictures_have_levels_of_their_own_and_series_none() -> None:
    rng = np.random.default_rng(2)
    pictures = coloured(rng, (4000, 8, 8), (1, 2))
    assert pictures.mean(axis=(1, 2)).std() == pytest.approx(LEVEL, rel=0.05)
    assert pictures.std() == pytest.approx(1.0, rel=0.02)
    series = coloured(rng, (50, 64), (1,))
    assert np.abs(series.mean(axis=1)).max() < 1e-6
    assert series.std(axis=1) == pytest.approx(np.ones(50), abs=1e-5)


@pytest.mark.parametrize(
    ("shape", "axes"), [((), ()), ((0, 8), (1,)), ((3, 0), (1,)), ((4, 1, 1), (1, 2)), ((5,), (0,))]
)
def test_shapes_without_room_for_a_spectrum(shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    made = coloured(np.random.default_rng(0), shape, axes)
    assert made.shape == shape
    assert np.isfinite(made).all()


def test_a_field_too_large_to_transform_stays_white(monkeypatch) -> None:
    monkeypatch.setattr(noise, "LARGEST_FIELD", 99)
    assert slope(coloured(np.random.default_rng(0), (400, 100), (1,))) == pytest.approx(0, abs=0.05)
