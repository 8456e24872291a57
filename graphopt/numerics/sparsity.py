"""Single weights set to zero, anywhere or n of every m kept.

Three ways to choose them, each dearer than the one before and as a rule better. W is ``(outputs, inputs)``,
H the second moments of the inputs, and the error is that of the layer's output, ``|X (W - W')^T|^2``:

magnitude   the smallest ``|w|``.
Wanda       the smallest ``|w_i| sqrt(H_ii)`` of each output (Sun et al., 2024); the others stay as they are.
SparseGPT   columns from left to right; what is lost with one is made up for in those to its right (Frantar
            and Alistarh, "SparseGPT", 2023). With ``H^-1 = U^T U``, U upper triangular, removing weight i
            costs ``(w_i / U_ii)^2`` and moves the weights to its right by ``-(w_i / U_ii) U_i``. Which
            weights go is chosen for 128 columns at a time, or for every m columns of an n:m pattern.

This makes a file smaller where it is stored sparse or entropy-coded. Kernels for dense weights do not get
faster.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from graphopt.numerics.obs import damped
from graphopt.numerics.positive import factor, inverse_of_lower

PANEL = 128
"""Columns for which weights are chosen together, and whose effect on later ones is one product."""

Sparsity = float | tuple[int, int]
"""The share of weights that become zero, 0 to 1; or ``(n, m)``: at most n of m consecutive inputs stay."""

Scope = Literal["row", "tensor"]
"""Among which weights the share is met: those of each output, or all."""


def magnitude(weights: np.ndarray, sparsity: Sparsity, scope: Scope = "row") -> np.ndarray:
    """Set the weights of the smallest magnitude to zero.

    Args:
        weights: W, of shape ``(outputs, inputs)``.
        sparsity: how many.
        scope: among which a share is met; nothing to a pattern.

    Returns:
        A new array of the same shape and dtype.

    Raises:
        ValueError: there is no such sparsity.
    """
    return np.where(kept(np.abs(weights), sparsity, scope), weights, weights.dtype.type(0))


def wanda(weights: np.ndarray, hessian: np.ndarray, sparsity: Sparsity) -> np.ndarray:
    """Set the weights of each output to zero that matter least to it: smallest ``|w_i| sqrt(H_ii)``.

    Args:
        weights: W, of shape ``(outputs, inputs)``.
        hessian: H, of shape ``(inputs, inputs)``, or its diagonal E[x^2], of shape ``(inputs,)``.
        sparsity: how many.

    Returns:
        A new array of the same shape and dtype.

    Raises:
        ValueError: there is no such sparsity.
    """
    second = hessian if hessian.ndim == 1 else np.diag(hessian)
    scores = np.abs(weights) * np.sqrt(np.maximum(second, 0.0))
    return np.where(kept(scores, sparsity), weights, weights.dtype.type(0))


def sparsegpt(
    weights: np.ndarray, hessian: np.ndarray, sparsity: Sparsity, damping: float = 0.01
) -> np.ndarray:
    """Set weights to zero and move the others so that the layer's output changes least.

    Args:
        weights: W, of shape ``(outputs, inputs)``.
        hessian: H, symmetric, of shape ``(inputs, inputs)``.
        sparsity: how many; a share is met in every 128 columns.
        damping: share of the mean of H's diagonal that is added to it.

    Returns:
        A new array of the same shape and dtype.

    Raises:
        ValueError: there is no such sparsity, or an element of H is not finite.
    """
    _check(sparsity)
    left = np.array(weights, np.float64)
    inputs = left.shape[1]
    flipped = factor(damped(hessian, damping)[::-1, ::-1])
    upper = inverse_of_lower(flipped)[::-1, ::-1]
    step = sparsity[1] if isinstance(sparsity, tuple) else PANEL
    panel = max(PANEL // step, 1) * step
    for start in range(0, inputs, panel):
        stop = min(start + panel, inputs)
        errors = _sweep(left[:, start:stop], upper[start:stop, start:stop], sparsity, step)
        left[:, stop:] -= errors @ upper[start:stop, stop:]
    return left.astype(weights.dtype)


def _sweep(columns: np.ndarray, upper: np.ndarray, sparsity: Sparsity, step: int) -> np.ndarray:
    """Prune the columns of a panel in place.

    Args:
        columns: of the weights, of shape ``(outputs, panel)``.
        upper: their part of U, of shape ``(panel, panel)``.
        sparsity: how many.
        step: columns for which is chosen together.

    Returns:
        ``w_i / U_ii`` of each weight that was removed, else 0; of the shape of ``columns``.
    """
    errors = np.zeros(columns.shape)
    diagonal = np.diag(upper)
    keep = np.ones(columns.shape, np.bool_)
    for i in range(columns.shape[1]):
        if i % step == 0:
            scores = np.square(columns[:, i : i + step] / diagonal[i : i + step])
            keep[:, i : i + step] = kept(scores, sparsity, "tensor")
        errors[:, i] = np.where(keep[:, i], 0.0, columns[:, i] / diagonal[i])
        columns[:, i:] -= np.outer(errors[:, i], upper[i, i:])
        columns[~keep[:, i], i] = 0.0
    return errors


def kept(scores: np.ndarray, sparsity: Sparsity, scope: Scope = "row") -> np.ndarray:
    """Which weights stay: all but those of the smallest scores; of equal scores the first ones go.

    Args:
        scores: of shape ``(outputs, inputs)``.
        sparsity: how many go: ``round(share * size)`` of each row or of all; of a pattern ``(n, m)`` all
            but n of every m, and of a shorter rest at its end what is more than n.
        scope: among which a share is met; nothing to a pattern.

    Returns:
        bool of the same shape.

    Raises:
        ValueError: there is no such sparsity.
    """
    _check(sparsity)
    if isinstance(sparsity, tuple):
        return _kept_of_every(scores, *sparsity)
    rows = scores.reshape(1, -1) if scope == "tensor" else scores
    gone = np.argsort(rows, axis=1, kind="stable")[:, : round(sparsity * rows.shape[1])]
    found = np.ones(rows.shape, np.bool_)
    np.put_along_axis(found, gone, False, axis=1)
    return found.reshape(scores.shape)


def _kept_of_every(scores: np.ndarray, n: int, m: int) -> np.ndarray:
    """The n largest of every m consecutive scores of each row."""
    outputs, inputs = scores.shape
    padded = np.full((outputs, -(-inputs // m) * m), -np.inf)
    padded[:, :inputs] = scores
    groups = padded.reshape(outputs, -1, m)
    gone = np.argsort(groups, axis=2, kind="stable")[:, :, : m - n]
    found = np.ones(groups.shape, np.bool_)
    np.put_along_axis(found, gone, False, axis=2)
    return found.reshape(padded.shape)[:, :inputs]


def _check(sparsity: Sparsity) -> None:
    """Refuse what is no sparsity."""
    if isinstance(sparsity, tuple):
        n, m = sparsity
        if not 0 <= n <= m or m < 1:
            raise ValueError(f"{n} of every {m} weights cannot be kept")
    elif not 0 <= sparsity <= 1:
        raise ValueError(f"a share of {sparsity} of the weights cannot be zero")
