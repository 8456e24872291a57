"""Sensitivity: the loss that each layer causes alone, at each strength of what could be done to its weights.

Everything else of the model stays as it is. The model is folded first, so that layers are those that a
lossy pass will meet. Each result is kept as soon as it is there, under the hash of model, data and
settings; a run that was cut off goes on where it was, and gives the table that it would have given.
"""

from __future__ import annotations

import fnmatch
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from graphopt._version import __version__
from graphopt.alterations import STRENGTHS, Kind, altered, checked_strengths
from graphopt.assessment import Assessment, Data, Running, data_info, finite, open_data
from graphopt.description import describe
from graphopt.errors import NativeError, UsageError
from graphopt.ir.graph import Constant, Node
from graphopt.ir.model import Model
from graphopt.ir.operators import WEIGHTS, weight_channels
from graphopt.optimizer import optimize
from graphopt.outcome import Listener, Progress
from graphopt.quality.evaluation import Evaluation
from graphopt.quality.gate import Budget, verdict
from graphopt.quality.metrics import Metric
from graphopt.report import SensitivityInfo, SensitivityReport
from graphopt.request import running_native
from graphopt.runtime.cache import Cache, model_hash
from graphopt.runtime.environment import environment
from graphopt.runtime.journal import Journal

SCHEMA = "graphopt.sensitivity/1"

SAMPLES = 256
"""Samples that each variant is run on, where the user names no number."""

SMALLEST = 16
"""Weights of the smallest tensor that is looked at."""


@dataclass(frozen=True)
class Layer:
    """A layer with weights.

    Attributes:
        name: of its node.
        op: its operator.
        weights: its weight tensors with the axes of their channels.
    """

    name: str
    op: str
    weights: tuple[tuple[Constant, tuple[int, ...]], ...]

    @property
    def parameters(self) -> int:
        """Weights in all."""
        return sum(int(np.prod(weight.shape)) for weight, _ in self.weights)


def sensitivity(
    source: str | os.PathLike[str] | Model,
    data: Data,
    *,
    labels: str | None = None,
    metric: str | Metric | None = None,
    strengths: dict[Kind, Sequence[float]] | None = None,
    layers: Sequence[str] = (),
    samples: int = SAMPLES,
    running: Running | None = None,
    seed: int = 0,
    cache: Cache | None = None,
    listener: Listener = lambda progress: None,
    command: Sequence[str] = (),
) -> SensitivityReport:
    """Measure what each layer's weights bear.

    Args:
        source: a path or a model.
        data: what to measure on, in any form that ``optimize`` takes.
        labels: the key of the labels.
        metric: what the loss is measured in; chosen from the data by default.
        strengths: what to try, by kind.
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
    wanted = checked_strengths(strengths or dict(STRENGTHS))
    how = running or Running()
    dataset = open_data(data, model, labels=labels, seed=seed, calibrates=False)
    folded = optimize(model, running=how, listener=listener).model
    with running_native(how, model.weight_bytes()) as native:
        assessment = Assessment(folded, native, dataset, metric, Budget(), how, listener)
        metrics = [assessment.metric, assessment.distance]
        with Evaluation(
            folded, native, dataset, metrics, most=samples, **how.judging
        ) as evaluation:
            chosen = _layers(folded, layers)
            study = _Study(folded, evaluation, metrics, listener)
            key = Cache.key(
                SCHEMA,
                model_hash(folded),
                dataset.fingerprint("evaluation"),
                str(metrics[0]),
                samples,
                *map(str, how.judging.values()),
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
        warnings=list(dataset.warnings),
    )


def _layers(model: Model, patterns: Sequence[str]) -> list[Layer]:
    """The layers of a model whose names fit; each stored weight belongs to its first reader."""
    found: list[Layer] = []
    taken: set[int] = set()
    for node in model.nodes():
        weights = tuple(_weights(node, taken)) if node.standard and node.op in WEIGHTS else ()
        if weights:
            found.append(Layer(_unique(node.label, found), node.op, weights))
    chosen = [
        layer
        for layer in found
        if not patterns or any(fnmatch.fnmatchcase(layer.name, p) for p in patterns)
    ]
    if not chosen:
        names = ", ".join(layer.name for layer in found[:5])
        raise UsageError(
            "no layer with weights has such a name" if patterns else "no layer has weights",
            f"The first ones are: {names}" if found else "",
        )
    return chosen


def _weights(node: Node, taken: set[int]) -> Iterator[tuple[Constant, tuple[int, ...]]]:
    for index in WEIGHTS[node.op]:
        tensor = node.inputs[index] if index < len(node.inputs) else None
        if not isinstance(tensor, Constant) or id(tensor) in taken:
            continue
        if tensor.dtype.kind != "f" or np.prod(tensor.shape) < SMALLEST:
            continue
        if np.isfinite(tensor.values).all():
            taken.add(id(tensor))
            yield tensor, weight_channels(node.op, index, node.attrs, len(tensor.shape))


def _unique(name: str, found: Sequence[Layer]) -> str:
    names = {layer.name for layer in found}
    number, unique = 1, name
    while unique in names:
        number += 1
        unique = f"{name} ({number})"
    return unique


@dataclass
class _Study:
    """Runs variants of a model, one after the other."""

    model: Model
    evaluation: Evaluation
    metrics: Sequence[Metric]
    listener: Listener

    def rows(
        self,
        layers: Sequence[Layer],
        strengths: dict[Kind, tuple[float, ...]],
        journal: Journal | None,
    ) -> Iterator[SensitivityInfo]:
        """One row for each layer, kind and strength; those that the journal holds are not run again."""
        self.evaluation.before()  # while the weights are as they were
        known = {_key(row): row for row in journal.read()} if journal is not None else {}
        plan = [(la, kind, s) for la in layers for kind, all_s in strengths.items() for s in all_s]
        for number, (layer, kind, strength) in enumerate(plan):
            row = known.get((layer.name, kind, float(strength)))
            if row is None:
                what = (
                    f"sensitivity of layer {number * len(layers) // len(plan) + 1} of {len(layers)}"
                )
                self.listener(Progress(what, number / len(plan)))
                row = asdict(self._measure(layer, kind, float(strength)))
                if journal is not None:
                    journal.append(row)
            yield SensitivityInfo(**row)

    def _measure(self, layer: Layer, kind: Kind, strength: float) -> SensitivityInfo:
        kept = [weight.values for weight, _ in layer.weights]
        try:
            for weight, axes in layer.weights:
                weight.values = altered(weight.values, axes, kind, strength)
            after = self.evaluation.after(self.model)
        except NativeError as error:
            raise UsageError(
                f"the model does not run with the layer {layer.name!r} at {kind} {strength:g}: "
                f"{error.what}"
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
            kind=kind,
            strength=strength,
            drop=_bounded(drop.value),
            low=_bounded(drop.low),
            high=_bounded(drop.high),
            sqnr_db=finite(noise) if self.metrics[1].unit == "dB" else None,
            parameters=layer.parameters,
        )


def _key(row: dict[str, Any]) -> tuple[str, str, float]:
    return (row["layer"], row["kind"], row["strength"])


def _bounded(value: float) -> float:
    """A drop as a number; a loss without bounds counts as the largest float."""
    return value if math.isfinite(value) else math.copysign(float(np.finfo(np.float64).max), value)


__all__ = ["SAMPLES", "Layer", "sensitivity"]
