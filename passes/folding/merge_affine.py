"""Merge chains of Add, Sub, Mul, Div and Neg with constants.

    y = s x + t        s, t constant

Each of the operators is such an affine map, and so is their composition:

    c (s x + t) = (c s) x + c t        (s x + t) / c = (s / c) x + t / c
    (s x + t) + c = s x + (t + c)      c - (s x + t) = -s x + (c - t)

A chain becomes one node where s = 1, s = -1 or t = 0, and Mul and Add otherwise, if that is fewer.
It is computed in float64. Integers of 32 and 64 bits wrap around alike in any order; they are never
divided.

Refuses: a chain that would not get shorter; an inner result that is used elsewhere; constants that
would take more bytes; a factor so large or small that the order decides about overflow; sums that
cancel, as in (x + 1e8) - 1e8, which rounds x; a part of a written-out normalization or Gelu, which runtimes
look for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.arguments import feeding, keeps_shape
from graphopt.ir.graph import Constant, Node
from graphopt.ir.surgery import Scope, bypass, insert, new_constant, new_tensor, replace
from graphopt.pass_base import Context, Edit, Pass, Skip
from graphopt.passes.folding._idioms import in_idiom

AFFINE = ("Add", "Sub", "Mul", "Div", "Neg")
TYPES = frozenset({"float16", "float32", "float64", "int32", "int64"})
MAX_CHAIN = 8
PLAIN = ({"Mul", "Add"}, {"Div", "Add"})
"""Pairs that cannot become one node."""

SPARE_BYTES = 64
"""A few scalars: by so much the constants of one chain may grow."""


@dataclass(frozen=True)
class MergeAffine(Pass):
    """Chains of arithmetic with constants become one or two nodes."""

    name = "merge-affine"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        for node in reversed(list(context.nodes(graph, *AFFINE))):
            if node.dead or in_idiom(node, context):
                continue
            chain = _chain(node, context)
            idiom = next((i for i, step in enumerate(chain) if in_idiom(step.node, context)), None)
            chain = chain[:idiom]
            why = ""
            for length in range(len(chain), 1, -1):
                why = _merge(chain[:length], context)
                if not why:
                    yield Edit(node, f"{length} nodes of constant arithmetic merged")
                    break
            if why and why != LONG:
                yield Skip(node, why)


LONG = "not shorter"


@dataclass(frozen=True)
class _Step:
    """One node as an affine map of its one variable input."""

    node: Node
    source: gs.Tensor
    scale: np.ndarray
    shift: np.ndarray
    constant: Constant | None


def _chain(node: Node, context: Context) -> list[_Step]:
    """The affine nodes from ``node`` upwards, the last one first; empty where there is but one."""
    dtype = context.facts.dtype(node.outputs[0])
    if dtype is None or dtype.name not in TYPES:
        return []
    nodes: list[Node] = []
    current: Node | None = node
    while current is not None and len(nodes) < MAX_CHAIN:
        operands = _operands(current)
        if operands is None:
            break
        nodes.append(current)
        current = feeding(operands[0], current, *AFFINE)
    if len(nodes) < 2 or (len(nodes) == 2 and {n.op for n in nodes} in PLAIN):
        return []
    steps: list[_Step] = []
    for current in nodes:
        step = _step(current, dtype)
        if step is None:
            break
        steps.append(step)
    return steps


def _operands(node: Node) -> tuple[gs.Tensor, Constant | None] | None:
    """The variable and the constant that a node reads; None where there is not one of each."""
    if node.op == "Neg":
        return node.inputs[0], None
    left, right = node.inputs
    if isinstance(left, Constant) == isinstance(right, Constant):
        return None
    return (left, right) if isinstance(right, Constant) else (right, left)


def _step(node: Node, dtype: np.dtype) -> _Step | None:
    wide = np.dtype(np.float64) if dtype.kind == "f" else dtype
    one, zero = np.array(1, wide), np.array(0, wide)
    operands = _operands(node)
    if operands is None:
        return None
    source, constant = operands
    if constant is None:
        return _Step(node, source, -one, zero, None)
    if constant.dtype != dtype or int(np.prod(constant.shape)) == 0:
        return None
    values = constant.values.astype(wide)
    on_the_right = constant is node.inputs[1]
    if node.op == "Add":
        return _Step(node, source, one, values, constant)
    if node.op == "Mul":
        return _Step(node, source, values, zero, constant)
    if node.op == "Sub":
        if on_the_right:
            return _Step(node, source, one, np.negative(values), constant)
        return _Step(node, source, -one, values, constant)
    if not on_the_right or dtype.kind != "f" or not np.all(values):
        return None
    return _Step(node, source, 1 / values, zero, constant)


def _merge(chain: list[_Step], context: Context) -> str:
    """Replace a chain, given from its last node up; why not, or empty."""
    last, first = chain[0], chain[-1]
    dtype = context.facts.dtype(last.node.outputs[0])
    assert dtype is not None
    composed = _compose(chain[::-1], dtype)
    if isinstance(composed, str):
        return composed
    scale, shift = composed
    unit, minus = bool(np.all(scale == 1)), bool(np.all(scale == np.array(-1, scale.dtype)))
    null = bool(np.all(shift == 0))
    nodes = 0 if unit and null else 1 if unit or minus or null else 2
    if nodes >= len(chain):
        return LONG
    small = _small(chain, context)
    full = np.broadcast_shapes(*(s.constant.shape for s in chain if s.constant is not None))
    if not small and not _covers(full, scale, shift, unit or minus, null):
        return "a constant would be lost that broadcasts the input"
    kept = 0 if unit or minus else scale.size
    kept += 0 if null else shift.size
    if kept * dtype.itemsize > _freed(chain) + SPARE_BYTES:
        return "the merged constants would take more bytes"
    if nodes == 0:
        if not small or not bypass(last.node, first.source):
            return "a graph returns it directly"
        return ""
    _write(last.node, first.source, scale.astype(dtype), shift.astype(dtype), unit, minus, null)
    return ""


def _freed(chain: list[_Step]) -> int:
    """Bytes of the constants that only the chain reads."""
    inside = {id(step.node) for step in chain}
    read = {id(s.constant): s.constant for s in chain if s.constant is not None}
    return sum(
        int(constant.nbytes)
        for constant in read.values()
        if not constant.is_output and all(id(user) in inside for user in constant.outputs)
    )


def _small(chain: list[_Step], context: Context) -> bool:
    """Whether no constant of the chain makes its input larger."""
    constants = [step.constant for step in chain if step.constant is not None]
    return keeps_shape(chain[-1].source, constants, context.facts)


def _covers(
    full: tuple[int, ...], scale: np.ndarray, shift: np.ndarray, unit: bool, null: bool
) -> bool:
    """Whether the constants that stay broadcast to the shape of all together."""
    shapes = [array.shape for array, gone in ((scale, unit), (shift, null)) if not gone]
    return bool(shapes) and np.broadcast_shapes(*shapes) == full


def _compose(steps: list[_Step], dtype: np.dtype) -> tuple[np.ndarray, np.ndarray] | str:
    """The scale and shift of all steps, the first one first; why they cannot be merged."""
    scale, shift = steps[0].scale, steps[0].shift
    for index, step in enumerate(steps):
        if dtype.kind == "f" and not _tame(step, dtype):
            return "a constant so large or small that merging could overflow or lose digits"
        if not index:
            continue
        with np.errstate(all="ignore"):
            scaled = shift * step.scale
            if dtype.kind == "f" and _cancels(scaled, step.shift):
                return "the sum of constants cancels"
            scale, shift = scale * step.scale, scaled + step.shift
    if dtype.kind != "f":
        return scale, shift
    # Products such as (1/3) * 3 are 1 up to the rounding of float64.
    scale = np.where(np.abs(np.abs(scale) - 1) < 1e-15, np.sign(scale), scale)
    tiny = np.finfo(dtype).tiny
    for array in (scale, shift):
        with np.errstate(all="ignore"):
            cast = np.abs(array.astype(dtype).astype(np.float64))
        if not np.all(np.isfinite(cast)) or np.any((cast < tiny) & (array != 0)):
            return "the merged constant leaves the range of its type"
    return scale, shift


def _tame(step: _Step, dtype: np.dtype) -> bool:
    """Whether a constant is of moderate size, so that the order of operations does not matter."""
    digits = 1 / float(np.finfo(dtype).eps)
    factor = np.abs(step.scale[step.scale != 0])
    if factor.size and not (factor.max() <= digits and factor.min() * digits >= 1):
        return False
    return bool(np.all(np.isfinite(step.scale)) and np.all(np.abs(step.shift) <= digits**0.5))


def _cancels(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether a sum is far smaller than its terms, so that the order of additions matters."""
    terms = np.maximum(np.abs(a), np.abs(b))
    return bool(np.any((np.abs(a + b) < 1e-3 * terms) & (terms > 1)))


def _write(
    node: Node,
    source: gs.Tensor,
    scale: np.ndarray,
    shift: np.ndarray,
    unit: bool,
    minus: bool,
    null: bool,
) -> None:
    """Let as few nodes as can be compute ``scale * source + shift`` in the place of ``node``."""
    graph = node.graph
    assert graph is not None
    label = node.name or node.op
    if null:
        if minus:
            replace(node, "Neg", [source])
        else:
            replace(node, "Mul", [source, new_constant(graph, f"{label}/scale", scale)])
        return
    addend = new_constant(graph, f"{label}/shift", shift)
    if unit:
        replace(node, "Add", [source, addend])
    elif minus:
        replace(node, "Sub", [addend, source])
    else:
        product = new_tensor(graph, f"{label}/product")
        factor = new_constant(graph, f"{label}/scale", scale)
        insert(node, "Mul", [source, factor], [product])
        replace(node, "Add", [product, addend])
