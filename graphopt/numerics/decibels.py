"""Signal-to-noise ratios in decibels: ``10 log10(sum of y^2 / sum of (y' - y)^2)``.

10 dB more are a tenth of the noise power.
"""

from __future__ import annotations

import math

import numpy as np


def ratio_db(signal: float, noise: float) -> float | None:
    """The ratio of two powers.

    Args:
        signal: of what there was.
        noise: of the difference.

    Returns:
        In dB; None where there is no signal or no noise, or a power is not finite.
    """
    if not (0 < signal < math.inf and 0 < noise < math.inf):
        return None
    return 10 * (math.log10(signal) - math.log10(noise))


def sqnr_db(reference: np.ndarray, result: np.ndarray) -> float | None:
    """The signal-to-noise ratio of an array against another one of its shape; as ``ratio_db``."""
    wide = reference.astype(np.float64)
    gap = result.astype(np.float64) - wide
    return ratio_db(float(np.square(wide).sum()), float(np.square(gap).sum()))
