"""Merge a Cast of a Cast where the type between changes no value.

    Cast(Cast(x: A, B), C)   =>   Cast(x, C),   or x when C = A

holds when B represents every value of A, so that the first Cast is exact, and also for three
integer types with B at least as wide as C, since a Cast between integers keeps the low bits (ONNX
operator spec: Cast-13).

Refuses: a type between that rounds or wraps; floating point to integer, and negative to unsigned
by way of floating point, where what lies out of range is up to the runtime; strings and types of 8
bits or less of floating point.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from onnx import helper

from graphopt.ir.graph import Node
from graphopt.ir.surgery import Scope, producer, replace
from graphopt.pass_base import Context, Edit, Pass, Skip

from ._integer_operands import plain
from .merge_reshapes import cancel

EXACT_BITS = {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53}
"""Bits of the significand: integers up to two to this power are exact."""

INTEGER_BITS = {
    f"{sign}int{bits}": (bits, sign == "") for sign in ("", "u") for bits in (8, 16, 32, 64)
}
"""Width of each integer type, and whether it has a sign."""

WIDER = {("float16", "float32"), ("float16", "float64"), ("bfloat16", "float32")} | {
    ("bfloat16", "float64"),
    ("float32", "float64"),
}
"""Floating-point types of which the second represents all values of the first."""


@dataclass(frozen=True)
class MergeCasts(Pass):
    """Two Casts become one, or none, where the first is exact."""

    name = "merge-casts"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        for second in context.nodes(graph, "Cast"):
            first = producer(second.inputs[0])
            if first is None or not plain(first, second, "Cast"):
                continue
            source = context.facts.dtype(first.inputs[0])
            types = [source, _target(first), _target(second)]
            if source is None or types[1] is None or types[2] is None:
                continue
            a, b, c = (kind.name for kind in types if kind is not None)
            if not _mergeable(a, b, c):
                continue
            if a == c:
                if cancel(second, first):
                    yield Edit(second, f"from {a} to {b} and back changes nothing")
                continue
            replace(second, "Cast", [first.inputs[0]], dict(second.attrs))
            yield Edit(second, f"{b} between {a} and {c} changes nothing")


def _target(node: Node) -> np.dtype | None:
    kind = node.attrs.get("to")
    if isinstance(kind, np.dtype | type):
        return np.dtype(kind)
    if not isinstance(kind, int):
        return None
    try:
        return np.dtype(helper.tensor_dtype_to_np_dtype(kind))
    except KeyError:
        return None


def _mergeable(a: str, b: str, c: str) -> bool:
    known = {*EXACT_BITS, *INTEGER_BITS, "bool"}
    if not {a, b, c} <= known or b in (a, c):
        return False
    if a in INTEGER_BITS and b in INTEGER_BITS and c in INTEGER_BITS:
        return represents(b, a) or INTEGER_BITS[b][0] >= INTEGER_BITS[c][0]
    if not represents(b, a):
        return False
    if b in EXACT_BITS and c in INTEGER_BITS:
        return represents(c, a)
    return True


def represents(wide: str, narrow: str) -> bool:
    """Whether every value of one type is a value of another."""
    if wide == narrow or narrow == "bool":
        return True
    if narrow in EXACT_BITS:
        return (narrow, wide) in WIDER
    if wide == "bool":
        return False
    bits, signed = INTEGER_BITS[narrow]
    if wide in EXACT_BITS:
        return bits - signed <= EXACT_BITS[wide]
    width, sign = INTEGER_BITS[wide]
    return width > bits if sign or not signed else False
