"""Metrics of fidelity that compare noise with signal, pooled over samples. They need no labels.

    SQNR  = 10 log10( sum a^2 / sum (a - b)^2 ) dB       a: the original, b: the candidate
    worst = max |a - b| / max |a|

Signal-to-quantization-noise ratio: powers are summed over all samples before the division. Its drop is
noise power / signal power, ``10^(-dB / 10)``: a drop of 1 % is 20 dB, and equal outputs, of infinite dB,
have none. Without an output both look at all floats, and their value is that of the worst output. An
output that is NaN or infinite where the original's is not the same, or of another shape, is noise without
end.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass

import numpy as np

from graphopt.quality.metrics.base import Metric, Observed, Rows
from graphopt.quality.metrics.outputs import is_float
from graphopt.quality.metrics.pairs import Pair, matched, pairs
from graphopt.quality.metrics.pooling import largest, weighted_sums


@dataclass(frozen=True)
class Noise(Metric):
    """A measure of the difference against the size of the original's outputs."""

    output: str = ""

    @staticmethod
    @abc.abstractmethod
    def statistics(pair: Pair) -> np.ndarray:
        """Statistics of one output, ``(samples, n)``."""

    def rows(self, seen: Observed) -> Rows:
        """The statistics of every output, side by side."""
        found = pairs(self, seen, is_float, "floats")
        return np.concatenate([self.statistics(pair) for pair in found], axis=1)


@dataclass(frozen=True)
class SQNR(Noise):
    """Signal-to-quantization-noise ratio in dB; infinite for equal outputs."""

    unit = "dB"

    name: str = "sqnr"

    @staticmethod
    def statistics(pair: Pair) -> np.ndarray:
        """Signal power, noise power, and whether the noise has no end."""
        found = np.zeros((len(pair.reference), 3))
        if not pair.comparable:
            found[:, 2] = 1.0
            return found
        for part, a, b, broken in matched(pair):
            with np.errstate(over="ignore", invalid="ignore"):
                powers = np.stack([np.square(a).sum(axis=1), np.square(a - b).sum(axis=1)], axis=1)
            lost = broken | ~np.isfinite(powers).all(axis=1)
            found[part, :2] = np.where(lost[:, np.newaxis], 0.0, powers)
            found[part, 2] = lost
        return found

    def values(self, rows: Rows, weights: np.ndarray) -> np.ndarray:
        """The ratio of the worst output in dB."""
        sums = weighted_sums(rows, weights).reshape(len(weights), -1, 3)
        signal, noise, lost = np.moveaxis(sums, 2, 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = 10 * (np.log10(signal) - np.log10(noise))
        ratio[noise == 0] = np.inf
        ratio[lost > 0] = -np.inf
        return np.asarray(ratio.min(axis=1))

    def drop(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """Noise power / signal power that came in addition."""
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(10 ** (-after / 10) - 10 ** (-before / 10))


@dataclass(frozen=True)
class WorstDifference(Noise):
    """The largest difference of an element, as a share of the largest magnitude of the original."""

    higher_is_better = False

    name: str = "worst"

    @staticmethod
    def statistics(pair: Pair) -> np.ndarray:
        """The largest difference, and the largest magnitude of the original."""
        found = np.zeros((len(pair.reference), 2))
        if not pair.comparable:
            found[:, 0] = np.inf
            return found
        for part, a, b, broken in matched(pair):
            with np.errstate(over="ignore"):
                off = np.abs(a - b).max(axis=1, initial=0.0)
            found[part, 0] = np.where(broken, np.inf, off)
            found[part, 1] = np.abs(a).max(axis=1, initial=0.0)
        return found

    def values(self, rows: Rows, weights: np.ndarray) -> np.ndarray:
        """The share of the worst output; infinite where the original is zero and the candidate not."""
        off, size = np.moveaxis(largest(rows, weights).reshape(len(weights), -1, 2), 2, 0)
        share = off / np.where(size > 0, size, 1.0)
        share[(size == 0) & (off > 0)] = np.inf
        return np.asarray(share.max(axis=1))
