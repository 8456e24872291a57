"""Integer grids for real numbers.

Affine, as QuantizeLinear and DequantizeLinear of ONNX compute: ``q = clip(round(x / s) + z, low, high)``,
``x' = (q - z) s``, the scale s a float32 and the zero point z an integer of the grid, so that 0 is exactly
``z``. Rounding is to the nearest even one. Inside the range the error is at most ``s / 2``
(Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", 2018).

Symmetric: ``q = clip(round(x / s), -m, m)``, ``x' = s q`` with ``m = 2^(bits-1) - 1``, so that the grid has
as many steps on both sides. The functions for it compute in float64.

The scale that covers the largest number wastes steps on outliers where bits are few. ``fitted_parameters``
and ``fitted_scale`` try smaller ones, which clip them, and keep the one of the least squared error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FURTHEST = 2.0**126
"""Ranges end here, so that the numbers of a grid are finite in float32."""

SMALLEST_SCALE = float(np.finfo(np.float32).tiny)
"""The smallest normal float32: kernels may flush smaller ones to 0."""


@dataclass(frozen=True)
class AffineGrid:
    """The integers from ``low`` to ``high``, which stand for equidistant real numbers.

    Args:
        low: the smallest integer.
        high: the largest; at least two more, and both within int32.
    """

    low: int
    high: int

    def __post_init__(self) -> None:
        if not -(2**31) <= self.low <= self.high - 2 <= 2**31 - 3:
            raise ValueError(f"{self.low} to {self.high} is no integer grid")

    @classmethod
    def of(cls, bits: int, signed: bool, reduced: bool = False) -> AffineGrid:
        """The grid of an integer type.

        Args:
            bits: of the type, 2 to 16.
            signed: whether it has negative integers.
            reduced: leave one bit out, for kernels whose sums of two products saturate: 0 to 127 in uint8,
                -64 to 63 in int8.

        Raises:
            ValueError: there is no such grid.
        """
        used = bits - reduced
        if not 2 <= used <= bits <= 16:
            raise ValueError(f"an integer grid has 2 to 16 bits, not {used} of {bits}")
        return cls(-(2 ** (used - 1)), 2 ** (used - 1) - 1) if signed else cls(0, 2**used - 1)

    @property
    def steps(self) -> int:
        """Steps from one end to the other: one less than the integers."""
        return self.high - self.low

    @property
    def dtype(self) -> np.dtype:
        """The smallest integer type of numpy that holds the grid; unsigned where nothing is negative."""
        kind = "i" if self.low < 0 else "u"
        types = (np.dtype(f"{kind}{size}") for size in (1, 2, 4))
        return next(
            t for t in types if np.iinfo(t).min <= self.low and self.high <= np.iinfo(t).max
        )

    @property
    def centre(self) -> int:
        """The zero point of a symmetric range: 0 inside a signed grid, else the middle, as 128 of 256."""
        return 0 if self.low < 0 < self.high else (self.low + self.high + 1) // 2

    def parameters(
        self, minimum: npt.ArrayLike, maximum: npt.ArrayLike, symmetric: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """The scale and zero point with which the grid covers a range.

        The range is widened to hold 0. The end at which the zero point was rounded may be missed by half a
        step. Ends beyond 2^126 count as 2^126.

        Args:
            minimum: lower end of the range, of any shape: one range for each channel or block.
            maximum: upper end, of the same shape.
            symmetric: use ``centre`` as zero point.

        Returns:
            Scale, float32, positive and normal, 1 where the range is only 0; zero point, int32. Both of the
            shape of the ends.

        Raises:
            ValueError: an end is not finite, or the lower one lies above the upper one.
        """
        low, high = np.asarray(minimum, np.float64), np.asarray(maximum, np.float64)
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise ValueError("the ends of a range must be finite")
        if (low > high).any():
            raise ValueError("the lower end of a range lies above its upper end")
        low, high = np.clip(low, -FURTHEST, 0.0), np.clip(high, 0.0, FURTHEST)
        if symmetric:
            exact = np.maximum(high / (self.high - self.centre), -low / (self.centre - self.low))
        else:
            exact = (high - low) / self.steps
        bounded = np.maximum(exact, SMALLEST_SCALE)
        scale = np.where((low == 0) & (high == 0), 1.0, bounded).astype(np.float32)
        if symmetric:
            return scale, np.full(scale.shape, self.centre, np.int32)
        zero = np.clip(np.rint(self.low - low / scale), self.low, self.high)
        return scale, zero.astype(np.int32)

    def quantized(
        self, values: npt.ArrayLike, scale: npt.ArrayLike, zero_point: npt.ArrayLike
    ) -> np.ndarray:
        """Numbers as integers of the grid, as QuantizeLinear: ``clip(round(x / s) + z)``, x / s in float32.

        Args:
            values: x, of any shape; infinities become the ends of the grid.
            scale: s, positive, of a shape that broadcasts to that of x.
            zero_point: z, likewise.

        Returns:
            Integers of ``dtype``, of the shape of x.

        Raises:
            ValueError: a number is NaN.
        """
        with np.errstate(over="ignore", under="ignore"):
            ratio = np.asarray(values, np.float32) / np.asarray(scale, np.float32)
        if np.isnan(ratio).any():
            raise ValueError("not a number (NaN) is on no integer grid")
        steps = np.rint(ratio) + np.asarray(zero_point, np.float64)
        return np.asarray(np.clip(steps, self.low, self.high), self.dtype)

    def dequantized(
        self, steps: np.ndarray, scale: npt.ArrayLike, zero_point: npt.ArrayLike
    ) -> np.ndarray:
        """The numbers that integers stand for, as DequantizeLinear: ``(q - z) s``.

        Args:
            steps: q, integers of any shape.
            scale: s, of a shape that broadcasts to that of q.
            zero_point: z, likewise.

        Returns:
            float32 of the shape of q.
        """
        offset = steps.astype(np.int64) - np.asarray(zero_point, np.int64)
        return np.asarray(offset.astype(np.float32) * np.asarray(scale, np.float32))


def power_of_two(scale: npt.ArrayLike) -> np.ndarray:
    """The smallest power of two that is not less: ``2^ceil(log2 s)``; a shift in the place of a product.

    Args:
        scale: positive and finite, of any shape.

    Returns:
        float32 of the same shape.

    Raises:
        ValueError: a scale is not positive, or float32 does not hold its power of two.
    """
    wide = np.asarray(scale, np.float64)
    part, exponent = np.frexp(wide)
    exponent = exponent - (part == 0.5)
    if not (np.isfinite(wide) & (wide > 0) & (exponent <= 127) & (exponent >= -149)).all():
        raise ValueError("the power of two of a scale must be positive and finite in float32")
    return np.asarray(np.ldexp(np.float32(1.0), exponent), np.float32)


SHRINKS = np.linspace(1.0, 0.4, 25)
"""Parts of the covering scale that ``fitted_scale`` tries, the covering one first."""

PARTS = np.concatenate([[1.0], 1.02 - 0.002 * np.delete(np.arange(21), 10), SHRINKS[1:]])
"""Parts of the covering range that ``fitted_parameters`` tries, the whole first. Some are longer: where few
numbers lie on a fine grid, chance decides within a step."""


def fitted_parameters(
    values: np.ndarray,
    grid: AffineGrid,
    axes: tuple[int, ...],
    symmetric: bool = False,
    importance: npt.ArrayLike = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """The scale and zero point of the least squared error among those of the covering range and of others.

    Never worse than the covering range. Both ends are moved together, then each alone where the range is not
    symmetric.

    Args:
        values: finite numbers of any shape.
        grid: of integers.
        axes: axes that share one scale.
        symmetric: use ``grid.centre`` as zero point.
        importance: by what each squared error counts, not negative, of a shape that broadcasts to that of
            the values: E[x^2] of the input that a weight is multiplied with.

    Returns:
        As ``AffineGrid.parameters``, with the reduced axes kept at size 1.

    Raises:
        ValueError: a number is not finite.
    """
    low = np.asarray(values.min(axis=axes, keepdims=True, initial=0.0), np.float64)
    high = np.asarray(values.max(axis=axes, keepdims=True, initial=0.0), np.float64)
    least = np.full(low.shape, np.inf)
    best = np.stack([low, high])
    for moved in ((1, 1),) if symmetric else ((1, 1), (1, 0), (0, 1)):
        start = best
        for part in PARTS:
            ends = np.stack(
                [end * (part if move else 1.0) for end, move in zip(start, moved, strict=True)]
            )
            scale, zero = grid.parameters(ends[0], ends[1], symmetric)
            gap = grid.dequantized(grid.quantized(values, scale, zero), scale, zero) - values
            error = (importance * np.square(gap, dtype=np.float64)).sum(axis=axes, keepdims=True)
            best = np.where(error < least, ends, best)
            least = np.minimum(error, least)
    return grid.parameters(best[0], best[1], symmetric)


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
