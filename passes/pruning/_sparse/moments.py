"""Second moments of the inputs of layers, a few layers at a time.

The moments of F features take 8 F^2 bytes. A layer whose moments would take more than ``HELD_BYTES`` has them
in blocks of consecutive input channels, and what connects channels of different blocks is not looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from graphopt.ir.model import Model
from graphopt.numerics.streaming import Gram, GramSpec
from graphopt.pass_base import Context
from graphopt.runtime.observing import Request

from .._portions import HELD_BYTES, portions
from .places import Place
from .solving import Part, Problem


class Known(NamedTuple):
    """A place and what is known of its inputs.

    Attributes:
        place: a weight tensor.
        problem: its matrices with the moments.
        mean: of each feature, float64 of shape ``(groups, features)``; None where nothing was observed.
        why: the reason where nothing was observed.
    """

    place: Place
    problem: Problem
    mean: np.ndarray | None
    why: str = ""


def known(places: Sequence[Place], model: Model, context: Context, step: int) -> Iterator[Known]:
    """What is known of the inputs of each place, in their order.

    Args:
        places: weight tensors.
        model: what to observe: the model that they are of, or a copy of it.
        context: observes.
        step: a number of input channels of which each block holds a multiple.
    """
    for portion in portions(places, _nbytes, HELD_BYTES):
        yield from _observed(portion, model, context, step)


def _nbytes(place: Place) -> int:
    """What the moments of a place take; none are asked for of one that is not a layer's."""
    return min(8 * place.groups * place.width**2, HELD_BYTES) if place.layer is not None else 0


def block_of(place: Place, step: int) -> int | None:
    """Features of the blocks that the moments of a layer are split into; None where they are not split."""
    whole = step * place.kernel
    most = HELD_BYTES // (8 * max(place.groups * place.width, 1))
    block = max(most // whole * whole, whole)
    return block if block < place.width else None


def _observed(
    places: Sequence[Place], model: Model, context: Context, step: int
) -> Iterator[Known]:
    asked: dict[str, Request[Gram]] = {}
    for place in places if context.observe is not None else ():
        if place.layer is not None:
            assert context.observe is not None
            sampling = context.observe.sampling(place.width)
            spec = GramSpec(place.layer.rows, block_of(place, step), sampling)
            asked[place.name] = Request(place.layer.node.inputs[0].name, spec)
    answers = context.observe(model, list(asked.values())) if context.observe and asked else {}
    for place in places:
        why = place.why or "there is no data"
        if place.name not in asked:
            yield Known(place, unobserved(place), None, why)
            continue
        answer = answers[asked[place.name]]
        yield from_gram(place, answer.value, answer.why, centred=place.bias() is not None)


def from_gram(place: Place, gram: Gram | None, why: str = "", *, centred: bool) -> Known:
    """What moments say of a place.

    Args:
        place: a weight tensor of a layer.
        gram: the moments, or None.
        why: the reason where there are none.
        centred: whether the mean is taken off, for a bias makes up for it.
    """
    if gram is None or not gram.rows or not np.isfinite(gram.second).all():
        return Known(place, unobserved(place), None, why or "its input is not finite")
    matrices = place.matrices()
    groups, _, width = matrices.shape
    parts = []
    for number, block in enumerate(gram.blocks):
        moments = gram.covariance(number) if centred else gram.product(number) / gram.rows
        features = block % width
        order = _order(features, place.kernel)
        if place.kernel > 1:
            moments = moments[np.ix_(order, order)]
        parts.append(Part(int(block[0]) // width, features[order], moments))
    return Known(place, Problem(matrices, parts), gram.mean.reshape(groups, width))


def unobserved(place: Place) -> Problem:
    """A place of whose inputs nothing is known."""
    matrices = place.matrices()
    features = np.arange(matrices.shape[2])
    features = features[_order(features, place.kernel)]
    return Problem(matrices, [Part(group, features, None) for group in range(len(matrices))])


def _order(features: np.ndarray, kernel: int) -> np.ndarray:
    """Position by position of the kernel, the channels side by side."""
    return np.lexsort((features // kernel, features % kernel))
