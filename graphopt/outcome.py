"""What a run of passes gathers on its way: the model, what each pass did, the verdicts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from graphopt.ir.model import Model
from graphopt.options import values_of
from graphopt.pass_base import Observe, Pass
from graphopt.quality.data import Dataset
from graphopt.quality.equivalence import Verdict
from graphopt.quality.gate import GateVerdict
from graphopt.report import (
    EditInfo,
    GateInfo,
    QuantizedInfo,
    SkipInfo,
    SpeedInfo,
    StepReport,
)
from graphopt.stage import StageRun


class Judge(Protocol):
    """Says whether a candidate still computes what it must."""

    def judge(self, candidate: Model) -> Verdict:
        """Compare a candidate with the model that this judge was made for."""

    def against(self, model: Model) -> Judge:
        """A judge that compares with another model."""


class LossJudge(Protocol):
    """Says whether what a candidate loses keeps to the budget."""

    def judge(self, candidate: Model) -> GateVerdict:
        """Compare a candidate with the original."""

    def blame(self, base: Model) -> Callable[[Model], float]:
        """What measures how far a model's outputs are from those of a base, as a share of their power."""


@dataclass(frozen=True)
class Fold:
    """The data the other way round: what calibrated judges.

    Attributes:
        data: what passes may look at.
        observe: gives statistics of tensors on it.
        gate: judges on what passes looked at before.
    """

    data: Dataset
    observe: Observe | None
    gate: LossJudge


Race = Callable[[Model, Model], SpeedInfo]
"""Times a model against the one before it, and says what may be claimed."""


@dataclass(frozen=True)
class Progress:
    """Where a run stands: the pass at work, or what else is being done.

    Attributes:
        what: in words.
        done: how much of it is done, from 0 to 1; None where that is not known.
    """

    what: str
    done: float | None = None


Listener = Callable[[Progress], None]


@dataclass
class Outcome:
    """What came of a run.

    Attributes:
        model: the result.
        steps: what each pass did.
        verdict: the last one on exact passes.
        gates: every candidate of a lossy pass that was judged.
        gate: the verdict on the lossy candidate that was kept last.
        lossy: whether a lossy pass changed the model.
        exact: the result of the exact passes before the first lossy change; None where there is none.
    """

    model: Model
    steps: list[StepReport] = field(default_factory=list)
    verdict: Verdict | None = None
    gates: list[GateInfo] = field(default_factory=list)
    gate: GateVerdict | None = None
    lossy: bool = False
    exact: Model | None = None


def step_report(step: Pass, run: StageRun) -> StepReport:
    """What a pass did in a run of its stage."""
    edits = [EditInfo(e.node, e.what) for e in run.edits if e.step == step.name]
    skips = run.skips.get(step.name, {})
    change = run.changes.get(step.name)
    rows = run.findings.get(step.name, {}).values()
    return StepReport(
        name=step.name,
        status="applied" if edits else "unchanged",
        exact=step.exact,
        options=values_of(step),
        edits=edits,
        skips=[SkipInfo(node, why) for node, why in skips.items()],
        nodes=change.nodes if change else 0,
        weight_bytes=change.weight_bytes if change else 0,
        macs=change.macs if change else 0,
        seconds=round(run.seconds.get(step.name, 0.0), 4),
        made=run.made.get(step.name, []),
        removed=run.removed.get(step.name, []),
        quantized=[row for row in rows if isinstance(row, QuantizedInfo)],
    )


def undone(row: QuantizedInfo, why: str) -> QuantizedInfo:
    """What is told of a node whose numbers were chosen and taken back."""
    if row.computes == "floats":
        return row
    back = f"{row.precision} was taken back: {why}"
    return replace(row, computes="floats", precision="float", why=back, output=None, weights=[])


def gate_info(verdict: GateVerdict, step: str, what: str, accepted: bool) -> GateInfo:
    """A verdict as the report holds it."""
    return GateInfo(
        step=step,
        what=what,
        verdict=verdict.verdict,
        accepted=accepted,
        metric=verdict.metric,
        before=_finite(verdict.before),
        after=_finite(verdict.after),
        drop=_finite(verdict.drop.value),
        low=_finite(verdict.drop.low),
        high=_finite(verdict.drop.high),
        limit=verdict.limit,
        confidence=verdict.confidence,
        samples=verdict.samples,
        more=verdict.more,
        why=verdict.why,
    )


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
