"""What of a model can be computed on integers: nodes with their weights, biases and absorbed activations.

A *unit* is a node that the target has an integer kernel for. A Relu or a Clip that alone reads what the node
computes belongs to it: its bounds become those of the quantized output, and it vanishes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.graph import Constant, Node
from graphopt.ir.inference import Facts
from graphopt.ir.model import Model
from graphopt.ir.nesting import bodies_of, nodes_within
from graphopt.ir.surgery import constant, input_or_none, producer, sole_user, users

from .targets import Target

Kind = Literal["linear", "arithmetic", "movement"]

ABSORBED = ("Relu", "Clip")

QUANTIZED = ("DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger")
"""Operators that give what comes from integers."""

STEPS = 4
"""Casts and products between integers and what is made of them, as of weights that are stored as such."""


@dataclass(frozen=True, eq=False)
class Unit:
    """A node that can run on integers.

    Attributes:
        node: it.
        kind: how it treats scales; see ``targets``.
        reads: the positions of its inputs that are activations.
        weight: the position of its weights; None where it has none.
        bias: the position of its bias; None where it has none.
        absorbed: the Relu or Clip that belongs to it.
        gives_floats: whether its kernel may leave its output unquantized.
        per_channel: whether each output channel of its weights has a scale.
    """

    node: Node
    kind: Kind
    reads: tuple[int, ...]
    weight: int | None = None
    bias: int | None = None
    absorbed: Node | None = None
    gives_floats: bool = False
    per_channel: bool = True

    @property
    def output(self) -> gs.Tensor:
        """What leaves it, behind the absorbed activation."""
        return (self.absorbed or self.node).outputs[0]

    @property
    def inputs(self) -> list[gs.Tensor]:
        """The activations that it reads, each once."""
        return list(dict.fromkeys(self.node.inputs[place] for place in self.reads))

    @property
    def nodes(self) -> tuple[Node, ...]:
        """It, and what it absorbed."""
        return (self.node,) if self.absorbed is None else (self.node, self.absorbed)

    @property
    def uid(self) -> int:
        """The number of its node."""
        return self.node.uid

    def channel_axis(self) -> int | None:
        """The axis of the weights that has a scale of its own for each place; None for one scale."""
        assert self.weight is not None
        shape = self.node.inputs[self.weight].shape
        if not self.per_channel:
            return None
        if self.node.op == "Conv":
            return 0
        if self.node.op == "ConvTranspose":
            return 1 if int(self.node.attrs.get("group", 1)) == 1 else None
        if self.node.op == "Gemm":
            return 0 if self.node.attrs.get("transB", 0) else 1
        return 1 if self.weight == 1 and len(shape) == 2 else None


def find_units(model: Model, facts: Facts, target: Target) -> tuple[list[Unit], dict[str, str]]:
    """The units, in order, and why others of the same operators are none.

    Those in the bodies of control flow are among them, those in local functions are not.

    Args:
        model: the model.
        facts: what is proven of its tensors.
        target: whose kernels are meant.

    Returns:
        The units, and reasons by the label of the node.
    """
    found: list[Unit] = []
    refused: dict[str, str] = {}
    known = {*target.linear, *target.arithmetic, *target.movement}
    shared = _shared_names(model)
    for node in nodes_within(model.graph):
        if not node.standard or node.op not in known:
            continue
        unit = _unit(node, facts, target)
        if isinstance(unit, Unit) and not shared.isdisjoint(
            tensor.name for tensor in (*unit.inputs, *unit.node.outputs, unit.output)
        ):
            unit = "tensors of several bodies have the names of what it reads or computes"
        if isinstance(unit, Unit):
            found.append(unit)
        elif unit:
            refused[node.label] = unit
    return found, refused


def recurrent_layers(model: Model) -> dict[str, str]:
    """Why LSTM, GRU and RNN stay on floats, by the label of the node."""
    return {
        node.label: f"there is no integer kernel for {node.op} in this form"
        for node in nodes_within(model.graph)
        if node.standard and node.op in ("LSTM", "GRU", "RNN")
    }


def _shared_names(model: Model) -> set[str]:
    """The names that tensors of several bodies have."""
    seen: set[str] = set()
    shared: set[str] = set()
    for body in bodies_of(model.graph):
        names = {t.name for t in (*body.inputs, *(t for n in body.nodes for t in n.outputs))}
        shared |= seen & names
        seen |= names
    return shared - {""}


def _unit(node: Node, facts: Facts, target: Target) -> Unit | str:
    """A node as a unit, or why it is none; empty for one that nobody would expect to be."""
    why = _objection(node, facts)
    if why is not None:
        return why
    if node.op in target.linear:
        return _linear(node, target)
    if node.op in target.movement:
        known = facts.shape(node.outputs[0]) is not None
        return Unit(node, "movement", (0,)) if known and not _computes(node) else ""
    if node.op in ("Sigmoid", "LeakyRelu", "AveragePool", "GlobalAveragePool"):
        dilated = node.op == "AveragePool" and "dilations" in node.attrs
        return "its windows are dilated" if dilated else Unit(node, "arithmetic", (0,))
    reads = tuple(n for n, t in enumerate(node.inputs) if not isinstance(t, Constant))
    if not reads or (len(reads) < len(node.inputs) and node.op == "Concat"):
        return ""
    if node.op == "Mul" and len(reads) == 2 and node.inputs[0] is node.inputs[1]:
        return ""
    if node.op == "Concat":
        return Unit(node, "arithmetic", reads)
    if not all(np.isfinite(t.values).all() for t in node.inputs if isinstance(t, Constant)):
        return f"it {'adds' if node.op == 'Add' else 'multiplies by'} NaN or infinity"
    return Unit(node, "arithmetic", reads, absorbed=_absorbed(node))


def _computes(node: Node) -> bool:
    """Whether an operator that mostly moves elements computes new ones here."""
    if node.op != "Resize":
        return False
    crops = node.attrs.get("coordinate_transformation_mode") == "tf_crop_and_resize"
    return bool(crops or node.attrs.get("mode", "nearest") != "nearest")


def _objection(node: Node, facts: Facts) -> str | None:
    """Why no kernel takes a node; empty where there is nothing to say; None where one does."""
    first = input_or_none(node, 0)
    if first is None or any(isinstance(v, gs.Node.AttributeRef) for v in node.attrs.values()):
        return ""
    if len([t for t in node.outputs if t.name]) != 1:
        return ""
    kinds = {dtype.name for t in (first, node.outputs[0]) if (dtype := facts.dtype(t)) is not None}
    if kinds != {"float32"}:
        return (
            "" if not kinds & {"float16", "float64", "bfloat16"} else f"it computes {kinds.pop()}"
        )
    if any(_quantized(tensor) for tensor in node.inputs):
        return "it reads what is quantized already"
    if users(node.outputs[0]) and all(u.op == "QuantizeLinear" for u in users(node.outputs[0])):
        return "what it computes is quantized already"
    return None


def _quantized(tensor: gs.Tensor) -> bool:
    """Whether a tensor comes from integers, or is what such are multiplied with."""
    for step in range(STEPS):
        made = producer(tensor)
        if made is None:
            return step > 0 and isinstance(tensor, Constant) and tensor.dtype.kind != "f"
        if made.op in QUANTIZED:
            return True
        if not made.standard or made.op not in ("Cast", "Mul") or not made.inputs:
            return False
        tensor = made.inputs[0]
    return False


def _linear(node: Node, target: Target) -> Unit | str:
    left, right = node.inputs[0], input_or_none(node, 1)
    if right is None or (isinstance(left, Constant) and isinstance(right, Constant)):
        return ""
    if node.op != "MatMul" and not isinstance(right, Constant):
        return "its weights are computed"
    weight = next((n for n in (1, 0) if isinstance(node.inputs[n], Constant)), None)
    if weight is not None:
        why = _weight_objection(node.inputs[weight])
        if why:
            return why
    bias = input_or_none(node, 2) if node.op != "MatMul" else None
    if bias is not None and not isinstance(bias, Constant):
        return "its bias is computed"
    if bias is not None and not np.isfinite(bias.values).all():
        return "its bias holds NaN or infinity"
    if node.op == "Gemm":
        why = _gemm_objection(node, bias)
        if why:
            return why
    reads = tuple(n for n in (0, 1) if n != weight)
    absorbed = _absorbed(node) if target.quantizes_output else None
    gives = node.op != "Conv" or not target.quantizes_output
    place = None if bias is None else 2
    return Unit(node, "linear", reads, weight, place, absorbed, gives, target.per_channel)


def _weight_objection(weight: Constant) -> str:
    values = weight.values
    if values.dtype != np.float32:
        return f"its weights are {values.dtype.name}"
    if not values.size:
        return "its weights are empty"
    return "" if np.isfinite(values).all() else "its weights hold NaN or infinity"


def _gemm_objection(node: Node, bias: Constant | None) -> str:
    if float(node.attrs.get("alpha", 1.0)) != 1.0 or node.attrs.get("transA", 0):
        return "it scales or transposes what it reads"
    if bias is None:
        return ""
    if float(node.attrs.get("beta", 1.0)) != 1.0:
        return "it scales its bias"
    columns = node.inputs[1].shape[0 if node.attrs.get("transB", 0) else 1]
    row = math.prod(bias.shape[:-1]) == 1 and math.prod(bias.shape) == columns
    return "" if row else "its bias differs from row to row"


def _absorbed(node: Node) -> Node | None:
    user = sole_user(node.outputs[0])
    if user is None or not user.standard or user.op not in ABSORBED:
        return None
    if user.inputs[0] is not node.outputs[0]:
        return None
    return user if user.op == "Relu" or _bounds(user) is not None else None


def _bounds(node: Node) -> tuple[float, float] | None:
    """The bounds of a Relu or Clip that include 0; None where they are not known or do not."""
    if node.op == "Relu":
        return 0.0, math.inf
    ends = []
    for index, (name, default) in enumerate((("min", -math.inf), ("max", math.inf)), 1):
        given = input_or_none(node, index)
        if given is None:
            ends.append(float(node.attrs.get(name, default)))
            continue
        value = constant(given)
        if value is None or value.size != 1:
            return None
        ends.append(float(value.reshape(())))
    return (ends[0], ends[1]) if ends[0] <= 0.0 <= ends[1] else None


def bounds(unit: Unit) -> tuple[float, float]:
    """Between which numbers the output of a unit lies by what it absorbed."""
    found = None if unit.absorbed is None else _bounds(unit.absorbed)
    return found or (-math.inf, math.inf)


def quantized_tensors(units: Sequence[Unit]) -> list[gs.Tensor]:
    """Every tensor that is rounded when units run on integers; each once.

    What only moves elements adds nothing: its output is on the grid of its input.
    """
    found: dict[int, gs.Tensor] = {}
    moved = {id(unit.output) for unit in units if unit.kind == "movement"}
    readers = {id(t) for unit in units for t in unit.inputs}
    for unit in units:
        found.update((id(t), t) for t in unit.inputs)
        if not unit.gives_floats or id(unit.output) in readers:
            found[id(unit.output)] = unit.output
    return [t for key, t in found.items() if key not in moved and not isinstance(t, Constant)]
