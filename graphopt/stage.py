"""A stage: consecutive exact passes on one copy of a model, run to a fixed point; or a lossy pass, run once.

Every edit has a number. The same model, passes and vetoes give the same edits, so a stage can be
replayed up to its n-th edit, and a wrong result can be traced to the one edit that made it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from graphopt.ir.costs import bytes_in_use, count_nodes, known_macs
from graphopt.ir.frames import symbol_sizes
from graphopt.ir.inference import infer
from graphopt.ir.model import Model
from graphopt.ir.surgery import Scope, names_of, tidy
from graphopt.pass_base import (
    Context,
    Edit,
    Evaluate,
    Finding,
    Limits,
    Measure,
    Observe,
    Pass,
    Skip,
)
from graphopt.quality.data import Dataset

MAX_ROUNDS = 200
"""Rounds of all passes after which a stage stops: far beyond what any model needs."""

T = TypeVar("T")

Vetoes = frozenset[tuple[str, int]]
"""Pairs of a pass's name and the ``uid`` of a node at which that pass may not act."""


@dataclass(frozen=True)
class Applied:
    """An edit as it was made.

    Attributes:
        step: the name of the pass.
        uid: the number of the node it is about; -1 where there is none.
        node: the node's name for people.
        what: what was done.
        bytes_made: bytes of the constants that were made for it.
    """

    step: str
    uid: int
    node: str
    what: str
    bytes_made: int = 0


@dataclass
class Change:
    """How much a pass changed: nodes, bytes of constants, multiply-accumulates."""

    nodes: int = 0
    weight_bytes: int = 0
    macs: int = 0

    def plus(self, other: Change) -> Change:
        """Both together."""
        return Change(
            self.nodes + other.nodes,
            self.weight_bytes + other.weight_bytes,
            self.macs + other.macs,
        )


@dataclass
class StageRun:
    """What came of running a stage.

    Attributes:
        model: the changed copy.
        edits: in the order made.
        skips: reasons of refusals by node, by pass.
        findings: rows of the report by pass, each under the number of its node.
        seconds: spent, by pass.
        changes: of the costs, by pass.
        cost: of the model now.
        stopped: whether a limit of edits ended the run.
        made: names of nodes that are there since a pass.
        removed: names of nodes that are gone since a pass.
        present: the names of the nodes that there are now, by number.
    """

    model: Model
    edits: list[Applied] = field(default_factory=list)
    skips: dict[str, dict[str, str]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    changes: dict[str, Change] = field(default_factory=dict)
    cost: Change = field(default_factory=Change)
    stopped: bool = False
    made: dict[str, list[str]] = field(default_factory=dict)
    removed: dict[str, list[str]] = field(default_factory=dict)
    present: dict[int, str] = field(default_factory=dict)
    findings: dict[str, dict[str, object]] = field(default_factory=dict)

    def followed_by(self, later: StageRun) -> StageRun:
        """What came of this run and of another one on its result."""
        changes = dict(self.changes)
        for name, change in later.changes.items():
            changes[name] = changes.get(name, Change()).plus(change)
        seconds = dict(self.seconds)
        for name, value in later.seconds.items():
            seconds[name] = seconds.get(name, 0.0) + value
        return StageRun(
            later.model,
            self.edits + later.edits,
            _latest(self.skips, later.skips),
            seconds,
            changes,
            later.cost,
            later.stopped,
            _merged(self.made, later.made),
            _merged(self.removed, later.removed),
            later.present,
            _latest(self.findings, later.findings),
        )


def _latest(
    first: dict[str, dict[str, T]], second: dict[str, dict[str, T]]
) -> dict[str, dict[str, T]]:
    return {name: {**first.get(name, {}), **second.get(name, {})} for name in (*first, *second)}


def _merged(first: dict[str, list[str]], second: dict[str, list[str]]) -> dict[str, list[str]]:
    return {name: first.get(name, []) + second.get(name, []) for name in (*first, *second)}


@dataclass(frozen=True)
class Stage:
    """Passes to be run together.

    Attributes:
        passes: the passes in their order.
        limits: what they may spend.
        evaluate: how constants are computed; None to fold only what needs no runtime.
        original_bytes: bytes of the original's constants, which bound their growth.
        data: what passes may look at; None where there is no data.
        observe: gives statistics of tensors on that data.
        seed: of the passes' randomness.
        bindings: sizes of dynamic dimensions, by input and axis.
        measure: gives what the nodes of models take; None where nothing can.
        memo: what the one lossy pass has found out about the model that it began with.
        original: the model before the first lossy change; see ``Context``.
    """

    passes: Sequence[Pass]
    limits: Limits = field(default_factory=Limits)
    evaluate: Evaluate | None = None
    original_bytes: int | None = None
    data: Dataset | None = None
    observe: Observe | None = None
    seed: int = 0
    bindings: Mapping[tuple[str, int], int] = field(default_factory=dict)
    measure: Measure | None = None
    memo: dict[Hashable, Any] = field(default_factory=dict)
    original: Model | None = None

    @property
    def exact(self) -> bool:
        """Whether the result must equal what the stage began with."""
        return all(step.exact for step in self.passes)

    def excess(self, run: StageRun) -> int:
        """By how many bytes the constants of a run outgrow what they may take; 0 where they do not."""
        if self.original_bytes is None:
            return 0
        allowed = self.original_bytes + self.limits.growth_bytes
        return max(bytes_in_use(run.model.scopes()) - allowed, 0)

    def run(
        self,
        model: Model,
        vetoes: Vetoes = frozenset(),
        limit: int | None = None,
        progress: Callable[[str], None] = lambda step: None,
    ) -> StageRun:
        """Run the passes on a copy of a model until none of them finds anything to do.

        Args:
            model: the model, which is not changed.
            vetoes: where which pass may not act.
            limit: stop after this many edits.
            progress: called with the name of each pass before it runs.

        Returns:
            The changed copy with its edits and skips, in order.
        """
        run = StageRun(model.copy())
        if limit == 0:
            return run
        allowed = model.weight_bytes() if self.original_bytes is None else self.original_bytes
        context = self.context(run.model)
        run.cost = _cost(context)
        run.present = _labels(context)
        for _ in range(MAX_ROUNDS if self.exact else 1):
            before = len(run.edits)
            context.budget = allowed + self.limits.growth_bytes - bytes_in_use(context.scopes())
            self._settle(run, context, vetoes, limit, progress)
            if run.stopped or len(run.edits) == before:
                break
            context.refresh(infer(run.model.graph, run.model.functions))
            run.cost = _cost(context)  # what more is known now is nobody's change
        return run

    def context(self, model: Model) -> Context:
        """What the passes of this stage may ask for, of one model."""
        facts = infer(model.graph, model.functions)
        return Context(
            model,
            facts,
            self.limits,
            evaluate=self.evaluate,
            rng=np.random.default_rng(self.seed),
            data=self.data,
            observe=self.observe,
            sizes=symbol_sizes(model, facts, self.bindings),
            measure=self.measure,
            memo=self.memo,
            original=self.original,
        )

    def _settle(
        self,
        run: StageRun,
        context: Context,
        vetoes: Vetoes,
        limit: int | None,
        progress: Callable[[str], None],
    ) -> None:
        """Run the passes round and round on the same facts; a pass rests while nothing changes."""
        seen: dict[int, int] = {}
        for _ in range(MAX_ROUNDS if self.exact else 1):
            start = len(run.edits)
            for index, step in enumerate(self.passes):
                if seen.get(index) == len(run.edits):
                    continue
                progress(step.name)
                self._step(run, step, context, vetoes, limit)
                if run.stopped:
                    return
                seen[index] = len(run.edits)
            if len(run.edits) == start:
                return

    def _step(
        self, run: StageRun, step: Pass, context: Context, vetoes: Vetoes, limit: int | None
    ) -> None:
        started = time.perf_counter()
        context.vetoed = frozenset(uid for name, uid in vetoes if name == step.name)
        before = len(run.edits)
        cost = run.cost
        skips: dict[str, str] = {}
        run.skips[step.name] = skips
        for scope in context.scopes():
            if not self._scope(run, step, scope, context, skips, limit):
                break
        if len(run.edits) > before:
            for scope in run.model.scopes():
                tidy(scope)
            context.refresh(None if step.exact else infer(run.model.graph, run.model.functions))
            now = _labels(context)
            run.made.setdefault(step.name, []).extend(_only_in(now, run.present))
            run.removed.setdefault(step.name, []).extend(_only_in(run.present, now))
            run.present = now
            run.cost = _cost(context)
            change = run.changes.setdefault(step.name, Change())
            change.nodes += run.cost.nodes - cost.nodes
            change.weight_bytes += run.cost.weight_bytes - cost.weight_bytes
            change.macs += run.cost.macs - cost.macs
        run.seconds[step.name] = run.seconds.get(step.name, 0.0) + time.perf_counter() - started

    def _scope(
        self,
        run: StageRun,
        step: Pass,
        scope: Scope,
        context: Context,
        skips: dict[str, str],
        limit: int | None,
    ) -> bool:
        """Apply one pass to one scope; False when the limit of edits was reached."""
        if scope.parent is not None and scope.parent.dead:
            return True
        names = names_of(run.model.graph)
        made = names.bytes_made
        for outcome in step.apply(scope, context):
            if isinstance(outcome, Skip):
                skips[outcome.label] = outcome.why
                continue
            if isinstance(outcome, Finding):
                node = outcome.node
                key = node if isinstance(node, str) else f"number {node.uid}"
                run.findings.setdefault(step.name, {})[key] = outcome.row
                continue
            run.edits.append(_applied(step, outcome, names.bytes_made - made))
            made = names.bytes_made
            if limit is not None and len(run.edits) >= limit:
                run.stopped = True
                return False
        return True


def _labels(context: Context) -> dict[int, str]:
    """The nodes that there are, by number, with their names for people."""
    return {node.uid: node.label for scope in context.scopes() for node in scope.nodes}


def _only_in(first: dict[int, str], second: dict[int, str]) -> list[str]:
    return [label for uid, label in first.items() if uid not in second]


def _cost(context: Context) -> Change:
    """What the model costs now. MACs of a node are counted once per set of facts."""
    scopes = context.scopes()
    macs = known_macs(context.model, context.facts, context.macs)
    return Change(count_nodes(scopes), bytes_in_use(scopes), macs)


def _applied(step: Pass, edit: Edit, bytes_made: int) -> Applied:
    uid = -1 if isinstance(edit.node, str) else edit.node.uid
    return Applied(step.name, uid, edit.label, edit.what, bytes_made)
