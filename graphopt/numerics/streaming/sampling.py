"""Which rows of a batch are used, and in which portions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

PORTION = 1 << 22
"""Elements of a portion of rows."""

MOST_ROWS = 4096
"""Rows of a portion: their products are summed in float32, sums of portions in float64."""


@dataclass(frozen=True)
class Sampling:
    """A limit on the rows of each batch.

    The rows are drawn without replacement by a generator that is seeded with ``seed`` and the number of the
    batch, so the same batches give the same rows, and two accumulators use the same rows of the same batch.

    Args:
        most: rows that are used of each batch; None for all.
        seed: of the choice.
    """

    most: int | None = None
    seed: int = 0

    def portions(self, count: int, features: int, batch: int) -> Iterator[np.ndarray]:
        """The numbers of the rows to use, in ascending order, cut into portions.

        Args:
            count: rows of the batch.
            features: of a row.
            batch: the number of the batch.
        """
        chosen = None
        if self.most is not None and count > self.most:
            rng = np.random.default_rng([self.seed, batch])
            chosen = np.sort(rng.choice(count, self.most, replace=False, shuffle=False))
            count = self.most
        step = min(MOST_ROWS, max(64, PORTION // max(1, features)))
        for start in range(0, count, step):
            stop = min(count, start + step)
            yield np.arange(start, stop) if chosen is None else chosen[start:stop]
