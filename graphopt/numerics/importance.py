"""Which weights and which units matter least, and what is left without them.

A unit is a channel, a neuron or a head: what leaves a layer as a whole. Its scores here look at weights and
activations alone; a smaller one goes first. They are comparable within a group of units, not between layers:
for that there is ``obs``, whose errors are.
"""

from __future__ import annotations

from collections.abc import Sequence

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


def l1_scores(slices: Sequence[np.ndarray]) -> np.ndarray:
    """The sum of the magnitudes of all weights of each unit (Li et al., "Pruning filters", 2017).

    Args:
        slices: weights of the same units in several tensors, each of shape ``(units, ...)``.

    Returns:
        float64 of shape ``(units,)``.
    """
    return np.asarray(sum(np.abs(rows).sum(axis=1) for rows in _rows(slices)))


def l2_scores(slices: Sequence[np.ndarray]) -> np.ndarray:
    """The Euclidean norm of all weights of each unit.

    Args:
        slices: weights of the same units in several tensors, each of shape ``(units, ...)``.

    Returns:
        float64 of shape ``(units,)``.
    """
    return np.asarray(np.sqrt(sum(np.square(rows).sum(axis=1) for rows in _rows(slices))))


def random_scores(units: int, rng: np.random.Generator | int) -> np.ndarray:
    """Scores without meaning, the baseline of all others: float64 of shape ``(units,)`` in [0, 1).

    Args:
        units: how many.
        rng: a generator or its seed; the same seed gives the same scores.
    """
    return np.random.default_rng(rng).random(units)


def activation_scores(
    consumers: Sequence[tuple[np.ndarray, np.ndarray, Sequence[np.ndarray]]],
) -> np.ndarray:
    """The size of what each unit contributes to those who read it: ``sqrt(sum_r E[x_r^2] |W_r|^2)``.

    For a unit of one feature that is the root mean square of its activation times the norm of its outgoing
    weights, Wanda's ``|w| |x|`` (Sun et al., "A simple and effective pruning approach for large language
    models", 2024) of a whole unit. The energies of several consumers are added, each as a share of the
    consumer's.

    Args:
        consumers: of each E[x^2] of its features, of shape ``(features,)``; its weights, of shape
            ``(features, outputs)``; and the features of each unit.

    Returns:
        float64 of shape ``(units,)``.
    """
    energies = []
    for second, weights, blocks in consumers:
        each = second * np.square(weights, dtype=np.float64).sum(axis=1)
        own = np.array([each[rows].sum() for rows in blocks])
        energies.append(own / (each.sum() or 1.0))
    return np.asarray(np.sqrt(np.sum(energies, axis=0)))


def _rows(slices: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Each slice as a float64 matrix with one row for each unit.

    Raises:
        ValueError: they are not of the same units.
    """
    if len({len(part) for part in slices}) != 1:
        raise ValueError(f"slices of the same units have {[len(part) for part in slices]} units")
    return [np.asarray(part, np.float64).reshape(len(part), -1) for part in slices]
