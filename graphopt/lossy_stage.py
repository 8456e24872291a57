"""A lossy pass under the gate: at full strength; if that loses too much, milder; if nothing fits, not at all.

A pass that spreads one amount over the model is eased by bisection on its strength. Any other is eased place
by place: what each place loses alone is measured on the calibration data, the place that loses most for what
it saves is relaxed first (to a milder level, then left out; see ``easing``), and bisection finds how few
relaxations suffice. Each candidate is judged as a whole, so nothing rests on losses adding up. The one that
is found is the strongest of many that passes on the samples at hand, so it would often not pass on others. So
where the samples do not prove that the budget is kept, the estimate has to keep a distance from the limit
(``GateVerdict.likely``), unless nothing does. Where it does not, the same choices are made once more with the
halves of the data exchanged, and the mean of both drops is asked: two-fold cross-validation (Stone, 1974).

A pass that promises speed is timed too, once, before its result is kept: against the model that it began
with, and that one against itself. A result that is not faster beyond the noise is not kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from graphopt.easing import relaxations, summary_of
from graphopt.errors import GraphoptError, NativeError
from graphopt.lossy_pass import Choice, LossyPass, strongest
from graphopt.lossy_plans import Committed, Edits, Plan, Proposals
from graphopt.outcome import LossJudge, Outcome, Progress, gate_info, step_report, undone
from graphopt.pass_base import Pass
from graphopt.quality.gate import GateVerdict, percent
from graphopt.report import EditInfo, SpeedInfo
from graphopt.stage import Stage, StageRun

if TYPE_CHECKING:
    from graphopt.pass_manager import PassManager

STRENGTHS = 5
"""Bisections of a strength: the one found is within a thirty-second of the mildest that fails."""

NOTABLE = 0.005
"""A part of what full strength saves: for less, nothing more is judged once there is what passes."""

MAX_BLAMED = 200
"""Places whose loss is measured alone; beyond, the pass's own predictions decide."""


@dataclass(frozen=True)
class Candidate:
    """A set of choices, and the model with them applied."""

    run: StageRun
    chosen: Sequence[Choice]
    verdict: GateVerdict | None = None


def _at_full_strength(plan: Plan) -> Candidate:
    chosen = strongest(plan.choices)
    return Candidate(plan.build(chosen) if chosen else plan.idle, chosen)


def _differences(
    choices: Sequence[Choice], path: Sequence[Sequence[Choice]]
) -> Callable[[int, int], bool]:
    """Whether so many relaxations save notably more than so many others; always where savings are unknown."""
    if not all(choice.saving > 0 for choice in choices):
        return lambda low, high: True
    every = [sum(choice.saving for choice in each) for each in (strongest(choices), *path)]
    return lambda low, high: every[low] - every[high] > NOTABLE * every[0]


@dataclass
class LossyTrial:
    """One lossy pass: tried, judged, eased, or left out.

    Attributes:
        manager: whose gate, limits and listener apply.
        stage: the pass.
        outcome: what came of the run so far; the pass's result is added to it.
        exchanged: what the pass has found out with the halves of the data exchanged.
    """

    manager: PassManager
    stage: Stage
    outcome: Outcome
    step: Pass = field(init=False)
    verdict: GateVerdict | None = None
    raced: tuple[StageRun, SpeedInfo] | None = None
    exchanged: dict[Hashable, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take the one pass that the stage holds."""
        self.step = self.stage.passes[0]

    def run(self) -> None:
        """Try the pass, and record what came of it."""
        self._say(self.step.name)
        try:
            plan = self._plan(self.step)
            full = _at_full_strength(plan)
        except (GraphoptError, MemoryError, RecursionError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever a pass raises is reported as its own
            report = step_report(self.step, StageRun(self.outcome.model))
            why = f"{type(error).__name__}: {error}"
            self.outcome.steps.append(replace(report, status="failed", error=why))
            return
        if self._is_idle_haste(full):
            return
        gate = self.manager.gate
        if gate is None or not full.run.edits or self._passes(gate, full.run, "at full strength"):
            self._keep(full)
            return
        first = self.verdict
        tried = not isinstance(self.step, LossyPass) or self.step.ease
        if not (tried and (self._ease_strength(gate) or self._ease_places(gate, plan))):
            why = first.why if first is not None else ""
            what = (
                "nothing that it does keeps to the budget; at" if tried else "it loses too much at"
            )
            self._leave_out(full.run, why, f"{what} full strength: {why}")

    def _plan(self, step: Pass) -> Plan:
        if isinstance(step, LossyPass):
            return Proposals(self.stage, step, self.outcome.model)
        return Edits(self.stage, step, self.outcome.model)

    def _is_idle_haste(self, full: Candidate) -> bool:
        """Leave out what must be faster and is not, before the gate: each verdict makes that stricter."""
        if not (isinstance(self.step, LossyPass) and self.step.faster):
            return False
        speed = self._timed(full)
        if speed is None or speed.faster:
            return False
        self._leave_out(full.run, str(speed), str(speed), speed)
        return True

    def _ease_strength(self, gate: LossJudge) -> bool:
        """Find the largest strength that passes, by bisection; False where there is none."""
        if not isinstance(self.step, LossyPass) or self.step.milder(0.5) is None:
            return False
        low, high = 0.0, 1.0
        best: tuple[float, Candidate] | None = None
        for _ in range(STRENGTHS):
            middle = (low + high) / 2
            milder = self.step.milder(middle)
            if milder is None:
                break
            found = _at_full_strength(self._plan(milder))
            if not found.run.edits:
                low = middle
            elif self._passes(gate, found.run, f"at {percent(middle)} of its strength"):
                low, best = middle, (middle, replace(found, verdict=self.verdict))
            else:
                high = middle
        if best is None:
            return False
        self.verdict = best[1].verdict
        self._keep(best[1], f"at {percent(best[0])} of its strength")
        return True

    def _ease_places(self, gate: LossJudge, plan: Plan) -> bool:
        """Find how few relaxations suffice, those that cost least for what they win first."""
        losses = self._losses(gate, plan)
        path = list(relaxations(plan.choices, losses))
        matters = _differences(plan.choices, path)
        low, high = 0, len(path)  # none fails; all of them leave nothing
        best: Candidate | None = None
        doubtful: Candidate | None = None
        while high - low > 1 and (best is None or matters(low, high)):
            middle = (low + high) // 2
            chosen = path[middle - 1]
            run = plan.build(chosen)
            passes = self._passes(gate, run, summary_of(plan.choices, chosen)[0])
            found = Candidate(run, chosen, self.verdict)
            if passes and self._likely(found):
                high, best = middle, found
            else:
                low, doubtful = middle, found if passes and run.edits else doubtful
        if best is None or not best.run.edits:
            best = doubtful
        if best is None:
            return False
        self.verdict = best.verdict
        summary, taken_back = summary_of(plan.choices, best.chosen, losses)
        self._keep(best, summary, taken_back)
        return True

    def _likely(self, found: Candidate) -> bool:
        """Whether a candidate that passes is likely to pass on other samples, too.

        Of one that shall be faster that is not asked: what it gains is measured for itself.
        """
        timed = isinstance(self.step, LossyPass) and self.step.promises_of(found.chosen)
        if timed or found.verdict is None or found.verdict.likely:
            return True
        return self._confirmed(found.verdict, found.chosen)

    def _confirmed(self, verdict: GateVerdict, chosen: Sequence[Choice]) -> bool:
        """Whether it is likely by both halves of the data, each fitted to the other.

        Not where an earlier pass changed the model: it has seen the half that would judge.
        """
        fold = self.manager.fold() if not self.outcome.lossy else None
        if fold is None or not isinstance(self.step, LossyPass):
            return False
        self._say(f"{self.step.name}: judging with the halves of the data exchanged")
        step = Committed(self.step, tuple(chosen))
        stage = replace(
            self.stage, passes=[step], data=fold.data, observe=fold.observe, memo=self.exchanged
        )
        return verdict.likely_with(fold.gate.judge(stage.run(self.outcome.model).model))

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
        verdict = gate.judge(run.model)
        accepted = verdict.verdict == "pass" or (not self.manager.strict and verdict.tolerable)
        share = self.step.share if isinstance(self.step, LossyPass) else 1.0
        if accepted and verdict.limit is not None and verdict.drop.value > share * verdict.limit:
            accepted = False
            why = f"{verdict.why}, but this pass may use no more than {percent(share)} of that"
            verdict = replace(verdict, why=why)
        self.verdict = verdict
        info = gate_info(verdict, self.step.name, what, accepted)
        cost = run.cost
        self.outcome.gates.append(replace(info, weight_bytes=cost.weight_bytes, macs=cost.macs))
        return accepted

    def _keep(self, found: Candidate, eased: str = "", taken_back: Sequence[EditInfo] = ()) -> None:
        run, speed = found.run, self._timed(found)
        if speed is not None and not speed.faster:
            if not self._unhurried(run, speed):
                self._leave_out(run, str(speed), str(speed), speed)
            return
        report = replace(step_report(self.step, run), speed=speed)
        if eased:
            report = replace(report, status="eased", eased=eased, taken_back=list(taken_back))
        self.outcome.steps.append(report)
        if run.edits:
            self.outcome.exact = self.outcome.exact or self.outcome.model
            self.outcome.model = run.model
            self.outcome.lossy = True
            self.outcome.gate = self.verdict

    def _unhurried(self, run: StageRun, speed: SpeedInfo) -> bool:
        """Do what is left of a pass whose result is not faster; False where nothing is."""
        rest = self.step.unhurried() if isinstance(self.step, LossyPass) else None
        if rest is None:
            return False
        again = LossyTrial(self.manager, replace(self.stage, passes=[rest]), self.outcome)
        again.run()
        report = self.outcome.steps[-1]
        why = f"without what was to be faster: {speed}"
        eased = f"{report.eased}; {why}" if report.eased else why
        kept = {(edit.node, edit.what) for edit in report.edits}
        lost = [
            EditInfo(edit.node, f"{edit.what}: {speed}")
            for edit in step_report(self.step, run).edits
            if (edit.node, edit.what) not in kept
        ]
        status = "eased" if report.status == "applied" else report.status
        self.outcome.steps[-1] = replace(
            report, status=status, eased=eased, taken_back=[*report.taken_back, *lost], speed=speed
        )
        return True

    def _timed(self, found: Candidate) -> SpeedInfo | None:
        """What timing says of a candidate of a pass that promises speed."""
        step = self.step
        promised = isinstance(step, LossyPass) and step.promises_of(found.chosen)
        if not (promised or (isinstance(step, LossyPass) and step.faster)) or not found.run.edits:
            return None
        if self.raced is not None and self.raced[0] is found.run:
            return self.raced[1]
        self._say(f"{self.step.name}: timing the model before and after")
        race = self.manager.race
        timed = (
            SpeedInfo(why="nothing here times models")
            if race is None
            else race(self.outcome.model, found.run.model)
        )
        if promised:
            timed = replace(timed, predicted=1.0 - sum(choice.saving for choice in found.chosen))
        self.raced = found.run, timed
        return timed

    def _leave_out(
        self, run: StageRun, why: str, eased: str, speed: SpeedInfo | None = None
    ) -> None:
        """Leave the pass out; its edits are reported as taken back."""
        report = step_report(self.step, run)
        self.outcome.steps.append(
            replace(
                step_report(self.step, StageRun(self.outcome.model, skips=run.skips)),
                status="rolled back",
                taken_back=[EditInfo(e.node, f"{e.what}: {why}") for e in report.edits],
                eased=eased,
                seconds=report.seconds,
                speed=speed,
                quantized=[undone(row, why) for row in report.quantized],
            )
        )

    def _say(self, what: str, done: float | None = None) -> None:
        self.manager.listener(Progress(what, done))
