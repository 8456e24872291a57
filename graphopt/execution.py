"""One run from a model to its report: what is asked for, and the order in which it is done."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from graphopt._version import __version__
from graphopt.admission import admit, checked
from graphopt.archiving import compared_packed, packed_original, require_apart
from graphopt.assessment import Assessment, data_info
from graphopt.description import describe, verdict_info
from graphopt.drawing import describe_graphs
from graphopt.errors import BudgetError
from graphopt.explain import METADATA_KEY, pack
from graphopt.ir.model import Model
from graphopt.layers import describe_layers, layer_outputs
from graphopt.outcome import Fold, Outcome, Progress, gate_info
from graphopt.pass_base import Observe
from graphopt.pass_manager import PassManager
from graphopt.quality.data import Dataset, first_feeds, timed_feeds
from graphopt.quality.equivalence import Equivalence, Verdict
from graphopt.quality.gate import GateVerdict
from graphopt.quality.synthetic import SyntheticObserver, synthetic
from graphopt.report import SCHEMA, GateInfo, LatencyInfo, Report
from graphopt.request import Request, running_native
from graphopt.runtime.blas import threads
from graphopt.runtime.environment import environment
from graphopt.runtime.evaluation import Evaluator
from graphopt.runtime.native import Native
from graphopt.runtime.observer import Observer
from graphopt.runtime.observing import Stream
from graphopt.runtime.providers import Provider, require
from graphopt.speed import Speed, slower
from graphopt.tensor_noise import noise_ratios, with_noise

RUN_SECONDS = 20.0
"""How long one run of a model may take while exact passes are judged."""

UNJUDGED = "nothing judged what the lossy passes lose: there is no data (--data)"

DRAWN = (
    "there is no data (--data): the lossy passes went by statistics of drawn inputs, which promise little, "
    "and nothing judged what they lose"
)


def execute(request: Request, output: str | os.PathLike[str] | None) -> tuple[Report, Model]:
    """Do what is asked for; write the result where a path is given.

    Returns:
        The report and the optimized model.
    """
    started = time.perf_counter()
    dataset = request.dataset()
    if request.pack and output is not None:
        require_apart(request.model, output)
    with ExitStack() as stack:
        stack.enter_context(threads(request.running.threads or 1))
        weights = request.model.weight_bytes()
        memory = request.limits.memory_bytes
        native = stack.enter_context(running_native(request.running, weights, memory))
        device = require(native, Provider.parse(request.running.provider))
        run = _Run(request, native, dataset)
        stack.callback(run.close)
        run.passes()
        found = run.findings()
    if request.provenance and run.outcome.model is not request.model:
        run.outcome.model = _told(run.outcome)
    packed = None
    if request.pack:
        request.listener(Progress("packing"))
        packed = packed_original(request.model)  # before the result may be written over it
    written = None
    if output is not None:
        request.listener(Progress("writing"))
        written = run.outcome.model.save(output)
    rates = bool(request.lossy) or request.details
    before = describe(request.model, run.bindings, rates=rates)
    stored = output is not None or run.outcome.model is request.model
    after = describe(run.outcome.model, run.bindings, output, written, rates, stored)
    report = Report(
        schema=SCHEMA,
        tool={"name": "graphopt", "version": __version__},
        command=list(request.command),
        input=before,
        output=after,
        seconds=round(time.perf_counter() - started, 3),
        environment=environment(device, request.running.threads),
        warnings=run.warnings,
        exit_code=BudgetError.exit_code if request.strict and run.dropped else 0,
        simplification=after.disk_bytes / before.disk_bytes if before.disk_bytes else None,
        seed=request.seed,
        packing=compared_packed(packed, run.outcome.model, output),
        **found,
    )
    return report, run.outcome.model


def _calibration(dataset: Dataset, most: int | None = None) -> Stream:
    """The inputs of the part that passes may look at, or of so many samples from its start."""
    return Stream(lambda: (batch.feeds for batch in dataset.batches("calibration", most)))


def _told(outcome: Outcome) -> Model:
    """The result with what the passes did in its metadata."""
    model = outcome.model.copy()
    entries = model.header.metadata_props
    for index in reversed(range(len(entries))):
        if entries[index].key == METADATA_KEY:
            del entries[index]
    entries.add(key=METADATA_KEY, value=pack(outcome.steps))
    return model


@dataclass
class _Run:
    """The state of a run: its judges and what came of it."""

    request: Request
    native: Native
    dataset: Dataset | None
    outcome: Outcome = field(init=False)
    warnings: list[str] = field(default_factory=list)
    bindings: dict[tuple[str, int], int] = field(default_factory=dict)
    assessment: Assessment | None = None
    exchanged: Assessment | None = None
    drawn: SyntheticObserver | None = None

    def __post_init__(self) -> None:
        """Begin with the model as it is."""
        self.outcome = Outcome(self.request.model)
        if self.dataset is not None:
            self.warnings += self.dataset.warnings

    @property
    def dropped(self) -> list[str]:
        """Lossy passes that were named and left out, because nothing that they do keeps to the budget."""
        if not self.request.named:
            return []
        return [s.name for s in self.outcome.steps if not s.exact and s.status == "rolled back"]

    def passes(self) -> None:
        """Run the passes and check what they made."""
        request = self.request
        feeds = first_feeds(self.dataset) if self.dataset is not None else []
        self.judge = Equivalence(
            request.model,
            self.native,
            feeds,
            min(request.limits.request_seconds, RUN_SECONDS),
            request.running.provider,
        )
        request.listener(Progress("running the original"))
        self.warnings += admit(request.model, self.judge, self.native)
        timed = timed_feeds(self.dataset, self.judge.feeds)
        self.speed = Speed(self.judge, request.running, request.listener, timed)
        if self.dataset is not None and self._judges():
            self.assessment = Assessment(
                request.model,
                self.native,
                self.dataset,
                request.metric,
                request.budget,
                request.running,
                request.listener,
            )
        self.outcome = self._manager().run(request.model, request.recipe.passes)
        self.warnings += checked(request.model, self.outcome, self.native, self.judge.seconds)
        self.bindings = self.judge.bindings()

    def _judges(self) -> bool:
        """Whether the data is there to judge with: a lossy pass runs, or labels or a metric are given."""
        labelled = self.dataset is not None and bool(self.dataset.labels)
        return bool(self.request.lossy) or labelled or self.request.metric is not None

    def _manager(self) -> PassManager:
        request = self.request
        limited = self.assessment is not None and request.budget.limited
        return PassManager(
            self.judge,
            Evaluator(self.native, request.limits.fold_seconds),
            request.limits,
            request.listener,
            gate=self.assessment.gate if self.assessment is not None and limited else None,
            fold=self._fold,
            strict=request.strict,
            data=self.dataset,
            observe=self._observe(),
            seed=request.seed,
            bindings=self.judge.bindings(),
            measure=self.speed.nodes(self.native, request.cache),
            race=self.speed.race,
        )

    def _fold(self) -> Fold | None:
        """The data the other way round, made when it is first asked for; None where its parts are unlike."""
        if self.assessment is not None:
            self.exchanged = self.exchanged or self.assessment.exchanged()
        found = self.exchanged
        if found is None:
            return None
        return Fold(found.dataset, self._observed(found.dataset), found.gate)

    def _observed(self, dataset: Dataset) -> Observer:
        """What observes the calibration part of data."""
        return self._observer(
            _calibration(dataset),
            dataset.fingerprint("calibration"),
            lambda samples: _calibration(dataset, samples),
        )

    def _observe(self) -> Observe | None:
        """What passes observe with: the calibration data, or drawn inputs where there is none."""
        if self.dataset is not None:
            return self._observed(self.dataset)
        if self.request.observes and self.judge.references and self.judge.backend == "ort":
            self.drawn = SyntheticObserver(self._drawn, self.judge.original)
        return self.drawn

    def _drawn(self) -> Observer:
        self.request.listener(Progress("drawing inputs to observe with"))
        drawn = synthetic(self.judge, self.request.seed)
        return self._observer(
            Stream(lambda: drawn),
            drawn.digest,
            lambda samples: Stream(lambda: drawn.first(samples)),
        )

    def _observer(
        self, batches: Stream, digest: str, part: Callable[[int], Stream] | None = None
    ) -> Observer:
        """Runs models over batches."""
        return Observer(
            self.native,
            batches,
            digest,
            self.request.cache,
            lambda what: self.request.listener(Progress(what)),
            self.request.running.judging,
            part,
        )

    def findings(self) -> dict[str, Any]:
        """What is told of the result beside its steps, as fields of the report."""
        request, outcome = self.request, self.outcome
        gate = self._gate()
        found: dict[str, Any] = {
            "verdict": verdict_info(self._verdict()),
            "gate": gate,
            "gates": outcome.gates,
            "data": data_info(self.dataset) if self.dataset is not None else None,
        }
        if self.assessment is not None:
            found["budget"] = self.assessment.budget_info()
            found["measures"] = self.assessment.measures(outcome.model)
        if request.latency:
            found["latency"] = self._latency()
        ratios = self._noise()
        found["steps"] = with_noise(outcome.steps, ratios)
        if request.details:
            request.listener(Progress("describing layers"))
            before, after = describe_graphs(request.model, outcome.model, outcome.steps)
            found["graph_before"], found["graph_after"] = before, after
            found["layers"] = describe_layers(
                outcome.exact or outcome.model,
                outcome.model,
                self.native,
                ratios,
                request.running,
            )
        return found

    def _noise(self) -> dict[str, float]:
        """How far what nodes give has moved, by the name of the tensor: of quantized nodes and of layers."""
        outcome = self.outcome
        before = outcome.exact or outcome.model
        names = [row.tensor for step in outcome.steps for row in step.quantized]
        names += layer_outputs(before) if self.request.details else []
        if names:
            self.request.listener(Progress("comparing what nodes give"))
        return noise_ratios(
            before, outcome.model, names, self.native, self.dataset, self.request.running
        )

    def _verdict(self) -> Verdict:
        """Whether the result equals the original."""
        verdict = self.outcome.verdict or Verdict(None, "nothing was run")
        if self.outcome.lossy or (self.request.lossy and self.outcome.verdict is None):
            verdict = self.judge.judge(self.outcome.model)
        if verdict.passed is None:
            self.warnings.append(f"the result is not proven equal on numbers: {verdict.why}")
        if verdict.passed is False and self.outcome.lossy:
            changed = [s.name for s in self.outcome.steps if not s.exact and s.edits]
            verdict = replace(verdict, why=f"{', '.join(changed)} changed it: {verdict.why}")
        return verdict

    def _gate(self) -> GateInfo | None:
        """The result as a whole against the budget."""
        if self.assessment is None:
            if self.outcome.lossy:
                drawn = self.drawn is not None and self.drawn.asked
                self.warnings.append(DRAWN if drawn else UNJUDGED)
            return None
        found: GateVerdict | None = self.outcome.gate if self.outcome.lossy else None
        if found is None:
            found = self.assessment.final(self.outcome.model)
        if found.verdict == "unsure":
            self.warnings.append(f"not proven to keep to the budget: {found.why}")
        return gate_info(found, "", "the result", found.tolerable)

    def _latency(self) -> LatencyInfo | None:
        """The result against the original, timed."""
        why = self.speed.objection
        if why:
            self.warnings.append(f"latency was not measured: {why}")
            return None
        found = self.speed.result(self.request.model, self.outcome.model)
        self.warnings += slower(found, self.request.recipe.passes, self.outcome.steps)
        return found

    def close(self) -> None:
        """Give back what was kept for judging."""
        for assessment in filter(None, (self.assessment, self.exchanged)):
            assessment.close()
