"""Remove a Reshape before, and its opposite after, operators that treat each element alone.

    R2(f(R1(x)))   =>   f(x)             when the result provably has the shape of x
                   =>   Reshape(f(x), t) when the result's shape is expressible as t

for R in Reshape, Flatten, Squeeze, Unsqueeze and f a chain of unary operators, or of binary ones
whose other operand is one constant number. Reshaping keeps the order of elements and f does not
look at it.

Refuses: a tensor between that something else reads too; a constant that would add axes; a result
of several symbolic dims.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from graphopt.ir.graph import Constant, Node
from graphopt.ir.surgery import (
    Scope,
    input_or_none,
    new_tensor,
    producer,
    remove,
    replace,
    sole_user,
)
from graphopt.pass_base import Context, Edit, Pass, Skip

from ._integer_operands import opset, plain
from .materialize_reshape import reshaped
from .merge_reshapes import RESHAPES

UNARY = frozenset(
    {
        *("Abs", "Neg", "Sign", "Floor", "Ceil", "Round", "Not", "BitwiseNot", "IsNaN", "IsInf"),
        *("Exp", "Log", "Sqrt", "Reciprocal", "Erf", "Sin", "Cos", "Tan", "Asin", "Acos", "Atan"),
        *("Sinh", "Cosh", "Tanh", "Asinh", "Acosh", "Atanh", "Sigmoid", "HardSigmoid", "HardSwish"),
        *("Relu", "LeakyRelu", "ThresholdedRelu", "Elu", "Selu", "Celu", "Gelu", "Mish", "Swish"),
        *("Softplus", "Softsign", "Shrink", "Cast", "Identity"),
    }
)
"""Operators with one input that compute each element of the result from one element."""

SCALAR_OPERANDS = frozenset({"Clip", "QuantizeLinear", "DequantizeLinear"})
"""The same, when the other inputs are scalars."""

BINARY = frozenset(
    {
        *("Add", "Sub", "Mul", "Div", "Pow", "Mod", "Min", "Max", "And", "Or", "Xor", "PRelu"),
        *("Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual", "BitShift"),
        *("BitwiseAnd", "BitwiseOr", "BitwiseXor"),
    }
)
"""Operators of two broadcast operands."""


@dataclass(frozen=True)
class EliminateReshapeAroundElementwise(Pass):
    """A Reshape before elementwise operators meets the one after them."""

    name = "eliminate-reshape-around-elementwise"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        for second in context.nodes(graph, *RESHAPES):
            chain = _chain(second, context)
            if not chain:
                continue
            first = producer(chain[0][0].inputs[chain[0][1]])
            assert first is not None
            source: gs.Tensor = first.inputs[0]
            shape = context.facts.shape(source)
            wanted = context.facts.shape(second.outputs[0])
            if shape is None or wanted is None:
                continue
            if any(_operand_rank(node, index) > len(shape) for node, index in chain):
                continue
            target = None if shape == wanted else reshaped(second, shape, wanted)
            if target is None and shape != wanted:
                continue
            _rebuild(chain, source, second, target)
            yield Edit(second, f"{first.op} before {chain[0][0].label} met it")


def _chain(second: Node, context: Context) -> list[tuple[Node, int]]:
    """The elementwise nodes between two of the Reshape family, with the index of their data."""
    found: list[tuple[Node, int]] = []
    below, tensor = second, second.inputs[0]
    while True:
        node = producer(tensor)
        if node is None or sole_user(tensor) is not below or node.graph is not second.graph:
            return []
        if plain(node, second, *RESHAPES):
            return found[::-1]
        index = data_index(node, context) if plain(node, second, node.op) else None
        if index is None:
            return []
        found.append((node, index))
        below, tensor = node, node.inputs[index]


def data_index(node: Node, context: Context) -> int | None:
    """Which input an elementwise node with at most scalars beside it works on; None for others."""
    if node.op in UNARY:
        return 0 if len(node.inputs) == 1 else None
    if node.op in SCALAR_OPERANDS:
        others = [input_or_none(node, index) for index in range(1, len(node.inputs))]
        scalars = all(t is None or (isinstance(t, Constant) and t.shape == ()) for t in others)
        return 0 if scalars else None
    if node.op not in BINARY or len(node.inputs) != 2 or opset(node) < 7:
        return None
    for index in (0, 1):
        data, other = node.inputs[index], node.inputs[1 - index]
        if isinstance(data, Constant) or not isinstance(other, Constant):
            continue
        rank = context.facts.rank(data)
        if all(dim == 1 for dim in other.shape) and rank is not None and len(other.shape) <= rank:
            return None if node.op == "PRelu" and index == 1 else index
    return None


def _operand_rank(node: Node, index: int) -> int:
    return len(node.inputs[1 - index].shape) if node.op in BINARY else 0


def _rebuild(
    chain: list[tuple[Node, int]], source: gs.Tensor, second: Node, target: Constant | None
) -> None:
    """Copies of the chain on ``source``, since its tensors have other shapes from now on."""
    assert second.graph is not None
    tensor = source
    for place, (node, index) in enumerate(chain):
        last = place == len(chain) - 1 and target is None
        inputs = list(node.inputs)
        inputs[index] = tensor
        made: gs.Tensor = (
            second.outputs[0] if last else new_tensor(second.graph, node.outputs[0].name)
        )
        replace(node, node.op, inputs, dict(node.attrs), [made])
        tensor = made
    if target is None:
        remove(second)
    else:
        replace(second, "Reshape", [tensor, target])
