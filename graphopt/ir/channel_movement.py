"""Channels through operators that make tensors or move data along their axes.

What only moves data along an axis is done to the array of its atoms: Concat joins arrays, Split, Slice and
Gather pick from them, Tile repeats them. No rule beyond that is needed.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.arguments import axes_given, integers
from graphopt.ir.channel_atoms import MAX_PLACES, Atoms
from graphopt.ir.channel_visit import (
    Axes,
    UnfollowedError,
    Visit,
    filled,
    follows,
    literal,
    named,
)
from graphopt.ir.graph import Constant, Node
from graphopt.ir.inference import Facts
from graphopt.ir.surgery import input_or_none


@follows("Constant")
def source(visit: Visit) -> Axes:
    """A tensor of its own."""
    return [visit.source(dim) for dim in visit.result()]


@follows("ConstantOfShape")
def filled_tensor(visit: Visit) -> Axes:
    """As large as is wanted of it."""
    return [visit.source(dim) for dim in visit.result()]


@follows("Shape")
def shape(visit: Visit) -> Axes:
    """Sizes, which are told as they were; but where a graph returns them, they stay."""
    axes = visit.axes(0)
    if visit.node.outputs[0].is_output:
        visit.lock(axes, f"the graph returns the sizes that {visit.label} tells")
    return [visit.fixed()]


@follows("Transpose")
def transpose(visit: Visit) -> Axes:
    """Axes in another order."""
    axes = visit.axes(0)
    order = visit.node.attrs.get("perm") or range(len(axes))[::-1]
    return [axes[axis] for axis in order]


@follows("Squeeze", "Unsqueeze")
def squeeze(visit: Visit) -> Axes:
    """Axes of one place go or come."""
    axes, rank = visit.axes(0), len(visit.result())
    given, named = axes_given(visit.node, visit.facts)
    if given and named is None:
        raise UnfollowedError(f"{visit.label} names axes that are not known")
    if visit.node.op == "Unsqueeze":
        new = {axis % rank for axis in named or []}
        old = iter(axes)
        return [visit.fixed().reshape(1) if i in new else next(old) for i in range(rank)]
    if not given:
        gone = {i for i, a in enumerate(axes) if a.ndim and len(a) == 1}
    else:
        gone = {axis % len(axes) for axis in named or []}
    return [a for i, a in enumerate(axes) if i not in gone]


@follows("Expand")
def expand(visit: Visit) -> Axes:
    """What is broadcast becomes as long as is wanted of it."""
    axes, result = visit.axes(0), visit.result()
    made: Axes = []
    for position, dim in enumerate(result, len(axes) - len(result)):
        atoms = axes[position] if position >= 0 else None
        if atoms is not None and not (atoms.ndim and len(atoms) == 1):
            made.append(atoms)
        else:
            made.append(visit.source(dim))
    return made


@follows("Tile")
def tile(visit: Visit) -> Axes:
    """Axes repeated."""
    axes = visit.axes(0)
    repeats = integers(input_or_none(visit.node, 1), visit.facts)
    if repeats is None or len(repeats) != len(axes):
        raise UnfollowedError(f"{visit.label} repeats nobody knows how often")
    made: Axes = []
    for atoms, count in zip(axes, repeats, strict=True):
        if count == 1:
            made.append(atoms)
        elif atoms.ndim and len(atoms) > 1 and 0 < count * len(atoms) <= MAX_PLACES:
            made.append(np.tile(atoms, count))
        else:
            visit.lock([atoms], f"{visit.label} repeats it")
            made.append(visit.fixed())
    return made


@follows("Concat")
def concat(visit: Visit) -> Axes:
    """Places of all inputs one after the other; the other axes are one."""
    count = len(visit.node.inputs)
    flows = [visit.axes(i) for i in range(count)]
    rank = len(flows[0])
    axis = int(visit.node.attrs["axis"]) % rank
    sizes = [visit.shape(i)[axis] for i in range(count)]
    others = [
        visit.broadcast([[f[i]] for f in flows])[0] if i != axis else None for i in range(rank)
    ]
    parts = [flow[axis] for flow in flows]
    joined: Atoms
    if all(part.ndim == 0 for part in parts):
        joined = parts[0]
    elif all(isinstance(size, int) and size <= MAX_PLACES for size in sizes):
        whole = [filled(p, s) for p, s in zip(parts, sizes, strict=True) if isinstance(s, int)]
        joined = np.concatenate(whole)
    else:
        visit.lock(parts, f"{visit.label} puts parts of unknown size together")
        joined = visit.fixed()
    return [joined if a is None else a for a in others]


@follows("Split")
def split(visit: Visit) -> list[Axes]:
    """Consecutive places for each output."""
    axes = visit.axes(0)
    axis = int(visit.node.attrs.get("axis", 0)) % len(axes)
    atoms, start, made = axes[axis], 0, []
    for index in range(len(visit.node.outputs)):
        size = visit.result(index)[axis] if visit.node.outputs[index].name else None
        if atoms.ndim and not isinstance(size, int):
            raise UnfollowedError(f"{visit.label} makes parts of unknown size")
        stop = start + size if isinstance(size, int) else start
        part = atoms[start:stop] if atoms.ndim else atoms
        start = stop
        made.append([part if i == axis else a for i, a in enumerate(axes)])
    return made


@follows("Slice")
def slices(visit: Visit) -> Axes:
    """Places picked by start and end."""
    axes = visit.axes(0)
    for axis, bound in slice_bounds(visit.node, visit.facts, len(axes)).items():
        if bound is not None and bound.step == 1 and axes[axis].ndim:
            axes[axis] = axes[axis][bound]
        else:
            visit.lock([axes[axis]], f"{visit.label} picks from it")
            axes[axis] = visit.fixed()
    return axes


def slice_bounds(node: Node, facts: Facts, rank: int) -> dict[int, slice | None]:
    """What a Slice takes of each axis that it names, as Python slices; None where that is not known.

    Raises:
        UnfollowedError: it is not known which axes it names.
    """
    if "starts" in node.attrs:
        starts, ends = list(node.attrs["starts"]), list(node.attrs["ends"])
        axes = list(node.attrs.get("axes", range(len(starts))))
        return {a % rank: slice(s, e, 1) for a, s, e in zip(axes, starts, ends, strict=True)}
    given = [entries_of(input_or_none(node, index), facts) for index in range(1, 5)]
    count = next((len(g) for g in given if g), 0)
    chosen = given[2] if input_or_none(node, 3) is not None else list(range(count))
    if chosen is None or None in chosen:
        raise UnfollowedError(f"{named(node)} slices axes that are not known")
    found: dict[int, slice | None] = {}
    for position, axis in enumerate(chosen):
        start, end = (None if g is None else g[position] for g in given[:2])
        step = 1 if input_or_none(node, 4) is None else (given[3] or [None] * count)[position]
        known = start is not None and end is not None and step is not None
        found[int(axis or 0) % rank] = slice(start, end, step) if known else None
    return found


def entries_of(tensor: gs.Tensor | None, facts: Facts) -> list[int | None] | None:
    """The contents of a small integer tensor, entry by entry; None where none is known."""
    if tensor is None:
        return None
    if isinstance(tensor, Constant):
        return [int(entry) for entry in tensor.values.reshape(-1)]
    value = facts.value(tensor)
    if value is None:
        return None
    return [entry if isinstance(entry, int) else None for entry in value.reshape(-1)]


@follows("Gather")
def gather(visit: Visit) -> Axes:
    """Places picked by constant indices; others may be any place of the axis, which then stays."""
    axes, picked = visit.axes(0), visit.axes(1)
    axis = int(visit.node.attrs.get("axis", 0)) % len(axes)
    indices = literal(visit.node.inputs[1])
    if indices is not None and indices.ndim == 1 and axes[axis].ndim and len(indices) > 1:
        visit.lock(picked, f"{visit.label} reads it as positions")
        return [*axes[:axis], axes[axis][indices], *axes[axis + 1 :]]
    if indices is not None and indices.size == 1 and axes[axis].ndim:
        visit.lock([axes[axis][indices.reshape(-1)]], f"{visit.label} picks it")
    else:
        visit.lock([axes[axis]], f"{visit.label} picks from it")
    if visit.is_weight(0) and indices is None:
        for atoms in (*axes[:axis], *axes[axis + 1 :]):
            visit.make(atoms)
    return [*axes[:axis], *picked, *axes[axis + 1 :]]


@follows("Pad")
def pad(visit: Visit) -> Axes:
    """Places before and after an axis, which stay."""
    axes, result = visit.axes(0), visit.result()
    pads = _pads(visit, len(axes))
    made: Axes = []
    for axis, atoms in enumerate(axes):
        before, after = pads[axis]
        if before == after == 0:
            made.append(atoms)
        elif (
            atoms.ndim
            and 0 <= before + after <= MAX_PLACES
            and min(before, after) >= 0
            and visit.node.attrs.get("mode", "constant") == "constant"
        ):
            stays = visit.fixed(f"{visit.label} adds it")
            made.append(np.concatenate([filled(stays, before), atoms, filled(stays, after)]))
        else:
            visit.lock([atoms], f"{visit.label} pads it")
            made.append(visit.fixed())
    return made if len(made) == len(result) else []


def _pads(visit: Visit, rank: int) -> list[tuple[int, int]]:
    """What is added before and after each axis."""
    given = visit.node.attrs.get("pads")
    pads = list(given) if given is not None else integers(input_or_none(visit.node, 1), visit.facts)
    axes = integers(input_or_none(visit.node, 3), visit.facts) if visit.has(3) else range(rank)
    if pads is None or axes is None or len(pads) != 2 * len(axes):
        raise UnfollowedError(f"{visit.label} pads nobody knows how much")
    found = [(0, 0)] * rank
    for i, axis in enumerate(axes):
        found[axis % rank] = (int(pads[i]), int(pads[i + len(axes)]))
    return found
