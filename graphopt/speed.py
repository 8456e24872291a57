"""What a run times: nodes for passes to choose by, candidates of passes that promise speed, the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphopt.assessment import Running
from graphopt.bench import bench, measure_latency
from graphopt.errors import ModelError
from graphopt.ir.model import Model
from graphopt.lossy_pass import LossyPass
from graphopt.outcome import Listener, Progress
from graphopt.pass_base import Pass
from graphopt.quality.equivalence import Equivalence
from graphopt.quality.inputs import Feeds
from graphopt.report import LatencyInfo, SpeedInfo, StepReport
from graphopt.runtime.cache import Cache
from graphopt.runtime.native import Native
from graphopt.runtime.node_times import NodeTimes
from graphopt.runtime.providers import Provider

TIMING_SECONDS = 30.0
"""How long two models are timed, as long as a few rounds of each take less."""


@dataclass(frozen=True)
class Speed:
    """Times models on one run's inputs.

    Attributes:
        judge: what knows the inputs.
        running: what runs the models.
        listener: told where the run stands.
        feeds: the inputs; none where no model is run.
    """

    judge: Equivalence
    running: Running
    listener: Listener
    feeds: Feeds

    @property
    def objection(self) -> str:
        """Why nothing can be timed; empty where it can."""
        if self.feeds and self.judge.backend == "ort":
            return ""
        return self.judge.why or "no inputs"

    def nodes(self, native: Native, cache: Cache | None) -> NodeTimes | None:
        """What gives the times of nodes; None on CUDA, where the profiler sees only their launch."""
        if Provider.parse(self.running.provider).kind != "cpu":
            return None
        return NodeTimes(
            native,
            self.feeds,
            cache,
            self.running.provider,
            self.running.threads or 1,
            progress=lambda what, done: self.listener(Progress(what, done)),
        )

    def race(self, before: Model, after: Model) -> SpeedInfo:
        """A model against the one before it, and that one against itself."""
        if self.objection:
            return SpeedInfo(why=self.objection)
        try:
            found = bench(
                before,
                after,
                feeds=self.feeds,
                threads=self.running.threads or 1,
                seconds=TIMING_SECONDS,
                provider=self.running.provider,
            )
        except ModelError as error:
            return SpeedInfo(why=error.what)
        return SpeedInfo(found.ratio, found.control, found.claim)

    def result(self, before: Model, after: Model) -> LatencyInfo:
        """Original and result against each other, and node by node.

        Raises:
            ModelError: a model does not run.
        """
        self.listener(Progress("timing the original and the result"))
        return measure_latency(
            before,
            after,
            self.feeds,
            provider=self.running.provider,
            threads=self.running.threads or 1,
            seconds=TIMING_SECONDS,
        )


def slower(found: LatencyInfo, passes: Sequence[Pass], steps: Sequence[StepReport]) -> list[str]:
    """The warning where lossy passes changed a model, and the result takes longer than the original.

    Args:
        found: original and result, timed.
        passes: that were run.
        steps: what they did.
    """
    changed = [step for step in steps if step.edits and not step.exact]
    if found.claim != "slower" or not changed:
        return []
    names = {step.name for step in changed}
    advice = {
        step.advice_if_slower: None
        for step in passes
        if isinstance(step, LossyPass) and step.name in names
    }
    fewer = "fewer multiply-accumulates, but " if sum(step.macs for step in changed) < 0 else ""
    line = f"{fewer}slower on this machine: {found.ratio.median:.3f} of the original's time"
    return ["; ".join([line, *filter(None, advice)])]
