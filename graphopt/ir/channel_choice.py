"""Which places leave every tensor when units of some groups leave."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from graphopt.ir.channels import ChannelGroup, Slot
from graphopt.ir.graph import Constant, Node
from graphopt.ir.surgery import producer

Places = npt.NDArray[np.int64]


class Removal:
    """The places that leave, by tensor and axis.

    Args:
        choices: groups, each with the units that stay, by number.

    Raises:
        ValueError: a group is locked, is named twice, or the units are not a part of it.
    """

    def __init__(self, choices: Iterable[tuple[ChannelGroup, Sequence[int]]]) -> None:
        self._made: dict[tuple[int, int], dict[int, list[Places]]] = {}
        self._read: dict[tuple[int, int], dict[int, list[Places]]] = {}
        self._names: dict[tuple[int, int, bool], str] = {}
        self.masked: dict[tuple[int, int], dict[int, list[Places]]] = {}
        seen: set[str] = set()
        for group, keep in choices:
            if group.name in seen:
                raise ValueError(f"group {group.name!r} is named twice")
            seen.add(group.name)
            gone = units_to_remove(group, keep)
            if len(gone):
                self._add(group, gone)

    def _add(self, group: ChannelGroup, gone: Places) -> None:
        for slot in group.members:
            table = self._read if slot.read else self._made
            _enter(table, slot, gone)
            self._names[slot.node, slot.index, slot.read] = slot.tensor
        for slot in group.reads:
            _enter(self.masked, slot, gone)

    def check(self, nodes: dict[int, Node]) -> None:
        """Refuse groups of another model.

        Args:
            nodes: those of the model, by number.

        Raises:
            ValueError: a tensor of a group is not where it was found.
        """
        for (number, index, read), name in self._names.items():
            node = nodes.get(number)
            tensors = [] if node is None else node.inputs if read else node.outputs
            if index >= len(tensors) or tensors[index].name != name:
                raise ValueError(f"the model has no {name!r} where it was: find its groups anew")

    def output(self, node: Node, index: int) -> dict[int, Places]:
        """The places that an output of a node loses, by axis."""
        return _merged(self._made.get((node.uid, index), {}))

    def input(self, node: Node, index: int) -> dict[int, Places]:
        """The places that an input of a node loses, by axis; a constant loses its own for each reader."""
        tensor = node.inputs[index]
        if isinstance(tensor, Constant):
            return _merged(self._read.get((node.uid, index), {}))
        made = producer(tensor)
        if made is None:
            return {}
        return self.output(made, next(i for i, t in enumerate(made.outputs) if t is tensor))


def units_to_remove(group: ChannelGroup, keep: Sequence[int]) -> Places:
    """The units of a group that leave, sorted.

    Args:
        group: the group.
        keep: the units that stay, each once, at least one.

    Raises:
        ValueError: the group is locked, or the units are not a part of it.
    """
    kept = np.asarray(keep, dtype=np.int64).reshape(-1)
    if not len(kept) or len(np.unique(kept)) < len(kept):
        raise ValueError(f"group {group.name!r} must keep at least one unit, each named once")
    if kept.min() < 0 or kept.max() >= group.size:
        raise ValueError(f"group {group.name!r} has units 0 to {group.size - 1}")
    if group.locked and len(kept) < group.size:
        raise ValueError(f"group {group.name!r} is locked: {group.locked}")
    gone: Places = np.setdiff1d(np.arange(group.size), kept)
    return gone


def _enter(table: dict[tuple[int, int], dict[int, list[Places]]], slot: Slot, gone: Places) -> None:
    axes = table.setdefault((slot.node, slot.index), {})
    axes.setdefault(slot.axis, []).append(slot.indices[gone].reshape(-1))


def _merged(axes: dict[int, list[Places]]) -> dict[int, Places]:
    return {axis: np.unique(np.concatenate(parts)) for axis, parts in sorted(axes.items())}
