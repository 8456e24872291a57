"""Lossy passes under a gate: full strength, milder strengths, fewer places, none."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from graphopt.easing import relaxations, summary_of
from graphopt.ir.graph import Constant
from graphopt.ir.model import Model
from graphopt.ir.surgery import Scope
from graphopt.lossy_pass import Choice, LossyPass
from graphopt.numerics.paired import Drop
from graphopt.outcome import Fold
from graphopt.pass_base import Context, Edit, Pass, Skip
from graphopt.pass_manager import PassManager
from graphopt.quality.gate import GateVerdict
from graphopt.testing import parse

MODEL = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N,4] x, float[4,4] a, float[4,4] b, float[4,4] c) => (float[N,4] y) {
  first = MatMul(x, a)
  second = MatMul(first, b)
  y = MatMul(second, c)
}"""

WORTH = {"a": 0.001, "b": 0.02, "c": 0.004}
"""What dividing each weight costs, for the gates of these tests."""


def model() -> Model:
    return parse(MODEL, ("a", "b", "c"))


def weights(found: Model) -> dict[str, Constant]:
    return {c.name: c for c in found.constants()}


@dataclass(frozen=True)
class Halve(LossyPass):
    """Weights are divided by 4, or by 2 where that is too much."""

    name = "halve"
    levels: int = 2

    def propose(self, context: Context) -> Iterator[Choice | Skip]:
        for name in ("a", "b", "c"):
            for level in (4.0, 2.0)[: self.levels]:
                yield Choice(name, level, f"divided by {level:g}", loss=level, saving=level)
        yield Skip("d", "there is none")

    def commit(self, chosen: Sequence[Choice], context: Context) -> Iterator[Edit | Skip]:
        found = weights(context.model)
        for choice in chosen:
            found[choice.where].values = (found[choice.where].values / choice.level).astype("f4")
            yield Edit(choice.where, choice.what)


@dataclass(frozen=True)
class Shrink(LossyPass):
    """All weights are divided by one number."""

    name = "shrink"
    amount: float = 1.0

    def propose(self, context: Context) -> Iterator[Choice | Skip]:
        yield Choice("all", self.amount, f"shrunk by {self.amount:g}")

    def commit(self, chosen: Sequence[Choice], context: Context) -> Iterator[Edit | Skip]:
        for constant in context.model.constants():
            constant.values = (constant.values * (1 - self.amount / 2)).astype("f4")
        yield Edit("all", chosen[0].what)

    def milder(self, strength: float) -> Shrink:
        return replace(self, amount=self.amount * strength)


@dataclass(frozen=True)
class DoubleProducts(Pass):
    """A pass of the plain kind that happens to be lossy: each MatMul reads its weight doubled."""

    name = "double-products"
    exact = False

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        for node in context.nodes(graph, "MatMul"):
            weight = node.inputs[1]
            assert isinstance(weight, Constant)
            weight.values = (weight.values * 2).astype("f4")
            yield Edit(node, "doubled its weight")


@dataclass
class Gate:
    """Judges by how much each weight was changed, as WORTH says; counts what it is asked."""

    original: Model
    limit: float
    unsure: bool = False
    spread: float = 0.0
    asked: int = 0
    blamed: int = 0
    drops: list[float] = field(default_factory=list)

    def drop(self, candidate: Model) -> float:
        before, after = weights(self.original), weights(candidate)
        total = 0.0
        for name, worth in WORTH.items():
            factor = float(np.abs(after[name].values / before[name].values).mean())
            total += worth * abs(np.log2(factor))
        return total

    def judge(self, candidate: Model) -> GateVerdict:
        self.asked += 1
        drop = self.drop(candidate)
        self.drops.append(drop)
        kind = "pass" if drop <= self.limit else "fail"
        if self.unsure:
            kind = "unsure"
        return GateVerdict(
            "top1",
            kind,
            0.9,
            0.9 - drop,
            Drop(drop, drop, drop, self.spread),
            self.limit,
            0.95,
            9,
            None,
            "said",
        )

    def blame(self, base: Model) -> Callable[[Model], float]:
        def distance(candidate: Model) -> float:
            self.blamed += 1
            return self.drop(candidate)

        return distance


def test_what_is_chosen_among_many_keeps_a_distance_from_the_limit() -> None:
    drops = {}
    for spread in (0.0, 0.005, 1.0):
        original = model()
        gate = Gate(original, 0.03, unsure=True, spread=spread)
        outcome = PassManager(None, gate=gate).run(original, [Halve()])
        assert outcome.steps[-1].status == "eased"
        drops[spread] = gate.drop(outcome.model)
    assert 0 < drops[0.005] + 0.005 <= 0.03
    assert drops[0.005] < drops[0.0] <= 0.03
    assert 0 < drops[1.0] <= 0.03  # nothing keeps such a distance


@dataclass
class Kinder(Gate):
    """Finds half of the drop."""

    def drop(self, candidate: Model) -> float:
        return super().drop(candidate) / 2


def test_what_one_half_of_the_data_leaves_in_doubt_the_other_may_confirm() -> None:
    seen: list[object] = []

    class Looking(Halve):
        def commit(self, chosen: Sequence[Choice], context: Context) -> Iterator[Edit]:
            seen.append(context.data)
            return super().commit(chosen, context)

    drops = []
    for kind in (None, Gate, Kinder):
        original = model()
        gate = Gate(original, 0.03, unsure=True, spread=0.005)
        data: Any = object()
        fold = kind and Fold(data, None, kind(original, 0.03, unsure=True, spread=0.005))
        manager = PassManager(None, gate=gate, fold=lambda fold=fold: fold)
        drops.append(gate.drop(manager.run(original, [Looking()]).model))
        assert (data in seen) == (fold is not None)
        seen.clear()
        again = manager.run(original, [Halve(levels=1), Looking()])
        assert again.lossy
        assert data not in seen  # what is lossy already has seen that half
        seen.clear()
    alone, same, kinder = drops
    assert alone <= same <= kinder <= 0.03
    assert alone < kinder


def test_full_strength_is_kept_where_it_passes() -> None:
    original = model()
    gate = Gate(original, 0.06)
    outcome = PassManager(None, gate=gate).run(original, [Halve()])
    step = outcome.steps[0]
    assert (step.status, gate.asked, gate.blamed) == ("applied", 1, 0)
    assert [edit.what for edit in step.edits] == ["divided by 4"] * 3
    assert [skip.why for skip in step.skips] == ["there is none"]
    assert outcome.lossy
    assert outcome.gates[0].accepted
    assert outcome.gates[0].what == "at full strength"


def test_the_worst_place_is_relaxed_first_and_as_little_as_suffices() -> None:
    original = model()
    gate = Gate(original, 0.03)  # at full strength b alone costs 0.04, a and c 0.01
    outcome = PassManager(None, gate=gate).run(original, [Halve()])
    step = outcome.steps[0]
    assert step.status == "eased"
    assert {e.node: e.what for e in step.edits} == {
        "a": "divided by 4",
        "b": "divided by 2",
        "c": "divided by 4",
    }
    assert step.eased == "milder at 1 of 3 places"
    assert gate.blamed == 3
    assert gate.drop(outcome.model) <= 0.03


@dataclass(frozen=True)
class Finely(Halve):
    """Weights are divided by 4, or by hardly less in many levels, each of which saves as much."""

    saving: float = 1.0

    def propose(self, context: Context) -> Iterator[Choice | Skip]:
        for name in ("a", "b", "c"):
            for level in np.linspace(4.0, 1.5, 50):
                saving = self.saving * (100 + level)
                yield Choice(name, float(level), f"by {level:g}", loss=float(level), saving=saving)


@pytest.mark.parametrize(("saving", "fewer"), [(1.0, True), (0.0, False)])
def test_nobody_looks_for_what_would_save_hardly_more(saving: float, fewer: bool) -> None:
    original = model()
    gate = Gate(original, 0.03)
    outcome = PassManager(None, gate=gate).run(original, [Finely(saving=saving)])
    assert outcome.steps[-1].status == "eased"
    assert len(outcome.steps[-1].edits) == 3
    assert (gate.asked < 5) == fewer


def test_a_place_is_left_out_where_no_level_of_it_fits() -> None:
    original = model()
    outcome = PassManager(None, gate=Gate(original, 0.0101)).run(original, [Halve()])
    step = outcome.steps[0]
    assert step.eased == "without 1 of 3 places (b)"
    assert [entry.node for entry in step.taken_back] == ["b"]
    assert "alone it costs" in step.taken_back[0].what


def test_nothing_fits() -> None:
    original = model()
    gate = Gate(original, -1.0)
    outcome = PassManager(None, gate=gate).run(original, [Halve()])
    step = outcome.steps[0]
    assert step.status == "rolled back"
    assert outcome.model is original
    assert not outcome.lossy
    assert len(step.taken_back) == 3
    assert not any(entry.accepted for entry in outcome.gates)


def test_a_strength_is_eased_by_bisection() -> None:
    original = model()
    gate = Gate(original, 0.01)
    outcome = PassManager(None, gate=gate).run(original, [Shrink(0.9)])
    step = outcome.steps[0]
    assert step.status == "eased"
    assert step.eased.endswith("of its strength")
    assert gate.blamed == 0
    kept = gate.drop(outcome.model)
    assert kept <= 0.01
    assert kept == max(drop for drop in gate.drops if drop <= 0.01)
    assert min(drop for drop in gate.drops if drop > 0.01) < kept * 1.5  # close to the limit


def test_a_plain_lossy_pass_is_eased_edit_by_edit() -> None:
    original = model()
    gate = Gate(original, 0.01)
    outcome = PassManager(None, gate=gate).run(original, [DoubleProducts()])
    step = outcome.steps[0]
    assert step.status == "eased"
    assert len(step.edits) == 2
    assert gate.drop(outcome.model) == pytest.approx(WORTH["a"] + WORTH["c"])
    assert len(step.taken_back) == 1
    assert "doubled its weight" in step.taken_back[0].what


def test_without_a_gate_everything_is_kept() -> None:
    original = model()
    outcome = PassManager(None).run(original, [Halve()])
    assert outcome.steps[0].status == "applied"
    assert outcome.gates == []


def test_an_unsure_verdict_is_kept_unless_proof_is_asked_for() -> None:
    original = model()
    lenient = PassManager(None, gate=Gate(original, 0.06, unsure=True)).run(original, [Halve()])
    assert lenient.steps[0].status == "applied"
    strict = PassManager(None, gate=Gate(original, 0.06, unsure=True), strict=True)
    assert strict.run(original, [Halve()]).steps[0].status == "rolled back"


def test_losses_are_judged_against_the_original_so_they_cannot_creep() -> None:
    original = model()
    gate = Gate(original, 0.03)
    outcome = PassManager(None, gate=gate).run(original, [Halve(levels=1), Halve(levels=1)])
    assert gate.drop(outcome.model) <= 0.03
    assert outcome.steps[0].status == "eased"
    alone = Gate(outcome.model, 0.03)
    second = PassManager(None, gate=alone).run(outcome.model, [Halve(levels=1)])
    assert second.steps[0].edits, "judged against the first result it would have gone on"


def test_the_input_stays_as_it_is() -> None:
    original = model()
    before = original.to_bytes()
    PassManager(None, gate=Gate(original, 0.0101)).run(original, [Halve()])
    assert original.to_bytes() == before


def test_a_pass_that_raises_is_left_out() -> None:
    @dataclass(frozen=True)
    class Broken(Halve):
        name = "broken"

        def commit(self, chosen: Sequence[Choice], context: Context) -> Iterator[Edit | Skip]:
            raise ValueError("it is broken")
            yield

    original = model()
    outcome = PassManager(None, gate=Gate(original, 1.0)).run(original, [Broken(), Halve()])
    assert [step.status for step in outcome.steps] == ["failed", "applied"]
    assert outcome.steps[0].error == "ValueError: it is broken"


def order_of(predicted: Sequence[float], measured: Sequence[float]) -> list[str]:
    """Places of one level and the same saving, in the order in which they are left out."""
    names = "pqrs"[: len(predicted)]
    choices = [Choice(n, 1, n, loss, 1.0) for n, loss in zip(names, predicted, strict=True)]
    path = relaxations(choices, dict(zip(names, measured, strict=True)))
    kept = [set(names), *({choice.where for choice in chosen} for chosen in path)]
    return [(before - after).pop() for before, after in itertools.pairwise(kept)]


@pytest.mark.parametrize(
    ("predicted", "measured", "wanted"),
    [
        ([1, 1, 1], [3, 1, 2], "prq"),
        ([3, 1, 2], [1, 1, 1], "prq"),
        ([1, 4], [9, 1], "pq"),  # 9 and 4
        ([1, 16], [9, 1], "qp"),  # 9 and 16
        ([100, 1600], [9, 1], "qp"),  # the unit of what is predicted does not matter
        ([0, 0, 0], [3, 1, 2], "prq"),
        ([5, 1, 1], [0, 1, 2], "rqp"),
        ([1, 5, 1], [math.inf, 1, 2], "pqr"),
    ],
)
def test_what_is_measured_and_what_is_predicted_count_alike(
    predicted: Sequence[float], measured: Sequence[float], wanted: str
) -> None:
    assert "".join(order_of(predicted, measured)) == wanted


def test_what_nothing_is_predicted_of_stands_where_it_was_measured() -> None:
    """The unit in which the others are predicted is that of what was measured: 100 to 1."""
    assert "".join(order_of([100, 400, 0, 0], [1, 4, 2, 8])) == "sqrp"


def test_relaxations_go_from_everything_to_nothing() -> None:
    choices = [
        Choice("p", 8, "p8", 4.0, 30.0),
        Choice("p", 4, "p4", 1.0, 20.0),
        Choice("q", 8, "q8", 1.0, 30.0),
    ]
    path = list(relaxations(choices, {"p": 0.4, "q": 0.3}))
    shown = [[choice.what for choice in chosen] for chosen in path]
    assert shown == [["p4", "q8"], ["p4"], []]  # 0.03, 0.01 and 0.005 for each unit of saving
    assert (
        summary_of(choices, path[1])[0] == "without 1 of 2 places (q) and milder at 1 of 2 places"
    )
