"""Cutting units of channel groups out of a model.

Every tensor loses the places of the units that leave: constants are sliced, for each node that reads them
what it needs, and operators that say sizes, counts or positions say the new ones (``channel_rewriting``).

The result computes what the masked model computes, see ``channel_masking``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from graphopt.ir.channel_choice import Places, Removal
from graphopt.ir.channel_rewriting import Rewriting
from graphopt.ir.channels import ChannelGroup
from graphopt.ir.graph import Constant, Node
from graphopt.ir.inference import infer
from graphopt.ir.model import Model
from graphopt.ir.surgery import new_constant, tidy, users

Read = tuple[Node, int, dict[int, Places]]
"""A node, which of its inputs is a constant, and what that is to lose there."""


def slice_group(model: Model, group: ChannelGroup, keep: Sequence[int]) -> None:
    """Cut all but some units of one group out of a model; see ``slice_groups``."""
    slice_groups(model, [(group, keep)])


def slice_groups(model: Model, choices: Iterable[tuple[ChannelGroup, Sequence[int]]]) -> None:
    """Cut units of several groups out of a model, all at once.

    The places of a group are those in the model that it was found in: after slicing, find the groups anew.

    Args:
        model: the model that the groups were found in, or a copy of it; changed in place.
        choices: groups, each with the units that stay, by number. Their order does not change.

    Raises:
        ValueError: a group is locked or not of this model, or the units are not a part of it.
    """
    removal = Removal(choices)
    nodes = list(model.nodes())
    removal.check({node.uid: node for node in nodes})
    Rewriting(infer(model.graph, model.functions), removal).rewrite(nodes)
    _slice_constants(nodes, removal)
    for node in nodes:
        for index, tensor in enumerate(node.outputs):
            if removal.output(node, index):  # what is declared of it is no longer true
                tensor.info = None
                tensor.shape = None
    for scope in model.scopes():
        tidy(scope)


def _slice_constants(nodes: Iterable[Node], removal: Removal) -> None:
    """Slice every constant for every node that reads it; readers that lose the same keep sharing one."""
    read: dict[int, tuple[Constant, list[Read]]] = {}
    for node in nodes:
        for index, tensor in enumerate(node.inputs):
            if isinstance(tensor, Constant):
                places = removal.input(node, index)
                read.setdefault(id(tensor), (tensor, []))[1].append((node, index, places))
    for constant, readers in read.values():
        if any(places for _, _, places in readers):
            _slice(constant, readers)


def _slice(constant: Constant, readers: list[Read]) -> None:
    made: dict[tuple[tuple[int, bytes], ...], Constant] = {}
    keys = [
        tuple((axis, where.tobytes()) for axis, where in places.items()) for _, _, places in readers
    ]
    whole = len(readers) == len(users(constant)) and not constant.is_output
    if whole and len(set(keys)) == 1:
        constant.values = without(constant.values, readers[0][2])
        constant.info = None
        return
    for (node, index, places), key in zip(readers, keys, strict=True):
        scope = node.graph
        assert scope is not None
        if key and key not in made:
            made[key] = new_constant(scope, constant.name, without(constant.values, places))
        if key:
            node.inputs[index] = made[key]


def without(values: np.ndarray, places: dict[int, Places]) -> np.ndarray:
    """An array without some places of its axes."""
    for axis, where in places.items():
        mask = np.ones(values.shape[axis], dtype=bool)
        mask[where] = False
        values = np.compress(mask, values, axis=axis)
    return np.ascontiguousarray(values)
