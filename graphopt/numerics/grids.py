"""Integer grids for real numbers.

Symmetric: ``q = clip(round(x / s), -m, m)``, ``x' = s q`` with ``m = 2^(bits-1) - 1``, so that 0 stays 0
and the grid has as many steps on both sides. Rounding is to the nearest even one, as in QuantizeLinear
(ONNX). Inside the range the error is at most ``s / 2``.

The scale that covers the largest number wastes steps on outliers where bits are few. ``fitted_scale`` tries
smaller ones, which clip them, and keeps the one of the least squared error.
"""

from __future__ import annotations

import numpy as np

SHRINKS = np.linspace(1.0, 0.4, 25)
"""Parts of the covering scale that ``fitted_scale`` tries, the covering one first."""


def largest(bits: int) -> int:
    """The largest integer of a symmetric grid."""
    return int(2 ** (bits - 1) - 1)


def covering_scale(values: np.ndarray, bits: int, axes: tuple[int, ...]) -> np.ndarray:
    """The scale whose grid reaches the largest magnitude.

    Args:
        values: finite numbers of any shape.
        bits: of the grid, 2 to 16.
        axes: axes that share one scale.

    Returns:
        float64 scales, positive, with the reduced axes kept at size 1.
    """
    reach = np.abs(values).max(axis=axes, keepdims=True, initial=0.0).astype(np.float64)
    return np.where(reach > 0, reach / largest(bits), 1.0)


def fitted_scale(values: np.ndarray, bits: int, axes: tuple[int, ...]) -> np.ndarray:
    """The scale of the least squared error among the covering one and smaller ones; as ``covering_scale``."""
    cover = covering_scale(values, bits, axes)
    best = cover
    least = _error(values, cover, bits, axes)
    for shrink in SHRINKS[1:]:
        scale = cover * shrink
        error = _error(values, scale, bits, axes)
        best = np.where(error < least, scale, best)
        least = np.minimum(error, least)
    return best


def _error(values: np.ndarray, scale: np.ndarray, bits: int, axes: tuple[int, ...]) -> np.ndarray:
    gap = dequantized(quantized(values, scale, bits), scale) - values
    return np.asarray(np.square(gap).sum(axis=axes, keepdims=True))


def quantized(values: np.ndarray, scale: np.ndarray, bits: int) -> np.ndarray:
    """Numbers as integers of a symmetric grid; int8 up to 8 bits, else int16."""
    top = largest(bits)
    steps = np.clip(np.rint(values / scale), -top, top)
    return np.asarray(steps, np.int8 if bits <= 8 else np.int16)


def dequantized(steps: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The numbers that integers of a grid stand for, float64."""
    return np.asarray(steps * scale.astype(np.float64))
