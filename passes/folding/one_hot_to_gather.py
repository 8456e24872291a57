"""Look rows of a matrix up instead of multiplying it by ones and zeros.

    Cast(Equal(i, [0, 1, .., n-1])) W   =>   Gather([W; 0; 0], Clip(i, -1, n))      i of shape (.., 1)

All that a row of the comparison selects is one row of W, or nothing where i is none of the n numbers: then
the product is 0, as are the last two rows of the table, at which an index of n and of -1 arrive. TensorFlow
and JAX write embeddings so. The n-fold tensor of ones and zeros is never made.

Refuses: numbers that are not 0 to n-1 in order; a comparison that is read elsewhere too, or broadcasts to a
larger shape; weights with NaN or infinity, whose product with 0 is none; operator sets below 12, whose Clip
takes no integers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.arguments import feeding
from graphopt.ir.graph import Node
from graphopt.ir.surgery import (
    Scope,
    constant,
    insert,
    new_constant,
    new_tensor,
    replace,
    sole_user,
)
from graphopt.pass_base import Context, Edit, Pass, Skip

from ._integer_operands import operands

OPSET = 12
"""The first with a Clip of integers."""

INDICES = frozenset({"int32", "int64"})
"""What a table is looked up by."""


class _Lookup(NamedTuple):
    """Numbers that are compared, ``(.., 1)``, and the matrix whose rows they choose."""

    numbers: gs.Tensor
    classes: gs.Tensor
    dtype: np.dtype
    rank: int
    weights: np.ndarray


@dataclass(frozen=True)
class OneHotToGather(Pass):
    """A product with a one-hot tensor becomes a lookup of rows."""

    name = "one-hot-to-gather"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        if int(graph.opset) < OPSET:
            return
        for node in context.nodes(graph, "MatMul"):
            found = _lookup(node, context)
            if found is None:
                continue
            if not np.isfinite(found.weights).all():
                yield Skip(node, "its weights hold NaN or infinity")
            elif context.afford(_table(found.weights).nbytes, _freed(node, found)):
                _look_up(node, found)
                yield Edit(node, f"looks up rows of {len(found.weights)}")


def _lookup(node: Node, context: Context) -> _Lookup | None:
    """What a product chooses rows by; None where it does not."""
    weights = constant(node.inputs[1])
    cast = feeding(node.inputs[0], node, "Cast")
    equal = None if cast is None else feeding(cast.inputs[0], cast, "Equal")
    if weights is None or weights.ndim != 2 or equal is None:
        return None
    for numbers, classes in (equal.inputs, equal.inputs[::-1]):
        known, shape = constant(classes), context.facts.shape(numbers)
        dtype = context.facts.dtype(numbers)
        if known is None or shape is None or dtype is None or dtype.name not in INDICES:
            continue
        fits = len(shape) >= known.ndim > 0 and shape[-1] == 1 and known.shape[-1] == known.size
        if fits and np.array_equal(known.ravel(), np.arange(len(weights))):
            return _Lookup(numbers, classes, dtype, len(shape), weights)
    return None


def _look_up(node: Node, found: _Lookup) -> None:
    graph, numbers, weights = node.graph, found.numbers, found.weights
    assert graph is not None
    ends = [
        new_constant(graph, f"{numbers.name}_{name}", np.array(end, found.dtype))
        for name, end in (("lowest", -1), ("highest", len(weights)))
    ]
    bounded = new_tensor(graph, f"{numbers.name}_bounded")
    insert(node, "Clip", [numbers, *ends], [bounded])
    rows = new_tensor(graph, f"{numbers.name}_rows")
    inputs, attrs = operands(node, "Squeeze", axes=[found.rank - 1])
    insert(node, "Squeeze", [bounded, *inputs], [rows], attrs)
    kept = new_constant(graph, f"{node.inputs[1].name}_rows", _table(weights))
    replace(node, "Gather", [kept, rows], {"axis": 0})


def _table(weights: np.ndarray) -> np.ndarray:
    """The rows, and the two of zeros behind them."""
    return np.concatenate([weights, np.zeros((2, weights.shape[1]), weights.dtype)])


def _freed(node: Node, found: _Lookup) -> int:
    """The bytes of the matrix and of the numbers compared with, where nothing else reads them."""
    gone = [t for t in (node.inputs[1], found.classes) if sole_user(t) is not None]
    return sum(int(tensor.values.nbytes) for tensor in gone)
