"""A lossy pass under the gate: at full strength; if that loses too much, milder; if nothing fits, not at all.

A pass that spreads one amount over the model is eased by bisection on its strength. Any other is eased
place by place: what each place loses alone is measured on the calibration data, the place that loses most
for what it saves is relaxed first (to a milder level, then left out), and bisection finds how few
relaxations suffice. Each candidate is judged as a whole, so nothing rests on losses adding up.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from graphopt.easing import relaxations, summary_of
from graphopt.errors import GraphoptError, NativeError
from graphopt.lossy_pass import Choice, LossyPass, strongest
from graphopt.outcome import LossJudge, Outcome, Progress, gate_info, step_report
from graphopt.pass_base import Context, Edit, Pass, Skip, is_main
from graphopt.quality.gate import GateVerdict, percent
from graphopt.report import EditInfo
from graphopt.stage import Stage, StageRun

if TYPE_CHECKING:
    from graphopt.ir.surgery import Scope
    from graphopt.pass_manager import PassManager

STRENGTHS = 5
"""Bisections of a strength: the one found is within a thirty-second of the mildest that fails."""

MAX_BLAMED = 200
"""Places whose loss is measured alone; beyond, the pass's own predictions decide."""


class Plan(Protocol):
    """What a pass could do to one model."""

    choices: list[Choice]
    idle: StageRun

    def build(self, chosen: Sequence[Choice]) -> StageRun:
        """The model with a set of choices applied."""


@dataclass(frozen=True)
class _Committed(Pass):
    """A lossy pass with its choices made."""

    step: LossyPass
    chosen: tuple[Choice, ...]
    exact = False

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.step.name

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        if is_main(graph, context):
            yield from self.step.commit(self.chosen, context)


class _Proposals:
    """The plan of a pass that proposes choices."""

    def __init__(self, stage: Stage, step: LossyPass, start: Outcome) -> None:
        self._stage, self._step, self._start = stage, step, start.model
        found = list(step.propose(stage.context(self._start.copy())))
        self.choices = [entry for entry in found if isinstance(entry, Choice)]
        self._skips = {e.label: e.why for e in found if isinstance(e, Skip)}
        self.idle = StageRun(self._start, skips={step.name: self._skips})

    def build(self, chosen: Sequence[Choice]) -> StageRun:
        step = _Committed(self._step, tuple(chosen))
        run = replace(self._stage, passes=[step]).run(self._start)
        run.skips[step.name] = {**self._skips, **run.skips.get(step.name, {})}
        return run


class _Edits:
    """The plan of a pass that only applies itself: each node that it edits is a place."""

    def __init__(self, stage: Stage, step: Pass, start: Outcome) -> None:
        self._stage, self._step, self._start = stage, step, start.model
        run = stage.run(self._start)
        self._whole = run
        self.idle = StageRun(self._start, skips=run.skips)
        self._places = {f"{e.uid}": e.uid for e in run.edits}
        self.choices = [
            Choice(f"{e.uid}", 1.0, f"{e.node}: {e.what}") for e in run.edits if e.uid >= 0
        ]

    def build(self, chosen: Sequence[Choice]) -> StageRun:
        kept = {choice.where for choice in chosen}
        vetoed = {uid for where, uid in self._places.items() if where not in kept}
        if not vetoed - {-1}:
            return self._whole
        return self._stage.run(self._start, frozenset((self._step.name, uid) for uid in vetoed))


@dataclass
class LossyTrial:
    """One lossy pass: tried, judged, eased, or left out.

    Attributes:
        manager: whose gate, limits and listener apply.
        stage: the pass.
        outcome: what came of the run so far; the pass's result is added to it.
    """

    manager: PassManager
    stage: Stage
    outcome: Outcome
    step: Pass = field(init=False)
    verdict: GateVerdict | None = None

    def __post_init__(self) -> None:
        """Take the one pass that the stage holds."""
        self.step = self.stage.passes[0]

    def run(self) -> None:
        """Try the pass, and record what came of it."""
        self._say(self.step.name)
        try:
            plan = self._plan(self.step)
            full = plan.build(strongest(plan.choices)) if plan.choices else plan.idle
        except (GraphoptError, MemoryError, RecursionError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever a pass raises is reported as its own
            report = step_report(self.step, StageRun(self.outcome.model))
            why = f"{type(error).__name__}: {error}"
            self.outcome.steps.append(replace(report, status="failed", error=why))
            return
        gate = self.manager.gate
        if gate is None or not full.edits or self._passes(gate, full, "at full strength"):
            self._keep(full)
            return
        first = self.verdict
        if not (self._ease_strength(gate) or self._ease_places(gate, plan)):
            self._give_up(full, first)

    def _plan(self, step: Pass) -> Plan:
        if isinstance(step, LossyPass):
            return _Proposals(self.stage, step, self.outcome)
        return _Edits(self.stage, step, self.outcome)

    def _ease_strength(self, gate: LossJudge) -> bool:
        """Find the largest strength that passes, by bisection; False where there is none."""
        if not isinstance(self.step, LossyPass) or self.step.milder(0.5) is None:
            return False
        low, high = 0.0, 1.0
        best: tuple[float, StageRun, GateVerdict | None] | None = None
        for _ in range(STRENGTHS):
            middle = (low + high) / 2
            milder = self.step.milder(middle)
            if milder is None:
                break
            plan = self._plan(milder)
            run = plan.build(strongest(plan.choices)) if plan.choices else plan.idle
            if not run.edits:
                low = middle
            elif self._passes(gate, run, f"at {percent(middle)} of its strength"):
                low, best = middle, (middle, run, self.verdict)
            else:
                high = middle
        if best is None:
            return False
        strength, run, self.verdict = best
        self._keep(run, f"at {percent(strength)} of its strength")
        return True

    def _ease_places(self, gate: LossJudge, plan: Plan) -> bool:
        """Find how few relaxations suffice, those that cost least for what they win first."""
        losses = self._losses(gate, plan)
        path = list(relaxations(plan.choices, losses))
        low, high = 0, len(path)  # none fails; all of them leave nothing
        best: tuple[StageRun, GateVerdict | None] | None = None
        while high - low > 1:
            middle = (low + high) // 2
            chosen = path[middle - 1]
            run = plan.build(chosen)
            if self._passes(gate, run, summary_of(plan.choices, chosen)[0]):
                high, best = middle, (run, self.verdict)
            else:
                low = middle
        if best is None or not best[0].edits:
            return False
        run, self.verdict = best
        summary, taken_back = summary_of(plan.choices, path[high - 1], losses)
        self._keep(run, summary, taken_back)
        return True

    def _losses(self, gate: LossJudge, plan: Plan) -> dict[str, float]:
        """What each place loses alone at its strongest level."""
        places = strongest(plan.choices)
        if len(places) > MAX_BLAMED:
            return {choice.where: choice.loss for choice in places}
        distance = gate.blame(self.outcome.model)
        found = {}
        for number, choice in enumerate(places):
            what = f"{self.step.name}: what each of {len(places)} places loses alone"
            self._say(what, number / len(places))
            try:
                found[choice.where] = distance(plan.build([choice]).model)
            except NativeError:
                found[choice.where] = math.inf
        return found

    def _passes(self, gate: LossJudge, run: StageRun, what: str) -> bool:
        self._say(f"{self.step.name} {what}: judging")
        verdict = self.verdict = gate.judge(run.model)
        accepted = verdict.verdict == "pass" or (not self.manager.strict and verdict.tolerable)
        info = gate_info(verdict, self.step.name, what, accepted)
        cost = run.cost
        self.outcome.gates.append(replace(info, weight_bytes=cost.weight_bytes, macs=cost.macs))
        return accepted

    def _keep(self, run: StageRun, eased: str = "", taken_back: Sequence[EditInfo] = ()) -> None:
        report = step_report(self.step, run)
        if eased:
            report = replace(report, status="eased", eased=eased, taken_back=list(taken_back))
        self.outcome.steps.append(report)
        if run.edits:
            self.outcome.exact = self.outcome.exact or self.outcome.model
            self.outcome.model = run.model
            self.outcome.lossy = True
            self.outcome.gate = self.verdict

    def _give_up(self, full: StageRun, verdict: GateVerdict | None) -> None:
        """Leave the pass out; its edits are reported as taken back."""
        report = step_report(self.step, full)
        why = verdict.why if verdict is not None else ""
        self.outcome.steps.append(
            replace(
                step_report(self.step, StageRun(self.outcome.model, skips=full.skips)),
                status="rolled back",
                taken_back=[EditInfo(e.node, f"{e.what}: {why}") for e in report.edits],
                eased=f"nothing that it does keeps to the budget; at full strength: {why}",
                seconds=report.seconds,
            )
        )

    def _say(self, what: str, done: float | None = None) -> None:
        self.manager.listener(Progress(what, done))
