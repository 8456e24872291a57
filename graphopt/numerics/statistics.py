"""Statistics of timings: medians, and how sure one can be of a ratio.

Timings on a shared machine are skewed and drift. So two models are timed in turns, each round gives one
ratio, and the median ratio gets a confidence interval by the bootstrap (Efron, 1979) over rounds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000


@dataclass(frozen=True)
class Spread:
    """A set of timings in seconds: median, 10th and 90th percentile."""

    p50: float
    p10: float
    p90: float


@dataclass(frozen=True)
class Ratio:
    """A ratio of timings: the median over rounds and its confidence interval."""

    median: float
    low: float
    high: float


def spread(seconds: list[float]) -> Spread:
    """The median and the spread of timings."""
    p10, p50, p90 = np.percentile(seconds, [10, 50, 90])
    return Spread(float(p50), float(p10), float(p90))


def ratio(numerator: list[float], denominator: list[float], confidence: float = 0.95) -> Ratio:
    """The median of the ratios of rounds, with a bootstrap confidence interval.

    Args:
        numerator: seconds of each round.
        denominator: seconds of the same rounds, of what to compare with.
        confidence: of the interval.
    """
    ratios = np.asarray(numerator) / np.asarray(denominator)
    rng = np.random.default_rng(0)
    picks = rng.integers(0, len(ratios), (RESAMPLES, len(ratios)))
    medians = np.median(ratios[picks], axis=1)
    low, high = np.quantile(medians, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Ratio(float(np.median(ratios)), float(low), float(high))
