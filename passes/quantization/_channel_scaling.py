"""Scaling the channels of tensors that layers read, where rounding then loses less.

    y = W x = (W diag(s)) (x / s)

The division goes to what makes x (``_channel_division``), the product to the weights of all layers that read
it, and s is a power of two for each channel: the floats keep their digits, and the model gives the same bits.
Which s, ``numerics.channel_scaling`` foresees from the ranges and second moments of the channels on the data
and from the weights. Whether it helps is then measured, too (``_rounding_trials``): x is scaled only where
rounding it and the weights to 8 bits loses half of what it lost before, or less.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.errors import NativeError
from graphopt.ir.graph import Node
from graphopt.ir.surgery import Scope, discard, new_constant
from graphopt.numerics.channel_scaling import (
    ALPHAS,
    EVEN,
    Channels,
    Product,
    best_exponents,
    exponents_of,
    largest_weights,
)
from graphopt.numerics.streaming import MomentsSpec, RangeSpec
from graphopt.pass_base import Context, Edit, Skip, is_main
from graphopt.runtime.observing import Request

from ..folding._absorption import layers_after
from ..folding._folded_constants import owned
from ..folding._linear_layers import CONVOLUTIONS, PRODUCTS, LinearLayer
from ._channel_division import Division, Replacement, division, from_the_end, multiplied_inputs
from ._rounding_trials import OPSET, Trial, measured_losses

CLEARLY = 0.5
"""Of the loss of a place, what may be left at most: three decibels less. Smaller gains hardly show in what a
model gives, and what is gained at one place moves a little with the scales of the next."""

LAYERS = (*CONVOLUTIONS, *PRODUCTS)


Importance = Mapping[int, np.ndarray]
"""By what the squared errors of a layer's outputs count, by the number of the layer."""


@dataclass(frozen=True, eq=False)
class Place:
    """A tensor that only layers read, and what takes up a division of it.

    Attributes:
        node: that gives the tensor.
        axis: of its channels, from the end.
        readers: the layers.
        division: what takes up a division.
    """

    node: Node
    axis: int
    readers: tuple[LinearLayer, ...]
    division: Division

    @property
    def tensor(self) -> gs.Tensor:
        """The tensor."""
        return self.node.outputs[0]

    def products(self, importance: Importance | None = None) -> list[Product]:
        """What it is multiplied with; outputs count by their importance, or alike."""
        found = []
        for layer in self.readers:
            view, own = layer.view, (importance or {}).get(layer.node.uid)
            if own is not None:
                view = view * np.sqrt(own).reshape(*view.shape[:2], 1, 1)
            found.append(Product.of(view))
        return found

    @property
    def replacements(self) -> tuple[Replacement, ...]:
        """The constants that change."""
        return (*self.division.parts, *(multiplied_inputs(layer) for layer in self.readers))


Accepts = Callable[[Place], str]
"""Why a place is none for a pass; empty where it is one."""


def place_of(node: Node, context: Context, readers: Sequence[str] = LAYERS) -> Place | str | None:
    """The place of what a node gives, why it cannot be scaled, or None where no layer reads it.

    Args:
        node: of the main graph.
        context: what is known.
        readers: the operators of layers that are meant.
    """
    if not node.outputs or not any(user.op in readers for user in node.outputs[0].outputs):
        return None
    tensor, layers = node.outputs[0], layers_after(node, readers, context)
    if context.facts.dtype(tensor) != np.float32:
        return "it is no float32, which alone is quantized"
    if not layers:
        return "not only layers with constant weights read it"
    if not all(owned(layer.weight) for layer in layers):
        return "weights that read it are shared"
    axis = from_the_end(*layers[0].input_axis(context))
    assert axis is not None
    found = division(tensor, axis, layers[0].inputs, context)
    return found if isinstance(found, str) else Place(node, axis, tuple(layers), found)


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
    importance = _importance(places)
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
    told = f"rounding it loses {share(before)} of what its readers give, and {share(after)}"
    if not after <= CLEARLY * before:
        return f"{told} with its channels scaled"
    return _Plan(exponents, f"{told} since {_counted(exponents)} of its channels were scaled")


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


def _importance(places: Sequence[Place]) -> dict[int, np.ndarray]:
    """How strongly the outputs of layers are heard where they are read, at the next places.

    So the loss of one place does not depend on how the channels of the next one are scaled.
    """
    found: dict[int, np.ndarray] = {}
    for place in places:
        if place.division.root.op in LAYERS:
            powers = np.sum([product.powers for product in place.products()], axis=0)
            if powers.any():
                found[place.division.root.uid] = powers
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


def apply(place: Place, exponents: np.ndarray) -> str:
    """Scale a place; why nothing was changed, or nothing."""
    factors = np.ldexp(1.0, exponents)
    made: list[tuple[Replacement, np.ndarray]] = []
    for part in place.replacements:
        exact = part.scaled(factors)
        dtype = part.node.inputs[part.index].dtype
        with np.errstate(over="ignore", under="ignore"):
            values = exact.astype(dtype)
        if not np.array_equal(values.astype(np.float64), exact):
            return f"a constant of {part.node.label} would leave the range of {dtype.name}"
        made.append((part, values))
    for part, values in made:
        node = part.node
        assert node.graph is not None
        old = node.inputs[part.index]
        held = new_constant(node.graph, old.name.split("/scaled")[0] + "/scaled", values)
        node.inputs = [held if n == part.index else t for n, t in enumerate(node.inputs)]
        discard(node.graph, old)
    return ""
