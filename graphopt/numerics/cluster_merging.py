"""Clusters merged away: the fewest bits for what it costs.

Two neighbouring clusters of masses m, n weights each, and centres c become one at their common mean:

    cost   m_1 m_2 / (m_1 + m_2) (c_1 - c_2)^2
    saved  sum_i n_i log2(N / n_i)  -  (n_1 + n_2) log2(N / (n_1 + n_2))      bits of an entropy code

The pair of the least cost per bit goes first: small clusters, whose codes are long, and neighbours that lie
near. That is Equitz' "A new vector quantization clustering algorithm" (1989) with the entropy constraint of
Chou, Lookabaugh and Gray, "Entropy-constrained vector quantization" (1989).
How far that may go is asked of whoever knows the error of the result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from graphopt.numerics.kmeans import nearest

T = TypeVar("T")


def merges(
    centres: np.ndarray, counts: np.ndarray, mass: np.ndarray, zero: bool = False
) -> list[np.ndarray]:
    """The clusters after each of a row of merges, down to two.

    Args:
        centres: rising, of shape ``(k,)``.
        counts: weights in each cluster.
        mass: what they count together, of which some is positive.
        zero: whether a centre that is 0 stays there, whatever is merged with it.

    Returns:
        By the number of merges, from 0: for each of the k clusters the centre that its weights are given.
    """
    parts = [np.array([n]) for n in range(len(centres))]
    middles = [float(c) for c in centres]
    sizes, masses = [float(n) for n in counts], [float(m) for m in mass]
    found = [np.array(centres, np.float64)]
    while len(parts) > 2:
        priced = [
            _price(sizes[i : i + 2], masses[i : i + 2], middles[i : i + 2], sum(sizes), zero)
            for i in range(len(parts) - 1)
        ]
        at = int(np.argmin(priced))
        middles[at : at + 2] = [_middle(masses[at : at + 2], middles[at : at + 2], zero)]
        parts[at : at + 2] = [np.concatenate(parts[at : at + 2])]
        sizes[at : at + 2] = [sum(sizes[at : at + 2])]
        masses[at : at + 2] = [sum(masses[at : at + 2])]
        after = found[-1].copy()
        after[parts[at]] = middles[at]
        found.append(after)
    return found


def furthest(count: int, attempt: Callable[[int], tuple[float, T]], limit: float) -> T | None:
    """The result of the most merges whose error keeps to a limit, found by bisection; None where none does.

    Args:
        count: merges at most.
        attempt: the error with so many merges, and what is reached. More merges cost more.
        limit: of the error.
    """
    low, high = 0, count
    best: T | None = None
    while low < high:
        middle = (low + high + 1) // 2
        error, reached = attempt(middle)
        if error <= limit:
            low, best = middle, reached
        else:
            high = middle - 1
    return best


def merged(
    values: np.ndarray,
    centres: np.ndarray,
    mass: np.ndarray | None,
    share: float,
    zero: bool = False,
) -> np.ndarray:
    """Centres of which the smallest were merged away, as far as the error of the numbers themselves allows.

    Args:
        values: the numbers.
        centres: rising.
        mass: what each number counts; None: all alike.
        share: by which the weighted squared error may grow.
        zero: whether a centre that is 0 stays.
    """
    weights = np.ones(values.shape) if mass is None else mass
    places, count = nearest(centres, values).ravel(), len(centres)
    masses = np.bincount(places, weights.ravel(), count)
    rows = merges(centres, np.bincount(places, minlength=count), masses, zero)

    def attempt(number: int) -> tuple[float, np.ndarray]:
        book = np.unique(rows[number])
        return float((weights * np.square(book[nearest(book, values)] - values)).sum()), book

    error, book = attempt(0)
    reached = furthest(len(rows) - 1, attempt, (1.0 + share) * error)
    return book if reached is None else reached


def _middle(masses: list[float], centres: list[float], zero: bool) -> float:
    if zero and 0.0 in centres:
        return 0.0
    whole = sum(masses)
    if not whole:
        return sum(centres) / 2
    return (masses[0] * centres[0] + masses[1] * centres[1]) / whole


def _price(
    sizes: list[float], masses: list[float], centres: list[float], whole: float, zero: bool
) -> float:
    """The cost per bit of merging two clusters."""
    middle = _middle(masses, centres, zero)
    cost = sum(m * (c - middle) ** 2 for m, c in zip(masses, centres, strict=True))
    saved = _bits(sizes[0], whole) + _bits(sizes[1], whole) - _bits(sum(sizes), whole)
    return cost / max(saved, 1.0)


def _bits(size: float, whole: float) -> float:
    """Of the codes of so many of all weights."""
    return size * float(np.log2(whole / size)) if size else 0.0
