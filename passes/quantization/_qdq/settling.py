"""Layers on floats between integers: the runtime would make integers of them, so they are decided here.

Where a Conv, ConvTranspose or Gemm with constant weights reads from a DequantizeLinear, and what it computes
is only quantized, ONNX Runtime (1.31) makes its weights int8 when it loads the model, with one scale for all
of them. What was chosen to stay on floats would then lose more than integers with a scale for each channel.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_graphsurgeon as gs

from graphopt.ir.graph import Constant, Node
from graphopt.ir.model import Model
from graphopt.ir.nesting import nodes_within
from graphopt.ir.surgery import input_or_none, sole_user, users

from .units import ABSORBED, Unit

TAKEN = ("Conv", "ConvTranspose", "Gemm")


def settled(model: Model, units: Sequence[Unit], chosen: frozenset[int]) -> frozenset[int]:
    """A choice in which no layer on floats stands between integers.

    Such a layer joins where it is a unit; else the units that quantize what it computes leave.

    Args:
        model: that the units are of.
        units: that may run on integers.
        chosen: those that do, by number.
    """
    layers = [node for node in nodes_within(model.graph) if node.standard and node.op in TAKEN]
    known = {unit.uid: unit for unit in units}
    makers = {id(unit.output): unit for unit in units}
    tried: set[int] = set()
    found = set(chosen)
    while True:
        between = [n for n in layers if n.uid not in found and _between(n, known, makers, found)]
        if not between:
            return frozenset(found)
        node = between[0]
        if node.uid in known and node.uid not in tried:
            tried.add(node.uid)
            found.add(node.uid)
        else:
            found -= {user.uid for user in users(_given(node))}


def _given(node: Node) -> gs.Tensor:
    """What leaves a layer, behind the activation that vanishes in it."""
    user = sole_user(node.outputs[0])
    absorbed = user is not None and user.standard and user.op in ABSORBED
    return user.outputs[0] if user is not None and absorbed else node.outputs[0]


def _between(node: Node, known: dict[int, Unit], makers: dict[int, Unit], chosen: set[int]) -> bool:
    """Whether a layer reads from integers, and integers alone read from it."""
    if not isinstance(input_or_none(node, 1), Constant):
        return False
    maker, given = makers.get(id(node.inputs[0])), _given(node)
    if maker is None or maker.uid not in chosen or given.is_output:
        return False
    if maker.node.graph is not node.graph:
        return False
    if maker.gives_floats and not _read_on_integers(maker.output, known, chosen):
        return False
    return all(_reads(user, given, known, chosen) for user in users(given)) and bool(users(given))


def _read_on_integers(tensor: gs.Tensor, known: dict[int, Unit], chosen: set[int]) -> bool:
    return any(_reads(user, tensor, known, chosen) for user in users(tensor))


def _reads(user: Node, tensor: gs.Tensor, known: dict[int, Unit], chosen: set[int]) -> bool:
    """Whether a node reads a tensor as integers."""
    return user.uid in chosen and tensor in known[user.uid].inputs
