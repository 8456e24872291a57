"""Remove nodes that move or select data but provably change nothing.

    Reshape, Flatten, Squeeze, Unsqueeze, Expand, Tile whose result has the shape of the input
    Transpose                                            that moves only axes of size 1, same shape
    Slice                                                with positive steps and the shape of the input
    Pad                                                  by nothing
    Gather                                               of a whole axis in order
    Concat, Split                                        of one part (Concat: empty parts do not count)
    Resize, Upsample                                     by factors of 1, or to the sizes there are
    DepthToSpace, SpaceToDepth                           with blocks of 1

Shapes are compared symbolically. Between a graph input and a graph output an Identity stays.

Refuses: a Resize to the same sizes by factors other than 1, or that crops to a region, since it
samples at other places; a Slice with a negative step, which reverses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from graphopt.ir.graph import Constant, Node
from graphopt.ir.inference import Facts
from graphopt.ir.surgery import Scope, bypass, constant, input_or_none, is_used, replace, splat
from graphopt.pass_base import Context, Edit, Pass, Skip

from ._integer_operands import integers, is_given
from .merge_slices import cuts_of


@dataclass(frozen=True)
class EliminateNoopMovement(Pass):
    """Nodes that move data but change nothing are removed."""

    name = "eliminate-noop-movement"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        for node in context.nodes(graph, *TESTS):
            if not node.inputs or isinstance(node.inputs[0], Constant):
                continue
            source = TESTS[node.op](node, context.facts)
            if source is None or any(is_used(t) for t in node.outputs[1:]):
                continue
            tensor = node.inputs[source]
            if not bypass(node, tensor):
                replace(node, "Identity", [tensor], outputs=node.outputs[:1])
            yield Edit(node, f"{node.op} changes nothing")


def _same_shape(node: Node, facts: Facts) -> int | None:
    source, result = facts.shape(node.inputs[0]), facts.shape(node.outputs[0])
    return 0 if source is not None and source == result else None


def _transpose(node: Node, facts: Facts) -> int | None:
    perm, shape = node.attrs.get("perm"), facts.shape(node.inputs[0])
    if not isinstance(perm, list):
        if shape is None:
            return None
        perm = list(range(len(shape)))[::-1]
    if perm == sorted(perm):
        return 0
    if shape is None or len(shape) != len(perm):
        return None
    moved = [axis for axis in perm if shape[axis] != 1]
    return _same_shape(node, facts) if moved == sorted(moved) else None


def _slice(node: Node, facts: Facts) -> int | None:
    if cuts_of(node, facts) == {}:
        return 0
    if is_given(node, "steps", 4):
        steps = integers(node, "steps", 4)
        if steps is None or any(step < 1 for step in steps):
            return None
    return _same_shape(node, facts)


def _pad(node: Node, facts: Facts) -> int | None:
    pads = integers(node, "pads", 1)
    return 0 if pads is not None and not any(pads) else None


def _gather(node: Node, facts: Facts) -> int | None:
    indices, shape = constant(node.inputs[1]), facts.shape(node.inputs[0])
    axis = node.attrs.get("axis", 0)
    if indices is None or shape is None or not isinstance(axis, int) or indices.ndim != 1:
        return None
    size = shape[axis] if -len(shape) <= axis < len(shape) else None
    if not isinstance(size, int) or indices.size != size:
        return None
    return 0 if np.array_equal(indices % max(size, 1), np.arange(size)) else None


def _concat(node: Node, facts: Facts) -> int | None:
    if len(node.inputs) == 1:
        return 0
    axis = node.attrs.get("axis")
    if not isinstance(axis, int):
        return None
    filled = []
    for index, tensor in enumerate(node.inputs):
        shape = facts.shape(tensor)
        if shape is None or not -len(shape) <= axis < len(shape) or shape[axis] != 0:
            filled.append(index)
    return filled[0] if len(filled) == 1 else None


def _split(node: Node, facts: Facts) -> int | None:
    return 0 if len(node.outputs) == 1 else None


def _blocks(node: Node, facts: Facts) -> int | None:
    return 0 if node.attrs.get("blocksize") == 1 else None


def _resize(node: Node, facts: Facts) -> int | None:
    mode = node.attrs.get("coordinate_transformation_mode", "half_pixel")
    if mode in ("tf_crop_and_resize", "tf_half_pixel_for_nn"):
        return None
    if node.attrs.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        return None
    if isinstance(node.attrs.get("scales"), list):
        return 0 if all(scale == 1 for scale in node.attrs["scales"]) else None
    if input_or_none(node, 3) is not None:
        return _same_shape(node, facts)
    scales = input_or_none(node, 1 if len(node.inputs) == 2 else 2)
    return 0 if splat(scales) == 1 else None


TESTS: dict[str, Callable[[Node, Facts], int | None]] = {
    "Reshape": _same_shape,
    "Flatten": _same_shape,
    "Squeeze": _same_shape,
    "Unsqueeze": _same_shape,
    "Expand": _same_shape,
    "Tile": _same_shape,
    "Transpose": _transpose,
    "Slice": _slice,
    "Pad": _pad,
    "Gather": _gather,
    "Concat": _concat,
    "Split": _split,
    "Resize": _resize,
    "Upsample": _resize,
    "DepthToSpace": _blocks,
    "SpaceToDepth": _blocks,
}
"""By operator, which input the first output provably equals; None where that is not known."""
