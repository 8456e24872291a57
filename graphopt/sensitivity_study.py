"""Sensitivity: the loss that each layer causes alone, at each strength of what could be done to it.

Everything else of the model stays as it is. The model is folded first, so that layers are those that a
lossy pass will meet. Each result is kept as soon as it is there, under the hash of model, data and
settings; a run that was cut off goes on where it was, and gives the table that it would have given.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from graphopt._version import __version__
from graphopt.alterations import STRENGTHS, Alteration, Kind, Strength, alterations, altered
from graphopt.assessment import Assessment, Data, Running, data_info, finite, open_data
from graphopt.description import describe
from graphopt.errors import NativeError, UsageError, printable
from graphopt.ir.model import Model
from graphopt.ir.opset_raising import objection, raise_opset
from graphopt.numerics import ranges
from graphopt.optimizer import optimize
from graphopt.outcome import Listener, Progress
from graphopt.quality.data import Dataset
from graphopt.quality.evaluation import Evaluation
from graphopt.quality.gate import Budget, verdict
from graphopt.quality.metrics import Metric
from graphopt.report import SensitivityInfo, SensitivityReport
from graphopt.request import running_native
from graphopt.rounded_activations import OPSET, Calibration
from graphopt.runtime.cache import Cache, model_hash
from graphopt.runtime.environment import environment
from graphopt.runtime.journal import Journal
from graphopt.runtime.native import Native
from graphopt.runtime.observer import Observer
from graphopt.runtime.observing import Stream
from graphopt.studied_layers import Layer, find_layers

SCHEMA = "graphopt.sensitivity/1"

SAMPLES = 256
"""Samples that each variant is run on, where the user names no number."""


def sensitivity(
    source: str | os.PathLike[str] | Model,
    data: Data,
    *,
    labels: str | None = None,
    metric: str | Metric | None = None,
    strengths: Mapping[Kind, Sequence[Strength]] | None = None,
    method: ranges.Method = "minmax",
    layers: Sequence[str] = (),
    samples: int = SAMPLES,
    running: Running | None = None,
    seed: int = 0,
    cache: Cache | None = None,
    listener: Listener = lambda progress: None,
    command: Sequence[str] = (),
) -> SensitivityReport:
    """Measure what each layer's weights, and the activations that it reads, bear.

    Args:
        source: a path or a model.
        data: what to measure on, in any form that ``optimize`` takes.
        labels: the key of the labels.
        metric: what the loss is measured in; chosen from the data by default.
        strengths: what to try, by kind; see ``alterations``.
        method: how the ranges of activations are chosen, from the calibration part of the data.
        layers: patterns of names, as in ``*conv*``; all layers where there is none.
        samples: that each variant is run on.
        running: provider, threads and time.
        seed: of the data's split.
        cache: where results are kept, so that a run that was cut off goes on; None: nowhere.
        listener: told where the run stands.
        command: the command line, for the report.

    Raises:
        UsageError: data, metric, strengths or patterns are wrong.
        ModelError: the model cannot be read or does not run on the data.
    """
    model = source if isinstance(source, Model) else Model.load(source)
    wanted = alterations(strengths or STRENGTHS)
    reading = any(alteration.reading_bits is not None for alteration in wanted)
    how = running or Running()
    dataset = open_data(data, model, labels=labels, seed=seed, calibrates=reading)
    folded = optimize(model, running=how, listener=listener).model
    if reading:
        folded = _raised(folded)
    chosen = find_layers(folded, layers, reading)
    with running_native(how, model.weight_bytes()) as native:
        assessment = Assessment(folded, native, dataset, metric, Budget(), how, listener)
        metrics = [assessment.metric, assessment.distance]
        calibration = None
        if reading:
            calibration = _calibrated(folded, chosen, native, dataset, how, cache, method, listener)
        with Evaluation(
            folded, native, dataset, metrics, most=samples, **how.judging
        ) as evaluation:
            study = _Study(folded, evaluation, metrics, listener, calibration)
            key = Cache.key(
                SCHEMA,
                model_hash(folded),
                dataset.fingerprint("evaluation"),
                str(metrics[0]),
                samples,
                *map(str, how.judging.values()),
                *((dataset.fingerprint("calibration"),) if reading else ()),
            )
            journal = cache.journal(key) if cache is not None else None
            rows = list(study.rows(chosen, wanted, journal))
            before = metrics[0].value(evaluation.before()[0])
        assessment.close()
    return SensitivityReport(
        schema=SCHEMA,
        tool={"name": "graphopt", "version": __version__},
        command=list(command),
        model=str(model.path or ""),
        sha256=describe(model).sha256,
        data=data_info(dataset),
        metric=str(metrics[0]),
        chosen=assessment.chosen,
        before=before,
        samples=evaluation.samples,
        rows=rows,
        environment=environment(threads=how.threads),
        warnings=[*dataset.warnings, *study.warnings],
    )


def _raised(model: Model) -> Model:
    """A model whose activations can be rounded.

    Raises:
        UsageError: its operator set is too old, and cannot be raised.
    """
    if model.opset >= OPSET:
        return model
    why = objection(model, OPSET)
    if why:
        raise UsageError(f"what nodes read cannot be rounded below opset {OPSET}: {why}")
    raised = model.copy()
    raise_opset(raised, OPSET)
    return raised


def _calibrated(
    model: Model,
    layers: Sequence[Layer],
    native: Native,
    dataset: Dataset,
    how: Running,
    cache: Cache | None,
    method: ranges.Method,
    listener: Listener,
) -> Calibration:
    """What the calibration part of the data makes of the activations that layers read."""
    observe = Observer(
        native,
        Stream(lambda: (batch.feeds for batch in dataset.batches("calibration"))),
        dataset.fingerprint("calibration"),
        cache,
        lambda what: listener(Progress(what)),
        how.judging,
    )
    names = [name for layer in layers for name in layer.reads]
    try:
        return Calibration.of(model, names, observe, method)
    except NativeError as error:
        raise UsageError(f"the model does not run on the calibration data: {error.what}") from None


@dataclass
class _Study:
    """Runs variants of a model, one after the other."""

    model: Model
    evaluation: Evaluation
    metrics: Sequence[Metric]
    listener: Listener
    calibration: Calibration | None = None

    @property
    def warnings(self) -> list[str]:
        """What could not be rounded."""
        unknown = {} if self.calibration is None else self.calibration.unknown
        return [f"{printable(name)} is not rounded: {why}" for name, why in unknown.items()]

    def rows(
        self, layers: Sequence[Layer], wanted: Sequence[Alteration], journal: Journal | None
    ) -> Iterator[SensitivityInfo]:
        """One row for each layer and alteration; those that the journal holds are not run again."""
        self.evaluation.before()  # while the weights are as they were
        known = {_key(row): row for row in journal.read()} if journal is not None else {}
        plan = [
            (place, layer, how)
            for place, layer in enumerate(layers, 1)
            for how in wanted
            if self._possible(layer, how)
        ]
        for number, (place, layer, how) in enumerate(plan):
            row = known.get(self._key(layer, how))
            if row is None:
                what = f"sensitivity of layer {place} of {len(layers)}"
                self.listener(Progress(what, number / len(plan)))
                row = asdict(self._measure(layer, how))
                if journal is not None:
                    journal.append(row)
            yield SensitivityInfo(**row)

    def _possible(self, layer: Layer, how: Alteration) -> bool:
        if not layer.bears(how):
            return False
        unknown = {} if self.calibration is None else self.calibration.unknown
        return how.reading_bits is None or not any(name in unknown for name in layer.reads)

    def _key(self, layer: Layer, how: Alteration) -> _Key:
        return (layer.name, how.kind, how.strength, how.activations, self._method(how))

    def _method(self, how: Alteration) -> str:
        reads = self.calibration is not None and how.reading_bits is not None
        return self.calibration.method if self.calibration is not None and reads else ""

    def _variant(self, layer: Layer, how: Alteration) -> Model:
        """The model with one layer altered; its weights are those of the model itself."""
        if how.weights is not None:
            for weight, axes in layer.weights:
                weight.values = altered(weight.values, axes, how.weights, how.strength)
        if self.calibration is None or how.reading_bits is None:
            return self.model
        return self.calibration.rounded(self.model, layer.uid, layer.reads, how.reading_bits)

    def _measure(self, layer: Layer, how: Alteration) -> SensitivityInfo:
        kept = [weight.values for weight, _ in layer.weights]
        try:
            after = self.evaluation.after(self._variant(layer, how))
        except NativeError as error:
            raise UsageError(
                f"the model does not run with the layer {layer.name!r} at {how}: {error.what}"
            ) from None
        finally:
            for (weight, _), values in zip(layer.weights, kept, strict=True):
                weight.values = values
        before = self.evaluation.before()
        found = verdict(Budget(max_drop=None), self.metrics[0], before[0], after[0], 0.975)
        noise = self.metrics[1].value(after[1])
        drop = found.drop
        return SensitivityInfo(
            layer=layer.name,
            op=layer.op,
            kind=how.kind,
            strength=how.strength,
            drop=_bounded(drop.value),
            low=_bounded(drop.low),
            high=_bounded(drop.high),
            sqnr_db=finite(noise) if self.metrics[1].unit == "dB" else None,
            parameters=layer.parameters,
            activations=how.activations,
            ranges=self._method(how),
        )


_Key = tuple[str, str, float, int | None, str]


def _key(row: dict[str, Any]) -> _Key:
    more = row.get("activations"), row.get("ranges", "")
    return (row["layer"], row["kind"], row["strength"], *more)


def _bounded(value: float) -> float:
    """A drop as a number; a loss without bounds counts as the largest float."""
    return value if math.isfinite(value) else math.copysign(float(np.finfo(np.float64).max), value)


__all__ = ["SAMPLES", "Layer", "sensitivity"]
