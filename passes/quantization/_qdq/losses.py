"""What rounding one activation, or the constants of one unit, does to the outputs of the model.

    loss = mean over outputs of  E (y' - y)^2 / Var y        y': with that one thing rounded, y: without

It is measured: see ``variants``. What several roundings do together is foreseen as the sum, as of independent
noise, until the choices that this leads to are measured as wholes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from graphopt.errors import NativeError
from graphopt.ir.graph import Constant, Node
from graphopt.ir.inference import Facts
from graphopt.ir.model import Model
from graphopt.ir.surgery import producer, tidy
from graphopt.numerics.streaming import Moments, MomentsSpec
from graphopt.pass_base import Observe
from graphopt.runtime.observing import Request

from .targets import Target
from .units import Unit
from .variants import Key, Rounding, Variants
from .weights import Rounded

SATURATING = ("Softmax", "LogSoftmax", "Sigmoid")
"""Operators before which outputs are compared."""

PASSED = ("Identity", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Flatten")
"""Operators that may stand between these and an output."""

SAMPLES, FEWEST = 16, 4
"""Samples that a loss is measured on: most, and least."""

PRODUCTS = 4e12
"""Multiply-accumulates that the losses of a model may take, a minute or two of one core: a large
one is measured on fewer samples."""


def samples_for(macs: int, roundings: int) -> int:
    """How many samples losses are measured on: fewer where a model is large and much is rounded.

    A rounding takes half of a run: what lies behind it is computed once more.

    Args:
        macs: multiply-accumulates of one run on one sample.
        roundings: of the model.
    """
    runs = PRODUCTS / max(macs * roundings / 2, 1)
    return int(min(max(runs, FEWEST), SAMPLES))


def measured_losses(
    model: Model,
    facts: Facts,
    activations: Sequence[Rounding],
    units: Sequence[Unit],
    target: Target,
    observe: Observe,
    constants: Mapping[int, Rounded],
) -> dict[Key, float]:
    """The loss of each of some roundings.

    Args:
        model: not changed.
        facts: what is proven of its tensors.
        activations: to be rounded, one at a time.
        units: of the model, whose constants are to be rounded, one unit at a time.
        target: whose grids they are.
        observe: gives statistics of tensors, on as many samples as there are to be.
        constants: weights as integers, by the number of the unit; others are rounded to the nearest.

    Returns:
        By the key of an activation, or the number of a unit; infinite for what cannot be measured.
    """
    outputs = compared(model, facts)
    losses: dict[Key, float] = {}
    for variants in _chunks(model, activations, units, target, outputs, constants):
        losses.update(_losses(variants, observe.fused()))
    return losses


def compared(model: Model, facts: Facts) -> list[str]:
    """The tensors, by name, at which losses are measured: the outputs that hold floats.

    What Softmax and Sigmoid compute is compared at what they read: near the border between two classes they
    turn little into all or nothing.
    """
    found: list[str] = []
    for output in model.graph.outputs:
        dtype, tensor = facts.dtype(output), output
        if producer(output) is None or dtype is None or dtype.kind != "f":
            continue
        while (node := producer(tensor)) is not None and node.standard and node.op in PASSED:
            tensor = node.inputs[0]
        saturates = node is not None and node.standard and node.op in SATURATING
        tensor = node.inputs[0] if node is not None and saturates else output
        if not isinstance(tensor, Constant) and tensor.name not in found:
            found.append(tensor.name)
    return found


def _chunks(
    model: Model,
    activations: Sequence[Rounding],
    units: Sequence[Unit],
    target: Target,
    outputs: Sequence[str],
    constants: Mapping[int, Rounded],
) -> Iterator[Variants]:
    """Models with as many roundings each as there is room for."""
    current: Variants | None = None
    every: list[Rounding | Unit] = [*activations, *filter(_has_constants, units)]
    for wanted in every:
        if current is not None and current.full:
            yield current
            current = None
        if current is None:
            current = Variants(model.copy(), target, outputs, constants)
        if isinstance(wanted, Rounding):
            current.add_activation(wanted)
        else:
            current.add_constants(_twin(wanted, current.nodes[wanted.uid]))
    if current is not None:
        yield current


def _twin(unit: Unit, node: Node) -> Unit:
    """A unit of another copy of the model."""
    return Unit(node, unit.kind, unit.reads, unit.weight, unit.bias, per_channel=unit.per_channel)


def _has_constants(unit: Unit) -> bool:
    if unit.kind == "movement":
        return False
    return any(isinstance(tensor, Constant) for tensor in unit.node.inputs)


def _losses(variants: Variants, observe: Observe) -> dict[Key, float]:
    for scope in variants.model.scopes():
        tidy(scope)
    whole = {name: Request(name, MomentsSpec()) for name in variants.outputs}
    gaps = {
        key: {name: Request(gap, MomentsSpec()) for name, gap in pairs.items()}
        for key, pairs in variants.differences.items()
    }
    asked = [*whole.values(), *(request for pairs in gaps.values() for request in pairs.values())]
    try:
        answers = observe(variants.model, asked)
    except NativeError:
        return dict.fromkeys(gaps, math.inf)
    powers = {name: answers[request].value for name, request in whole.items()}
    seen = {name: value for name, value in powers.items() if value is not None}
    spreads = {name: float(value.variance) for name, value in seen.items()}
    found: dict[Key, float] = dict.fromkeys(variants.unknown, math.inf)
    for key, pairs in gaps.items():
        values = {name: answers[request].value for name, request in pairs.items()}
        errors = {n: _mean_square(v, seen[n]) for n, v in values.items() if n in seen}
        found[key] = _mean(errors, spreads)
    return found


def _mean_square(sums: Moments | None, whole: Moments) -> float:
    """The mean square of a difference: of its sums in each run; not a number where one is none."""
    if sums is None or sums.rejected or not whole.count:
        return math.nan
    return float(sums.mean * sums.count / whole.count)


def _mean(errors: Mapping[str, float], spreads: Mapping[str, float]) -> float:
    """The mean over the outputs of the error's share of the spread; 0 where one does not depend on it."""
    shares = []
    for name, spread in spreads.items():
        error = errors.get(name, 0.0)
        shares.append(error / spread if spread > 0 else (math.inf if error else 0.0))
    found = sum(shares) / len(shares) if shares else 0.0
    return found if math.isfinite(found) else math.inf
