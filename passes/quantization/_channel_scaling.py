"""Scaling the channels of tensors that layers read, where rounding then loses less.

    y = W x = (W diag(s)) (x / s)

s is a power of two for each channel: the floats keep their digits, and the model gives the same bits. Which
s, ``numerics.channel_scaling`` foresees from the ranges and second moments of the channels on the data and
from the weights. Whether it helps is then measured, too (``_rounding_trials``): x is scaled only where
rounding it and the weights to 8 bits loses half of what it lost before, or less.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from graphopt.errors import NativeError
from graphopt.ir.surgery import Scope
from graphopt.numerics.channel_scaling import (
    ALPHAS,
    EVEN,
    Channels,
    best_exponents,
    exponents_of,
    largest_weights,
)
from graphopt.numerics.streaming import MomentsSpec, RangeSpec
from graphopt.pass_base import Context, Edit, Skip, is_main
from graphopt.runtime.observing import Request

from ._channel_division import multiplied_inputs
from ._channel_places import LAYERS, Place, apply, importance_of, place_of
from ._rounding_trials import OPSET, Trial, measured_losses

CLEARLY = 0.5
"""Of the loss of a place, what may be left at most: three decibels less. Smaller gains hardly show in what a
model gives, and what is gained at one place moves a little with the scales of the next."""

Accepts = Callable[[Place], str]
"""Why a place is none for a pass; empty where it is one."""


def scaled(
    graph: Scope,
    context: Context,
    accepts: Accepts,
    readers: Sequence[str] = LAYERS,
    alphas: Sequence[float] = ALPHAS,
    measured: bool = True,
) -> Iterator[Edit | Skip]:
    """Scale the channels of all tensors where that helps.

    Args:
        graph: the scope; only the main graph is observed.
        context: what is known.
        accepts: which places are meant.
        readers: the operators of the layers that are meant.
        alphas: how much of the spread may go to the weights; see ``numerics.channel_scaling``.
        measured: whether a place is scaled only where that is measured to help. Otherwise the weights alone
            say by how much, and each is scaled.
    """
    if not is_main(graph, context):
        return
    places: list[Place] = []
    for node in context.nodes(graph):
        found = place_of(node, context, readers)
        why = accepts(found) if isinstance(found, Place) else found
        if why:
            yield Skip(node, why)
        elif isinstance(found, Place):
            places.append(found)
    if not places:
        return
    if measured and context.observe is None:
        yield Skip("the model", "nothing was observed, so nothing is known of its channels")
        return
    if measured and int(context.model.opset) < OPSET:
        yield Skip("the model", f"what rounding loses is measured from opset {OPSET} on")
        return
    plans = list(_measured(places, alphas, context)) if measured else []
    for number, place in enumerate(places):
        again = place_of(place.node, context, readers)  # its weights may have been scaled meanwhile
        if not isinstance(again, Place):
            yield Skip(place.node, again or "nothing reads it any more")
            continue
        plan = plans[number] if measured else _by_weights(again, alphas)
        why = plan if isinstance(plan, str) else apply(again, plan.exponents)
        yield (
            Edit(place.node, plan.what)
            if isinstance(plan, _Plan) and not why
            else Skip(place.node, why)
        )


@dataclass(frozen=True)
class _Plan:
    """How the channels of a place are scaled: by ``2^-exponents``, and the reason in words."""

    exponents: np.ndarray
    what: str


def _by_weights(place: Place, alphas: Sequence[float]) -> _Plan | str:
    """Factors by the weights on both sides alone."""
    alpha = EVEN if len(alphas) > 1 else alphas[0]
    exponents = exponents_of(place.division.reach, largest_weights(place.products()), alpha)
    if not exponents.any():
        return "its channels and the weights that read them spread alike"
    return _Plan(exponents, f"{_counted(exponents)} of its channels were scaled by weights")


def _measured(
    places: Sequence[Place], alphas: Sequence[float], context: Context
) -> Iterator[_Plan | str]:
    """Factors that are foreseen to lose least, where they are measured to."""
    assert context.observe is not None
    known = channels_of([(place.tensor.name, place.axis) for place in places], context)
    importance = importance_of(places)
    chosen: dict[int, tuple[Channels, np.ndarray]] = {}
    for number, (place, channels) in enumerate(zip(places, known, strict=True)):
        if isinstance(channels, Channels):
            exponents = best_exponents(channels, place.products(importance), alphas)
            if exponents.any():
                chosen[number] = channels, exponents
    trials = []
    for number, found in chosen.items():
        place = places[number]
        counts = tuple(importance.get(layer.node.uid) for layer in place.readers)
        trials += [_plain(place, found[0], counts), _tried(place, *found, counts)]
    losses = measured_losses(context.model, trials, context.observe)
    pairs = dict(zip(chosen, zip(losses[::2], losses[1::2], strict=True), strict=True))
    for number, channels in enumerate(known):
        if isinstance(channels, str):
            yield channels
        elif number not in pairs:
            yield "no factors of its channels are foreseen to lose less"
        else:
            yield _judged(chosen[number][1], *pairs[number])


def _judged(exponents: np.ndarray, before: float, after: float) -> _Plan | str:
    why = gain_objection(before, after, "with its channels scaled")
    told = f"{comparison(before, after)} since {_counted(exponents)} of its channels were scaled"
    return why or _Plan(exponents, told)


def gain_objection(before: float, after: float, how: str) -> str:
    """Why a place stays as it is, given what it loses before and after; empty where the gain is clear.

    Args:
        before: what rounding loses now, as a share.
        after: what it would lose.
        how: what would be done, in words.
    """
    if not (math.isfinite(before) and math.isfinite(after)):
        return "what rounding it loses cannot be measured"
    return "" if after <= CLEARLY * before else f"{comparison(before, after)} {how}"


def comparison(before: float, after: float) -> str:
    """Two losses in words."""
    return f"rounding it loses {share(before)} of what its readers give, and {share(after)}"


def share(part: float) -> str:
    """A share of power in words."""
    return f"{100 * part:.3g} %"


def _counted(exponents: np.ndarray) -> str:
    return f"{np.count_nonzero(exponents)} of {exponents.size}"


def channels_of(tensors: Sequence[tuple[str, int]], context: Context) -> list[Channels | str]:
    """What the data gives on the channels of tensors, or why that is not known.

    Args:
        tensors: names of tensors of the model, with the axis of their channels.
        context: observes.
    """
    assert context.observe is not None
    asked = [(Request(n, RangeSpec(axis)), Request(n, MomentsSpec(axis))) for n, axis in tensors]
    try:
        answers = context.observe(context.model, [request for pair in asked for request in pair])
    except NativeError as error:
        return [str(error)] * len(asked)
    found: list[Channels | str] = []
    for wide, moments in asked:
        ends, sums = answers[wide].value, answers[moments].value
        if ends is None or sums is None:
            found.append(answers[wide].why or answers[moments].why)
        elif ends.rejected.any() or not ends.count.all():
            found.append("the data makes it NaN or infinite, or it is empty")
        else:
            found.append(Channels(ends.minimum, ends.maximum, sums.second))
    return found


def _plain(place: Place, channels: Channels, importance: tuple[np.ndarray | None, ...]) -> Trial:
    nodes = tuple(layer.node for layer in place.readers)
    weights = tuple(layer.weight.values for layer in place.readers)
    return Trial(nodes, place.axis, None, weights, channels.ends, importance)


def _tried(
    place: Place,
    channels: Channels,
    exponents: np.ndarray,
    importance: tuple[np.ndarray | None, ...],
) -> Trial:
    nodes = tuple(layer.node for layer in place.readers)
    factors = np.ldexp(1.0, exponents)
    weights = tuple(
        multiplied_inputs(layer).scaled(factors).astype(np.float32) for layer in place.readers
    )
    ends = channels.divided(exponents).ends
    return Trial(nodes, place.axis, 1.0 / factors, weights, ends, importance)
