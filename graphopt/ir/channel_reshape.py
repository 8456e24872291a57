"""Channels through Reshape, Flatten and what is a reshape in disguise.

Both shapes are products of the same finer axes, in row order. Walking both from the left, and what is then
left from the right, equal dims are one axis; of unequal ones the smaller is taken off the larger, where it
divides it:

    [N, C]       -> [N, H, D]     finer axes N, H, D:            C = H D
    [N, H, W, C] -> [N, -1]       finer axes N, H, W, C
    [N, C, H, W] -> [N, G, -1]    finer axes N, G, C/G, H, W:    C = G (C/G)

What does not divide stays as it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphopt.ir.channel_atoms import Atoms
from graphopt.ir.channel_visit import Axes, UnfollowedError, Visit, filled, follows
from graphopt.ir.inference.facts import Shape
from graphopt.numerics.dims import Dim, exact_div

Runs = list[list[int]]
"""For each axis the numbers of the finer axes that it is the product of."""


class _Refinement:
    """The finer axes of two shapes.

    Attributes:
        dims: of the finer axes; they are numbered as found.
        before: the finer axes of each axis of the first shape.
        after: those of the second.
        open: axes of the first and of the second shape that share no finer ones.
    """

    def __init__(self, before: Shape, after: Shape) -> None:
        self.dims: list[Dim] = []
        heads: tuple[Runs, Runs] = ([[] for _ in before], [[] for _ in after])
        tails: tuple[Runs, Runs] = ([[] for _ in before], [[] for _ in after])
        left, right = list(before), list(after)
        forward = (list(range(len(left))), list(range(len(right))))
        ahead = self._walk(left, right, *forward, heads)
        self._walk(left, right, ahead[0][::-1], ahead[1][::-1], tails)
        self.before = [h + t[::-1] for h, t in zip(heads[0], tails[0], strict=True)]
        self.after = [h + t[::-1] for h, t in zip(heads[1], tails[1], strict=True)]
        self.open = (
            [i for i in ahead[0] if left[i] != 1],
            [j for j in ahead[1] if right[j] != 1],
        )

    def _walk(
        self,
        left: list[Dim],
        right: list[Dim],
        rows: list[int],
        columns: list[int],
        runs: tuple[Runs, Runs],
    ) -> tuple[list[int], list[int]]:
        """Take finer axes off both shapes as far as they divide; what is left of both."""
        rows, columns = list(rows), list(columns)
        while rows and columns:
            i, j = rows[0], columns[0]
            taken = _common(left[i], right[j])
            if taken is None:
                break
            if taken != 1:
                runs[0][i].append(len(self.dims))
                runs[1][j].append(len(self.dims))
                self.dims.append(taken)
            for dims, at, queue in ((left, i, rows), (right, j, columns)):
                rest = exact_div(dims[at], taken) if taken != 1 or dims[at] == 1 else dims[at]
                dims[at] = 1 if rest is None else rest
                if dims[at] == 1:
                    queue.pop(0)
        return rows, columns


def _common(a: Dim, b: Dim) -> Dim | None:
    """The one of two dims that divides the other; None where neither does."""
    if a == 0 or b == 0:
        return None
    if a == b or exact_div(b, a) is not None:
        return a
    return b if exact_div(a, b) is not None else None


def reshaped(visit: Visit, axes: Axes, before: Shape, after: Shape) -> Axes:
    """The atoms of a tensor in another shape of as many elements.

    Args:
        visit: the node that says so.
        axes: the atoms in the first shape.
        before: the first shape.
        after: the second.
    """
    found = _Refinement(before, after)
    why = f"{visit.label} mixes it with other axes"
    finer = [visit.fixed(why)] * len(found.dims)
    for axis, run in enumerate(found.before):
        stuck = axis in found.open[0]
        if len(run) == 1 and not stuck:
            finer[run[0]] = axes[axis]
        elif stuck or not _static(found.dims, run):
            visit.lock([axes[axis]], why)
        elif axes[axis].ndim == 0:
            for number in run:
                finer[number] = axes[axis]
        elif run:
            for number in run:
                finer[number] = visit.source(found.dims[number])
            visit.split(axes[axis], [finer[number] for number in run])
    return [
        _whole(visit, found, [(n, finer[n]) for n in run], axis in found.open[1], why)
        for axis, run in enumerate(found.after)
    ]


def _static(dims: Sequence[Dim], run: Sequence[int]) -> bool:
    return all(isinstance(dims[number], int) for number in run)


def _whole(
    visit: Visit, found: _Refinement, run: list[tuple[int, Atoms]], stuck: bool, why: str
) -> Atoms:
    """The atoms of an axis that is the product of finer ones."""
    parts = [atoms for _, atoms in run]
    if not run and not stuck:
        return visit.fixed(why).reshape(1)
    if len(run) == 1 and not stuck:
        return parts[0]
    if stuck or not _static(found.dims, [number for number, _ in run]):
        visit.lock(parts, why)
        return visit.fixed(why)
    if all(part.ndim == 0 for part in parts):
        return parts[0]
    sizes = [size for number, _ in run if isinstance(size := found.dims[number], int)]
    whole = visit.source(math.prod(sizes))
    visit.split(whole, [filled(part, size) for part, size in zip(parts, sizes, strict=True)])
    return whole


@follows("Reshape", "Flatten")
def reshape(visit: Visit) -> Axes:
    """Another shape."""
    if visit.node.op == "Reshape" and not visit.has(1):
        raise UnfollowedError(f"{visit.label} has its shape as an attribute")
    return reshaped(visit, visit.axes(0), visit.shape(0), visit.result())


@follows("DepthToSpace", "SpaceToDepth")
def blocks(visit: Visit) -> Axes:
    """Channels are blocks of b^2, outermost or (CRD) innermost the channel that remains."""
    axes, shape, result = visit.axes(0), visit.shape(0), visit.result()
    why = f"{visit.label} mixes it with other axes"
    visit.lock(axes[2:], why)
    spatial = [visit.fixed(why)] * 2
    inner, outer = shape[1], result[1]
    if not isinstance(inner, int) or not isinstance(outer, int):
        raise UnfollowedError(f"{visit.label} has an unknown number of channels")
    block = int(visit.node.attrs["blocksize"]) ** 2
    square = filled(visit.fixed(f"{visit.label} makes space of it"), block)
    if visit.node.op == "SpaceToDepth":
        made = visit.atoms.fresh(inner * block)
        visit.split(made, [square, filled(axes[1], inner)])
        return [axes[0], made, *spatial]
    channels = visit.atoms.fresh(outer)
    last = visit.node.attrs.get("mode", "DCR") == "CRD"
    visit.split(axes[1], [channels, square] if last else [square, channels])
    return [axes[0], channels, *spatial]
