"""What a metric is: statistics of each sample that are pooled into one value.

A metric turns a batch of outputs into *rows*, one per sample, of a few sufficient statistics: right or
wrong; edits and characters; squared error and elements. Its value is a function of a weighted sum of
rows. So a confidence interval is had by drawing rows anew, original and candidate paired by sample,
without running a model again.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

Rows = np.ndarray
"""float64 of shape ``(samples, statistics)``."""


@dataclass(frozen=True)
class Observed:
    """What a metric sees of one batch.

    Attributes:
        outputs: the outputs of the model in question, by name.
        reference: the original's outputs for the same inputs, by name.
        labels: of the samples, axis 0 = sample; None where there are none.
        size: samples in the batch.
    """

    outputs: dict[str, np.ndarray]
    reference: dict[str, np.ndarray]
    labels: np.ndarray | None
    size: int


class Metric(abc.ABC):
    """A measure of how well a model does, or of how near it is to the original.

    Attributes:
        name: as it is written on the command line, with its options and without its output.
        output: the output that it is of; empty where it looks at several.
        higher_is_better: whether larger values are better.
        needs_labels: whether it compares with labels; otherwise it compares with the original.
        binary: whether a row is one number, 0 or 1, and the value its mean, so that exact paired
            intervals apply.
        worst: the largest amount by which one sample can change its own contribution to the value, where
            the value is a mean of bounded contributions (1 for a share); None where it is not bounded.
        unit: of the value, as in ``dB``.
    """

    name: str
    output: str = ""
    higher_is_better: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = False
    binary: ClassVar[bool] = False
    worst: ClassVar[float | None] = None
    unit: ClassVar[str] = ""

    @abc.abstractmethod
    def rows(self, seen: Observed) -> Rows:
        """The statistics of each sample of a batch.

        Raises:
            UsageError: outputs or labels do not have the form that the metric wants.
        """

    @abc.abstractmethod
    def values(self, rows: Rows, weights: np.ndarray) -> np.ndarray:
        """The metric's value for several weightings of the samples.

        Args:
            rows: the statistics of each sample, ``(samples, statistics)``.
            weights: how often each sample counts, ``(weightings, samples)``.

        Returns:
            float64 of shape ``(weightings,)``.
        """

    def value(self, rows: Rows) -> float:
        """The metric's value with every sample counted once."""
        return float(self.values(rows, np.ones((1, len(rows))))[0])

    def drop(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """How much worse ``after`` is, in the units that a budget is given in; negative where better.

        Points of the value itself, unless a metric says otherwise. NaN where both are infinite: then
        nothing can be said.
        """
        with np.errstate(invalid="ignore"):
            return np.asarray(before - after if self.higher_is_better else after - before)

    def __str__(self) -> str:
        """The metric as it is written on the command line, ``NAME@OUTPUT``."""
        return f"{self.name}@{self.output}" if self.output else self.name
