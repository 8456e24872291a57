"""Remove a Relu or Clip that the quantization after it does anyway.

    quantize(clip(x, a, b); s, z) = quantize(x; s, z)
        where round(a / s) + z <= lowest and round(b / s) + z >= highest value of the type

QuantizeLinear is monotone and saturates, so what lies beyond a and b becomes the lowest and the
highest value either way; for a Relu that is so when the zero point is the lowest value.

Refuses: parameters that are not constant; scales that are not positive; a limit within half a step
of the edge, where rounding decides; a limited tensor that is used elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from graphopt.ir.arguments import feeding
from graphopt.ir.graph import Node
from graphopt.ir.ranges import Range, bounds
from graphopt.ir.surgery import Scope, bypass, constant, input_or_none
from graphopt.pass_base import Context, Edit, Pass, Skip

MARGIN = 0.4
"""By how much of a step a limit may fall short: less than one half, so that rounding closes it."""


@dataclass(frozen=True)
class FoldClipIntoQuantize(Pass):
    """Relu and Clip that saturation makes idle are removed."""

    name = "fold-clip-into-quantize"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        for node in context.nodes(graph, "QuantizeLinear"):
            inner = feeding(node.inputs[0], node, "Relu", "Clip")
            if inner is None:
                continue
            ends = _ends(inner, int(graph.opset), context)
            if ends is not None and _saturates(node, ends) and bypass(inner):
                yield Edit(node, f"its saturation does what {inner.op} before it did")


def _ends(node: Node, opset: int, context: Context) -> Range | None:
    """The limits of a Relu or Clip of float32."""
    if context.facts.dtype(node.inputs[0]) != np.float32:
        return None
    if node.op == "Relu":
        return 0.0, math.inf
    found = bounds(node, np.dtype(np.float32), opset)
    return None if found is None or found[0] > found[1] else found


def _saturates(node: Node, ends: Range) -> bool:
    """Whether both limits reach the ends of the integers, in every channel."""
    scale, given = constant(node.inputs[1]), input_or_none(node, 2)
    zero = constant(given) if given is not None else np.zeros((), np.uint8)
    if scale is None or zero is None or zero.dtype.name not in ("int8", "uint8", "int16", "uint16"):
        return False
    if given is None and node.attrs.get("output_dtype"):
        return False
    steps = scale.astype(np.float64)
    if not bool(np.all(np.isfinite(steps) & (steps > 0))):
        return False
    limits = np.iinfo(zero.dtype.name)
    with np.errstate(over="ignore"):
        low = ends[0] / steps + zero
        high = ends[1] / steps + zero
    return bool(np.all(low <= limits.min + MARGIN) and np.all(high >= limits.max - MARGIN))
