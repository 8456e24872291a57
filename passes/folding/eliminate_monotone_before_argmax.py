"""Look for the extreme before, not after, a function that keeps the order.

    argmax(-x) = argmin(x)        argmin(-x) = argmax(x)
    argmax(cast(x)) = argmax(x)   where the wider type holds every value of x

ArgMax takes the first of equal elements, so the function must be strictly monotone *as computed*.
Rounding makes nearly every other one weakly monotone: exp, sigmoid and tanh saturate, sqrt and log
map neighbours to one number, and softmax does so as well (of logits 1e-9 and 2e-9 the probabilities
are equal in float32, and ArgMax takes the first). The result is an index, where a tie resolved in
another way is not a rounding error.

Refuses: every monotone function that is not injective in floating point; Neg of integers, whose
lowest value is its own negative; a result that is used elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from graphopt.ir.arguments import feeding
from graphopt.ir.graph import Node
from graphopt.ir.surgery import Scope, bypass, replace
from graphopt.pass_base import Context, Edit, Pass, Skip

OPPOSITE = {"ArgMax": "ArgMin", "ArgMin": "ArgMax"}

WEAKLY_MONOTONE = (
    *("Exp", "Log", "LogSoftmax", "Sigmoid", "Softmax", "Softplus", "Softsign", "Sqrt", "Tanh"),
)
"""Functions that keep the order but for ties."""

DIGITS = {"float16": 11, "float32": 24, "float64": 53}
"""Bits up to which a type of floats holds every whole number."""

SEARCHED = frozenset({"float32", "float64", "int8", "uint8", "int32"})
"""Types that ArgMax has kernels for everywhere."""


@dataclass(frozen=True)
class EliminateMonotoneBeforeArgmax(Pass):
    """Neg and widening Cast before ArgMax and ArgMin are removed."""

    name = "eliminate-monotone-before-argmax"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        for node in context.nodes(graph, *OPPOSITE):
            inner = feeding(node.inputs[0], node, "Neg", "Cast", *WEAKLY_MONOTONE)
            if inner is None:
                continue
            dtype = context.facts.dtype(inner.inputs[0])
            if inner.op in WEAKLY_MONOTONE:
                yield Skip(node, f"{inner.op} rounds different elements to equal ones")
            elif dtype is None:
                continue
            elif inner.op == "Neg" and dtype.kind == "f":
                replace(node, OPPOSITE[node.op], [inner.inputs[0]], dict(node.attrs))
                yield Edit(node, "Neg before it turned the order round")
            elif inner.op == "Cast" and _widens(inner, dtype, context) and bypass(inner):
                yield Edit(node, "Cast before it keeps the order")


def _widens(cast: Node, old: np.dtype, context: Context) -> bool:
    """Whether a Cast maps different elements to different ones, in order."""
    new = context.facts.dtype(cast.outputs[0])
    if new is None or old.name not in SEARCHED:
        return False
    if new.kind == "f" and old.kind in "iu":
        return 8 * old.itemsize <= DIGITS.get(new.name, 0)
    if new.kind not in "fiu":
        return False
    return bool(np.can_cast(old, new, "safe"))
