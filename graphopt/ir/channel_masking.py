"""Masking units of channel groups: the model in which they count for nothing.

A masked unit reads as zero wherever something sums over it: a convolution, a product, a sum, the recurrent
product of an LSTM. That is more than to zero the weights that make it, for what lies between need not keep
a zero (Sigmoid(0) = 0.5, Cos(0) = 1, a bias). The model keeps all its shapes, and computes what the sliced
model computes up to rounding: a term that is zero is the same as no term.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from graphopt.ir.arguments import dims
from graphopt.ir.channel_choice import Removal
from graphopt.ir.channels import ChannelGroup
from graphopt.ir.graph import Constant, Node
from graphopt.ir.inference import infer
from graphopt.ir.model import Model
from graphopt.ir.surgery import insert, new_constant, new_tensor, tidy


def mask_group(model: Model, group: ChannelGroup, keep: Sequence[int]) -> None:
    """Let all but some units of one group count for nothing; see ``mask_groups``."""
    mask_groups(model, [(group, keep)])


def mask_groups(model: Model, choices: Iterable[tuple[ChannelGroup, Sequence[int]]]) -> None:
    """Let units of several groups count for nothing.

    Args:
        model: the model that the groups were found in, or a copy of it; changed in place.
        choices: groups, each with the units that stay, by number.

    Raises:
        ValueError: a group is locked or not of this model, or the units are not a part of it.
    """
    facts = infer(model.graph, model.functions)
    removal = Removal(choices)
    nodes = {node.uid: node for node in model.nodes()}
    removal.check(nodes)
    for (uid, index), axes in removal.masked.items():
        tensor = nodes[uid].inputs[index]
        shape = dims(tensor, facts) or ()
        dtype = tensor.dtype if isinstance(tensor, Constant) else facts.dtype(tensor)
        for axis, places in axes.items():
            size = shape[axis]
            assert isinstance(size, int) and dtype is not None  # or it would be locked
            keeps = np.ones(size, dtype=bool)
            keeps[np.concatenate(places)] = False
            keeps = keeps.reshape(size, *[1] * (len(shape) - 1 - axis))
            _mask(nodes[uid], index, keeps, np.zeros((), dtype))
    for scope in model.scopes():
        tidy(scope)


def _mask(node: Node, index: int, keeps: np.ndarray, zero: np.ndarray) -> None:
    """Let a node read zeros where an input is not to be kept."""
    tensor, scope = node.inputs[index], node.graph
    assert scope is not None
    masked = new_tensor(scope, f"{tensor.name}_masked")
    given = new_constant(scope, f"{tensor.name}_keep", keeps)
    nothing = new_constant(scope, f"{tensor.name}_zero", zero)
    insert(node, "Where", [given, tensor, nothing], [masked])
    node.inputs[index] = masked
