"""Count, mean and variance in one pass.

Two sets A and B of numbers, each known by its count n, mean m and sum M of squared differences from the
mean, are joined by (Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample
variances", 1979)

    d = m_B - m_A,  n = n_A + n_B,  m = m_A + d n_B / n,  M = M_A + M_B + d^2 n_A n_B / n

which, unlike E[x^2] - E[x]^2, loses nothing where the mean is large. Within a block both passes are made.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphopt.numerics.streaming.accumulator import (
    Accumulator,
    Shape,
    Spec,
    blocks,
    by_channel,
    channels_of,
    readable,
    require_same_channels,
)


class Moments(Accumulator):
    """The first two moments, of all elements or per channel of an axis.

    Every attribute has shape ``()``, or ``(channels,)`` where there is an axis; they are empty before the
    first array.

    Attributes:
        axis: of the channels; None for one statistic of all elements.
        count: finite elements, int64.
        mean: float64; 0 where count is 0.
        squares: sum of squared differences from the mean, float64.
        rejected: elements that are infinite or not a number, int64.
    """

    PARTS = ("count", "mean", "squares", "rejected")

    def __init__(self, axis: int | None = None) -> None:
        self.axis = axis
        self.count = self.rejected = np.empty(0, np.int64)
        self.mean = self.squares = np.empty(0)

    @property
    def variance(self) -> np.ndarray:
        """The variance of the elements as a population (divided by count), float64."""
        return self.squares / np.maximum(self.count, 1)

    @property
    def second(self) -> np.ndarray:
        """E[x^2], float64."""
        return self.variance + self.mean**2

    def add(self, array: np.ndarray) -> None:
        """Take in an array.

        Raises:
            ValueError: it has no such axis, or other channels than the ones before.
        """
        view = by_channel(readable(array), self.axis)
        channels = view.shape[1]
        found = Moments(self.axis)
        found.count, found.rejected = np.zeros((2, channels), np.int64)
        found.mean, found.squares = np.zeros((2, channels))
        with np.errstate(over="ignore", invalid="ignore"):
            for block in blocks(view):
                found._join(*_moments(block.astype(np.float64)))
        for name in self.PARTS:
            shape = () if self.axis is None else (channels,)
            setattr(found, name, getattr(found, name).reshape(shape))
        self.merge(found)

    def merge(self, other: Moments) -> None:
        """Take in what another one was fed.

        Raises:
            ValueError: it has other channels.
        """
        if not other.count.size:
            return
        if not self.count.size:
            self.copy_from(other)
            return
        require_same_channels(self.count, other.count)
        self._join(other.count, other.mean, other.squares, other.rejected)

    def without(self, part: Moments) -> Moments:
        """What was taken in beside a part of it, the inverse of ``merge``.

        Args:
            part: fed with some of the same elements, of the same channels.

        Raises:
            ValueError: it has other channels, or more elements.
        """
        require_same_channels(self.count, part.count)
        if (part.count > self.count).any():
            raise ValueError("a part has more elements than the whole")
        found = Moments(self.axis)
        found.count = self.count - part.count
        left = np.maximum(found.count, 1)
        apart = self.mean - part.mean
        found.mean = np.where(found.count > 0, self.mean + apart * part.count / left, 0.0)
        between = apart**2 * part.count * self.count / left
        rest = np.maximum(self.squares - part.squares - between, 0.0)
        found.squares = np.where(found.count > 0, rest, 0.0)
        found.rejected = self.rejected - part.rejected
        return found

    def _join(
        self, count: np.ndarray, mean: np.ndarray, squares: np.ndarray, rejected: np.ndarray
    ) -> None:
        total = self.count + count
        share = count / np.maximum(total, 1)
        delta = mean - self.mean
        self.mean = self.mean + delta * share
        self.squares = self.squares + squares + delta**2 * self.count * share
        self.count = total
        self.rejected = self.rejected + rejected


def _moments(block: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Count, mean, squared differences and rejected elements by channel of one block of float64."""
    every = np.full(block.shape[1], block.shape[0] * block.shape[2], np.int64)
    count = every
    total = block.sum(axis=(0, 2))
    finite: np.ndarray | None = None
    if not np.isfinite(total).all():
        finite = np.isfinite(block)
        block = np.where(finite, block, 0.0)
        count = np.count_nonzero(finite, axis=(0, 2))
        total = block.sum(axis=(0, 2))
    mean = total / np.maximum(count, 1)
    block -= mean[:, None]
    if finite is not None:
        block[~finite] = 0.0
    return count, mean, np.einsum("bca,bca->c", block, block), every - count


@dataclass(frozen=True)
class MomentsSpec(Spec[Moments]):
    """Ask for ``Moments``.

    Args:
        axis: of the channels; None for one statistic of all elements.
    """

    axis: int | None = None

    def start(self) -> Moments:
        """An empty accumulator."""
        return Moments(self.axis)

    def nbytes(self, *shapes: Shape) -> int:
        """Bytes that an accumulator holds."""
        return 4 * 8 * channels_of(shapes[0], self.axis)
