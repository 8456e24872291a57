"""Refitting a layer to what it should compute, in closed form.

A layer computes ``X W + b`` and should compute Y. With the covariances H of X and G of X with Y (centred
and divided by the number of rows, as ``Gram.covariance`` and ``Cross.covariance`` give them), the ridge
regression towards given weights ``W_0`` (Hoerl and Kennard, 1970) is

    W = (H + c I)^-1 (G + c W_0) = W_0 + (H + c I)^-1 (G - H W_0)        b = mean y - mean x W

with c a share of the mean of H's diagonal. In directions that X does not reach W is ``W_0``, so a layer of
which the data say nothing stays as it was. The second form is computed: there rounding cannot move ``W_0``.

Leading axes are stacks of small systems: one of each channel of a depthwise convolution, of each group of a
grouped one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from graphopt.numerics.positive import solve

STRENGTH = 1e-3
"""The ridge as a share of the mean of H's diagonal."""

STRENGTHS = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
"""Strengths that are tried."""

LEAST_STRENGTH = 1e-10
"""What the share is at least: with less, rounding would move weights that the data say nothing of."""

CLIP = (0.2, 5.0)
"""Factors by which ``match_moments`` scales at least and at most."""


class Refit(NamedTuple):
    """New weights, of the shape of the given ones, and their bias; float64."""

    weights: np.ndarray
    bias: np.ndarray


def ridge(
    covariance: np.ndarray,
    cross: np.ndarray,
    mean_x: np.ndarray,
    mean_y: np.ndarray,
    towards: np.ndarray,
    strength: float = STRENGTH,
) -> Refit:
    """Regress Y on X, towards given weights.

    Only the ratio of ``covariance`` to ``cross`` matters: both may be sums over rows instead of means.

    Args:
        covariance: H, of shape ``(..., features, features)``.
        cross: G, of shape ``(..., features, targets)``.
        mean_x: of shape ``(..., features)``.
        mean_y: of shape ``(..., targets)``.
        towards: W_0, of the shape of ``cross``.
        strength: c as a share of the mean of H's diagonal.

    Raises:
        ValueError: shapes do not fit, or an element is not finite.
    """
    wide = [np.asarray(a, np.float64) for a in (covariance, cross, mean_x, mean_y, towards)]
    covariance, cross, mean_x, mean_y, towards = wide
    _check(covariance, cross, towards)
    gap = cross - covariance @ towards
    weights = towards + solve(with_ridge(covariance, strength), gap)
    return _with_bias(weights, mean_x, mean_y)


def cross_validated(
    covariance: np.ndarray,
    cross: np.ndarray,
    variance: np.ndarray,
    towards: np.ndarray,
    rows: int,
) -> float:
    """The strength of a ridge that generalized cross-validation finds best among ``STRENGTHS``.

    With the residual sum of squares RSS(c) and the degrees of freedom ``df(c) = tr(H (H + c I)^-1)`` it is
    the one of the least ``RSS(c) / (1 - df(c) / rows)^2`` (Golub, Heath and Wahba, Technometrics 21, 1979),
    here summed over leading axes. Rows count as independent.

    Args:
        covariance: H, of shape ``(..., features, features)``.
        cross: G, of shape ``(..., features, targets)``.
        variance: of Y, of shape ``(..., targets)``.
        towards: W_0, of the shape of ``cross``.
        rows: that the moments are of.
    """
    values, vectors = np.linalg.eigh(covariance)
    values = np.maximum(values, 0.0)
    gap = cross - covariance @ towards
    energy = np.square(np.swapaxes(vectors, -1, -2) @ gap).sum(axis=-1)
    start = variance.sum(axis=-1) - (towards * (cross + gap)).sum(axis=(-1, -2))
    mean = np.maximum(values.mean(axis=-1, keepdims=True), 1e-300)
    best, found = np.inf, STRENGTHS[0]
    for strength in STRENGTHS:
        shrink = 1 / (values + strength * mean)
        explained = (energy * shrink * (2 - values * shrink)).sum(axis=-1)
        left = 1 - np.minimum((values * shrink).sum(axis=-1) / max(rows, 1), 0.999)
        score = float((np.maximum(start - explained, 0.0) / np.square(left)).sum())
        if score < best:
            best, found = score, strength
    return found


def ridge_in_blocks(
    blocks: Sequence[tuple[np.ndarray, np.ndarray]],
    cross: np.ndarray,
    mean_x: np.ndarray,
    mean_y: np.ndarray,
    towards: np.ndarray,
    strength: float = STRENGTH,
) -> Refit:
    """One step of a regression where only diagonal blocks of H are known; its error never rises.

    What is explained is the *residual* R, what Y still differs from ``X W_0``, for only of it can blocks
    that do not know of each other take their parts. With B blocks ``x^T H x <= B sum_b x_b^T H_bb x_b``
    (Cauchy and Schwarz), so the squared error is at most a sum of one function of each block. These are
    minimised:

        W_b = W_0b + (B H_bb + c I)^-1 G_b,   G the covariance of X with R

    The step is shorter than the best one; repeated with the residual measured anew it goes on to fall.

    Args:
        blocks: the features of each block and its covariance; every feature in one block.
        cross: G of the residual, of shape ``(features, targets)``.
        mean_x: of shape ``(features,)``.
        mean_y: the mean of Y itself, of shape ``(targets,)``.
        towards: W_0, of the shape of ``cross``.
        strength: c as a share of the mean of the block's diagonal.

    Raises:
        ValueError: shapes do not fit, or an element is not finite.
    """
    weights = np.array(towards, np.float64)
    for features, matrix in blocks:
        covariance = len(blocks) * np.asarray(matrix, np.float64)
        part = np.asarray(cross[features], np.float64)
        _check(covariance, part, weights[features])
        weights[features] += solve(with_ridge(covariance, strength), part)
    return _with_bias(weights, mean_x, mean_y)


def with_ridge(covariance: np.ndarray, strength: float) -> np.ndarray:
    """H + c I, by which the ridge weighs what differs from the best weights.

    Args:
        covariance: H, of shape ``(..., features, features)``.
        strength: c as a share of the mean of H's diagonal; c is 1 where H is zero.
    """
    mean = np.trace(covariance, axis1=-2, axis2=-1) / max(covariance.shape[-1], 1)
    ridge = np.where(mean > 0, max(strength, LEAST_STRENGTH) * mean, 1.0)
    return np.asarray(covariance + ridge[..., None, None] * np.eye(covariance.shape[-1]))


def match_moments(
    mean_before: np.ndarray,
    variance_before: np.ndarray,
    mean_after: np.ndarray,
    variance_after: np.ndarray,
    clip: tuple[float, float] = CLIP,
) -> tuple[np.ndarray, np.ndarray]:
    """The scale and shift of each channel that give it back its mean and variance.

    ``y' = s y + t``, ``s = sqrt(variance before / variance after)``, ``t = mean before - s mean after``:
    what BatchNormalization would do with statistics taken anew, on a graph that has none left.
    Both go together; the mean alone can make a model worse, for the variance has collapsed too (REFLOW,
    2025).

    Args:
        mean_before: of each channel in the original model, of shape ``(channels,)``; the others likewise.
        variance_before: in the original model.
        mean_after: in the changed one.
        variance_after: in the changed one.
        clip: the least and the largest scale. A channel that has become constant is only shifted.

    Returns:
        Scale and shift, float64. They are 1 and 0 where a moment is not finite.
    """
    moments = [mean_before, variance_before, mean_after, variance_after]
    wide = np.stack([np.asarray(moment, np.float64) for moment in moments])
    known = np.isfinite(wide).all(axis=0)
    before, was, after, now = np.where(known, wide, 0.0)
    alive = now > 0
    with np.errstate(over="ignore"):
        ratio = np.maximum(was, 0.0) / np.where(alive, now, 1.0)
    scale = np.where(alive, np.clip(np.sqrt(ratio), *clip), 1.0)
    return scale, before - scale * after


def _with_bias(weights: np.ndarray, mean_x: np.ndarray, mean_y: np.ndarray) -> Refit:
    """Weights and the bias ``mean y - mean x W``."""
    bias = np.asarray(mean_y - (mean_x[..., None, :] @ weights)[..., 0, :], np.float64)
    if not (np.isfinite(weights).all() and np.isfinite(bias).all()):
        raise ValueError("the moments that a refit is made from are not finite")
    return Refit(weights, bias)


def _check(covariance: np.ndarray, cross: np.ndarray, towards: np.ndarray) -> None:
    if (
        covariance.shape[-2:] != (cross.shape[-2],) * 2
        or covariance.shape[:-2] != cross.shape[:-2]
        or cross.shape != towards.shape
    ):
        raise ValueError(
            f"a covariance of shape {covariance.shape}, one with targets of {cross.shape} "
            f"and weights of {towards.shape} are not of one layer"
        )
