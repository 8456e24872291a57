"""The pass manager: copy, apply, tidy, check, judge, keep or drop, record.

The unit is a stage. Consecutive exact passes form one, which is judged once, on equality with what it began
with. A lossy pass is a stage of its own, judged by the gate on what it loses against the original, with all
that earlier passes lost.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from graphopt.exact_stage import ExactTrial
from graphopt.ir.model import Model
from graphopt.lossy_stage import LossyTrial
from graphopt.outcome import Fold, Judge, Listener, LossJudge, Outcome, Progress, Race
from graphopt.pass_base import Evaluate, Limits, Measure, Observe, Pass
from graphopt.stage import Stage

if TYPE_CHECKING:
    from graphopt.quality.data import Dataset


@dataclass
class PassManager:
    """Runs passes over a model.

    Attributes:
        judge: compares candidates of exact passes with what they began with; None to trust the passes.
        evaluate: computes constants; None to fold only what needs no runtime.
        limits: what may be spent.
        listener: told where the run stands.
        gate: judges candidates of lossy passes; None to keep whatever they lose.
        fold: gives the data the other way round, for what one half of it leaves in doubt; None where there is
            no such thing.
        strict: whether a lossy candidate must be proven to keep to the budget, not only be estimated to.
        data: what passes may look at.
        observe: gives statistics of tensors on that data.
        seed: of the passes' randomness.
        bindings: sizes of dynamic dimensions in the inputs that are judged with, by input and axis.
        measure: gives what the nodes of models take; None where nothing can.
        race: times two models against each other; None where nothing can. Only asked where a pass promises
            to make a model faster.
    """

    judge: Judge | None
    evaluate: Evaluate | None = None
    limits: Limits = field(default_factory=Limits)
    listener: Listener = lambda progress: None
    gate: LossJudge | None = None
    fold: Callable[[], Fold | None] = lambda: None
    strict: bool = False
    data: Dataset | None = None
    observe: Observe | None = None
    seed: int = 0
    bindings: Mapping[tuple[str, int], int] = field(default_factory=dict)
    measure: Measure | None = None
    race: Race | None = None

    def run(self, model: Model, passes: Sequence[Pass]) -> Outcome:
        """Run passes in order on copies of a model.

        Args:
            model: the model, which is not changed.
            passes: the passes.
        """
        outcome = Outcome(model)
        judge = self.judge
        judged, rewritten = model, False
        for group in _stages(passes):
            allowed = min(model.weight_bytes(), outcome.model.weight_bytes())
            stage = Stage(
                group,
                self.limits,
                self.evaluate,
                allowed,
                self.data,
                self.observe,
                self.seed,
                self.bindings,
                self.measure,
                original=None if rewritten else outcome.exact,
            )
            if not stage.exact:
                LossyTrial(self, stage, outcome).run()
                continue
            if judge is not None and outcome.lossy and judged is not outcome.model:
                judge, judged = judge.against(outcome.model), outcome.model
            done = len(outcome.steps)
            ExactTrial(self, stage, outcome, judge).run()
            edited = any(step.edits for step in outcome.steps[done:])
            rewritten = rewritten or (outcome.lossy and edited)
        return outcome


def _stages(passes: Sequence[Pass]) -> Iterator[list[Pass]]:
    """Consecutive exact passes together, each lossy pass alone."""
    for exact, group in itertools.groupby(passes, key=lambda step: step.exact):
        steps = list(group)
        if exact:
            yield steps
        else:
            yield from ([step] for step in steps)


__all__ = ["Judge", "Listener", "LossJudge", "Outcome", "PassManager", "Progress"]
