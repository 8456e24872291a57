"""Judging on the user's data: the data, the metric, the gate, and what is measured of the result."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from graphopt.errors import NativeError, UsageError
from graphopt.ir.model import Model
from graphopt.outcome import Listener, Progress
from graphopt.quality.data import (
    DataOptions,
    Dataset,
    DataSource,
    Swapped,
    alike,
    open_dataset,
)
from graphopt.quality.evaluation import Evaluation, example
from graphopt.quality.gate import Budget, Gate, GateVerdict, verdict
from graphopt.quality.metrics import Metric, choose_metric, fidelity_metrics, parse_metric
from graphopt.report import BudgetInfo, DataInfo, MeasureInfo
from graphopt.runtime.native import Native

Data = DataSource | DataOptions | Dataset
"""What a caller may give as data."""

BLAMED_SAMPLES = 64
"""Calibration samples on which the loss of a single place is measured."""


@dataclass(frozen=True)
class Running:
    """How models are run while they are judged and timed.

    Attributes:
        provider: what runs them, as in ``cpu`` or ``cuda:0``.
        threads: for one operator; None: all cores for judging, one for timing.
        seconds: how long one request may take.
    """

    provider: str = "cpu"
    threads: int | None = None
    seconds: float = 300.0

    @property
    def judging(self) -> dict[str, Any]:
        """How models are run while they are judged."""
        threads = self.threads or os.cpu_count() or 1
        return {"provider": self.provider, "threads": threads, "seconds": self.seconds}


def open_data(
    data: Data,
    model: Model,
    *,
    labels: str | None = None,
    seed: int = 0,
    calibrates: bool = True,
    split: float | None = None,
) -> Dataset:
    """The data that a caller gave, checked against the model.

    Args:
        data: where it is, or itself.
        model: that it is for.
        labels: the key of the labels.
        seed: of the split.
        calibrates: whether a part of it is kept for passes to look at.
        split: the share of it for passes to look at, where the caller did not say.

    Raises:
        UsageError: it cannot be read or does not fit.
    """
    if hasattr(data, "batches") and hasattr(data, "count"):
        return data  # type: ignore[return-value]
    if not isinstance(data, DataOptions):
        data = DataOptions(source=data, labels=labels, seed=seed)
    if data.split is None and data.calibration is None and data.evaluation is None:
        data = replace(data, split=split)
    return open_dataset(data, model, calibrates=calibrates)


class Assessment:
    """What judges the candidates of one run on data.

    Args:
        original: the model that all are compared with.
        native: the process to run models in.
        dataset: the data.
        metric: the metric to judge by, as text or itself; None for a sensible default.
        budget: what may be lost.
        how: provider, threads, seconds.
        listener: told where the work stands.

    Raises:
        UsageError: the metric does not fit the data or the model's outputs.
        ModelError: the model does not run on the data.
    """

    def __init__(
        self,
        original: Model,
        native: Native,
        dataset: Dataset,
        metric: str | Metric | None,
        budget: Budget,
        how: Running,
        listener: Listener,
    ) -> None:
        self.original = original
        self.native = native
        self.dataset = dataset
        self.budget = budget
        self.how = how
        self.listener = listener
        if not dataset.count("evaluation"):
            raise UsageError("the data holds no samples to evaluate with", "Give more of it")
        batch, self._outputs = example(original, native, dataset, **how.judging)
        self.chosen = ""
        self._size = batch.size
        if metric is None:
            samples = dataset.count("evaluation")
            self.metric, self.chosen = choose_metric(
                original, samples, batch.labels, self._outputs, budget.max_drop, batch.size
            )
        else:
            self.metric = parse_metric(metric, original) if isinstance(metric, str) else metric
        if self.metric.needs_labels and batch.labels is None:
            raise UsageError(
                f"the metric {self.metric} needs labels", "Name them with --labels KEY"
            )
        self._open: list[Evaluation] = []
        self._evaluation = self._evaluate(original, [self.metric])
        self.gate = Gate(budget, self.metric, self._evaluation, self._blamer)

    def _evaluate(self, original: Model, metrics: Sequence[Metric], **which: Any) -> Evaluation:
        made = Evaluation(original, self.native, self.dataset, metrics, **self.how.judging, **which)
        self._open.append(made)
        return made

    def _blamer(self, base: Model) -> Callable[[Model], float]:
        """What measures how far a model's outputs are from those of a base, as a share of their power."""
        metric = self.distance
        part = "calibration" if self.dataset.count("calibration") else "evaluation"
        evaluation = self._evaluate(base, [metric], part=part, most=BLAMED_SAMPLES)
        before = np.array([metric.value(evaluation.before()[0])])

        def distance(model: Model) -> float:
            after = np.array([metric.value(evaluation.after(model)[0])])
            return float(metric.drop(before, after)[0])

        return distance

    def exchanged(self) -> Assessment | None:
        """What judges by the same metric on the calibration data; None where the parts are unlike."""
        if not alike(self.dataset, self.metric.needs_labels):
            return None
        return Assessment(
            self.original,
            self.native,
            Swapped(self.dataset),
            self.metric,
            self.budget,
            self.how,
            self.listener,
        )

    @property
    def distance(self) -> Metric:
        """The measure of how far outputs are from others: of noise, or of unequal elements without floats."""
        floats = any(array.dtype.kind in "fV" for array in self._outputs.values())
        return parse_metric("sqnr" if floats else "equal", self.original)

    def final(self, result: Model) -> GateVerdict:
        """The verdict on a result that is not under trial, at the confidence asked for."""
        self.listener(Progress("evaluating the result"))
        before, after = self._evaluation.before()[0], self._evaluation.after(result)[0]
        return verdict(self.budget, self.metric, before, after, self.budget.confidence)

    def measures(self, result: Model) -> list[MeasureInfo]:
        """The metric and measures of fidelity of every output, for the original and a result."""
        self.listener(Progress("measuring the result"))
        metrics = [self.metric, *fidelity_metrics(self._outputs, self._size)]
        found: list[MeasureInfo] = []
        evaluation = self._evaluate(self.original, metrics)
        befores = evaluation.before()
        try:
            afters = evaluation.after(result)
        except NativeError:
            return []
        for index, metric in enumerate(metrics):
            if any(metric.name == m.metric and metric.output == m.output for m in found):
                continue
            found.append(
                MeasureInfo(
                    metric.name,
                    metric.output,
                    finite(metric.value(befores[index])),
                    finite(metric.value(afters[index])),
                    metric.higher_is_better,
                    metric.unit,
                )
            )
        return found

    def budget_info(self) -> BudgetInfo:
        """What could be lost, as the report holds it."""
        return BudgetInfo(
            str(self.metric),
            self.chosen,
            self.budget.max_drop,
            self.budget.floor,
            self.budget.confidence,
            self.metric.higher_is_better,
        )

    def close(self) -> None:
        """Give back what was kept for comparing."""
        for evaluation in self._open:
            evaluation.close()


def data_info(dataset: Dataset) -> DataInfo:
    """The data as the report holds it."""
    return DataInfo(
        dataset.source,
        dataset.digest,
        dataset.samples,
        dataset.count("calibration"),
        dataset.count("evaluation"),
        dataset.labels,
        dataset.seed,
    )


def finite(value: float) -> float | None:
    """A number as JSON can hold it."""
    return float(value) if math.isfinite(value) else None
