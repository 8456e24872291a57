"""The F1 score of a classification (van Rijsbergen, Information Retrieval, 1979).

    F1 of a class = 2 tp / (2 tp + fp + fn) = 2 tp / (samples labelled so + samples predicted so)

macro: the mean over the classes that occur among labels or predictions; micro: from the counts of all
classes together, which is the accuracy; binary: of one class alone. Where nothing is labelled or
predicted so, nothing is wrong, and F1 is 1. Every weighting of the samples is counted by itself, in
memory of the number of classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from graphopt.errors import UsageError
from graphopt.quality.metrics.base import Metric, Observed, Rows
from graphopt.quality.metrics.labels import class_numbers, require
from graphopt.quality.metrics.scores import NOTHING, predictions


@dataclass(frozen=True)
class F1(Metric):
    """F1 score of the predicted classes.

    Attributes:
        average: over classes: macro, micro, or binary for one class alone.
        positive: that class; of an output with two classes it is 1 unless said otherwise.
        classes: names of the classes in order, for labels that are strings.
        threshold: above which an output of one number per sample means class 1.
        known: thresholds that the graph tells, by output.
    """

    needs_labels = True

    name: str = "f1"
    output: str = ""
    average: Literal["macro", "micro", "binary"] = "macro"
    positive: int | None = None
    classes: tuple[str, ...] = field(default=(), repr=False)
    threshold: float | None = None
    known: Mapping[str, float] = field(default_factory=dict, repr=False, compare=False)

    def rows(self, seen: Observed) -> Rows:
        """The label and the prediction, as numbers of classes; the prediction -1 where there is none."""
        given = require(self.name, seen.labels, seen.size)
        predicted, count = predictions(self, seen, self.classes, self.threshold, self.known)
        if self.average == "binary" and self.positive is None and count != 2:
            classes = (
                "a number of classes that is not known" if count is None else f"{count} classes"
            )
            raise UsageError(
                f"metric {self.name}: the output has {classes}",
                "Say which class counts: f1:average=binary,positive=NUMBER",
            )
        if self.positive is not None and count is not None and self.positive >= count:
            raise UsageError(
                f"metric {self.name}: there is no class {self.positive}; the output has {count} classes"
            )
        labels = class_numbers(self.name, given, count, self.classes)
        return np.stack([labels, predicted], axis=1).astype(np.float64)

    def values(self, rows: Rows, weights: np.ndarray) -> np.ndarray:
        """F1 by weighted counts of labels, predictions and hits of each class."""
        found, places = np.unique(rows, return_inverse=True)
        labels, predicted = places.reshape(rows.shape).T
        hit = labels == predicted
        hits = labels[hit]
        scores = np.empty(len(weights))
        classes = len(found)
        for index, row in enumerate(weights):
            right = np.bincount(hits, row[hit], classes)
            both = np.bincount(labels, row, classes) + np.bincount(predicted, row, classes)
            both[found == NOTHING] *= self.average == "micro"
            scores[index] = self._average(found, right, both)
        return scores

    def _average(self, found: np.ndarray, right: np.ndarray, both: np.ndarray) -> float:
        """F1 from hits, and from labels + predictions, of each class found."""
        if self.average == "micro":
            total = both.sum()
            return float(2 * right.sum() / total) if total > 0 else 1.0
        chosen = both > 0
        if self.average == "binary":
            chosen &= found == (1 if self.positive is None else self.positive)
        if not chosen.any():
            return 1.0
        return float((2 * right[chosen] / both[chosen]).mean())
