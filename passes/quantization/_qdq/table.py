"""What there is to choose from, read off the profiles of several forms of a model.

A form has some units on integers. On floats a unit takes what it takes in the first form, where all are on
floats; on integers what it takes in the last form that has it there. What no node of the model asked for,
such as changes of layout, is shared out among the linear units on floats, by the elements that they compute.
What there is more of it beside integers is shared out among the borders between floats and integers, by what
it takes to quantize and to dequantize there.

Not foreseen are that a node which reads two activations from integers is unfused only once, and that a
product on integers hands them on to the next one for nothing. Choices are timed as a whole before they are
taken.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.surgery import users

from .choice import Problem, Tensor
from .insertion import Role
from .timing import Profile
from .units import Unit
from .variants import Key


@dataclass(frozen=True)
class Form:
    """A form of the model, with units on integers, and what it takes.

    Attributes:
        chosen: the units, by number.
        profile: its nodes.
        roles: what the inserted nodes are for, by number.
    """

    chosen: frozenset[int]
    profile: Profile
    roles: Mapping[int, Role]

    def pairs(self) -> dict[tuple[bool, str], float]:
        """Seconds of quantizing (True) and dequantizing (False), by the name of the activation."""
        found: dict[tuple[bool, str], float] = {}
        for uid, role in self.roles.items():
            seconds = self.profile.seconds.get(uid, 0.0)
            if seconds > 0:
                found[role] = found.get(role, 0.0) + seconds
        return found


@dataclass(frozen=True)
class Table:
    """Reads the times of forms as those of units and activations.

    Attributes:
        units: in order.
        forms: what was timed, first of all the model on floats; none where nothing was.
        elements: of activations, by name.
    """

    units: Sequence[Unit]
    forms: Sequence[Form]
    elements: Mapping[str, int]

    def problem(self, losses: Mapping[Key, float]) -> Problem:
        """What there is to choose."""
        floats = {unit.uid: self._seconds(unit, on_integers=False) for unit in self.units}
        integers = {unit.uid: self._seconds(unit, on_integers=True) for unit in self.units}
        total = self.forms[0].profile.total if self.forms else 1.0
        constants = {uid: loss for uid, loss in losses.items() if isinstance(uid, int)}
        return Problem(floats, integers, constants, self._tensors(losses), total)

    def _seconds(self, unit: Unit, on_integers: bool) -> float:
        """What a unit takes in one state."""
        if not self.forms:
            return 0.0
        if not on_integers:
            plain = self.forms[0].profile
            found = sum(plain.seconds.get(node.uid, 0.0) for node in unit.nodes)
            return found + plain.layout * self._part(unit)
        seen = [form for form in self.forms if unit.uid in form.chosen]
        if not seen:
            return math.inf
        form = seen[-1]
        found = sum(form.profile.seconds.get(node.uid, 0.0) for node in unit.nodes)
        if unit.kind == "movement":
            pairs = self._pairs(form)
            found += sum(pairs.get((way, unit.output.name), 0.0) for way in (True, False))
        return found

    def _pairs(self, form: Form) -> dict[tuple[bool, str], float]:
        """What quantizing and dequantizing take in a form, with the changes of layout around integers."""
        pairs = form.pairs()
        floats = [unit for unit in self.units if unit.uid not in form.chosen]
        usual = self.forms[0].profile.layout * sum(self._part(unit) for unit in floats)
        more, known = form.profile.layout - usual, sum(pairs.values())
        factor = 1.0 + more / known if more > 0 and known > 0 else 1.0
        return {role: factor * seconds for role, seconds in pairs.items()}

    def _part(self, unit: Unit) -> float:
        """The share of a unit in the changes of layout."""
        linear = [other for other in self.units if other.kind == "linear"]
        whole = sum(self.elements.get(other.output.name, 0) for other in linear)
        if unit.kind != "linear" or not whole:
            return 0.0
        return self.elements.get(unit.output.name, 0) / whole

    def _tensors(self, losses: Mapping[Key, float]) -> list[Tensor]:
        makers = {id(unit.output): unit for unit in self.units}
        readers: dict[int, tuple[gs.Tensor, list[int]]] = {}
        for unit in self.units:
            readers.setdefault(id(unit.output), (unit.output, []))
            for tensor in unit.inputs:
                readers.setdefault(id(tensor), (tensor, []))[1].append(unit.uid)
        rates = self._rates()
        return [
            self._tensor(tensor, makers.get(key), uids, rates, losses)
            for key, (tensor, uids) in readers.items()
        ]

    def _tensor(
        self,
        tensor: gs.Tensor,
        maker: Unit | None,
        readers: Sequence[int],
        rates: tuple[np.ndarray, np.ndarray],
        losses: Mapping[Key, float],
    ) -> Tensor:
        inner = {id(node) for unit in self.units for node in unit.nodes}
        quantize, dequantize = (float(a + b * self.elements.get(tensor.name, 0)) for a, b in rates)
        for form in self.forms:
            pairs = self._pairs(form)
            quantize = pairs.get((True, tensor.name), quantize)
            dequantize = pairs.get((False, tensor.name), dequantize)
        rounds = maker is not None and not maker.gives_floats
        others = [node for node in users(tensor) if id(node) not in inner]
        unfused = {}
        by_uid = {unit.uid: unit for unit in self.units}
        moved = maker is not None and maker.kind == "movement"
        for uid in readers if rounds else ():
            if by_uid[uid].kind != "linear":
                unfused[uid] = self._unfused([node.uid for node in by_uid[uid].nodes])
        return Tensor(
            tensor.name,
            maker.uid if rounds and maker is not None else None,
            tuple(readers),
            quantize,
            dequantize,
            bool(others) or bool(tensor.is_output),
            unfused,
            self._unfused([node.uid for node in others]) if rounds else 0.0,
            losses.get(tensor.name, 0.0),
            moved,
        )

    def _unfused(self, uids: Sequence[int]) -> float:
        """What nodes take more on floats beside linear units on integers than in the model on floats."""
        if len(self.forms) < 2:
            return 0.0
        plain, linear = self.forms[0].profile.seconds, self.forms[1].profile.seconds
        return sum(max(linear.get(uid, 0.0) - plain.get(uid, 0.0), 0.0) for uid in set(uids))

    def _rates(self) -> tuple[np.ndarray, np.ndarray]:
        """Seconds of quantizing and of dequantizing: for each call, and for each element of it."""
        found = []
        for way in (True, False):
            rows = [
                (self.elements[role[1]], seconds)
                for form in self.forms
                for role, seconds in self._pairs(form).items()
                if role[0] is way and role[1] in self.elements
            ]
            found.append(_line(rows))
        return found[0], found[1]


def _line(rows: Sequence[tuple[int, float]]) -> np.ndarray:
    """The line of least squares through the points, with no negative part."""
    if not rows:
        return np.zeros(2)
    x, y = np.array(rows, np.float64).T
    if len(set(x)) < 2:
        return np.array([0.0, float(y.sum() / max(x.sum(), 1.0))])
    slope, start = np.polyfit(x, y, 1)
    if slope < 0 or start < 0:
        return np.array([0.0, float(y.sum() / max(x.sum(), 1.0))])
    return np.array([start, slope])
