"""Compute on 8-bit integers where that is faster and harmless, by QuantizeLinear and DequantizeLinear.

    q = clip(round(x / s) + z),   x' = s (q - z)

A model in the QDQ form is a standard ONNX model: floats, rounded to a grid at both ends of each operator. A
runtime that has a kernel for the integers between two ends fuses them (see ``_qdq.targets``); where it has
none, the rounding costs time and gains nothing. So what runs on integers is chosen by measurement: of the
times that each operator takes on this machine, on floats and on integers, and of what rounding each
activation and each weight loses at the outputs (``_qdq.choice``: a minimum cut; ``_qdq.studying``). Milder
strengths pay less time for less loss. Weights that stay with floats are stored in 8 bits all the same, in the
form that runtimes fold when they load a model: see ``quantize-weights``. ``store_rest=false`` leaves them to
the passes behind, as to ``cluster-weights``.

Ranges come from the calibration data (``_qdq.calibration``); without any, from drawn inputs, brought to what
batch normalizations keep of their training (``_qdq.unseen``). The operator set is raised to 13 where it is
older, for scales per channel, and to 21 for activations of 16 bits.

Sources: Jacob et al., 2018; Wu et al., "Integer quantization for deep learning inference: principles and
empirical evaluation", 2020; QuantizeLinear and DequantizeLinear of the ONNX operator specification.

The bodies of If, Loop and Scan are part of the model: ranges are those of all runs of a body, times those of
the body in the model, and losses are seen at the model's outputs. What a body reads from outside is quantized
there, once, and dequantized inside.

Refuses: what the target has no integer kernel for; weights that are computed, are not float32, or hold NaN
or infinity; activations that the data makes NaN or infinite; what is quantized already; bodies that the data
never runs; in bodies, activations whose names other bodies share, and those that decide which body runs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from graphopt.ir.graph import Constant
from graphopt.ir.inference import infer
from graphopt.ir.opset_raising import raise_opset
from graphopt.lossy_pass import Choice, LossyPass
from graphopt.pass_base import Context, Edit, Finding, Remark, Skip

from ._qdq.calibration import Method
from ._qdq.insertion import Insertion
from ._qdq.notes import Telling
from ._qdq.study import Study
from ._qdq.studying import Studying
from ._qdq.targets import TARGETS, Activations, Target, TargetName, Weights
from ._qdq.units import Unit, find_units
from .quantize_weights import QuantizeWeights

Objective = Literal["latency", "size"]


@dataclass(frozen=True)
class OnIntegers(Choice):
    """A node that runs on integers."""


@dataclass(frozen=True)
class QuantizeQdq(LossyPass):
    """Operators run on 8-bit integers where that is measured to be faster."""

    name = "quantize-qdq"

    objective: Objective = field(default="latency", metadata={"help": "what is to be gained"})
    target: TargetName = field(default="ort-cpu", metadata={"help": "whose kernels are meant"})
    ranges: Method = field(
        default="auto", metadata={"help": "how ranges of activations are chosen"}
    )
    activations: Activations = field(
        default="auto", metadata={"help": "the type of activations; auto: as the target likes it"}
    )
    weights: Weights = field(
        default="auto", metadata={"help": "the type of weights; auto: int8, the fastest"}
    )
    per_channel: bool = field(
        default=True, metadata={"help": "whether each output channel of weights has a scale"}
    )
    reduce_range: bool = field(
        default=False, metadata={"help": "weights leave out a bit, for processors without VNNI"}
    )
    strength: float = field(
        default=1.0, metadata={"help": "1: the fastest choice; 0: nothing runs on integers"}
    )

    store_rest: bool = field(
        default=True,
        metadata={"help": "whether weights that stay with floats are stored in 8 bits"},
    )

    def __post_init__(self) -> None:
        """Refuse a strength that is no share.

        Raises:
            ValueError: so it is.
        """
        if not 0 <= self.strength <= 1:
            raise ValueError("strength is a share, from 0 to 1")

    @property
    def promises_speed(self) -> bool:
        """Whether the result shall be faster: where anything runs on integers on the machine at hand."""
        return self.objective == "latency" and self._kernels.timed and self.strength > 0

    def promises_of(self, chosen: Sequence[Choice]) -> bool:
        """Whether the result of a set of choices shall be faster: weights that are stored make nothing so."""
        return self.promises_speed and any(isinstance(entry, OnIntegers) for entry in chosen)

    def milder(self, strength: float) -> QuantizeQdq:
        """The same with a part of the strength."""
        return replace(self, strength=self.strength * strength)

    def unhurried(self) -> QuantizeQdq | None:
        """The same without the promise of speed: nothing runs on integers."""
        return replace(self, strength=0.0) if self.store_rest else None

    def propose(self, context: Context) -> Iterator[Choice | Skip]:
        """See the module's docstring."""
        study = self._study(context)
        yield from (Skip(label, why) for label, why in study.refused.items())
        if study.units and study.evidence.basis:
            yield Skip("the model", study.evidence.basis)
        chosen = study.path[round((1.0 - self.strength) * (len(study.path) - 1))]
        stored = {name for unit in study.units if unit.uid in chosen for name in _weights(unit)}
        for unit in study.units:
            if unit.uid in chosen:
                yield _on_integers(unit, study, 8 * self._kernels.activations.dtype.itemsize)
            elif unit.kind == "linear":
                yield Skip(unit.node.label, _reason(unit, study))
        for entry in self._storing(context).propose(context) if self.store_rest else ():
            if isinstance(entry, Skip):
                yield entry
            elif entry.where not in stored:
                yield entry if self.objective == "size" else replace(entry, saving=0.0)

    def commit(self, chosen: Sequence[Choice], context: Context) -> Iterator[Remark]:
        """See the module's docstring."""
        study, target = self._study(context), self._kernels
        wanted = {entry.where: entry for entry in chosen if isinstance(entry, OnIntegers)}
        rest = [entry for entry in chosen if not isinstance(entry, OnIntegers)]
        stored: dict[int, Finding] = {}
        for remark in self._storing(context).commit(rest, context):
            if isinstance(remark, Finding) and not isinstance(remark.node, str):
                stored[remark.node.uid] = remark
            else:
                yield remark
        weights: dict[str, tuple[Unit, Constant]] = {}
        if wanted:
            places = self._places(wanted, context)
            weights = {n: (u, u.node.inputs[u.weight]) for n, u in places.items() if _weights(u)}
            Insertion(context.model, target, study.scales, study.constants).quantize(
                list(places.values())
            )
            for name, unit in places.items():
                yield Edit(unit.node, wanted[name].what)
        telling = Telling(study, target, self.ranges, self.strength, frozenset(wanted), weights)
        yield from telling.findings(stored)

    def _places(self, wanted: Collection[str], context: Context) -> dict[str, Unit]:
        """The units that are to run on integers, by the name of what they give; the model raised for them."""
        model, target = context.model, self._kernels
        if model.opset < target.opset:
            raise_opset(model, target.opset)
        units, _ = find_units(model, infer(model.graph, model.functions), target)
        return {unit.output.name: unit for unit in units if unit.output.name in wanted}

    def _storing(self, context: Context) -> QuantizeWeights:
        seen = context.observe is not None
        return QuantizeWeights(bits=8, rounding="least-squares" if seen else "nearest")

    def _study(self, context: Context) -> Study:
        target = self._kernels
        key = (self.name, target, self.ranges)
        return context.once(key, lambda: Studying(context, target, self.ranges).study())

    @property
    def _kernels(self) -> Target:
        """What is aimed at, with the types asked for."""
        target = TARGETS[self.target]
        return target.of_types(self.activations, self.weights, self.reduce_range, self.per_channel)


def _weights(unit: Unit) -> list[str]:
    return [] if unit.weight is None else [unit.node.inputs[unit.weight].name]


def _on_integers(unit: Unit, study: Study, bits: int) -> OnIntegers:
    problem = study.problem
    losses = [tensor.loss for tensor in problem.tensors if tensor.name == unit.output.name]
    loss = problem.losses.get(unit.uid, 0.0) + sum(losses)
    before, after = problem.floats.get(unit.uid, 0.0), problem.integers.get(unit.uid, 0.0)
    what = f"{unit.node.op} on {bits}-bit integers"
    if problem.total and (before or after):
        what += f": {1e6 * before:.3g} µs before, {1e6 * after:.3g} µs after"
    saving = (before - after) / problem.total if problem.total else 0.0
    return OnIntegers(unit.output.name, float(bits), what, loss, saving)


def _reason(unit: Unit, study: Study) -> str:
    """Why a unit stays on floats."""
    if unit.uid not in study.path[0]:
        return "on integers it is not faster here"
    return "what rounding it loses is dear for the time that it saves"
