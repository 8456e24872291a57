"""Total variation: the largest difference that two distributions give any event.

    TV(p, q) = 1/2 sum_c |p_c - q_c|        p: the original, q: the candidate, c: the classes
    TV(p, q) = |p - q|                      where an output is one probability

It bounds the share of decisions that can differ when the classes are drawn from the distributions, so a drop
of one point means the same for every model whose outputs are probabilities. Source: Levin, Peres and Wilmer,
"Markov chains and mixing times", chapter 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphopt.quality.metrics.fidelity import Fidelity
from graphopt.quality.metrics.kl import are_probabilities
from graphopt.quality.metrics.outputs import as_numbers, is_float
from graphopt.quality.metrics.pairs import Pair, matched


@dataclass(frozen=True)
class TotalVariation(Fidelity):
    """Total variation distance, averaged over all positions of a sample."""

    higher_is_better = False
    worst = 1.0
    wanted = "floats from 0 to 1"
    farthest = 1.0

    name: str = "tv"

    def fits(self, array: np.ndarray, size: int) -> bool:
        """Whether it holds numbers from 0 to 1."""
        return is_float(array) and array.size > 0 and within_unit(as_numbers(array))

    def nearness(self, pair: Pair) -> np.ndarray:
        """The mean distance of each sample."""
        classes = pair.reference.shape[-1] if is_distribution(pair.reference) else 1
        found = np.empty(len(pair.reference))
        for part, a, b, broken in matched(pair):
            gap = np.abs(a - b).reshape(len(a), -1, classes).sum(axis=2)
            mean = (gap / 2 if classes > 1 else gap).mean(axis=1)
            found[part] = np.where(broken, self.farthest, np.minimum(mean, self.farthest))
        return found


def is_distribution(array: np.ndarray) -> bool:
    """Whether the last axis of an output counts classes whose probabilities it holds."""
    return array.ndim > 1 and array.shape[-1] > 1 and are_probabilities(array)


def within_unit(array: np.ndarray) -> bool:
    """Whether all numbers lie from 0 to 1."""
    with np.errstate(invalid="ignore"):
        return bool(((array >= 0) & (array <= 1)).all())
