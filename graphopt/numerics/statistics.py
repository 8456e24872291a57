"""Statistics of timings: medians, and how sure one can be of a ratio.

Timings on a shared machine are skewed and drift. So two models are timed in turns, and each round gives one
ratio.

Rounds of one session are not independent: where its memory lies biases all of them. Where sessions are opened
anew in several blocks, a block is one observation: the logarithm of the median ratio of its rounds. On a
busy machine some blocks are far off, so a fifth of them is trimmed from either side, and the mean of the
others gets the interval of Yuen (1974): with n blocks of which g are trimmed from a side, h = n - 2 g left,
and s the deviation of the blocks once the trimmed ones are moved to the nearest one left,

    mean +- t(h - 1) s sqrt((n - 1) / (h (h - 1)))
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Spread:
    """A set of timings in seconds: median, 10th and 90th percentile."""

    p50: float
    p10: float
    p90: float


@dataclass(frozen=True)
class Ratio:
    """A ratio of timings and its confidence interval; see ``ratio_of_blocks``."""

    median: float
    low: float
    high: float


def spread(seconds: list[float]) -> Spread:
    """The median and the spread of timings."""
    p10, p50, p90 = np.percentile(seconds, [10, 50, 90])
    return Spread(float(p50), float(p10), float(p90))


STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201)
"""The 97.5 % points of Student's distribution with 1, 2, ... 11 degrees of freedom."""

TRIMMED = 0.2
"""The part of the blocks that is trimmed from either side."""


def ratio_of_blocks(
    numerator: Sequence[Sequence[float]], denominator: Sequence[Sequence[float]]
) -> Ratio:
    """The ratio of what was timed in blocks, with its 95 % confidence interval.

    Args:
        numerator: for each block, seconds of its rounds.
        denominator: the same of what to compare with, timed in the same rounds.

    Returns:
        The trimmed geometric mean over blocks of the median over rounds.

    Raises:
        ValueError: there are fewer than two blocks.
    """
    count = len(numerator)
    if count < 2:
        raise ValueError("one block does not tell how blocks differ")
    pairs = zip(numerator, denominator, strict=True)
    logs = np.sort([np.median(np.log(np.divide(above, below))) for above, below in pairs])
    cut = int(TRIMMED * count)
    left = count - 2 * cut
    centre = float(logs[cut : count - cut].mean())
    spread_out = float(np.clip(logs, logs[cut], logs[count - cut - 1]).std(ddof=1))
    points = STUDENT[min(left - 1, len(STUDENT)) - 1]
    half = points * spread_out * math.sqrt((count - 1) / (left * (left - 1)))
    return Ratio(math.exp(centre), math.exp(centre - half), math.exp(centre + half))
