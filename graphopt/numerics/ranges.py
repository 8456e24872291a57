"""Which range of real numbers an integer grid is to cover.

A wide range has a long step, a narrow one clips. What is to be covered is known by a histogram.
Zeros are exact on every grid, so they count nowhere: the spike that Relu leaves says nothing about the range.
Elements are taken to be spread evenly over their bin, cut at the exact minimum and maximum.

covering        all elements.
percentile      all but a few at both ends.
least_squares   the one of the least squared error. With ``u = x / s`` and q(u) the nearest integer of the
                grid, ends included, the error has the antiderivative ``s^3 G(u)``,
                ``G(u) = q / 12 + (u - q)^3 / 3``, for what is rounded and for what is clipped: so the error
                of a bin is exact. Where to look is found first from ``s^2 / 12`` for each element inside and
                the exact error for those outside (Widrow and Kollar, "Quantization Noise", 2008).
entropy         the one that keeps the distribution: the least Kullback-Leibler divergence of the histogram
                with clipped elements in its end bins, P, from the one that the grid's levels tell, Q: the
                elements of a level spread evenly over its bins that are not empty (Migacz, "8-bit inference
                with TensorRT", 2017). Even where nothing is lost, chance makes counts uneven, and sparse
                histograms would be clipped for it: what it adds on the average, (bins - levels) / 2n, is
                taken off (Wilks, 1938; Miller, 1955). A bin that Q has empty counts as half an element.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np

from graphopt.numerics.grids import AffineGrid
from graphopt.numerics.streaming.histogram import Histogram

LADDER = 64
"""Candidates for an end of a range, from the covering one down, at equal ratios."""

FINER = 7
"""Candidates for each end between two neighbours of the ladder, and between two of these."""

THRESHOLDS = 128
"""Candidates for an end in a sweep of the divergence, at equal distances."""

MOST_CLIPPED = 0.1
"""The share of elements other than 0 that a range chosen by divergence clips at most."""


class Range(NamedTuple):
    """Real numbers from ``minimum`` to ``maximum``; it holds 0 where it was chosen for a grid."""

    minimum: float
    maximum: float


class _Bins(NamedTuple):
    """The bins that hold elements other than 0, rising, and the range of a grid that covers them.

    Attributes:
        unit: a power of two near the largest magnitude, which edges and range are divided by.
        low: lower edges, float64 of shape ``(bins,)``.
        high: upper edges.
        mass: elements, float64.
        width: of a whole bin.
        cover: the range, with 0 and as the grid needs it.
    """

    unit: float
    low: np.ndarray
    high: np.ndarray
    mass: np.ndarray
    width: float
    cover: Range

    @property
    def reach(self) -> float:
        """The larger magnitude of the ends of the range."""
        return max(-self.cover.minimum, self.cover.maximum)

    def shrunk(self, low: float, high: float) -> Range:
        """Parts of the covering range on both sides of 0."""
        return Range(self.cover.minimum * low, self.cover.maximum * high)

    def in_units(self, range_: Range) -> Range:
        """A range of these bins in those of the elements."""
        return Range(float(range_.minimum * self.unit), float(range_.maximum * self.unit))


Method = Literal["minmax", "percentile", "entropy", "mse"]
"""A way to choose a range, by the name that options have for it: ``minmax`` covers all that was seen."""


def chosen(histogram: Histogram, method: Method, grid: AffineGrid, symmetric: bool) -> Range:
    """The range that a method chooses.

    Args:
        histogram: of the elements.
        method: its name.
        grid: of integers.
        symmetric: whether its zero point lies in the middle.

    Raises:
        ValueError: the histogram holds no element.
    """
    if method == "percentile":
        return percentile(histogram)
    if method == "entropy":
        return entropy(histogram, grid, symmetric)
    return least_squares(histogram, grid, symmetric) if method == "mse" else covering(histogram)


def covering(histogram: Histogram) -> Range:
    """The range of all elements, exactly.

    Raises:
        ValueError: the histogram holds none.
    """
    if not histogram.count:
        raise ValueError("no finite number was seen, so there is no range")
    return Range(histogram.minimum, histogram.maximum)


def percentile(histogram: Histogram, percent: float = 99.99) -> Range:
    """The range of the middle elements: half of the others lie below, half above.

    Zeros are not counted. At each end ``floor((1 - percent / 100) / 2 * n)`` elements are cut off, and the
    end is the outer edge of the bin of the first one left: never in a gap, and where none is to be cut the
    exact minimum or maximum.

    Args:
        histogram: of the elements.
        percent: that stay, above 0 to 100.

    Raises:
        ValueError: there is no such percentage, or the histogram holds no element.
    """
    if not 0 < percent <= 100:
        raise ValueError(f"{percent} per cent of the elements cannot be kept")
    cover = covering(histogram)
    mass = _mass(histogram)
    cut = np.floor((1 - percent / 100) / 2 * mass.sum() + 1e-9)
    if cut < 1:
        return cover
    below = int(np.searchsorted(np.cumsum(mass), cut, side="right"))
    above = int(np.searchsorted(np.cumsum(mass[::-1]), cut, side="right"))
    low, high = histogram.edges[below], histogram.edges[mass.size - above]
    return Range(max(float(low), cover.minimum), min(float(high), cover.maximum))


def least_squares(histogram: Histogram, grid: AffineGrid, symmetric: bool = False) -> Range:
    """The range with which a grid has the least squared error, among many shorter than the covering one.

    As far as the histogram tells it is never worse than the covering range. The ends of evenly spread
    elements may be cut by up to half a step, for that costs nothing.

    Args:
        histogram: of the elements.
        grid: to be used with ``grid.parameters(minimum, maximum, symmetric)``.
        symmetric: choose for the zero point ``grid.centre``; the range is then the one that the grid covers.

    Raises:
        ValueError: the histogram holds no element.
    """
    bins = _bins(histogram, grid, symmetric)
    if not bins.mass.size:
        return Range(0.0, 0.0)
    ladder = np.geomspace(1.0, min(bins.width, 0.5), LADDER)
    low, high = _coarse(bins, grid, ladder, symmetric)
    for stride in (ladder[1], ladder[1] ** (2 / (FINER - 1))):
        around = np.geomspace(stride, 1 / stride, FINER)
        lows, highs = np.minimum(low * around, 1.0), np.minimum(high * around, 1.0)
        pairs = {(a, a) for a in highs} if symmetric else {(a, b) for a in lows for b in highs}
        tried = [(1.0, 1.0), *sorted(pairs, reverse=True)]
        found = [_error(bins, bins.shrunk(*pair), grid, symmetric) for pair in tried]
        low, high = tried[int(np.argmin(found))]
    return bins.in_units(bins.shrunk(low, high))


def entropy(histogram: Histogram, grid: AffineGrid, symmetric: bool = False) -> Range:
    """The range with which a grid keeps the distribution best: the least divergence.

    Both ends are tried together, then each alone. Ranges of fewer bins than levels are not tried, nor those
    that clip more than a tenth of the elements; where no other is left, it is the covering range.

    Args:
        histogram: of the elements.
        grid: to be used with ``grid.parameters(minimum, maximum, symmetric)``.
        symmetric: choose for the zero point ``grid.centre``; the range is then the one that the grid covers.

    Raises:
        ValueError: the histogram holds no element.
    """
    bins = _bins(histogram, grid, symmetric)
    if not bins.mass.size:
        return Range(0.0, 0.0)
    best, least = bins.cover, np.inf
    for moved in ((True, True),) if symmetric else ((True, True), (True, False), (False, True)):
        start, last = best, None
        for part in np.linspace(1.0, 0.0, THRESHOLDS, endpoint=False):
            range_ = (
                bins.shrunk(part, part) if symmetric else _within(start, part * bins.reach, moved)
            )
            if range_ == last:
                continue
            last = range_
            found = _divergence(bins, range_, grid, symmetric)
            if found is None:
                break
            if found < least:
                best, least = range_, found
    return bins.in_units(best)


def _mass(histogram: Histogram) -> np.ndarray:
    """Elements other than 0 in each bin, float64."""
    mass = histogram.counts.astype(np.float64)
    mass[mass.size // 2] -= histogram.zeros
    return mass


def _bins(histogram: Histogram, grid: AffineGrid, symmetric: bool) -> _Bins:
    """The bins in use; none of them is thinner than 2^-10 of a whole one.

    Raises:
        ValueError: the histogram holds no element.
    """
    cover = covering(histogram)
    unit = math.ldexp(1.0, math.frexp(max(-cover.minimum, cover.maximum))[1] - 1)
    mass = _mass(histogram)
    used = np.flatnonzero(mass)
    width = histogram.width / unit
    low, high = cover.minimum / unit, cover.maximum / unit
    edges = (used - mass.size // 2) * width
    ends = np.minimum(edges + width, high)
    starts = np.minimum(np.maximum(edges, low), ends - width / 1024)
    if symmetric:
        scale, zero = grid.parameters(low, high, symmetric=True)
        low, high = ((end - int(zero)) * float(scale) for end in (grid.low, grid.high))
    return _Bins(unit, starts, ends, mass[used], width, Range(min(low, 0.0), max(high, 0.0)))


def _coarse(
    bins: _Bins, grid: AffineGrid, ladder: np.ndarray, symmetric: bool
) -> tuple[float, float]:
    """By which parts of a ladder to shrink the ends, by the model of noise inside and clipping outside."""
    lows, highs = -bins.cover.minimum * ladder, bins.cover.maximum * ladder
    clipped_low, outside_low = _beyond(-bins.high, -bins.low, bins.mass, lows)
    clipped_high, outside_high = _beyond(bins.low, bins.high, bins.mass, highs)
    inside = bins.mass.sum() - outside_high - outside_low[:, None]
    noise = inside * np.square((highs + lows[:, None]) / grid.steps) / 12
    error = clipped_high + clipped_low[:, None] + noise
    if symmetric:
        low = high = int(np.argmin(np.diag(error)))
    else:
        low, high = map(int, np.unravel_index(int(np.argmin(error)), error.shape))
    return float(ladder[low]), float(ladder[high])


def _beyond(
    low: np.ndarray, high: np.ndarray, mass: np.ndarray, ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The squared distances from each end of the elements above it, summed; and how many these are."""
    density = mass / (high - low)
    above = np.maximum(high - ends[:, None], 0.0)
    rest = np.maximum(low - ends[:, None], 0.0)
    return (above**3 - rest**3) @ density / 3, (above - rest) @ density


def _error(bins: _Bins, range_: Range, grid: AffineGrid, symmetric: bool) -> float:
    """The squared error on a grid over a range, summed over the elements."""
    scale, zero = grid.parameters(*range_, symmetric=symmetric)
    s, low, high = float(scale), grid.low - int(zero), grid.high - int(zero)

    def primitive(x: np.ndarray) -> np.ndarray:
        u = x / s
        q = np.clip(np.rint(u), low, high)
        gap = u - q
        return np.asarray(q / 12 + gap * gap * gap / 3)

    change = primitive(bins.high) - primitive(bins.low)
    return float((change * (bins.mass / (bins.high - bins.low))).sum() * s**3)


def _within(range_: Range, reach: float, moved: tuple[bool, bool]) -> Range:
    """A range whose ends, or one of them, lie within some distance of 0."""
    low = max(range_.minimum, -reach) if moved[0] else range_.minimum
    high = min(range_.maximum, reach) if moved[1] else range_.maximum
    return Range(low, high)


def _divergence(bins: _Bins, range_: Range, grid: AffineGrid, symmetric: bool) -> float | None:
    """The divergence of P from Q less what chance adds to it; None for a range that is too short."""
    middle = (bins.low + bins.high) / 2
    first, last = np.searchsorted(middle, range_)
    mass, total = bins.mass[first:last], float(bins.mass.sum())
    kept = float(mass.sum())
    fewer = range_.maximum - range_.minimum < (grid.steps + 1) * bins.width
    if fewer or kept < (1 - MOST_CLIPPED) * total:
        return None
    scale, zero = grid.parameters(*range_, symmetric=symmetric)
    levels = np.clip(np.rint(middle[first:last] / float(scale)), grid.low - zero, grid.high - zero)
    level = (levels - levels[0]).astype(np.int64)
    used = np.bincount(level)
    q = (np.bincount(level, mass) / np.maximum(used, 1))[level] / kept
    p = mass / total
    lost = 0.0
    for place, end, clipped in (
        (first, range_.minimum, bins.mass[:first]),
        (last - 1, range_.maximum, bins.mass[last:]),
    ):
        share = float(clipped.sum()) / total
        if abs(middle[place] - end) < bins.width:
            p[place - first] += share
        elif share:
            lost += share * math.log(2 * total * share)
    chance = (len(mass) - np.count_nonzero(used)) / (2 * total)
    return lost - chance + float((p * np.log(p / np.maximum(q, 0.5 / total))).sum())
