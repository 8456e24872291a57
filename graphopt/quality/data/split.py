"""Which samples calibrate and which evaluate: fixed by the seed, spread evenly, never both.

Units, the samples that a run of the model cannot part, are taken in blocks of 8 consecutive ones. Each block
is put in a random order of its own, and the first ``eighths`` of it calibrate. Where these would be more than
are wanted, only some of the blocks calibrate, evenly spread, since files are often sorted by class. All else
evaluates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

CALIBRATION_MOST = 1024
"""Samples that calibrate at most."""

BLOCK = 8
"""Units in a block."""

_STRETCH = 4096
"""Units whose order is drawn at a time."""


@dataclass(frozen=True)
class Split:
    """A division of units.

    Attributes:
        units: in all.
        eighths: of each block calibrate, 0 to 8.
        most: units that calibrate at most.
        seed: of the random order.
    """

    units: int
    eighths: int
    most: int
    seed: int

    def calibrates(self, start: int, count: int) -> np.ndarray:
        """Which of some units calibrate.

        Args:
            start: the number of the first unit.
            count: how many.

        Returns:
            bool of shape ``(count,)``.
        """
        found = np.zeros(count, bool)
        at = start
        while at < start + count:
            stretch = at // _STRETCH
            end = min(start + count, (stretch + 1) * _STRETCH)
            first = stretch * _STRETCH
            found[at - start : end - start] = _drawn(self, stretch)[at - first : end - first]
            at = end
        return found

    def drawn(self, number: int) -> np.ndarray:
        """Which units of a stretch calibrate, as bool of shape ``(_STRETCH,)``."""
        first = number * _STRETCH
        units = first + np.arange(_STRETCH).reshape(-1, BLOCK)
        rng = np.random.default_rng([self.seed, number])
        order = np.where(units < self.units, rng.random(units.shape), 2.0)
        ranks = order.argsort(axis=1).argsort(axis=1)
        sizes = np.clip(self.units - units[:, 0], 0, BLOCK)
        taken = np.array([self._share(int(size)) for size in range(BLOCK + 1)])[sizes]
        chosen = ranks < taken[:, None]
        blocks = units[:, 0] // BLOCK
        calibrates: np.ndarray = (chosen & self._turn(blocks)[:, None]).reshape(-1)
        return calibrates

    def _share(self, size: int) -> int:
        """How many of a block of some size calibrate; where it is the only block, both parts get some."""
        share = (size * self._each + BLOCK // 2) // BLOCK
        if self.units >= BLOCK or not self.eighths:
            return share
        return min(max(share, 1), size - (self.eighths < BLOCK))

    @property
    def _each(self) -> int:
        """How many of a full block calibrate."""
        return min(self.eighths, self.most)

    def _turn(self, blocks: np.ndarray) -> np.ndarray:
        """Whether blocks calibrate at all: as many as are wanted, at even distances, the first always."""
        count = -(-self.units // BLOCK)
        wanted = min(self.most // max(self._each, 1), count)
        return np.asarray(-(-(blocks + 1) * wanted // count) > -(-blocks * wanted // count))


@lru_cache(maxsize=8)
def _drawn(split: Split, number: int) -> np.ndarray:
    return split.drawn(number)


def eighths(share: float | None) -> int:
    """A share as whole eighths, from 1 to 7; a half where it is None."""
    return BLOCK // 2 if share is None else min(max(round(share * BLOCK), 1), BLOCK - 1)


def stretches(units: int) -> Iterator[tuple[int, int]]:
    """Units in pieces, as pairs of first number and count."""
    for start in range(0, units, _STRETCH):
        yield start, min(_STRETCH, units - start)
