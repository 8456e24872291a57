"""The scale and shift per channel that bring what a changed layer gives back to what it gave.

    minimize E (y - (g n + t))^2         y: as it was, n: as it is now

The shift alone (g = 1) is ``t = E y - E n``: bias correction (Nagel et al., "Data-free quantization through
weight equalization and bias correction", 2019). With a gain it is the regression ``g = cov(y, n) / var n``,
``t = E y - g E n``. What is left on other samples follows from their moments alone, so a correction can be
judged on samples that it was not fitted to.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphopt.numerics.streaming import Moments

GAINS = (0.5, 2.0)
"""Between which gains are kept: beyond, a channel is hardly the one that it was."""


@dataclass(frozen=True)
class Correction:
    """What is done to each channel: ``gain * n + shift``; float64 of shape ``(channels,)`` each."""

    gain: np.ndarray
    shift: np.ndarray


@dataclass(frozen=True)
class Deviation:
    """Moments per channel of what a layer gave, of what it gives, and of the difference.

    Attributes:
        was: of y.
        now: of n.
        gap: of y - n, over the same elements.
    """

    was: Moments
    now: Moments
    gap: Moments

    def without(self, part: Deviation) -> Deviation:
        """The same of what is left when a part of the samples is taken away."""
        return Deviation(
            self.was.without(part.was), self.now.without(part.now), self.gap.without(part.gap)
        )

    @property
    def known(self) -> bool:
        """Whether there are moments of all, over the same elements, all finite."""
        counts = [moments.count for moments in (self.was, self.now, self.gap)]
        same = counts[0].size > 0 and all(np.array_equal(counts[0], other) for other in counts)
        rejected = any(m.rejected.any() for m in (self.was, self.now, self.gap))
        return bool(same and counts[0].all() and not rejected)

    @property
    def covariance(self) -> np.ndarray:
        """cov(y, n), from ``var(y - n) = var y + var n - 2 cov(y, n)``."""
        return np.asarray((self.was.variance + self.now.variance - self.gap.variance) / 2)

    @property
    def spread(self) -> float:
        """The variance of y, summed over channels."""
        return float(self.was.variance.sum())

    def shifting(self) -> Correction:
        """The correction of the mean alone."""
        return Correction(np.ones_like(self.gap.mean), self.gap.mean.copy())

    def scaling(self) -> Correction:
        """The correction of the mean with a gain; 1 where a channel does not vary."""
        spread = self.now.variance
        ratio = np.divide(self.covariance, spread, out=np.ones_like(spread), where=spread > 0)
        gain = np.clip(ratio, *GAINS)
        return Correction(gain, self.was.mean - gain * self.now.mean)

    def error(self, correction: Correction | None = None) -> float:
        """E (y - (g n + t))^2, summed over channels; without a correction E (y - n)^2."""
        if correction is None:
            return float(self.gap.second.sum())
        gain = correction.gain
        left = self.gap.variance + (gain - 1.0) * (
            (gain + 1.0) * self.now.variance - 2.0 * self.covariance
        )
        mean = self.was.mean - gain * self.now.mean - correction.shift
        return float((np.maximum(left, 0.0) + mean**2).sum())
