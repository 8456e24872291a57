"""Comparing two models: interface, structure, weights, numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from graphopt.assessment import Assessment, Data, Running, open_data
from graphopt.description import tensor_info, verdict_info
from graphopt.errors import UsageError
from graphopt.ir.costs import count_nodes
from graphopt.ir.graph import Constant
from graphopt.ir.model import Model
from graphopt.numerics.tolerance import compare as compare_arrays
from graphopt.outcome import Listener, gate_info
from graphopt.quality.data import first_feeds
from graphopt.quality.equivalence import Equivalence, Verdict
from graphopt.quality.gate import Budget
from graphopt.report import GateInfo, MeasureInfo, TensorInfo, VerdictInfo
from graphopt.request import running_native


@dataclass(frozen=True)
class Comparison:
    """How two models differ.

    Attributes:
        interface: differences of inputs and outputs, in words; empty where they are the same.
        nodes: the number of nodes of both, Constant nodes not counted.
        weight_bytes: bytes of the constants of both.
        operators: operators whose number differs, with both numbers.
        removed: names of nodes that only the first has.
        added: names of nodes that only the second has.
        weights_equal: constants of one name with equal contents.
        weights_changed: the largest absolute difference by name, -1 where type or shape differ.
        weights_removed: names of constants that only the first has.
        weights_added: names of constants that only the second has.
        numbers: whether the outputs are equal.
        gate: what the second loses against the budget; None where no budget or metric was given.
        measures: metrics of both, by output; none without data to measure on.
    """

    interface: list[str]
    nodes: tuple[int, int]
    weight_bytes: tuple[int, int]
    operators: dict[str, tuple[int, int]]
    removed: list[str]
    added: list[str]
    weights_equal: int
    weights_changed: dict[str, float]
    weights_removed: list[str]
    weights_added: list[str]
    numbers: VerdictInfo
    gate: GateInfo | None = None
    measures: list[MeasureInfo] = field(default_factory=list)

    @property
    def same(self) -> bool:
        """Whether the second may stand in for the first: equal, or proven to keep to the budget."""
        if self.gate is not None:
            return not self.interface and self.gate.verdict == "pass"
        return not self.interface and self.numbers.verdict == "equal"


def compare(
    first: Model,
    second: Model,
    data: Data | None = None,
    *,
    labels: str | None = None,
    metric: str | None = None,
    budget: Budget | None = None,
    running: Running | None = None,
    listener: Listener = lambda progress: None,
) -> Comparison:
    """Compare two models.

    Args:
        first: the model to compare with.
        second: the other.
        data: inputs in any form that ``optimize`` takes; drawn at random where this is None.
        labels: the key of the labels.
        metric: what is lost is measured in; chosen from the data by default.
        budget: what the second may lose; with it or a metric, the gate judges instead of equality.
        running: provider, threads and time.
        listener: told where the work stands.

    Raises:
        UsageError: the data or the metric does not fit, or there is a budget and no data.
        ModelError: the first model does not run on the data.
    """
    how = running or Running()
    interface = _interface(first, second)
    gate, measures = None, []
    dataset = None
    if data is not None:
        dataset = open_data(data, first, labels=labels, calibrates=False)
    elif metric is not None or budget is not None:
        raise UsageError("a budget needs data to judge with", "Give some with --data")
    verdict = Verdict(False, interface[0] if interface else "")
    if not interface:
        with running_native(how, first.weight_bytes() + second.weight_bytes()) as native:
            feeds = first_feeds(dataset) if dataset is not None else []
            judge = Equivalence(first, native, feeds, provider=how.provider)
            verdict = judge.judge(second)
            if dataset is not None and (metric is not None or budget is not None):
                limits = budget or Budget()
                assessment = Assessment(first, native, dataset, metric, limits, how, listener)
                found = assessment.final(second)
                gate = gate_info(found, "", "the second model", found.tolerable)
                measures = assessment.measures(second)
                assessment.close()
    ops = [Counter(n.op for n in m.nodes() if n.op != "Constant") for m in (first, second)]
    names = [{n.name for n in m.nodes() if n.name and n.op != "Constant"} for m in (first, second)]
    weights = [{c.name: c for c in m.constants() if c.name} for m in (first, second)]
    shared = weights[0].keys() & weights[1].keys()
    gaps = {name: _gap(weights[0][name], weights[1][name]) for name in sorted(shared)}
    return Comparison(
        interface,
        (count_nodes(first.scopes()), count_nodes(second.scopes())),
        (first.weight_bytes(), second.weight_bytes()),
        {
            op: (ops[0][op], ops[1][op])
            for op in sorted(ops[0] | ops[1])
            if ops[0][op] != ops[1][op]
        },
        sorted(names[0] - names[1]),
        sorted(names[1] - names[0]),
        sum(gap == 0 for gap in gaps.values()),
        {name: gap for name, gap in gaps.items() if gap != 0},
        sorted(weights[0].keys() - shared),
        sorted(weights[1].keys() - shared),
        verdict_info(verdict),
        gate,
        measures,
    )


def _gap(first: Constant, second: Constant) -> float:
    if first.dtype != second.dtype or tuple(first.shape) != tuple(second.shape):
        return -1.0
    if first.dtype == object or np.array_equal(first.values, second.values):
        return 0.0 if np.array_equal(first.values, second.values) else -1.0
    return compare_arrays(first.values, second.values).largest or -1.0


def _interface(first: Model, second: Model) -> list[str]:
    """Differences of names, order and element types; a dimension may be declared otherwise."""
    found = []
    for what in ("inputs", "outputs"):
        infos = [[tensor_info(t) for t in getattr(m.graph, what)] for m in (first, second)]
        shown = [[_shown(info) for info in side] for side in infos]
        if shown[0] != shown[1]:
            found.append(f"{what}: {', '.join(shown[0])} became {', '.join(shown[1])}")
    return found


def _shown(info: TensorInfo) -> str:
    return f"{info.dtype} {info.name}"
