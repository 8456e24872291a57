"""Maps of probabilities, as of which pixels belong to a text: how far the masks that they stand for overlap.

    soft IoU = sum min(p, q) / sum max(p, q)        p: the original, q: the candidate

A mask holds what exceeds a threshold. Intersection and union of the masks of p and q, integrated over all
thresholds from 0 to 1, are the sums of the smaller and of the larger probabilities. So this is the
intersection over union (Jaccard, 1901) pooled over thresholds, as for soft sets (Ruzicka, 1958), and over
samples: one whose masks are empty says little. Background, which both leave out, does not count.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphopt.quality.metrics.base import Metric, Observed, Rows
from graphopt.quality.metrics.outputs import as_numbers, is_float
from graphopt.quality.metrics.pairs import Pair, matched, pairs
from graphopt.quality.metrics.pooling import weighted_sums
from graphopt.quality.metrics.variation import within_unit


@dataclass(frozen=True)
class SoftIoU(Metric):
    """Intersection over union of the original's and the candidate's masks, pooled over thresholds."""

    name: str = "soft-iou"
    output: str = ""

    def fits(self, array: np.ndarray) -> bool:
        """Whether it holds numbers from 0 to 1."""
        return is_float(array) and array.size > 0 and within_unit(as_numbers(array))

    def rows(self, seen: Observed) -> Rows:
        """Intersection and union of every output, side by side."""
        found = pairs(self, seen, self.fits, "floats from 0 to 1")
        return np.concatenate([_overlap(pair) for pair in found], axis=1)

    def values(self, rows: Rows, weights: np.ndarray) -> np.ndarray:
        """That of the worst output; 1 where all masks are empty."""
        both, either = np.moveaxis(weighted_sums(rows, weights).reshape(len(weights), -1, 2), 2, 0)
        share = np.divide(both, either, out=np.ones_like(both), where=either > 0)
        return np.asarray(share.min(axis=1))


def _overlap(pair: Pair) -> np.ndarray:
    """Intersection and union of each sample, ``(samples, 2)``; where it is broken, nothing and all of it."""
    found = np.zeros((len(pair.reference), 2))
    found[:, 1] = pair.reference[0].size if len(pair.reference) else 0
    if not pair.comparable:
        return found
    for part, a, b, broken in matched(pair):
        b = b.clip(0.0, None)
        sums = np.stack([np.minimum(a, b).sum(axis=1), np.maximum(a, b).sum(axis=1)], axis=1)
        found[part] = np.where(broken[:, np.newaxis], found[part], sums)
    return found
