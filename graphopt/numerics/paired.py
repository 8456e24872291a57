"""How much worse is one model than another, on the same samples, and how sure can one be?

Both models see the same samples, so only the samples on which they differ say anything.

*Right or wrong.* Of ``n`` samples ``b`` are lost (right before, wrong after) and ``c`` gained. The drop is
``p10 - p01``. Its interval inverts the score test (Tango, Statistics in Medicine 17, 1998), corrected for
continuity by half a sample, without which it is too short where few samples differ. The upper end is at least
that of the exact binomial interval for the losses (Clopper & Pearson, 1934), less the gains. So no
difference on ``n`` samples proves a drop of some ``3 / n`` at 95 %, not a drop of 0.

*Everything else.* The samples are drawn anew with replacement, in pairs (bootstrap; Efron, 1979). Where the
contribution of a sample is bounded, the interval reaches at least as far as losses would that are too rare to
have been seen: ``-ln(1 - confidence) / n`` of the bound, the same rule of three.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

RESAMPLES = 2000
"""Times that samples are drawn anew."""

BLOCK = 4_000_000
"""Weights that are held at once while samples are drawn anew."""

SURE = 0.025
"""The tail that the resamples can be asked for; smaller ones are extrapolated on the normal curve."""

CONTINUITY = 0.5
"""Samples by which a count is moved away from the difference in question."""

FEW = 50
"""Losses up to which the exact binomial bound is looked at too."""

MOST_SAMPLES = 10**9
"""Samples beyond which a question counts as not decidable."""


@dataclass(frozen=True)
class Drop:
    """A drop with its confidence interval; each end holds with the confidence asked for, taken alone.

    Attributes:
        value: the estimate; positive is worse.
        low: lower end.
        high: upper end.
        spread: the standard error of the estimate, as far as the samples at hand show one.
    """

    value: float
    low: float
    high: float
    spread: float = 0.0


def binary_drop(before: np.ndarray, after: np.ndarray, confidence: float) -> Drop:
    """The drop of a share of right samples.

    Args:
        before: whether the original is right, 0 or 1, of shape ``(samples,)``.
        after: the same for the candidate.
        confidence: of each end.
    """
    lost = int(np.count_nonzero((before > 0.5) & (after < 0.5)))
    gained = int(np.count_nonzero((before < 0.5) & (after > 0.5)))
    return drop_of_counts(lost, gained, len(before), confidence)


def drop_of_counts(lost: float, gained: float, samples: float, confidence: float) -> Drop:
    """The drop of a share from its counts; counts of a planned sample may be fractions."""
    z = NormalDist().inv_cdf(confidence)
    high = _upper(lost, gained, samples, z, 1 - confidence)
    low = -_upper(gained, lost, samples, z, 1 - confidence)
    value = (lost - gained) / samples
    variance = max((lost + gained) / samples - value**2, 0.0) / samples
    return Drop(value, low, high, math.sqrt(variance))


def _upper(lost: float, gained: float, samples: float, z: float, tail: float) -> float:
    score = _tango_upper(lost, gained, samples, z)
    if lost > FEW:
        return score
    return max(score, _binomial_upper(lost, samples, tail) - gained / samples)


def _tango_upper(lost: float, gained: float, samples: float, z: float) -> float:
    """The largest difference that the score test does not reject, by bisection."""
    low, high = (lost - gained) / samples, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if _score(lost, gained, samples, middle) > -z:
            low = middle
        else:
            high = middle
    return high


def _score(lost: float, gained: float, samples: float, difference: float) -> float:
    """Tango's statistic, with the share of gains at its most likely value under the difference."""
    a = 2.0 * samples
    b = -lost - gained + (2.0 * samples - lost + gained) * difference
    c = -gained * difference * (1.0 - difference)
    share = (math.sqrt(max(b * b - 4.0 * a * c, 0.0)) - b) / (2.0 * a)
    variance = samples * (2.0 * share + difference * (1.0 - difference))
    distance = lost - gained - samples * difference + CONTINUITY
    return distance / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, distance)


def _binomial_upper(count: float, samples: float, tail: float) -> float:
    """The share at which so few hits have only the given probability; exact for whole counts."""
    low, high = count / samples, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if _binomial_tail(int(count), samples, middle) > tail:
            low = middle
        else:
            high = middle
    return high


def _binomial_tail(count: int, samples: float, share: float) -> float:
    """P(hits <= count)."""
    if share >= 1.0:
        return 1.0 if count >= samples else 0.0
    total = 0.0
    for hits in range(min(count, int(samples)) + 1):
        ways = math.lgamma(samples + 1) - math.lgamma(hits + 1) - math.lgamma(samples - hits + 1)
        tries = hits * math.log(share) if hits else 0.0
        total += math.exp(ways + tries + (samples - hits) * math.log1p(-share))
    return total


Measure = Callable[[np.ndarray], np.ndarray]
"""Drops under several weightings of the samples, ``(weightings, samples)`` to ``(weightings,)``."""


def resampled_drop(
    measure: Measure, samples: int, confidence: float, worst: float | None = None
) -> Drop:
    """The drop of any measure, its interval by drawing samples anew.

    Args:
        measure: the drop under weightings of the samples.
        samples: how many there are.
        confidence: of each end.
        worst: the largest amount by which one sample can change its contribution to a mean; None where
            it is not bounded.
    """
    value = float(measure(np.ones((1, samples)))[0])
    if not math.isfinite(value):
        return Drop(value, value, value)
    drawn = _resample(measure, samples)
    drawn = drawn[np.isfinite(drawn)]
    tail = max(1 - confidence, SURE)
    stretch = NormalDist().inv_cdf(confidence) / NormalDist().inv_cdf(1 - tail)
    down, up = np.quantile(drawn, [tail, 1 - tail]) if len(drawn) else (value, value)
    low = value - max(value - float(down), 0.0) * stretch
    high = value + max(float(up) - value, 0.0) * stretch
    if worst is not None:
        unseen = -math.log(1 - confidence) * worst / samples  # P(an event of this rate is not seen)
        low, high = min(low, value - unseen), max(high, value + unseen)
    return Drop(value, low, high, float(drawn.std()) if len(drawn) else 0.0)


def _resample(measure: Measure, samples: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    rounds = int(np.clip(10 * BLOCK // samples, 400, RESAMPLES))
    block = max(1, min(rounds, BLOCK // samples))
    found = []
    for start in range(0, rounds, block):
        picks = rng.integers(0, samples, (min(block, rounds - start), samples))
        weights = np.stack([np.bincount(row, minlength=samples) for row in picks])
        found.append(measure(weights.astype(np.float64)))
    return np.concatenate(found)


def samples_to_decide(interval: Callable[[float], Drop], samples: int, limit: float) -> int | None:
    """How many more samples would decide whether a drop keeps to a limit, if it stays as it is.

    Args:
        interval: the drop that so many times as many samples would show.
        samples: that there are.
        limit: the largest drop allowed.

    Returns:
        Further samples; None where no number that one could have would decide.
    """
    low, high = 1.0, 1.0
    while not _decides(interval(high), limit):
        low, high = high, high * 2
        if high * samples > MOST_SAMPLES:
            return None
    for _ in range(20):
        middle = (low + high) / 2
        if _decides(interval(middle), limit):
            high = middle
        else:
            low = middle
    return max(math.ceil((high - 1) * samples), 1)


def _decides(drop: Drop, limit: float) -> bool:
    return drop.high <= limit or drop.low > limit


def widened(drop: Drop, times: float) -> Drop:
    """The interval that so many times as many samples would give, by the square-root law."""
    root = math.sqrt(times)
    return Drop(
        drop.value,
        drop.value - (drop.value - drop.low) / root,
        drop.value + (drop.high - drop.value) / root,
        drop.spread / root,
    )
