"""Remove a requantization to the parameters that the integers already have.

    quantize(dequantize(q; s, z); s, z) = q

since ``round(((q - z) s) / s) + z = q``: the product and the quotient are off by rounding only, far
less than one half for integers up to 16 bits, and q lies in the range of its type. A pair of
DequantizeLinear and QuantizeLinear in a row goes so, and of Q - DQ - Q - DQ one half.

Refuses: parameters that are not constant, not equal bit for bit, or of extreme size; other types of
integers before and after; floats of 8 bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.arguments import feeding
from graphopt.ir.graph import Node
from graphopt.ir.surgery import Scope, bypass, constant, input_or_none
from graphopt.pass_base import Context, Edit, Pass, Skip

INTEGERS = frozenset({"int4", "uint4", "int8", "uint8", "int16", "uint16"})
SCALES = (1e-30, 1e30)
"""Between these, products with integers neither overflow nor lose digits in float32."""


@dataclass(frozen=True)
class EliminateDoubleQdq(Pass):
    """QuantizeLinear after DequantizeLinear with the same parameters is removed with it."""

    name = "eliminate-double-qdq"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        for node in context.nodes(graph, "QuantizeLinear"):
            inner = feeding(node.inputs[0], node, "DequantizeLinear", shared=True)
            if inner is None or not _undoes(node, inner, context):
                continue
            if bypass(node, inner.inputs[0]):
                yield Edit(node, "the integers already have this scale and zero point")
            else:
                yield Skip(node, "a graph returns it directly")


def _undoes(node: Node, inner: Node, context: Context) -> bool:
    """Whether a QuantizeLinear gives back what the DequantizeLinear before it read."""
    facts = context.facts
    dtype = facts.dtype(inner.inputs[0])
    if dtype is None or dtype.name not in INTEGERS or facts.dtype(node.outputs[0]) != dtype:
        return False
    if facts.dtype(inner.outputs[0]) != np.float32:
        return False
    scale = constant(inner.inputs[1])
    if scale is None or scale.dtype != np.float32:
        return False
    size = np.abs(scale)
    if not bool(np.all((size >= SCALES[0]) & (size <= SCALES[1]))):
        return False
    if int(node.attrs.get("axis", 1)) != int(inner.attrs.get("axis", 1)) and scale.size > 1:
        return False
    if node.attrs.get("block_size", 0) != inner.attrs.get("block_size", 0):
        return False
    zeros = (input_or_none(node, 2), input_or_none(inner, 2))
    return _equal(node.inputs[1], inner.inputs[1]) and _equal_or_absent(*zeros)


def _equal(a: gs.Tensor, b: gs.Tensor) -> bool:
    """Whether two constants are equal bit for bit."""
    first, second = constant(a), constant(b)
    if first is None or second is None or first.dtype != second.dtype:
        return False
    return first.shape == second.shape and first.tobytes() == second.tobytes()


def _equal_or_absent(a: gs.Tensor | None, b: gs.Tensor | None) -> bool:
    if a is None or b is None:
        given = constant(a if b is None else b)
        return a is b or (given is not None and not np.any(given.astype(np.int32)))
    return _equal(a, b)
