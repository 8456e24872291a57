"""A histogram whose range grows with the data, so that one pass is enough.

The bins have the width ``w = 2^e`` and stand symmetrically about 0: with ``h`` half of their number, bin i
holds ``[(i - h) w, (i - h + 1) w)``. When an element falls outside, w doubles and bins are joined in pairs.
The edges of the wider bins are edges of the narrower ones, so the counts are exactly those that one pass with
the final edges would have given. Scaling by a power of two is exact, so is the choice of the bin.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graphopt.numerics.streaming.accumulator import BLOCK, Accumulator, Shape, Spec, readable

FINEST = -1000
"""The exponent of the narrowest bins: 2^1000 is still a float64."""


class Histogram(Accumulator):
    """How often elements fall into bins of equal width about 0.

    Attributes:
        counts: elements in each bin, int64 of shape ``(bins,)``.
        exponent: the bins are ``2 ** exponent`` wide.
        minimum: the smallest finite element, exactly; +inf where there is none.
        maximum: the largest; -inf where there is none.
        zeros: elements that are exactly 0.
        rejected: elements that are infinite or not a number.
    """

    PARTS = ("counts", "exponent", "minimum", "maximum", "zeros", "rejected")

    def __init__(self, bins: int = 2048) -> None:
        if bins < 4 or bins & (bins - 1):
            raise ValueError(f"the number of bins must be a power of two of at least 4, not {bins}")
        self.counts = np.zeros(bins, np.int64)
        self.exponent = FINEST
        self.minimum, self.maximum = math.inf, -math.inf
        self.zeros = 0
        self.rejected = 0

    @property
    def count(self) -> int:
        """Finite elements."""
        return int(self.counts.sum())

    @property
    def width(self) -> float:
        """The width of a bin."""
        return math.ldexp(1.0, self.exponent)

    @property
    def edges(self) -> np.ndarray:
        """The edges of the bins, float64 of shape ``(bins + 1,)``; infinite where float64 ends."""
        half = self.counts.size // 2
        with np.errstate(over="ignore"):
            return np.arange(-half, half + 1) * self.width

    def add(self, array: np.ndarray) -> None:
        """Take in an array of any shape."""
        flat = readable(array).reshape(-1)
        if not flat.size:
            return
        low, high = float(flat.min()), float(flat.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            finite = flat[np.isfinite(flat)]
            self.rejected += flat.size - finite.size
            flat = finite
            if not flat.size:
                return
            low, high = float(flat.min()), float(flat.max())
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        self.zeros += flat.size - int(np.count_nonzero(flat))
        self._reach(max(-low, high))
        scale = math.ldexp(1.0, -self.exponent)
        for start in range(0, flat.size, BLOCK):
            self._count(flat[start : start + BLOCK].astype(np.float64), scale)

    def _count(self, block: np.ndarray, scale: float) -> None:
        places = np.floor(block * scale)
        if self.exponent > 0:  # only then may a small negative element have become 0
            places[(places == 0) & (block < 0)] = -1
        bins = self.counts.size
        self.counts += np.bincount(places.astype(np.int64) + bins // 2, minlength=bins)

    def _reach(self, magnitude: float) -> None:
        """Double the width until the bins reach beyond a magnitude on both sides."""
        reach = math.frexp(magnitude)[1] - (self.counts.size // 2).bit_length() + 1
        if magnitude > 0:
            self._coarsen(reach)

    def _coarsen(self, exponent: int) -> None:
        steps = max(0, exponent - self.exponent)
        bins = self.counts.size
        for _ in range(min(steps, bins.bit_length())):
            pairs = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.zeros(bins, np.int64)
            self.counts[bins // 4 : 3 * bins // 4] = pairs
        self.exponent += steps

    def merge(self, other: Histogram) -> None:
        """Take in what another one was fed.

        Raises:
            ValueError: it has another number of bins.
        """
        if other.counts.size != self.counts.size:
            raise ValueError(f"a histogram of {other.counts.size} bins, not {self.counts.size}")
        finer = Histogram(other.counts.size)
        finer.copy_from(other)
        finer._coarsen(self.exponent)
        self._coarsen(finer.exponent)
        self.counts = self.counts + finer.counts
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)
        self.zeros += other.zeros
        self.rejected += other.rejected

    def percentile(self, percent: float | Sequence[float]) -> npt.NDArray[np.float64]:
        """Percentiles by linear interpolation between order statistics, as ``np.percentile``.

        An order statistic is placed within its bin by its rank, so each result is off by at most
        ``width``; 0 and 100 per cent are exact.

        Args:
            percent: in [0, 100].

        Returns:
            float64 of the shape of ``percent``; NaN where nothing was fed.

        Raises:
            ValueError: a percentage lies outside [0, 100].
        """
        wanted = np.asarray(percent, np.float64)
        if not ((wanted >= 0) & (wanted <= 100)).all():
            raise ValueError("percentages lie between 0 and 100")
        if not self.count:
            return np.full(wanted.shape, np.nan)
        rank = wanted / 100 * (self.count - 1)
        below = np.floor(rank)
        low, high = self._ordered(below), self._ordered(np.ceil(rank))
        return np.asarray(low + (high - low) * (rank - below))

    def _ordered(self, rank: np.ndarray) -> np.ndarray:
        """About the element of a rank, counted from 0 in ascending order."""
        ends = np.cumsum(self.counts)
        place = np.searchsorted(ends, rank, side="right")
        inside = (rank - (ends[place] - self.counts[place]) + 0.5) / self.counts[place]
        value = np.clip(self.edges[place] + inside * self.width, self.minimum, self.maximum)
        value = np.where(rank == 0, self.minimum, value)
        return np.where(rank == self.count - 1, self.maximum, value)


@dataclass(frozen=True)
class HistogramSpec(Spec[Histogram]):
    """Ask for a ``Histogram``.

    Args:
        bins: a power of two of at least 4.
    """

    bins: int = 2048

    def start(self) -> Histogram:
        """An empty accumulator."""
        return Histogram(self.bins)

    def nbytes(self, *shapes: Shape) -> int:
        """Bytes that an accumulator holds."""
        return 3 * 8 * self.bins
