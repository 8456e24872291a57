"""Tables over two widths: where they are measured, and how they are read in between."""

from __future__ import annotations

import numpy as np
import pytest

from graphopt.numerics.surfaces import Surfaces, levels, rising


def test_few_widths_are_all_measured_and_the_full_one_is_always_there() -> None:
    assert levels(8, 64, 8).tolist() == [8, 16, 24, 32, 40, 48, 56, 64]
    assert levels(1, 20, 8).tolist() == [8, 16, 20]
    assert levels(5, 5, 8).tolist() == [5]
    assert levels(30, 40, 8).tolist() == [32, 40]


@pytest.mark.parametrize("most", [2, 3, 6, 8])
def test_many_widths_are_measured_at_multiples_from_the_least_to_the_full_one(most: int) -> None:
    found = levels(3, 3000, most)
    assert 2 <= len(found) <= most
    assert (found[0], found[-1]) == (8, 3000)
    assert not (found[:-1] % 8).any()
    assert (np.diff(found) > 0).all()


def test_noise_is_levelled_and_what_rises_stays() -> None:
    table = np.array([[1.0, 2.0, 4.0], [2.0, 3.0, 5.0]])
    assert (rising(table) == table).all()
    noisy = np.random.default_rng(0).random((6, 5)) + np.arange(5)
    found = rising(noisy)
    assert (np.diff(found, axis=0) >= 0).all()
    assert (np.diff(found, axis=1) >= 0).all()
    assert (found >= noisy.min()).all()
    assert (found <= noisy.max()).all()


def test_tables_are_read_exactly_where_they_were_measured_and_bilinearly_between() -> None:
    axes = [(np.array([8, 24]), np.array([8, 16, 40])), (np.array([1]), np.array([8, 12]))]
    tables = [np.array([[1.0, 2.0, 5.0], [3.0, 4.0, 9.0]]), np.array([[7.0, 8.0]])]
    surfaces = Surfaces(axes, tables)

    def read(*widths: tuple[int, int]) -> list[float]:
        rows, columns = (np.array([[w[n]] for w in widths]) for n in (0, 1))
        return [float(value) for value in surfaces.read(rows, columns)[:, 0]]

    assert read((8, 16), (1, 8)) == [2.0, 7.0]
    assert read((24, 40), (1, 12)) == [9.0, 8.0]
    assert read((16, 24), (1, 9)) == pytest.approx([(2 + 4 + (3 + 5) / 3) / 2, 8.0])


def test_a_width_takes_what_the_whole_block_takes() -> None:
    surfaces = Surfaces([(np.array([8, 16, 20]), np.array([4]))], [np.array([[1.0], [2.0], [3.0]])])
    widths = np.arange(1, 21)[None]
    found = surfaces.read(widths, np.full_like(widths, 4))[0]
    assert found.tolist() == [1.0] * 8 + [2.0] * 8 + [3.0] * 4


def test_readings_rise_along_both_axes() -> None:
    rng = np.random.default_rng(1)
    axes = (levels(8, 500, 6), levels(8, 300, 5))
    surfaces = Surfaces([axes], [rising(rng.random((6, 5)) + np.arange(6)[:, None])])
    rows, columns = np.meshgrid(np.arange(1, 501, 7), np.arange(1, 301, 5), indexing="ij")
    found = surfaces.read(rows.reshape(1, -1), columns.reshape(1, -1)).reshape(rows.shape)
    assert (np.diff(found, axis=0) >= -1e-12).all()
    assert (np.diff(found, axis=1) >= -1e-12).all()
