"""The pass manager: copy, apply, tidy, check, judge, keep or drop, record.

The unit is a stage. Consecutive exact passes form one, which is judged once. Only when that verdict fails
does the manager look for the edit at fault, by bisection over the numbered edits of the stage; it forbids
that edit and runs the stage again without it. A lossy pass is a stage of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from graphopt.errors import GraphoptError
from graphopt.ir.model import Model
from graphopt.options import values_of
from graphopt.pass_base import Evaluate, Limits, Pass
from graphopt.quality.equivalence import Verdict
from graphopt.report import EditInfo, SkipInfo, StepReport
from graphopt.report.tree import Status
from graphopt.stage import Applied, Stage, StageRun

MAX_CORRECTIONS = 8
"""Times that edits are given up for the bytes of their constants."""

MAX_CULPRITS = 3
"""Wrong edits of one pass that are taken back one by one before the pass is left out."""


class Judge(Protocol):
    """Says whether a candidate still is what it must be."""

    def judge(self, candidate: Model) -> Verdict:
        """Compare a candidate with the original."""


@dataclass(frozen=True)
class Progress:
    """Where a run stands: the pass at work, or what else is being done."""

    what: str


Listener = Callable[[Progress], None]


@dataclass
class Outcome:
    """What came of a run: the model, what each pass did, and the last verdict."""

    model: Model
    steps: list[StepReport] = field(default_factory=list)
    verdict: Verdict | None = None


@dataclass
class PassManager:
    """Runs passes over a model.

    Attributes:
        judge: compares candidates with the original; None to trust the passes.
        evaluate: computes constants; None to fold only what needs no runtime.
        limits: what may be spent.
        listener: told where the run stands.
    """

    judge: Judge | None
    evaluate: Evaluate | None = None
    limits: Limits = field(default_factory=Limits)
    listener: Listener = lambda progress: None

    def run(self, model: Model, passes: Sequence[Pass]) -> Outcome:
        """Run passes in order on copies of a model.

        Args:
            model: the model, which is not changed.
            passes: the passes.
        """
        outcome = Outcome(model)
        original_bytes = model.weight_bytes()
        for group in _stages(passes):
            stage = Stage(group, self.limits, self.evaluate, original_bytes)
            _Trial(self, stage, outcome).run()
        return outcome


def _stages(passes: Sequence[Pass]) -> Iterator[list[Pass]]:
    """Consecutive exact passes together, each lossy pass alone."""
    for exact, group in itertools.groupby(passes, key=lambda step: step.exact):
        steps = list(group)
        if exact:
            yield steps
        else:
            yield from ([step] for step in steps)


@dataclass
class _Trial:
    """One stage: run, judged, and run again without what was wrong."""

    manager: PassManager
    stage: Stage
    outcome: Outcome
    vetoes: set[tuple[str, int]] = field(default_factory=set)
    left_out: dict[str, str] = field(default_factory=dict)
    culprits: list[tuple[Applied, str]] = field(default_factory=list)
    sparing: bool = True
    given_up: bool = False

    def run(self) -> None:
        start = self.outcome.model
        while True:
            run = self._attempt(start)
            if self.sparing:
                run = self._settled(self._within_bytes(start, run))
            verdict = self._judge(run)
            if verdict is None or verdict.passed is not False or not self.stage.passes[0].exact:
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
        return Stage(kept, self.stage.limits, self.stage.evaluate, self.stage.original_bytes)

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
            if not spent or not self.stage.passes[0].exact or not self.stage.excess(run):
                break
            run = self._give_up(start, spent)
        return run

    def _settled(self, run: StageRun) -> StageRun:
        """Run again on a result for which edits were given up, until it is as a second run leaves it."""
        for _ in range(MAX_CORRECTIONS if self.given_up else 0):
            stage = replace(self._stage(), original_bytes=run.model.weight_bytes())
            trial = _Trial(self.manager, stage, Outcome(run.model))
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
        if self.manager.judge is None:
            return None
        self.manager.listener(Progress("judging"))
        return self.manager.judge.judge(run.model)

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
            edits = [EditInfo(e.node, e.what) for e in run.edits if e.step == step.name]
            taken_back = [
                EditInfo(e.node, f"{e.what}: {why}")
                for e, why in self.culprits
                if e.step == step.name
            ]
            skips = run.skips.get(step.name, {})
            change = run.changes.get(step.name)
            yield StepReport(
                name=step.name,
                status=self._status(step, edits, taken_back),
                exact=step.exact,
                options=values_of(step),
                edits=edits,
                skips=[SkipInfo(node, why) for node, why in skips.items()],
                taken_back=taken_back,
                nodes=change.nodes if change else 0,
                weight_bytes=change.weight_bytes if change else 0,
                macs=change.macs if change else 0,
                seconds=round(run.seconds.get(step.name, 0.0), 4),
                largest_difference=largest if edits else None,
                error=self.left_out.get(step.name, ""),
            )

    def _status(self, step: Pass, edits: list[EditInfo], taken_back: list[EditInfo]) -> Status:
        if self.left_out.get(step.name):
            return "failed"
        if taken_back:
            return "eased" if edits else "rolled back"
        return "applied" if edits else "unchanged"
