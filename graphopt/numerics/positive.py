"""Symmetric positive definite matrices: factor, solve, invert, in float64.

    A = L L^T    A^-1 = L^-T L^-1    A X = B:  L Y = B,  L^T X = Y

Triangular systems are halved until they are small, so nearly all of the work is products of matrices (the
blocked algorithms of Golub and Van Loan, "Matrix Computations", section 3.1). A covariance that rounding left
singular or slightly indefinite has no Cholesky factor: ``c I`` is added to it, c the least power of ten
times its largest element that is enough. All functions take stacks of matrices too, on leading axes.
"""

from __future__ import annotations

import numpy as np

LEAF = 64
"""Rows of a triangular system that is not halved any more."""

REPAIRS = 10.0 ** np.arange(-13, 7)
"""Parts of the largest element that are added to the diagonal, one after another."""


def transposed(matrix: np.ndarray) -> np.ndarray:
    """The last two axes swapped."""
    return np.swapaxes(matrix, -1, -2)


def factor(matrix: np.ndarray) -> np.ndarray:
    """The lower Cholesky factor of a symmetric matrix, or of the nearby one that has such a factor.

    Args:
        matrix: finite, of shape ``(..., n, n)``; only its lower triangle counts.

    Returns:
        L, float64 of the same shape, with ``L L^T = A + c I``; c is 0 where that is positive definite.

    Raises:
        ValueError: an element is not finite.
    """
    matrix = np.asarray(matrix, np.float64)
    if not np.isfinite(matrix).all():
        raise ValueError("a matrix of second moments has elements that are not finite")
    try:
        return np.asarray(np.linalg.cholesky(matrix))
    except np.linalg.LinAlgError:
        if matrix.ndim == 2:
            return _repaired(matrix)
        parts = [factor(part) for part in matrix.reshape(-1, *matrix.shape[-2:])]
        return np.stack(parts).reshape(matrix.shape)


def _repaired(matrix: np.ndarray) -> np.ndarray:
    largest = float(np.abs(matrix).max()) or 1.0
    for part in REPAIRS:
        try:
            return np.asarray(np.linalg.cholesky(matrix + part * largest * np.eye(len(matrix))))
        except np.linalg.LinAlgError:
            continue
    raise ValueError("a matrix of second moments is too large to be factored")


def solve(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The solution X of A X = B.

    Args:
        matrix: A, as for ``factor``, of shape ``(..., n, n)``.
        right: B, of shape ``(..., n, m)``.

    Returns:
        float64 of the shape of ``right``.

    Raises:
        ValueError: an element of A is not finite.
    """
    lower = factor(matrix)
    found = np.array(right, np.float64)
    _forward(lower, found)
    _backward(lower, found)
    return found


def _forward(lower: np.ndarray, right: np.ndarray) -> None:
    """Solve L X = B in the place of B."""
    size = lower.shape[-1]
    if size <= LEAF:
        right[...] = np.linalg.solve(lower, right)
        return
    half = size // 2
    _forward(lower[..., :half, :half], right[..., :half, :])
    right[..., half:, :] -= lower[..., half:, :half] @ right[..., :half, :]
    _forward(lower[..., half:, half:], right[..., half:, :])


def _backward(lower: np.ndarray, right: np.ndarray) -> None:
    """Solve L^T X = B in the place of B."""
    size = lower.shape[-1]
    if size <= LEAF:
        right[...] = np.linalg.solve(transposed(lower), right)
        return
    half = size // 2
    _backward(lower[..., half:, half:], right[..., half:, :])
    right[..., :half, :] -= transposed(lower[..., half:, :half]) @ right[..., half:, :]
    _backward(lower[..., :half, :half], right[..., :half, :])


def inverse_of_lower(lower: np.ndarray) -> np.ndarray:
    """L^-1 of a lower triangular matrix ``(n, n)`` without zeros on its diagonal."""
    found = np.zeros_like(lower)
    _invert(lower, found)
    return found


def _invert(lower: np.ndarray, out: np.ndarray) -> None:
    size = len(lower)
    if size <= LEAF:
        out[...] = np.tril(np.linalg.inv(lower))
        return
    half = size // 2
    _invert(lower[:half, :half], out[:half, :half])
    _invert(lower[half:, half:], out[half:, half:])
    out[half:, :half] = -out[half:, half:] @ (lower[half:, :half] @ out[:half, :half])


def inverse(matrix: np.ndarray) -> np.ndarray:
    """A^-1 of a matrix ``(n, n)``, as for ``factor``; float64 and symmetric."""
    lower = inverse_of_lower(factor(matrix))
    return np.asarray(lower.T @ lower)
