"""Which weights matter least, and what is left without them."""

from __future__ import annotations

import numpy as np


def without_smallest(values: np.ndarray, share: float) -> np.ndarray:
    """The values with the given share of them, those of the smallest magnitude, set to zero.

    Of equal magnitudes the first ones go (LeCun, Denker & Solla 1990 name the criterion as the baseline).

    Args:
        values: numbers of any shape.
        share: from 0 to 1.

    Returns:
        A new array of the same shape and dtype.
    """
    flat = values.ravel().copy()
    count = min(max(round(share * flat.size), 0), flat.size)
    if count:
        flat[np.argsort(np.abs(flat), kind="stable")[:count]] = 0
    return flat.reshape(values.shape)
