"""Activations without data: those of drawn inputs, brought to the moments that training left behind.

A BatchNormalization tells the mean and the deviation of each channel of what it gave in training
(``graphopt.ir.normalized``). Folding takes it into a layer, which then gives the same. There the channels of
what drawn inputs give are scaled and shifted to these moments, in a copy of the model that is only
observed:

    t = a t' + b,    a = deviation / std(t'),    b = mean - a E t'

What lies behind then sees what it saw in training, as far as two moments go, so that ranges, losses and
moments of layers are taken from it. All places are corrected at once, round after round, since a correction
moves what later ones see. Source: Nagel et al., 2019, where ranges are beta +- 6 gamma; here the shape of the
distribution is that of the inputs, and sums and gates need no rules of their own.

A tensor takes part where it still holds what the normalization gave: on drawn inputs its moments are those of
the model as it was read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graphopt.ir.graph import Constant
from graphopt.ir.inference import infer
from graphopt.ir.model import Model
from graphopt.ir.normalized import ChannelMoments, normalized_moments
from graphopt.ir.surgery import insert, new_constant, new_tensor, producer, tidy
from graphopt.numerics.streaming import Moments, MomentsSpec
from graphopt.pass_base import Observe
from graphopt.runtime.observing import Request

SAMPLES = 64
"""Drawn inputs that moments are taken from."""

ROUNDS = 12
"""In which corrections follow each other at most."""

NEAR = 0.05
"""How far moments may be off, as a share of the deviation, to count as reached."""

MOST = 16.0
"""The largest factor: what hardly moves on drawn inputs is noise."""

SMALLEST = 1e-6
"""A deviation below which a channel counts as constant."""

SAME = 1e-2
"""The share of the deviation by which moments of two models may differ that compute the same."""


def as_trained(model: Model, source: Model | None, observe: Observe) -> tuple[Model, int]:
    """A copy of a model whose activations on drawn inputs have the moments that training left behind.

    Args:
        model: to be observed; not changed.
        source: the model as it was read; None where activations are those of data.
        observe: on drawn inputs.

    Returns:
        The copy, and how many of its tensors were brought to their moments; the model itself where none was.
    """
    told = {} if source is None else normalized_moments(source)
    few = observe.first(SAMPLES)
    if source is not None:
        told = _unchanged(model, source, told, few)
    if not told:
        return model, 0
    copy, places = _corrected(model, told)
    for _ in range(min(ROUNDS, len(places))):
        seen = _seen(copy, [place.raw for place in places.values()], few)
        gaps = [
            place.correct(told[name], seen[place.raw])
            for name, place in places.items()
            if place.raw in seen
        ]
        if max(gaps, default=0.0) <= NEAR:
            break
    return copy, len(told)


@dataclass
class _Place:
    """A tensor that is corrected.

    Attributes:
        raw: the name of what is corrected.
        factor: for each channel.
        shift: added for each channel.
    """

    raw: str
    factor: Constant
    shift: Constant

    def correct(self, wanted: ChannelMoments, seen: Moments) -> float:
        """Bring it to its moments; by how much these were missed, as a share of the deviation."""
        shape = self.factor.values.shape
        deviation = np.sqrt(np.maximum(seen.variance, 0.0))
        factor = wanted.deviation / np.maximum(deviation, SMALLEST)
        factor = np.where(deviation > SMALLEST, np.minimum(factor, MOST), 1.0)
        shift = wanted.mean - factor * seen.mean
        before = self.factor.values.reshape(-1).astype(np.float64)
        moved = np.abs(factor - before) * deviation
        moved += np.abs(before * seen.mean + self.shift.values.reshape(-1) - wanted.mean)
        self.factor.values = factor.astype(np.float32).reshape(shape)
        self.shift.values = shift.astype(np.float32).reshape(shape)
        return float(np.max(moved / np.maximum(wanted.deviation, SMALLEST), initial=0.0))


def _unchanged(
    model: Model, source: Model, told: Mapping[str, ChannelMoments], observe: Observe
) -> dict[str, ChannelMoments]:
    """By name the moments of tensors in which a model still holds what a normalization gave."""
    facts = infer(model.graph, model.functions)
    made = {t.name for node in model.graph.nodes for t in node.outputs if facts.rank(t)}
    places = {name: [n for n in (name, told[name].source) if n in made] for name in told}
    asked = sorted({name for candidates in places.values() for name in candidates})
    if not asked:
        return {}
    ours, theirs = _seen(model, asked, observe), _seen(source, sorted(told), observe)
    found: dict[str, ChannelMoments] = {}
    for name, candidates in places.items():
        same = (
            n for n in candidates if n in ours and name in theirs and _same(ours[n], theirs[name])
        )
        held = next(same, None)
        if held is not None and theirs[name].mean.shape == told[name].mean.shape:
            found[held] = told[name]
    return found


def _same(one: Moments, two: Moments) -> bool:
    """Whether two tensors have the same moments on the same inputs."""
    if one.mean.shape != two.mean.shape:
        return False
    first, second = (np.sqrt(np.maximum(entry.variance, 0.0)) for entry in (one, two))
    allowed = SAME * second + SMALLEST
    return bool(
        (np.abs(one.mean - two.mean) <= allowed).all() and (np.abs(first - second) <= allowed).all()
    )


def _seen(model: Model, names: Sequence[str], observe: Observe) -> dict[str, Moments]:
    """The moments of each channel on drawn inputs, as far as they are finite."""
    asked = {name: Request(name, MomentsSpec(axis=1)) for name in names}
    answers = observe(model, list(asked.values()))
    found = {name: answers[request].value for name, request in asked.items()}
    return {
        name: value
        for name, value in found.items()
        if value is not None and np.isfinite(value.mean).all() and np.isfinite(value.variance).all()
    }


def _corrected(model: Model, told: Mapping[str, ChannelMoments]) -> tuple[Model, dict[str, _Place]]:
    """A copy with a factor and a shift for each channel of some tensors, at first 1 and 0."""
    copy = model.copy()
    facts = infer(copy.graph, copy.functions)
    tensors = {t.name: t for node in copy.graph.nodes for t in node.outputs if t.name in told}
    places: dict[str, _Place] = {}
    for name, tensor in tensors.items():
        made, rank = producer(tensor), facts.rank(tensor)
        assert made is not None and rank is not None
        raw, scaled = (new_tensor(copy.graph, f"{name}/{part}") for part in ("drawn", "scaled"))
        made.outputs = [raw if output is tensor else output for output in made.outputs]
        ones = np.ones((told[name].mean.size, *[1] * (rank - 2)), np.float32)
        factor, shift = (
            new_constant(copy.graph, f"{name}/by", values) for values in (ones, 0 * ones)
        )
        insert(made, "Mul", [raw, factor], [scaled]).order += 0.3
        insert(made, "Add", [scaled, shift], [tensor]).order += 0.4
        places[name] = _Place(raw.name, factor, shift)
    tidy(copy.graph)
    return copy, places
