"""Metrics of classification against labels.

    top-1 accuracy    = samples whose predicted class is the label / samples
    top-k accuracy    = samples whose label is among the k highest scores / samples
    element accuracy  = elements whose predicted class is the label / elements with a label

The last is for an output that tells a class for every pixel, token or frame: by scores, by its number, or by
one number that exceeds a threshold for class 1. Classes with equal scores rank in order of their number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from graphopt.errors import UsageError
from graphopt.quality.metrics.base import Metric, Observed, Rows
from graphopt.quality.metrics.labels import class_numbers, flat, require, whole
from graphopt.quality.metrics.outputs import (
    as_numbers,
    by_sample,
    is_score,
    is_wide_integer,
    select,
    shown,
)
from graphopt.quality.metrics.pooling import MeanMetric, quotient, weighted_sums
from graphopt.quality.metrics.scores import NOTHING, class_scores, highest, predictions


@dataclass(frozen=True)
class Top1(MeanMetric):
    """Share of samples whose predicted class is the label.

    Attributes:
        classes: names of the classes in order, for labels that are strings.
        threshold: above which an output of one number per sample means class 1.
        known: thresholds that the graph tells, by output.
    """

    needs_labels = True
    binary = True
    worst = 1.0

    name: str = "top1"
    output: str = ""
    classes: tuple[str, ...] = field(default=(), repr=False)
    threshold: float | None = None
    known: Mapping[str, float] = field(default_factory=dict, repr=False, compare=False)

    def rows(self, seen: Observed) -> Rows:
        """1 where the prediction is the label, else 0."""
        labels = require(self.name, seen.labels, seen.size)
        predicted, count = predictions(self, seen, self.classes, self.threshold, self.known)
        right = predicted == class_numbers(self.name, labels, count, self.classes)
        return np.asarray(right, np.float64)[:, np.newaxis]


@dataclass(frozen=True)
class TopK(MeanMetric):
    """Share of samples whose label is among the ``k`` highest scores."""

    needs_labels = True
    binary = True
    worst = 1.0

    name: str = "topk"
    output: str = ""
    k: int = 5
    classes: tuple[str, ...] = field(default=(), repr=False)

    def rows(self, seen: Observed) -> Rows:
        """1 where fewer than ``k`` classes rank before the label, else 0."""
        wanted = "scores of at least two classes (samples, classes)"
        _, scores = select(self, seen.outputs, lambda a: class_scores(a, seen.size), wanted)
        count = scores.shape[1]
        if self.k >= count:
            raise UsageError(f"metric {self.name}: {count} classes have no other {self.k} highest")
        given = require(self.name, seen.labels, seen.size)
        labels = class_numbers(self.name, given, count, self.classes)[:, np.newaxis]
        own = np.take_along_axis(scores, labels, axis=1)
        before = (scores > own) | ((scores == own) & (np.arange(count) < labels))
        valid = ~np.isnan(scores).any(axis=1) if scores.dtype.kind == "f" else True
        right = (before.sum(axis=1) < self.k) & valid
        return np.asarray(right, np.float64)[:, np.newaxis]


@dataclass(frozen=True)
class ElementAccuracy(Metric):
    """Share of pixels or tokens whose predicted class is the label.

    Attributes:
        axis: of the classes, in the output; None: the one that the labels lack.
        ignore: the label of elements that do not count, beside all negative ones.
        threshold: above which an output of one number per element means class 1.
        known: thresholds that the graph tells, by output.
    """

    needs_labels = True

    name: str = "element-accuracy"
    output: str = ""
    axis: int | None = None
    ignore: int | None = None
    threshold: float | None = None
    known: Mapping[str, float] = field(default_factory=dict, repr=False, compare=False)

    def rows(self, seen: Observed) -> Rows:
        """Right elements, and elements with a label."""
        labels = require(self.name, seen.labels, seen.size)
        wanted = f"a class for each element of the labels {shown(labels)}"
        cuts = {id(array): self.known.get(name) for name, array in seen.outputs.items()}
        _, (predicted, count) = select(
            self,
            seen.outputs,
            lambda a: self._predicted(a, labels.shape, seen.size, cuts.get(id(a))),
            wanted,
        )
        numbers = whole(self.name, labels, None)
        counted = (numbers >= 0) & (numbers != self.ignore)
        if counted.any() and count is not None and numbers[counted].max() >= count:
            raise UsageError(
                f"metric {self.name}: a label is {numbers[counted].max()}, and the output has "
                f"{count} classes",
                "If it marks elements that do not count, give it as ignore=NUMBER",
            )
        right = (predicted == numbers) & counted
        axes = tuple(range(1, labels.ndim))
        return np.stack([right.sum(axis=axes), counted.sum(axis=axes)], axis=1).astype(np.float64)

    def _predicted(
        self, array: np.ndarray, shape: tuple[int, ...], size: int, known: float | None
    ) -> tuple[np.ndarray, int | None] | None:
        if len(shape) < 2:
            return None
        if is_wide_integer(array):
            return (array, None) if array.shape == shape else None
        found = by_sample(array, size)
        if found is None or not is_score(found):
            return None
        if flat(found).shape == _flat(shape):
            return self._above(array, found.reshape(shape), known)
        axes = [
            axis
            for axis in range(1, found.ndim)
            if found.shape[axis] > 1 and found.shape[:axis] + found.shape[axis + 1 :] == shape
        ]
        if self.axis is not None:
            axes = [axis for axis in axes if axis == self.axis % found.ndim]
        if len(axes) > 1:
            raise UsageError(
                f"metric {self.name}: axes {' and '.join(map(str, axes))} of {shown(array)} could both "
                "be that of the classes",
                f"Say which, as in {self.name}:axis={axes[0]}",
            )
        if not axes:
            return None
        scores = as_numbers(np.moveaxis(found, axes[0], -1))
        return highest(scores), scores.shape[-1]

    def _above(
        self, array: np.ndarray, found: np.ndarray, known: float | None
    ) -> tuple[np.ndarray, int | None] | None:
        """Class 1 where a number exceeds the threshold; None where there is none and no output is named."""
        cut = known if self.threshold is None else self.threshold
        if cut is not None:
            numbers = as_numbers(found)
            return np.where(np.isnan(numbers), NOTHING, numbers > cut).astype(np.int64), 2
        if not self.output:
            return None
        raise UsageError(
            f"metric {self.name}: {shown(array)} is one number per element; whether a probability or a "
            "logit, the model does not tell",
            "Give the number above which it means class 1: threshold=0.5 or threshold=0",
        )

    def values(self, rows: Rows, weights: np.ndarray) -> np.ndarray:
        """Right elements / elements with a label."""
        sums = weighted_sums(rows, weights)
        return quotient(sums[:, 0], sums[:, 1])


def _flat(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without axes of size 1 behind the first, as ``flat`` leaves it."""
    return shape[0], *(size for size in shape[1:] if size != 1)
