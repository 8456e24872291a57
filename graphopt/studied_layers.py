"""The layers that a study of sensitivity looks at.

Nodes with weights; and where activations are rounded, nodes without that bring several activations together:
what any other node reads is what one of these gives.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from graphopt.alterations import Alteration
from graphopt.errors import UsageError
from graphopt.ir.graph import Constant, Node
from graphopt.ir.inference import infer
from graphopt.ir.model import Model
from graphopt.ir.operators import WEIGHTS, weight_channels
from graphopt.rounded_activations import read_activations

SMALLEST = 16
"""Weights of the smallest tensor that is looked at."""


@dataclass(frozen=True)
class Layer:
    """A layer: a node with weights, or one that brings several activations together.

    Attributes:
        name: of its node.
        op: its operator.
        weights: its weight tensors with the axes of their channels.
        uid: the number of its node.
        reads: the names of the activations that it reads, where these may be rounded.
    """

    name: str
    op: str
    weights: tuple[tuple[Constant, tuple[int, ...]], ...]
    uid: int = -1
    reads: tuple[str, ...] = ()

    @property
    def parameters(self) -> int:
        """Weights in all."""
        return sum(int(np.prod(weight.shape)) for weight, _ in self.weights)

    def bears(self, alteration: Alteration) -> bool:
        """Whether it has what is to be changed."""
        needs = alteration.weights is not None, alteration.reading_bits is not None
        return (bool(self.weights) or not needs[0]) and (bool(self.reads) or not needs[1])


def find_layers(model: Model, patterns: Sequence[str], reading: bool) -> list[Layer]:
    """The layers of a model whose names fit; each stored weight belongs to its first reader.

    Args:
        model: the model.
        patterns: of names; all fit where there is none.
        reading: whether what they read is looked at, too.

    Raises:
        UsageError: there is no layer, or none of such a name.
    """
    found: list[Layer] = []
    taken: set[int] = set()
    facts = infer(model.graph, model.functions) if reading else None
    for node in model.nodes():
        weights = tuple(_weights(node, taken)) if node.standard and node.op in WEIGHTS else ()
        inner = facts is None or node.graph is not model.graph or any(True for _ in node.bodies())
        reads = () if inner or facts is None else tuple(read_activations(node, facts))
        if weights or len(reads) > 1:
            found.append(Layer(_unique(node.label, found), node.op, weights, node.uid, reads))
    chosen = [
        layer
        for layer in found
        if not patterns or any(fnmatch.fnmatchcase(layer.name, p) for p in patterns)
    ]
    if not chosen:
        names = ", ".join(layer.name for layer in found[:5])
        raise UsageError(
            "no layer with weights has such a name" if patterns else "no layer has weights",
            f"The first ones are: {names}" if found else "",
        )
    return chosen


def _weights(node: Node, taken: set[int]) -> Iterator[tuple[Constant, tuple[int, ...]]]:
    for index in WEIGHTS[node.op]:
        tensor = node.inputs[index] if index < len(node.inputs) else None
        if not isinstance(tensor, Constant) or id(tensor) in taken:
            continue
        if tensor.dtype.kind != "f" or np.prod(tensor.shape) < SMALLEST:
            continue
        if np.isfinite(tensor.values).all():
            taken.add(id(tensor))
            yield tensor, weight_channels(node.op, index, node.attrs, len(tensor.shape))


def _unique(name: str, found: Sequence[Layer]) -> str:
    names = {layer.name for layer in found}
    number, unique = 1, name
    while unique in names:
        number += 1
        unique = f"{name} ({number})"
    return unique
