"""What a pass could do to one model, and the model with a part of that done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from graphopt.ir.model import Model
from graphopt.lossy_pass import Choice, LossyPass
from graphopt.pass_base import Context, Pass, Remark, Skip, is_main
from graphopt.stage import Stage, StageRun

if TYPE_CHECKING:
    from graphopt.ir.surgery import Scope


class Plan(Protocol):
    """What a pass could do to one model."""

    choices: list[Choice]
    idle: StageRun

    def build(self, chosen: Sequence[Choice]) -> StageRun:
        """The model with a set of choices applied."""


@dataclass(frozen=True)
class Committed(Pass):
    """A lossy pass with its choices made."""

    step: LossyPass
    chosen: tuple[Choice, ...]
    exact = False

    @property
    def name(self) -> str:  # type: ignore[override]
        """That of the pass."""
        return self.step.name

    def apply(self, graph: Scope, context: Context) -> Iterator[Remark]:
        """See ``LossyPass.commit``."""
        if is_main(graph, context):
            yield from self.step.commit(self.chosen, context)


class Proposals:
    """The plan of a pass that proposes choices."""

    def __init__(self, stage: Stage, step: LossyPass, start: Model) -> None:
        self._stage, self._step, self._start = stage, step, start
        found = list(step.propose(stage.context(self._start.copy())))
        self.choices = [entry for entry in found if isinstance(entry, Choice)]
        self._skips = {e.label: e.why for e in found if isinstance(e, Skip)}
        self.idle = StageRun(self._start, skips={step.name: self._skips})

    def build(self, chosen: Sequence[Choice]) -> StageRun:
        """See ``Plan``."""
        step = Committed(self._step, tuple(chosen))
        run = replace(self._stage, passes=[step]).run(self._start)
        run.skips[step.name] = {**self._skips, **run.skips.get(step.name, {})}
        return run


class Edits:
    """The plan of a pass that only applies itself: each node that it edits is a place."""

    def __init__(self, stage: Stage, step: Pass, start: Model) -> None:
        self._stage, self._step, self._start = stage, step, start
        run = stage.run(self._start)
        self._whole = run
        self.idle = StageRun(self._start, skips=run.skips)
        self._places = {f"{e.uid}": e.uid for e in run.edits}
        self.choices = [
            Choice(f"{e.uid}", 1.0, f"{e.node}: {e.what}") for e in run.edits if e.uid >= 0
        ]

    def build(self, chosen: Sequence[Choice]) -> StageRun:
        """See ``Plan``."""
        kept = {choice.where for choice in chosen}
        vetoed = {uid for where, uid in self._places.items() if where not in kept}
        if not vetoed - {-1}:
            return self._whole
        return self._stage.run(self._start, frozenset((self._step.name, uid) for uid in vetoed))
