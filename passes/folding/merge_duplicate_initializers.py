"""Store equal constants once.

    c1 == c2, bit for bit   =>   what read c2 reads c1

Constants are compared by their bytes, so that -0.0 and +0.0, or two kinds of NaN, stay apart. A constant
that several bodies share moves to the innermost scope around them all.

Refuses: constants that a graph returns; graph inputs with a default value, which a caller may override.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from graphopt.ir.graph import Constant
from graphopt.ir.surgery import Scope, redirect
from graphopt.pass_base import Context, Edit, Pass, Skip

Kind = tuple[str, tuple[int, ...]]


@dataclass(frozen=True)
class MergeDuplicateInitializers(Pass):
    """Constants with equal bytes become one."""

    name = "merge-duplicate-initializers"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        if graph.parent is None:
            yield from merge_equal(constants_below(graph))


def merge_equal(constants: Iterable[Constant]) -> Iterator[Edit]:
    """Let what reads one of several equal constants read the first of them; an edit for each that goes."""
    alike: dict[Kind, list[Constant]] = {}
    for constant in constants:
        alike.setdefault((constant.dtype.name, tuple(constant.shape)), []).append(constant)
    for group in alike.values():
        if len(group) > 1:
            yield from _merge(group)


def constants_below(root: Scope) -> list[Constant]:
    """The constants that nodes read, in all scopes below a root, outer ones first."""
    found: dict[int, Constant] = {}
    waiting = [root]
    while waiting:
        scope = waiting.pop(0)
        for constant in scope.initializers:
            found.setdefault(id(constant), constant)
        for node in scope.nodes:
            for tensor in node.inputs:
                if isinstance(tensor, Constant):
                    found.setdefault(id(tensor), tensor)
            waiting.extend(node.bodies())
    return [c for c in found.values() if c.outputs and not c.is_output and c.dtype != object]


def _merge(group: list[Constant]) -> Iterator[Edit]:
    first: dict[bytes, Constant] = {}
    for constant in group:
        raw = np.ascontiguousarray(constant.values).reshape(-1).view(np.uint8)
        digest = hashlib.sha256(raw.data).digest()
        kept = first.setdefault(digest, constant)
        if kept is not constant:
            redirect(constant, kept)
            yield Edit(constant.name, f"equal to {kept.name}; {constant.nbytes} bytes")
