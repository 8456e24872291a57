"""Single weights set to zero, anywhere or n of every m kept.

W is ``(outputs, inputs)``, H the second moments of the inputs, and the error is that of the layer's output,
``|X (W - W')^T|^2``:

kept        the weights of the smallest scores go, such as ``|w|``, or ``|w_i| sqrt(H_ii)`` (Sun et al.,
            "Wanda", 2024); the others stay as they are.
swept       columns from left to right; what is lost with one is made up for in those to its right (Frantar
            and Alistarh, "SparseGPT", 2023). With ``H^-1 = U^T U``, U upper triangular, removing weight i
            costs ``(w_i / U_ii)^2`` and moves the weights to its right by ``-(w_i / U_ii) U_i``. Which
            weights go is chosen for 128 columns at a time, or for every m columns of an n:m pattern.
refitted    makes up for what is lost in all weights that stay, whatever way they were chosen.

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


def inverse_factor(hessian: np.ndarray, damping: float = 0.01) -> np.ndarray:
    """U, upper triangular, of ``H^-1 = U^T U``; float64 of the shape of H. For ``swept``.

    Args:
        hessian: H, symmetric, of shape ``(inputs, inputs)``.
        damping: share of the mean of H's diagonal that is added to it.

    Raises:
        ValueError: an element of H is not finite.
    """
    flipped = factor(damped(hessian, damping)[::-1, ::-1])
    return inverse_of_lower(flipped)[::-1, ::-1]


def swept(weights: np.ndarray, upper: np.ndarray, sparsity: Sparsity) -> np.ndarray:
    """Set weights to zero and move the others so that the layer's output changes least.

    Weights that are zero stay zero and count. A share is met exactly over all weights, where no more are
    zero before; each 128 columns have the same share of those of their weights that are not zero yet.

    Args:
        weights: W, of shape ``(outputs, inputs)``.
        upper: U, of shape ``(inputs, inputs)``, as ``inverse_factor`` gives it.
        sparsity: how many.

    Returns:
        A new array of the same shape and dtype.

    Raises:
        ValueError: there is no such sparsity.
    """
    _check(sparsity)
    left = np.array(weights, np.float64)
    inputs = left.shape[1]
    step = sparsity[1] if isinstance(sparsity, tuple) else PANEL
    panel = max(PANEL // step, 1) * step
    given = weights != 0
    shares = [] if isinstance(sparsity, tuple) else _shares(given, sparsity, panel)
    for start in range(0, inputs, panel):
        stop = min(start + panel, inputs)
        asked = sparsity if isinstance(sparsity, tuple) else shares[start // panel]
        part = upper[start:stop, start:stop]
        errors = _sweep(left[:, start:stop], part, given[:, start:stop], asked, step)
        left[:, stop:] -= errors @ upper[start:stop, stop:]
    return left.astype(weights.dtype)


def _shares(given: np.ndarray, share: float, panel: int) -> list[float]:
    """The share of zeros of each panel with which that of all weights is met.

    Args:
        given: which weights are not zero, of shape ``(outputs, inputs)``.
        share: of zeros in all.
        panel: columns of a panel.
    """
    parts = [given[:, start : start + panel] for start in range(0, given.shape[1], panel)]
    whole = [int(np.count_nonzero(part)) for part in parts]
    left, gone = sum(whole), max(round(share * given.size) - given.size + sum(whole), 0)
    found = []
    for part, here in zip(parts, whole, strict=True):
        now = round(gone * here / max(left, 1))
        gone, left = gone - now, left - here
        found.append((part.size - here + now) / max(part.size, 1))
    return found


def _sweep(
    columns: np.ndarray, upper: np.ndarray, given: np.ndarray, sparsity: Sparsity, step: int
) -> np.ndarray:
    """Prune the columns of a panel in place.

    Args:
        columns: of the weights, of shape ``(outputs, panel)``.
        upper: their part of U, of shape ``(panel, panel)``.
        given: which of them were not zero at first; the others stay zero.
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
            some = slice(i, i + step)
            scores = np.square(columns[:, some] / diagonal[some])
            scores[~given[:, some]] = -1.0
            keep[:, some] = kept(scores, sparsity, "tensor") & given[:, some]
        errors[:, i] = np.where(keep[:, i], 0.0, columns[:, i] / diagonal[i])
        columns[:, i:] -= np.outer(errors[:, i], upper[i, i:])
        columns[~keep[:, i], i] = 0.0
    return errors


def refitted(
    weights: np.ndarray,
    hessian: np.ndarray,
    cross: np.ndarray,
    towards: np.ndarray,
    damping: float = 0.01,
    steps: int = 30,
) -> np.ndarray:
    """The least-squares fit of the weights that are not zero; the zeros stay.

    Each output y has a system of its own over the weights it has left,
    ``min w (H + c I) w - 2 w (g + c w_0)``, and all are solved together by conjugate gradients with the
    diagonal as preconditioner. The error falls with every step, so it may end after any of them.

    Args:
        weights: W, of shape ``(outputs, inputs)``: where to begin, and which weights are zero.
        hessian: H, symmetric, of shape ``(inputs, inputs)``.
        cross: G, the moments of the outputs wanted with the inputs, of shape ``(outputs, inputs)``;
            ``W_0 H`` where the outputs wanted are those of W_0.
        towards: W_0, of the shape of W.
        damping: c as a share of the mean of H's diagonal.
        steps: the most of them.

    Returns:
        float64 of the shape of W.
    """
    keep = weights != 0
    matrix = damped(hessian, damping)
    ridge = float((np.diag(matrix) - np.diag(hessian)).mean())
    found = np.array(weights, np.float64)
    scale = 1.0 / np.diag(matrix)
    rest = np.where(keep, cross + ridge * towards - found @ matrix, 0.0)
    direction = rest * scale
    power = np.sum(rest * direction, axis=1, keepdims=True)
    for _ in range(steps):
        image = np.where(keep, direction @ matrix, 0.0)
        length = _ratio(power, np.sum(direction * image, axis=1, keepdims=True))
        found += length * direction
        rest -= length * image
        scaled = rest * scale
        before, power = power, np.sum(rest * scaled, axis=1, keepdims=True)
        direction = scaled + _ratio(power, before) * direction
    return found


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Quotients; 0 where the divisor is not positive."""
    return np.asarray(np.divide(above, below, out=np.zeros_like(above), where=below > 0))


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
