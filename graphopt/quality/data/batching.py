"""From rows to runs: groups of as many samples as the model fixes, batches of as many as fit."""

from __future__ import annotations

from collections.abc import Iterator

from graphopt.quality.data.dataset import Batch
from graphopt.quality.data.rows import Rows, join

BATCH_BYTES = 1 << 22
"""Bytes of inputs in a batch, where the model takes any number of samples."""

BATCH_MOST = 64
"""Samples in such a batch at most."""


class Grouper:
    """Puts samples together until a run of the model is full.

    Attributes:
        left_out: samples that fill no run.
        unit: samples that a run took last.
    """

    def __init__(self) -> None:
        self.left_out = 0
        self.unit = 1
        self._held: list[Rows] = []

    def add(self, rows: Rows) -> Iterator[Rows]:
        """Take samples; gives back whole runs of them, in order."""
        if self._held and self._held[0].key != rows.key:
            self.close()
        self.unit = rows.unit
        if not self._held and rows.count % rows.unit == 0:
            yield rows
            return
        rows = join([*self._held, rows])
        whole = rows.count - rows.count % rows.unit
        self._held = [rows.take(slice(whole, None))] if whole < rows.count else []
        if whole:
            yield rows.take(slice(0, whole))

    def close(self) -> None:
        """Give up the samples that are held."""
        self.left_out += sum(rows.count for rows in self._held)
        self._held = []


class Batcher:
    """Makes batches of whole runs.

    Args:
        size: the most samples in a batch where the model takes any number; by their bytes where it is None.
    """

    def __init__(self, size: int | None = None) -> None:
        self.size = size
        self._held: list[Rows] = []
        self._count = 0

    def add(self, rows: Rows) -> Iterator[Batch]:
        """Take samples; gives back the batches that are full."""
        if self._held and self._held[0].key != rows.key:
            yield from self.rest()
        at, full = 0, self._full(rows)
        while at < rows.count:
            part = rows.take(slice(at, at + full - self._count))
            at += part.count
            self._held.append(part)
            self._count += part.count
            if self._count >= full:
                yield from self.rest()

    def rest(self) -> Iterator[Batch]:
        """What is held as a batch, if anything is."""
        if self._held:
            rows = join(self._held)
            self._held, self._count = [], 0
            yield rows.batch()

    def _full(self, rows: Rows) -> int:
        if rows.run:
            return rows.run
        fits = max(1, BATCH_BYTES // max(rows.sample_bytes, 1))
        return min(fits, self.size or BATCH_MOST, BATCH_MOST)
