"""Decisions of an output that is a probability of one thing for each element, as of speech in each frame.

    element agreement = elements for which original and candidate decide the same / elements

A decision is yes where the probability exceeds 0.5. A NaN decides nothing, and agrees with nothing but a NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphopt.quality.metrics.fidelity import Fidelity
from graphopt.quality.metrics.outputs import as_numbers, is_float
from graphopt.quality.metrics.pairs import Pair, matched
from graphopt.quality.metrics.scores import PROBABILITY
from graphopt.quality.metrics.variation import within_unit


@dataclass(frozen=True)
class ElementAgreement(Fidelity):
    """Share of the elements for which original and candidate decide the same."""

    worst = 1.0
    wanted = "floats from 0 to 1"
    farthest = 0.0

    name: str = "element-agreement"

    def fits(self, array: np.ndarray, size: int) -> bool:
        """Whether it holds numbers from 0 to 1."""
        return is_float(array) and array.size > 0 and within_unit(as_numbers(array))

    def nearness(self, pair: Pair) -> np.ndarray:
        """The share of each sample."""
        found = np.empty(len(pair.reference))
        for part, a, b, broken in matched(pair):
            same = ((a > PROBABILITY) == (b > PROBABILITY)).mean(axis=1)
            found[part] = np.where(broken, self.farthest, same)
        return found


def rarer(array: np.ndarray) -> float:
    """The share of the rarer one of the two decisions among the elements."""
    share = float((as_numbers(array) > PROBABILITY).mean()) if array.size else 0.0
    return min(share, 1.0 - share)
