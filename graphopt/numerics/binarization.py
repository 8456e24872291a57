"""Weights as sums of binary ones, and as integers times a power of two.

One base: ``W ~ a B``, B of +1 and -1. The squared error is the least at ``B = sign(W)``, ``a = mean |W|``
(Rastegari et al., "XNOR-Net", 2016); it is then ``sum W^2 - n a^2``.

k bases: ``W ~ a_1 B_1 + ... + a_k B_k``. Each further base is the sign of what is left, and after it all
factors are fitted anew by least squares (Guo et al., "Network Sketching", 2017). Then signs and factors are
fitted in turn: with the factors fixed each number takes the nearest of the ``2^k`` sums, with the signs fixed
the factors are a least-squares fit (Xu et al., "Alternating Multi-bit Quantization", 2018). No step makes the
error larger, nor does a further base.

A power-of-two grid: ``W ~ q 2^e``, ``q = clip(round(W 2^-e), low, high)``. To multiply by the scale is a
shift.

Bases are a way to store weights: k bits for each and k factors for each channel.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from graphopt.numerics.grids import AffineGrid, power_of_two
from graphopt.numerics.kmeans import nearest

MOST_BASES = 8
"""Bases at most: each number is looked for among ``2^k`` sums."""

STEPS = 10
"""The most turns of fitting signs and factors. They end earlier where no sign changes."""

EXPONENTS = 6
"""How many powers of two below the covering one are tried for a grid."""


class Bases(NamedTuple):
    """Channels as sums of binary numbers: ``W ~ sum_k factors[:, k] signs[:, k, :]``.

    Attributes:
        factors: float32 of shape ``(channels, k)``, not negative, falling.
        signs: int8, +1 or -1, of shape ``(channels, k, size)``.
    """

    factors: np.ndarray
    signs: np.ndarray

    def sum(self) -> np.ndarray:
        """The numbers that they stand for, float32 of shape ``(channels, size)``."""
        return np.asarray(np.einsum("ck,ckn->cn", self.factors, self.signs, dtype=np.float32))


def binarized(weights: np.ndarray) -> Bases:
    """One base for each channel: ``mean |W| sign(W)``, the sign of 0 being +1.

    Args:
        weights: W, finite, of shape ``(channels, size)``.

    Raises:
        ValueError: W is no matrix of finite numbers.
    """
    wide = _checked(weights)
    factors = np.abs(wide).mean(axis=1, keepdims=True) if wide.size else np.zeros((len(wide), 1))
    return Bases(factors.astype(np.float32), _signs(wide)[:, None])


def binary_bases(weights: np.ndarray, count: int) -> Bases:
    """Several bases for each channel.

    Args:
        weights: W, finite, of shape ``(channels, size)``.
        count: k, 1 to 8.

    Raises:
        ValueError: W is no matrix of finite numbers, or there is no such number of bases.
    """
    if not 1 <= count <= MOST_BASES:
        raise ValueError(f"weights are a sum of 1 to {MOST_BASES} binary bases, not of {count}")
    wide = _checked(weights)
    found = [_bases(row, count) for row in wide]
    factors = np.array([f for f, _ in found]).reshape(len(wide), count)
    signs = np.array([s for _, s in found], np.int8).reshape(len(wide), count, wide.shape[1])
    return Bases(factors.astype(np.float32), signs)


def packed(signs: np.ndarray) -> np.ndarray:
    """Signs as bits: 1 for +1, 0 for -1; eight in a byte, the first in its lowest bit.

    Args:
        signs: +1 and -1, of shape ``(..., size)``.

    Returns:
        uint8 of shape ``(..., ceil(size / 8))``; bits beyond the last sign are 0.
    """
    return np.packbits(signs > 0, axis=-1, bitorder="little")


def unpacked(bits: np.ndarray, size: int) -> np.ndarray:
    """Signs from bits, as ``packed`` gives them.

    Args:
        bits: uint8 of shape ``(..., ceil(size / 8))``.
        size: how many signs.

    Returns:
        int8, +1 and -1, of shape ``(..., size)``.

    Raises:
        ValueError: so many signs have another number of bytes.
    """
    if bits.shape[-1] != -(-size // 8):
        raise ValueError(f"{size} signs are not in {bits.shape[-1]} bytes")
    ones = np.unpackbits(bits, axis=-1, count=size, bitorder="little")
    return (2 * ones.astype(np.int8) - 1).astype(np.int8)


def shifted(
    weights: np.ndarray, grid: AffineGrid, axes: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Weights on a power-of-two grid, ``q 2^e``: the exponent of the least squared error.

    Tried are the one that covers the largest weight, and smaller ones, which clip.

    Args:
        weights: finite, of any shape.
        grid: of the integers q; its zero point is 0.
        axes: axes that share one exponent.

    Returns:
        q, of ``grid.dtype`` and the shape of the weights; e, int32, with the shared axes kept at size 1.

    Raises:
        ValueError: a weight is not finite, or 0 is no inner integer of the grid.
    """
    if not grid.low < 0 < grid.high:
        raise ValueError(f"{grid.low} to {grid.high} is not on both sides of 0")
    low, high = (f(axis=axes, keepdims=True, initial=0.0) for f in (weights.min, weights.max))
    cover = power_of_two(grid.parameters(low, high, symmetric=True)[0])
    best, least = cover, np.full(cover.shape, np.inf)
    for step in range(EXPONENTS + 1):
        scale = np.maximum(np.ldexp(cover, -step), power_of_two(np.finfo(np.float32).tiny))
        gap = grid.dequantized(grid.quantized(weights, scale, 0), scale, 0) - weights
        error = np.square(gap, dtype=np.float64).sum(axis=axes, keepdims=True)
        best = np.where(error < least, scale, best)
        least = np.minimum(error, least)
    return grid.quantized(weights, best, 0), np.frexp(best)[1].astype(np.int32) - 1


def _checked(weights: np.ndarray) -> np.ndarray:
    """Weights as float64.

    Raises:
        ValueError: they are no matrix of finite numbers.
    """
    if weights.ndim != 2 or not np.isfinite(weights).all():
        raise ValueError(f"weights of shape {weights.shape} are no matrix of finite numbers")
    return np.asarray(weights, np.float64)


def _signs(values: np.ndarray) -> np.ndarray:
    return np.where(values < 0, np.int8(-1), np.int8(1))


def _bases(row: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Factors ``(count,)`` and signs ``(count, size)`` of one channel."""
    factors, signs = np.zeros(0), np.zeros((0, row.size), np.int8)
    for _ in range(count):
        signs = np.concatenate([signs, _signs(row - factors @ signs)[None]])
        factors = _fitted(row, signs)
        for _ in range(STEPS):
            moved = _nearest_signs(row, factors)
            if np.array_equal(moved, signs):
                break
            signs, factors = moved, _fitted(row, moved)
    signs = np.where(factors[:, None] < 0, -signs, signs)
    order = np.argsort(-np.abs(factors), kind="stable")
    return np.abs(factors)[order], signs[order]


def _fitted(row: np.ndarray, signs: np.ndarray) -> np.ndarray:
    """The factors of the least squared error; the shortest ones where bases repeat each other."""
    wide = signs.astype(np.float64)
    return np.asarray(np.linalg.pinv(wide @ wide.T, hermitian=True) @ (wide @ row))


def _nearest_signs(row: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """For each number the signs of the nearest sum of the factors."""
    codes = np.arange(2 ** len(factors))
    every = 2 * ((codes[:, None] >> np.arange(len(factors))) & 1) - 1
    sums = every @ factors
    order = np.argsort(sums, kind="stable")
    return np.asarray(every[order][nearest(sums[order], row)].T, np.int8)
