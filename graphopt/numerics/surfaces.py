"""Tables over two widths, measured at a few levels of each and read in between.

Kernels work in blocks: a layer of 17 channels takes what one of 24 takes, or more. So a width is first
rounded up to a whole number of blocks, and between measured levels the table is read bilinearly:

    t(a, b) = (1-u) (1-v) T[i, j] + u (1-v) T[i+1, j] + (1-u) v T[i, j+1] + u v T[i+1, j+1]

where a lies at the share u of the way from level i to level i+1, and b likewise. Less work takes no longer,
but for noise: a measured table is replaced by the mean of the smallest rising table above it and of the
largest one below it, and a bilinear reading of a table that rises along both axes rises along both.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BLOCK = 8
"""Channels in the smallest block of the kernels of CPUs: eight floats are one vector of AVX2."""


def levels(least: int, full: int, most: int, block: int = BLOCK) -> np.ndarray:
    """Widths to measure at: multiples of the block, geometrically where there are many; and the full one.

    Args:
        least: the smallest width that is of interest.
        full: the largest one.
        most: how many at most, two or more.
        block: what widths are rounded up to.

    Returns:
        int64, rising, the last one ``full``.
    """
    first = min(-(-max(least, 1) // block) * block, full)
    every = np.arange(first, full, block)
    if len(every) >= most:
        spaced = np.geomspace(first, full, most)[:-1]
        every = np.unique(np.maximum(np.rint(spaced / block), 1) * block)
    every = every[every < full]
    return np.append(every, full).astype(np.int64)


def rising(values: np.ndarray) -> np.ndarray:
    """The table of shape ``(n, m)`` between the closest ones that rise along both axes."""
    above, below = values, values
    for axis in (0, 1):
        above = np.maximum.accumulate(above, axis=axis)
        below = np.flip(np.minimum.accumulate(np.flip(below, axis), axis=axis), axis)
    return np.asarray((above + below) / 2)


class Surfaces:
    """Many tables, read together.

    Args:
        axes: for each table, the levels of its rows and of its columns.
        values: the tables, each of shape ``(rows, columns)``.
        block: what widths are rounded up to.
    """

    def __init__(
        self,
        axes: Sequence[tuple[np.ndarray, np.ndarray]],
        values: Sequence[np.ndarray],
        block: int = BLOCK,
    ) -> None:
        self._block = block
        shape = [max((len(axis[n]) for axis in axes), default=1) + 1 for n in (0, 1)]
        self._values = np.zeros((len(values), *shape))
        for number, table in enumerate(values):
            rows, columns = table.shape
            self._values[number, :rows, :columns] = table
        self._first = [np.zeros(len(axes), np.int64), np.zeros(len(axes), np.int64)]
        places: list[np.ndarray] = [np.zeros(0)]
        count = 0
        for number, pair in enumerate(axes):
            for n, axis in enumerate(pair):
                steps = np.arange(-(-int(axis[-1]) // block) + 1) * block
                found = np.interp(np.minimum(steps, axis[-1]), axis, np.arange(len(axis)))
                self._first[n][number] = count
                places.append(found)
                count += len(found)
        self._places = np.concatenate(places)

    def read(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """All tables at some widths.

        Args:
            rows: widths between 0 and the full one, int64 of shape ``(tables, n)``.
            columns: the same of the other axis.

        Returns:
            float64 of shape ``(tables, n)``.
        """
        table = np.arange(len(self._values))[:, None]
        i, u = self._place(0, rows)
        j, v = self._place(1, columns)
        low = (1 - v) * self._values[table, i, j] + v * self._values[table, i, j + 1]
        high = (1 - v) * self._values[table, i + 1, j] + v * self._values[table, i + 1, j + 1]
        return np.asarray((1 - u) * low + u * high)

    def _place(self, axis: int, widths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The level below each width, and how far it is from there to the next one."""
        steps = -(-widths // self._block)
        found = self._places[self._first[axis][:, None] + steps]
        whole = np.floor(found).astype(np.int64)
        return whole, found - whole
