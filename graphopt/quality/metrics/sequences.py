"""Metrics of sequences against labels, for speech and text recognition.

    character error rate = edits / symbols of the labels
    word error rate      = edits of words / words of the labels
    word accuracy        = samples that are right as a whole / samples

Edits are counted by the Levenshtein distance and summed over all samples before the division, so a long
sample counts more than a short one. Where the labels hold nothing at all, the rate is the number of
edits.
"""

from __future__ import annotations

import abc
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np

from graphopt.quality.metrics.base import Metric, Observed, Rows
from graphopt.quality.metrics.edit_distance import edit_distance
from graphopt.quality.metrics.pooling import MeanMetric, quotient, weighted_sums
from graphopt.quality.metrics.transcripts import Spelled, Spelling, transcripts


@dataclass(frozen=True)
class ErrorRate(Metric):
    """Edits as a share of what the labels hold."""

    higher_is_better = False
    needs_labels = True

    output: str = ""
    spelling: Spelling = field(default_factory=Spelling)

    @abc.abstractmethod
    def units(self, sequence: Spelled) -> Sequence[Hashable]:
        """What is counted of a sequence."""

    def rows(self, seen: Observed) -> Rows:
        """Edits, and units of the label."""
        found = [[self.units(s) for s in part] for part in transcripts(self, self.spelling, seen)]
        pairs = zip(*found, strict=True)
        counts = [(edit_distance(wanted, spelled), len(wanted)) for spelled, wanted in pairs]
        return np.array(counts, np.float64).reshape(-1, 2)

    def values(self, rows: Rows, weights: np.ndarray) -> np.ndarray:
        """All edits / all units."""
        sums = weighted_sums(rows, weights)
        return quotient(sums[:, 0], sums[:, 1])


@dataclass(frozen=True)
class CER(ErrorRate):
    """Character error rate: code points of strings, or symbols where labels are integers."""

    name: str = "cer"

    def units(self, sequence: Spelled) -> Sequence[Hashable]:
        """Every symbol."""
        return sequence


@dataclass(frozen=True)
class WER(ErrorRate):
    """Word error rate; without a space, a sequence is one word."""

    name: str = "wer"

    def units(self, sequence: Spelled) -> Sequence[Hashable]:
        """The words, without empty ones."""
        if isinstance(sequence, str):
            return sequence.split()
        words: list[tuple[int, ...]] = []
        start = 0
        for index, symbol in enumerate((*sequence, self.spelling.space)):
            if symbol == self.spelling.space or index == len(sequence):
                words.append(tuple(sequence[start:index]))
                start = index + 1
        return [word for word in words if word]


@dataclass(frozen=True)
class WordAccuracy(MeanMetric):
    """Share of samples whose whole text is right."""

    needs_labels = True
    binary = True
    worst = 1.0

    name: str = "word-accuracy"
    output: str = ""
    spelling: Spelling = field(default_factory=Spelling)

    def rows(self, seen: Observed) -> Rows:
        """1 where the sequence is the label, else 0."""
        pairs = zip(*transcripts(self, self.spelling, seen), strict=True)
        right = [spelled == wanted for spelled, wanted in pairs]
        return np.array(right, np.float64)[:, np.newaxis]
