"""Merge two adjacent Transposes into one, or none.

    Transpose(Transpose(x, p), q)   =>   Transpose(x, r),   r[i] = p[q[i]]
                                    =>   x                  when r is the identity

Output axis i of the second is axis q[i] of the first, which is axis p[q[i]] of x. Without ``perm``
the axes are reversed.

Refuses: Transposes in different scopes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from graphopt.ir.graph import Node
from graphopt.ir.surgery import Scope, producer, replace
from graphopt.pass_base import Context, Edit, Pass, Skip

from ._integer_operands import plain
from .merge_reshapes import cancel


@dataclass(frozen=True)
class MergeTransposes(Pass):
    """Two adjacent Transposes become one, or none."""

    name = "merge-transposes"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        for second in context.nodes(graph, "Transpose"):
            first = producer(second.inputs[0])
            if first is None or not plain(first, second, "Transpose"):
                continue
            p, q = permutation(first), permutation(second)
            rank = len(p if p is not None else q or ())
            backwards = list(range(rank))[::-1]
            p, q = (backwards if order is None else order for order in (p, q))
            if sorted(p) != sorted(q):
                continue
            perm = [p[axis] for axis in q]
            if perm == sorted(perm):
                if cancel(second, first):
                    yield Edit(second, "two Transposes cancel")
                continue
            replace(second, "Transpose", [first.inputs[0]], {"perm": perm})
            yield Edit(second, f"two Transposes became one: {perm}")


def permutation(node: Node) -> list[int] | None:
    """The order of a Transpose's axes; None for all reversed."""
    perm = node.attrs.get("perm")
    return [int(axis) for axis in perm] if isinstance(perm, list) else None
