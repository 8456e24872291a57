"""In which order the units of a group can go, and what is lost without the first n of them.

    obs          the error of all readers, relative to the energy of what they compute, when those that can be
                 refitted make up for it (``graphopt.numerics.obs``); comparable between groups
    activation   sum_f E[x_f^2] |W_f|^2 over the features of a unit, relative to all features of the reader
    l2, l1       the share of the squares (magnitudes) of each weight that a unit has, over all weights that
                 make it or read it, so that no tensor counts for more than another by its size or scale
                 (Li et al., "Pruning filters for efficient ConvNets", 2017, take the weights that make it;
                 Fang et al., "DepGraph", 2023, all that leave with it)
    random       numbers without meaning

All but obs give each unit a score, and losses are sums of scores as a share of the group's. Without data obs
and activation are replaced by l2. A criterion of another kind, such as gradients, is one more entry of
``CRITERIA``.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from graphopt.errors import printable
from graphopt.ir.channels import ChannelGroup
from graphopt.ir.graph import Constant, Node
from graphopt.numerics.importance import activation_scores, l1_scores, l2_scores, random_scores
from graphopt.numerics.obs import Consumer, Removal, damped, joint_removal_order
from graphopt.pass_base import Context, Skip

from .moments import Inquiry, Moments, inquiries, portions
from .readers import Reader, reader_of

Importance = Literal["obs", "l1", "l2", "activation", "random"]

IDLE = 1e-12
"""Share of the largest mean square (variance) up to which that of a feature is taken for rounding of 0."""

Weight = tuple[Constant, int, np.ndarray]
"""A constant, the axis that units lie along, and their places there, ``(units, places of a unit)``."""


@dataclass(frozen=True)
class Candidate:
    """A group that may be cut.

    Attributes:
        group: it.
        readers: the nodes that sum over its units.
        weights: those that make or read it.
    """

    group: ChannelGroup
    readers: tuple[Reader, ...]
    weights: tuple[Weight, ...]


@dataclass(frozen=True)
class Criterion:
    """A way to rank units.

    Attributes:
        rank: the order of a candidate's units, from the moments of what each reader reads.
        needs: the moments that are asked for, of all products of features or of squares only; nothing where
            it can do without data, and then there are none.
    """

    rank: Callable[[Candidate, Sequence[Moments], np.random.Generator], Removal]
    needs: Literal["products", "squares", ""] = ""


def candidate_of(group: ChannelGroup, nodes: Mapping[int, Node]) -> Candidate | str:
    """A group with what reads it, or why it is left alone; nodes are those of the model by number."""
    readers, why = [], "nothing with weights reads it"
    for slot in group.reads:
        found = reader_of(nodes[slot.node], slot, group)
        if isinstance(found, str):
            why = found
        elif found is not None:
            readers.append(found)
    if not readers:
        return why
    return Candidate(group, tuple(readers), tuple(_weights(group, nodes)))


def removals(
    candidates: Sequence[Candidate], importance: Importance, context: Context
) -> Generator[Skip, None, list[Removal]]:
    """Rank the units of each candidate.

    Yields:
        What could not be done as asked.

    Returns:
        For each candidate the order in which its units go, and what is lost without the first n.
    """
    criterion, rng = CRITERIA[importance], context.rng
    if criterion.needs and context.observe is None:
        yield Skip("the model", f"{importance} needs data; units are ranked by the l2 norm instead")
        criterion = CRITERIA["l2"]
    if not criterion.needs or context.observe is None:
        return [criterion.rank(candidate, (), rng) for candidate in candidates]
    found: list[Removal] = []
    diagonal, sampling = criterion.needs == "squares", context.observe.sampling
    asked = (inquiries(c.readers, diagonal, sampling) for c in candidates)
    for portion in portions(asked):
        requests = [r for entry in portion for inquiry in entry for r in inquiry.requests]
        named = dict.fromkeys(request for request in requests if request.tensor)
        answers = context.observe(context.model, list(named))
        for entry in portion:
            moments = []
            for inquiry in entry:
                told = inquiry.moments(answers)
                if isinstance(told, str):
                    yield Skip(inquiry.reader.node, _alone(inquiry, told))
                    told = Moments(np.ones(np.prod(inquiry.reader.layout)))
                moments.append(told)
            found.append(criterion.rank(candidates[len(found)], moments, rng))
    return found


def _alone(inquiry: Inquiry, why: str) -> str:
    name = printable(inquiry.requests[0].tensor)
    return f"what it reads, {name!r}, counts by its weights alone: {why}"


def _weights(group: ChannelGroup, nodes: Mapping[int, Node]) -> list[Weight]:
    """The weights that a group lies along, each axis once; vectors are no weights."""
    found: dict[tuple[int, int], Weight] = {}
    for slot in group.members:
        if not slot.read:
            continue
        tensor = nodes[slot.node].inputs[slot.index]
        if isinstance(tensor, Constant) and _is_weight(tensor):
            found.setdefault((id(tensor), slot.axis), (tensor, slot.axis, slot.indices))
    return list(found.values())


def _is_weight(tensor: Constant) -> bool:
    """Whether it is a matrix or more of floats, or of signed bytes that stand for floats."""
    known = tensor.dtype.kind == "f" or tensor.dtype == np.int8
    return bool(known) and sum(size > 1 for size in tensor.shape) > 1


def _slices(candidate: Candidate, energy: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The shares of each unit in the weights, added up, ``(units,)``; equal ones where there are none."""
    if not candidate.weights:
        return np.ones(candidate.group.size)
    total = np.zeros(candidate.group.size)
    for tensor, axis, places in candidate.weights:
        values = np.moveaxis(np.nan_to_num(tensor.values.astype(np.float64)), axis, 0)
        found = energy(values[places])
        total += found / (float(found.sum()) or 1.0)
    return total


def _by_scores(scores: np.ndarray) -> Removal:
    """The units of the smallest scores first; nothing lost where all are 0."""
    order = np.argsort(scores, kind="stable")
    return Removal(order, np.cumsum(scores[order]) / (float(scores.sum()) or 1.0))


def _l1(candidate: Candidate, _: Sequence[Moments], __: np.random.Generator) -> Removal:
    return _by_scores(_slices(candidate, lambda part: l1_scores([part])))


def _l2(candidate: Candidate, _: Sequence[Moments], __: np.random.Generator) -> Removal:
    return _by_scores(_slices(candidate, lambda part: l2_scores([part]) ** 2))


def _random(candidate: Candidate, _: Sequence[Moments], rng: np.random.Generator) -> Removal:
    return _by_scores(random_scores(candidate.group.size, rng))


def _activation(
    candidate: Candidate, moments: Sequence[Moments], _: np.random.Generator
) -> Removal:
    consumers = [
        (told.second, reader.matrix(len(told.second)), reader.units)
        for reader, told in zip(candidate.readers, moments, strict=True)
    ]
    return _by_scores(activation_scores(consumers) ** 2)


def _obs(candidate: Candidate, moments: Sequence[Moments], _: np.random.Generator) -> Removal:
    pairs = zip(candidate.readers, moments, strict=True)
    return joint_removal_order([_consumer(reader, told) for reader, told in pairs])


def _consumer(reader: Reader, moments: Moments) -> Consumer:
    """A reader for the Optimal Brain Surgeon; one that cannot make up for anything as a diagonal H."""
    weights = reader.matrix(len(moments.second))
    if moments.blocks and not reader.fixed:
        for features, matrix in moments.blocks:  # damping must not give weight to what is always 0
            spread = np.diag(matrix)
            weights[features[spread <= IDLE * spread.max()]] = 0.0
        whole = len(moments.blocks) == 1
        hessian = [(features, damped(matrix)) for features, matrix in moments.blocks]
        return hessian[0][1] if whole else hessian, weights, reader.units
    lost, energy = _energies(reader, weights, moments)
    rest = max(energy - float(lost.sum()), 0.0)
    shares = np.append(lost, rest) / (float(lost.sum()) + rest or 1.0)
    diagonal = [(np.array([n]), np.array([[share]])) for n, share in enumerate(shares)]
    return diagonal, np.ones((len(shares), 1)), [np.array([n]) for n in range(len(lost))]


def _energies(reader: Reader, weights: np.ndarray, moments: Moments) -> tuple[np.ndarray, float]:
    """``tr(W_u^T E[x_u x_u^T] W_u)`` of each unit, and the same of all features."""
    if not moments.blocks:
        each = moments.second * np.square(weights).sum(axis=1)
        return np.array([each[rows].sum() for rows in reader.units]), float(each.sum())
    place, owner = np.empty((2, len(weights)), np.int64)
    energy = 0.0
    for number, (features, matrix) in enumerate(moments.blocks):
        place[features], owner[features] = np.arange(len(features)), number
        energy += float(np.vdot(weights[features], matrix @ weights[features]))
    lost = np.zeros(len(reader.units))
    for unit, rows in enumerate(reader.units):
        for number in np.unique(owner[rows]):
            own = rows[owner[rows] == number]
            local = moments.blocks[number][1][np.ix_(place[own], place[own])]
            lost[unit] += float(np.vdot(weights[own], local @ weights[own]))
    return lost, energy


CRITERIA: dict[Importance, Criterion] = {
    "obs": Criterion(_obs, "products"),
    "l1": Criterion(_l1),
    "l2": Criterion(_l2),
    "activation": Criterion(_activation, "squares"),
    "random": Criterion(_random),
}
"""By the name that users give."""
