"""Channel groups: which channels of which tensors live and die together, from the graph alone.

A *unit* is what can be cut out of a model and leave a model that computes the same as if everything that
sums over the unit had seen zeros there: a channel of convolutions with residual connections between them, a
neuron, an attention head, a hidden unit of an LSTM. A *group* is all units that lie in the same tensors along
the same axes; they may be cut one by one, but not all of them. A group that may not be cut is *locked*, and
says by what.

``channel_tracing`` follows the channels through the graph, ``channel_atoms`` finds what leaves together;
this module makes units and groups of it. ``channel_slicing`` cuts and ``channel_masking`` masks.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from graphopt.ir.channel_atoms import Atoms, Solution
from graphopt.ir.channel_tracing import Tracer
from graphopt.ir.channel_visit import Trace, Use
from graphopt.ir.costs import macs_of
from graphopt.ir.frames import Frame, UnprovenError
from graphopt.ir.graph import Constant, Node
from graphopt.ir.inference import Facts, infer
from graphopt.ir.model import Model

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Slot:
    """Where the units of a group lie along one axis of one tensor.

    A tensor is told by the node that computes it. A constant has a slot for every node that reads it.

    Attributes:
        tensor: its name.
        axis: the axis.
        indices: the places of each unit, [units, places of a unit].
        node: the number (``uid``) of the node.
        index: which of the node's outputs or, where it is read there, inputs.
        read: whether the node reads it.
    """

    tensor: str
    axis: int
    indices: Indices
    node: int
    index: int
    read: bool


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """Units that lie in the same tensors.

    Attributes:
        name: the same in every copy of the model.
        size: how many units there are.
        unit: what they are: ``channel``, ``neuron``, ``head`` or ``hidden unit``.
        members: where they lie, in the order of computation.
        reads: where they are summed: a unit that is zero there adds nothing.
        producers: labels of the nodes whose weights make them.
        consumers: labels of the nodes that sum over them.
        locked: why they may not be cut; empty where they may.
        parameters: elements of constants that leave with one unit.
        macs: multiply-accumulates that leave with one unit, dynamic dimensions taken as 1; as far as proven.
        macs_of_all: those that would leave with all units. A product of two axes of the group counts once
            here and nearly twice in ``size * macs``.
    """

    name: str
    size: int
    unit: str
    members: tuple[Slot, ...]
    reads: tuple[Slot, ...]
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    locked: str
    parameters: int
    macs: int
    macs_of_all: int


def find_groups(model: Model, facts: Facts | None = None) -> list[ChannelGroup]:
    """Find what can be cut out of a model, and what cannot and why.

    Args:
        model: the model; it is not changed. Fold it first: what folding computes need not be followed.
        facts: what is proven of its tensors; inferred when not given.

    Returns:
        All groups of channels that a weight makes, in the order of computation.
    """
    facts = infer(model.graph, model.functions) if facts is None else facts
    tracer = Tracer(model, facts)
    tracer.scope(model.graph, "graph")
    return _Grouping(model, facts, tracer.trace).groups()


class _Grouping:
    """Units and groups of what was traced."""

    def __init__(self, model: Model, facts: Facts, trace: Trace) -> None:
        self.trace = trace
        self.frame = Frame.of(model, facts)
        self.solution: Solution = trace.atoms.solve()
        self.uses = [
            (use, axis, atoms)
            for use in trace.uses
            for axis, atoms in enumerate(use.axes)
            if atoms.ndim and len(atoms) and bool((atoms >= 0).any())
        ]
        self.group, self.unit = _partition(self.solution, [atoms for _, _, atoms in self.uses])
        roots = np.flatnonzero(self.solution.label == np.arange(trace.atoms.count))
        numbers, first, self.sizes = np.unique(
            self.group[roots], return_index=True, return_counts=True
        )
        self.lock = self.solution.lock[roots[first]]
        assert len(numbers) == 0 or numbers[-1] == len(numbers) - 1
        self.made: dict[int, list[Node]] = {}
        for node, atoms in trace.makes:
            for number in self.groups_of(atoms):
                self.made.setdefault(number, []).append(node)
        self.heads = {number for atoms in trace.heads for number in self.groups_of(atoms)}

    def groups_of(self, atoms: Atoms) -> list[int]:
        """The groups that an axis has places of."""
        if atoms.ndim == 0:
            return []
        return [int(n) for n in np.unique(self.group[self.solution.labels(atoms)])]

    def groups(self) -> list[ChannelGroup]:
        """All groups that a weight makes."""
        members: dict[int, list[tuple[Use, Slot]]] = {}
        for use, axis, atoms in self.uses:
            for number, indices in self._places(atoms):
                given = isinstance(use.tensor, Constant)
                slot = Slot(use.tensor.name, axis, indices, use.node.uid, use.index, given)
                members.setdefault(number, []).append((use, slot))
        reads: dict[int, list[tuple[Node, Slot]]] = {}
        for read in self.trace.reads:
            for number, indices in self._places(read.atoms):
                name = read.node.inputs[read.index].name
                slot = Slot(name, read.axis, indices, read.node.uid, read.index, True)
                reads.setdefault(number, []).append((read.node, slot))
        macs = self._macs()
        found = [
            self._group(
                number, members[number], reads.get(number, []), macs.get(number, (0.0, 0.0))
            )
            for number in self.made
            if number in members
        ]
        return _with_names(found)

    def _places(self, atoms: Atoms) -> Iterable[tuple[int, Indices]]:
        """For each group along an axis that a weight makes, the places of its units, [units, places]."""
        free = np.flatnonzero(atoms >= 0)
        if atoms.ndim == 0 or not len(free):
            return
        labels = self.solution.label[atoms[free]]
        group = self.group[labels]
        order = np.lexsort((free, self.unit[labels], group))
        group, free = group[order], free[order]
        starts = np.flatnonzero(np.diff(group, prepend=-1))
        for start, end in zip(starts, [*starts[1:], len(group)], strict=True):
            number = int(group[start])
            if number in self.made:
                yield number, free[start:end].reshape(self.sizes[number], -1)

    def _macs(self) -> dict[int, tuple[float, float]]:
        """Multiply-accumulates that leave with one unit and with all units, by group."""
        found: dict[int, tuple[float, float]] = {}
        costs: dict[int, int] = {}
        for work in self.trace.works:
            cost = costs.get(id(work.node))
            if cost is None:
                cost = costs[id(work.node)] = _cost(work.node, self.frame)
            kept: dict[int, tuple[float, float]] = {}
            for atoms in work.axes:
                for number, indices in self._places(atoms):
                    one, every = kept.get(number, (1.0, 1.0))
                    places = (indices.shape[1] / len(atoms), indices.size / len(atoms))
                    kept[number] = (one * (1 - places[0]), every * (1 - places[1]))
            for number, (one, every) in kept.items():
                before = found.get(number, (0.0, 0.0))
                part = cost * work.share
                found[number] = (before[0] + part * (1 - one), before[1] + part * (1 - every))
        return found

    def _group(
        self,
        number: int,
        members: list[tuple[Use, Slot]],
        reads: list[tuple[Node, Slot]],
        macs: tuple[float, float],
    ) -> ChannelGroup:
        producers = self.made[number]
        size, lock = int(self.sizes[number]), int(self.lock[number])
        locked = self.solution.reasons[lock] if lock >= 0 else ""
        if not locked and size == 1:
            locked = "it has a single unit, and one must stay"
        makers = {node.uid for node in producers}
        made = [slot for _, slot in members if not slot.read]
        first = next((s for s in made if s.node in makers), (made or [members[0][1]])[0])
        return ChannelGroup(
            name=f"{first.tensor}:{first.axis}",
            size=size,
            unit=_unit(producers, number in self.heads),
            members=tuple(slot for _, slot in members),
            reads=tuple(slot for _, slot in reads),
            producers=_labels(producers),
            consumers=_labels(node for node, _ in reads),
            locked=locked,
            parameters=_parameters(members),
            macs=round(macs[0]),
            macs_of_all=round(macs[1]),
        )


def _partition(solution: Solution, axes: list[Atoms]) -> tuple[Atoms, Atoms]:
    """Number the groups and the units in each.

    Units are of one group where they have as many places along each axis of each tensor, and are locked by
    the same reason or not at all. The places along all axes are added up as random numbers of the axes.

    Returns:
        For each class of atoms its group, and its number within the group, [atoms].
    """
    count = len(solution.label)
    signature = np.zeros(count, dtype=np.uint64)
    numbers = np.random.default_rng(0).integers(1 << 63, size=len(axes) + 1, dtype=np.uint64)
    for atoms, number in zip(axes, numbers, strict=False):
        np.add.at(signature, solution.labels(atoms), number)
    keys = np.stack([signature, solution.lock.astype(np.uint64)], axis=1)
    roots = np.flatnonzero(solution.label == np.arange(count))
    _, first, group_of_root = np.unique(keys[roots], axis=0, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(len(first))
    group = np.full(count, -1, dtype=np.int64)
    group[roots] = rank[group_of_root.reshape(-1)]
    unit = np.zeros(count, dtype=np.int64)
    order = roots[np.argsort(group[roots], kind="stable")]
    _, starts, sizes = np.unique(group[order], return_index=True, return_counts=True)
    unit[order] = np.arange(len(order)) - np.repeat(starts, sizes)
    return group, unit


def _cost(node: Node, frame: Frame) -> int:
    try:
        return macs_of(node, frame)
    except UnprovenError:
        return 0


def _unit(producers: Iterable[Node], heads: bool) -> str:
    """What people call it."""
    ops = {node.op for node in producers}
    if ops & {"LSTM", "GRU", "RNN"}:
        return "hidden unit"
    if heads:
        return "head"
    return "channel" if ops & {"Conv", "ConvTranspose"} else "neuron"


def _labels(nodes: Iterable[Node]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(node.label for node in nodes))


def _parameters(members: Iterable[tuple[Use, Slot]]) -> int:
    """Elements of constants that leave with one unit; a constant with several readers counts once."""
    kept: dict[tuple[str, int], list[float]] = {}
    sizes: dict[str, int] = {}
    for use, slot in members:
        if isinstance(use.tensor, Constant) and _is_weight(use.tensor.dtype):
            sizes[slot.tensor] = math.prod(use.tensor.shape)
            share = 1 - slot.indices.shape[1] / use.tensor.shape[slot.axis]
            kept[slot.tensor, slot.axis] = [share]
    total = 0.0
    for name, size in sizes.items():
        rest = math.prod(share[0] for (tensor, _), share in kept.items() if tensor == name)
        total += size * (1 - rest)
    return round(total)


def _is_weight(dtype: np.dtype) -> bool:
    """Whether constants of this type count as parameters: floats, and integers that stand for them."""
    return "float" in dtype.name or (dtype.itemsize == 1 and dtype.kind not in "bO")


def _with_names(groups: list[ChannelGroup]) -> list[ChannelGroup]:
    """Let groups that begin on one axis be told apart by their first place on it."""
    shared = Counter(group.name for group in groups)
    named = []
    for group in groups:
        if shared[group.name] > 1:
            slot = next(s for s in group.members if f"{s.tensor}:{s.axis}" == group.name)
            group = replace(group, name=f"{group.name}[{slot.indices[0, 0]}]")
        named.append(group)
    taken: Counter[str] = Counter()
    for position, group in enumerate(named):
        taken[group.name] += 1
        if taken[group.name] > 1:  # branches of an If may use the same names
            named[position] = replace(group, name=f"{group.name}#{taken[group.name]}")
    return named
