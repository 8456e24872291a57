"""How it is found out what there is to know of a model before it is quantized.

Three forms of the model are timed: on floats, with all that is multiplied on integers, and with all units on
integers. They give what each unit takes in each state, what it takes to quantize and to dequantize, and what
is fused into others only as long as these run on floats. The best choice by these is timed as well, and what
it says corrects the table, for as long as the choice changes (``REVISIONS``). Losses are measured of what the
fastest choice rounds, for a higher price of losses chooses only parts of it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from graphopt.errors import NativeError, OutputError, printable
from graphopt.ir.costs import known_macs
from graphopt.ir.frames import Frame, UnprovenError
from graphopt.ir.graph import Constant
from graphopt.ir.inference import Facts, infer
from graphopt.ir.model import Model
from graphopt.ir.nesting import nodes_within
from graphopt.ir.opset_raising import objection, raise_opset
from graphopt.ir.surgery import tidy
from graphopt.pass_base import Context, Observe

from .._output_gaps import output_gap
from .calibration import WHOLE, Histograms, Method, Way, histograms, scales_of
from .choice import Problem
from .clipping import RangeSearch
from .insertion import Insertion, Role, Scale
from .losses import measured_losses, samples_for
from .racing import Losses, Seconds, paying, thinned
from .settling import settled
from .study import Evidence, Study
from .table import Form, Table
from .targets import Target
from .timing import marked, read_profile
from .units import Unit, find_units, recurrent_layers
from .unseen import as_trained
from .variants import Key
from .weights import Rounded, fitted

REVISIONS = 4
"""Choices that are timed at most, to correct the table."""

TRIALS = 4
"""Ranges that an activation has tried, about."""

LEAST = 4
"""Samples of a half below which ranges are judged on the samples that they come from."""


@dataclass
class Studying:
    """Finds out what there is to know of one model.

    Args:
        context: of the pass; its model is not changed.
        target: whose kernels are meant.
        method: how ranges are chosen.
    """

    context: Context
    target: Target
    method: Method
    model: Model = field(init=False)
    seen: Model = field(init=False)
    trained: int = 0
    facts: Facts = field(init=False)
    refused: dict[str, str] = field(default_factory=dict)
    constants: dict[int, Rounded] = field(default_factory=dict)

    def study(self) -> Study:
        """All of it."""
        self.model = self.context.model.copy()
        why = self._raise()
        if why or self.context.observe is None:
            self.refused["the model"] = why or "there is no data to see ranges on"
            return Study([], {}, [frozenset()], Problem({}, {}, {}, [], 0.0), self.refused)
        self.facts = infer(self.model.graph, self.model.functions)
        units, refused = find_units(self.model, self.facts, self.target)
        self.refused.update(refused | recurrent_layers(self.model))
        if not units:
            self.refused["the model"] = "nothing in it could run on integers"
        source = self.context.observe.source()
        self.seen, self.trained = as_trained(self.model, source, self.context.observe)
        known = histograms(self.seen, units, self.context.observe)
        found = units
        units, scales = self._calibrated(units, known)
        forms = self._forms(units, scales)
        units = self._confirmed(units, forms)
        best = settled(self.model, units, self._fastest(units, scales, forms))
        chosen = [unit for unit in units if unit.uid in best]
        ways, losses = self._judged(chosen, known)
        losses |= self._rounded(chosen)
        scales, _ = scales_of(units, known, self.target, ways)
        problem = self._table(chosen, forms).problem(losses)
        cuts = (settled(self.model, chosen, part) for part in problem.path())
        path = sorted(dict.fromkeys([best, *cuts]), key=problem.loss, reverse=True)
        path, wholes = self._weighed(thinned(path, problem), problem, scales)
        seconds: Seconds = {}
        if forms and len(path) > 1:
            path, seconds = self._raced(path, wholes, scales)
        times = self._table(units, forms).problem({})
        evidence = Evidence(found, known, times, wholes, self._basis(source))
        return Study(units, scales, path, problem, self.refused, self.constants, seconds, evidence)

    def _basis(self, source: Model | None) -> str:
        """What ranges rest on where there is no data."""
        if source is None:
            return ""
        told = (
            f", brought to the moments that {self.trained} normalizations keep of their training"
            if self.trained
            else ""
        )
        return f"its ranges were estimated, not seen in data: those of drawn inputs{told}"

    def _raise(self) -> str:
        """Raise the operator set where it is too old; why that cannot be."""
        if self.model.opset >= self.target.opset:
            return ""
        why = objection(self.model, self.target.opset)
        if not why:
            raise_opset(self.model, self.target.opset)
        return why

    def _calibrated(
        self, units: Sequence[Unit], known: Histograms
    ) -> tuple[list[Unit], dict[str, Scale]]:
        """The units whose activations have grids."""
        scales, why = scales_of(units, known, self.target, dict.fromkeys(known, self._way()))
        found = []
        for unit in units:
            names = [t.name for t in (*unit.inputs, unit.output)]
            missing = next((name for name in names if name not in scales), None)
            if missing is None:
                found.append(unit)
            else:
                self.refused[unit.node.label] = f"{printable(missing)}: {why.get(missing, '')}"
        return found, scales

    def _way(self) -> Way:
        """How ranges are chosen before losses are known."""
        return WHOLE if self.method == "auto" else self.method

    def _judged(
        self, units: Sequence[Unit], known: Histograms
    ) -> tuple[dict[str, Way], dict[Key, float]]:
        """How the range of each activation is chosen, and what rounding it loses."""
        assert self.context.observe is not None
        observe, data = self.context.observe, self.context.data
        few = self._few(len(known) * TRIALS)
        facts = infer(self.seen.graph, self.seen.functions)
        search = RangeSearch(self.seen, facts, self.target, units, known, few)
        if self.method != "auto" or not units:
            return dict.fromkeys(known, self._way()), search.fixed(self._way()) if units else {}
        half = data.count("calibration") // 2 if data is not None else 0
        if half >= LEAST:
            search = replace(search, known=histograms(self.seen, units, observe.first(half)))
        return search.best()

    def _rounded(self, units: Sequence[Unit]) -> dict[Key, float]:
        """What rounding the constants of units loses, after they were fitted to the integers."""
        assert self.context.observe is not None
        self.constants = fitted(self.seen, units, self.target.weights, self.context.observe)
        facts, few = infer(self.seen.graph, self.seen.functions), self._few(len(units))
        return measured_losses(self.seen, facts, (), units, self.target, few, self.constants)

    def _few(self, roundings: int) -> Observe:
        """What sees the samples that losses of so many roundings are measured on."""
        assert self.context.observe is not None
        macs = known_macs(self.model, self.facts, bindings=self.context.sizes)
        return self.context.observe.first(samples_for(macs, roundings))

    def _forms(self, units: Sequence[Unit], scales: Mapping[str, Scale]) -> list[Form]:
        """The model on floats, with linear units and with all units on integers, timed."""
        measure = self.context.measure
        if measure is None or not self.target.timed or not units:
            return []
        linear = frozenset(unit.uid for unit in units if unit.kind == "linear")
        every = frozenset(unit.uid for unit in units)
        try:
            return self._timed(list(dict.fromkeys([frozenset(), linear, every])), scales)
        except (NativeError, OutputError) as error:
            self.refused["the model"] = f"its nodes cannot be timed: {error.what}"
            return []

    def _weighed(
        self, path: Sequence[frozenset[int]], problem: Problem, scales: Mapping[str, Scale]
    ) -> tuple[list[frozenset[int]], dict[frozenset[int], float]]:
        """The choices of a path in the order of what they really lose, all together, and how much that is.

        What roundings lose together is foreseen as the sum of what each loses alone. Where it cannot be
        measured, that stays the order.
        """
        few = self._few(4 * len(path)).fused()
        losses = dict.fromkeys(path, 0.0)
        for chosen in filter(None, path):
            model, _ = self.quantized(chosen, scales)
            losses[chosen] = output_gap(model, self.model, few)
        if not all(map(math.isfinite, losses.values())):
            losses = {chosen: problem.loss(chosen) for chosen in path}
        return sorted(path, key=lambda chosen: -losses[chosen]), losses

    def _raced(
        self, path: Sequence[frozenset[int]], losses: Losses, scales: Mapping[str, Scale]
    ) -> tuple[list[frozenset[int]], Seconds]:
        """The choices of a path that pay when whole models are timed side by side, and the times of all."""
        try:
            forms = self._timed(path, scales, anew=True)
        except (NativeError, OutputError) as error:
            self.refused["the model"] = f"its choices cannot be timed: {error.what}"
            return list(path), {}
        seconds = {form.chosen: form.profile.total for form in forms}
        return paying(path, seconds, losses), seconds

    def _timed(
        self,
        choices: Sequence[frozenset[int]],
        scales: Mapping[str, Scale],
        anew: bool = False,
    ) -> list[Form]:
        """The model with each of some sets of units on integers, timed side by side."""
        measure = self.context.measure
        assert measure is not None
        models, roles = [], []
        for chosen in choices:
            model, inserted = self.quantized(chosen, scales)
            models.append(marked(model))
            roles.append(inserted)
        profiles = [read_profile(found) for found in measure(models, anew)]
        return [Form(*found) for found in zip(choices, profiles, roles, strict=True)]

    def quantized(
        self, chosen: Collection[int], scales: Mapping[str, Scale]
    ) -> tuple[Model, dict[int, Role]]:
        """A copy of the model with some units on integers, and what was inserted for what."""
        model = self.model.copy()
        facts = infer(model.graph, model.functions)
        units, _ = find_units(model, facts, self.target)
        inserting = Insertion(model, self.target, scales, self.constants)
        inserting.quantize([unit for unit in units if unit.uid in chosen])
        for scope in model.scopes():
            tidy(scope)
        return model, inserting.roles

    def _confirmed(self, units: Sequence[Unit], forms: Sequence[Form]) -> list[Unit]:
        """The units that ONNX Runtime really runs on integers."""
        found = []
        for unit in units:
            seen = [form.profile for form in forms if unit.uid in form.chosen]
            if unit.kind != "movement" and seen and not any(p.integer(unit.uid) for p in seen):
                self.refused[unit.node.label] = "the runtime has no integer kernel for it here"
            else:
                found.append(unit)
        return found

    def _fastest(
        self, units: Sequence[Unit], scales: Mapping[str, Scale], forms: list[Form]
    ) -> frozenset[int]:
        """The fastest choice: of those that were timed, where any is; these join the forms."""
        best = self._table(units, forms).problem({}).choose(0.0)
        if not forms:
            return best
        for _ in range(REVISIONS):
            if any(form.chosen == best for form in forms):
                break
            choices = dict.fromkeys([*(form.chosen for form in forms), best])
            forms[:] = self._timed(list(choices), scales, anew=True)
            best = self._table(units, forms).problem({}).choose(0.0)
        known = {unit.uid for unit in units}
        usable = [form for form in forms if form.chosen <= known]
        return min(usable, key=lambda form: form.profile.total).chosen

    def _table(self, units: Sequence[Unit], forms: Sequence[Form]) -> Table:
        return Table(units, forms, self._elements())

    def _elements(self) -> dict[str, int]:
        """Elements of activations, by name, as far as they are proven."""
        frame = Frame.of(self.model, self.facts, self.context.sizes)
        found = {}
        for node in nodes_within(self.model.graph):
            for tensor in (*node.inputs, *node.outputs):
                if tensor.name and not isinstance(tensor, Constant) and tensor.name not in found:
                    try:
                        found[tensor.name] = math.prod(frame.shape(tensor))
                    except UnprovenError:
                        continue
        return found
