"""Exact passes: one stage, judged once; on a wrong result the edit at fault is found and left out.

The edits of a stage are numbered, so a stage can be replayed up to its n-th edit. The edit at fault is
found by bisection over them; the stage then runs again without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from graphopt.errors import GraphoptError
from graphopt.ir.model import Model
from graphopt.outcome import Judge, Outcome, Progress, step_report
from graphopt.quality.equivalence import Verdict
from graphopt.report import EditInfo, StepReport
from graphopt.report.tree import Status
from graphopt.stage import Applied, Stage, StageRun

if TYPE_CHECKING:
    from graphopt.pass_manager import PassManager

MAX_CORRECTIONS = 8
"""Times that edits are given up for the bytes of their constants."""

MAX_CULPRITS = 3
"""Wrong edits of one pass that are taken back one by one before the pass is left out."""


@dataclass
class ExactTrial:
    """One stage of exact passes: run, judged, and run again without what was wrong.

    Attributes:
        manager: whose limits, judge and listener apply.
        stage: the passes.
        outcome: what came of the run so far; the stage's result is added to it.
        judge: compares candidates with what the stage began with, or began as; None to trust the passes.
    """

    manager: PassManager
    stage: Stage
    outcome: Outcome
    judge: Judge | None
    vetoes: set[tuple[str, int]] = field(default_factory=set)
    left_out: dict[str, str] = field(default_factory=dict)
    culprits: list[tuple[Applied, str]] = field(default_factory=list)
    sparing: bool = True
    given_up: bool = False

    def run(self) -> None:
        """Run the stage until its result is right, and record what came of it."""
        start = self.outcome.model
        while True:
            run = self._attempt(start)
            if self.sparing:
                run = self._settled(self._within_bytes(start, run))
            verdict = self._judge(run)
            if verdict is None or verdict.passed is not False:
                break
            if not run.edits:
                break
            if self.given_up:  # a run of several parts cannot be replayed: look at one of one part
                self.sparing, self.given_up = False, False
                self.vetoes = {(edit.step, edit.uid) for edit, _ in self.culprits}
                continue
            self._blame(start, run, verdict)
        self.outcome.model = run.model
        self.outcome.verdict = verdict or self.outcome.verdict
        self.outcome.steps += self._reports(run, verdict)

    def _stage(self) -> Stage:
        kept = [step for step in self.stage.passes if step.name not in self.left_out]
        return replace(self.stage, passes=kept)

    def _attempt(self, start: Model) -> StageRun:
        """Run the stage; a pass that raises an error is left out, and the stage runs again."""
        while True:
            at_work = [""]

            def follow(name: str, at_work: list[str] = at_work) -> None:
                at_work[0] = name
                self.manager.listener(Progress(name))

            try:
                return self._stage().run(start, frozenset(self.vetoes), progress=follow)
            except (GraphoptError, MemoryError, RecursionError):
                raise
            except Exception as error:
                if at_work[0] in ("", *self.left_out):
                    raise  # it is not the pass, and would come again for ever
                self.left_out[at_work[0]] = f"{type(error).__name__}: {error}"

    def _within_bytes(self, start: Model, run: StageRun) -> StageRun:
        """Give up as few of the last edits that made constants as keeps these within their bytes.

        A pass spends a few bytes where a node goes for them. In a model whose constants were already
        shared this can add up to more than the original's. An edit that is given up may let another
        pass spend in its place, so this is done again until it holds.
        """
        for _ in range(MAX_CORRECTIONS):
            spent = [e for e in reversed(run.edits) if e.bytes_made and e.uid >= 0]
            if not spent or not self.stage.excess(run):
                break
            run = self._give_up(start, spent)
        return run

    def _settled(self, run: StageRun) -> StageRun:
        """Run again on a result for which edits were given up, until it is as a second run leaves it."""
        for _ in range(MAX_CORRECTIONS if self.given_up else 0):
            stage = replace(self._stage(), original_bytes=run.model.weight_bytes())
            trial = ExactTrial(self.manager, stage, Outcome(run.model), self.judge)
            again = trial._within_bytes(run.model, trial._attempt(run.model))
            if not again.edits:
                break
            run = run.followed_by(again)
        return run

    def _give_up(self, start: Model, spent: Sequence[Applied]) -> StageRun:
        """Run without the first of the given edits: the fewest that suffice, by bisection, or all."""
        kept = frozenset(self.vetoes)

        def without(count: int) -> StageRun:
            self.vetoes = set(kept) | {(edit.step, edit.uid) for edit in spent[:count]}
            return self._attempt(start)

        self.given_up = True
        low, high = 1, len(spent)
        best = without(high)
        while low < high and not self.stage.excess(best):
            middle = (low + high) // 2
            tried = without(middle)
            if self.stage.excess(tried):
                low = middle + 1
            else:
                best, high = tried, middle
        self.vetoes = set(kept) | {(edit.step, edit.uid) for edit in spent[:high]}
        for edit in spent[:high]:
            why = f"the constants would outgrow the original's: not {edit.what}"
            best.skips.setdefault(edit.step, {})[edit.node] = why
        return best

    def _judge(self, run: StageRun) -> Verdict | None:
        if self.judge is None:
            return None
        self.manager.listener(Progress("judging"))
        return self.judge.judge(run.model)

    def _blame(self, start: Model, run: StageRun, verdict: Verdict) -> None:
        """Find the first edit after which the result is wrong, and forbid it."""
        low, high = 0, len(run.edits)
        why = verdict.why
        while high - low > 1:
            middle = (low + high) // 2
            partial = self._stage().run(start, frozenset(self.vetoes), limit=middle)
            found = self._judge(partial)
            if found is not None and found.passed is False:
                high, why = middle, found.why
            else:
                low = middle
        culprit = run.edits[high - 1]
        self.culprits.append((culprit, why))
        count = sum(edit.step == culprit.step for edit, _ in self.culprits)
        if culprit.uid < 0 or count >= MAX_CULPRITS:
            self.left_out[culprit.step] = ""
        self.vetoes.add((culprit.step, culprit.uid))

    def _reports(self, run: StageRun, verdict: Verdict | None) -> Iterator[StepReport]:
        largest = None if verdict is None or verdict.passed is None else verdict.largest
        for step in self.stage.passes:
            taken_back = [
                EditInfo(edit.node, f"{edit.what}: {why}")
                for edit, why in self.culprits
                if edit.step == step.name
            ]
            report = step_report(step, run)
            yield replace(
                report,
                status=self._status(report, taken_back),
                taken_back=taken_back,
                largest_difference=largest if report.edits else None,
                error=self.left_out.get(step.name, ""),
            )

    def _status(self, report: StepReport, taken_back: list[EditInfo]) -> Status:
        if self.left_out.get(report.name):
            return "failed"
        if taken_back:
            return "eased" if report.edits else "rolled back"
        return report.status
