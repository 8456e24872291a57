"""Where channels end and begin: products with weights, and sums.

    Conv            y[m] = sum_c W[m, c] x[c] + b[m]        reads c, makes m
    ConvTranspose   W[c, m]
    grouped         c = (g, i), m = (g, o): W[(g, o), i]    whole groups leave, or the same place of each
    Gemm, MatMul    Y = A B                                 reads the inner axis, makes the columns
    RNN, GRU, LSTM  a hidden unit is a row of every gate in W, R and B, and a column of R
    ReduceSum       what is zero adds nothing; so do the norms

A depthwise convolution is a grouped one with one channel a group: its channels pass.

Source: ONNX operator specification.
"""

from __future__ import annotations

import math

from graphopt.ir.arguments import reduced_axes
from graphopt.ir.channel_atoms import Atoms
from graphopt.ir.channel_visit import Axes, UnfollowedError, Visit, filled, follows

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}

SUMS = frozenset({"ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare"})
"""Reductions to which a zero adds nothing."""


@follows("Conv", "ConvTranspose")
def conv(visit: Visit) -> Axes:
    """A convolution; spatial axes stay."""
    data, weight = visit.axes(0), visit.axes(1)
    turned = visit.node.op == "ConvTranspose"
    groups = int(visit.node.attrs.get("group", 1))
    if len(data) != len(weight) or len(data) < 2 or groups < 1:
        raise UnfollowedError(f"{visit.label} has operands of unequal ranks")
    stays = visit.fixed(f"{visit.label} slides over it")
    visit.lock([*data[2:], *weight[2:]], f"{visit.label} slides over it")
    shape = visit.shape(1)
    if not isinstance(shape[0], int) or not isinstance(shape[1], int):
        raise UnfollowedError(f"{visit.label} has a weight of unknown size")
    ins, outs = (0, 1) if turned else (1, 0)
    channels = shape[1] * groups
    if groups == 1:
        visit.join(data[1], weight[ins])
        made = weight[outs]
    elif turned:
        group = visit.atoms.fresh(groups)
        made = visit.atoms.fresh(channels)
        visit.split(weight[0], [group, visit.atoms.fresh(shape[0] // groups)])
        visit.join(data[1], weight[0])
        visit.split(made, [group, filled(weight[1], shape[1])])
    else:
        group = visit.atoms.fresh(groups)
        made = weight[0]
        visit.split(filled(data[1], channels), [group, filled(weight[1], shape[1])])
        visit.split(made, [group, visit.atoms.fresh(shape[0] // groups)])
    if visit.has(2):
        visit.join(made, visit.axes(2)[0])
    visit.sum(0, 1, data[1])
    visit.make(made)
    visit.work(weight[:2])
    return [data[0], made, *[stays] * (len(data) - 2)]


@follows("MatMul")
def matmul(visit: Visit) -> Axes:
    """Stacks of matrices, broadcast as numpy.matmul."""
    left, right = visit.axes(0), visit.axes(1)
    if not left or not right:
        raise UnfollowedError(f"{visit.label} multiplies a scalar")
    one = visit.fixed().reshape(1)
    a, b = (left, right)
    if len(left) == 1:
        a = [one, *left]
    if len(right) == 1:
        b = [*right, one]
    _product(visit, (0, len(left) - 1, a[-1]), (1, max(len(right) - 2, 0), b[-2]))
    stack = visit.broadcast([a[:-2], b[:-2]]) if len(a) > 2 or len(b) > 2 else []
    if not visit.is_weight(0) and not visit.is_weight(1):
        for atoms in stack:
            visit.batch(atoms)
    _makes(visit, a[-2], b[-1])
    visit.work([*stack, a[-2], a[-1], b[-1]])
    rows = [a[-2]] if len(left) > 1 else []
    return [*stack, *rows, *([b[-1]] if len(right) > 1 else [])]


@follows("Gemm")
def gemm(visit: Visit) -> Axes:
    """Two matrices, either transposed or not, and a bias that is broadcast."""
    a, b = visit.axes(0), visit.axes(1)
    rows, inner = (1, 0) if visit.node.attrs.get("transA", 0) else (0, 1)
    outer, columns = (1, 0) if visit.node.attrs.get("transB", 0) else (0, 1)
    _product(visit, (0, inner, a[inner]), (1, outer, b[outer]))
    made = [a[rows], b[columns]]
    if visit.has(2):
        made = visit.broadcast([made, visit.axes(2)])
    _makes(visit, a[rows], b[columns])
    visit.work([a[rows], a[inner], b[columns]])
    return made


def _product(visit: Visit, left: tuple[int, int, Atoms], right: tuple[int, int, Atoms]) -> None:
    """A sum of products over an axis of each of two operands; the one computed at run time reads it."""
    visit.join(left[2], right[2])
    visit.sum(*(right if visit.is_weight(left[0]) else left))


def _makes(visit: Visit, rows: Atoms, columns: Atoms) -> None:
    if visit.is_weight(1):
        visit.make(columns)
    elif visit.is_weight(0):
        visit.make(rows)


@follows("Einsum")
def einsum(visit: Visit) -> Axes:
    """Axes of one label are one axis; those that the result lacks are summed over."""
    equation = str(visit.node.attrs["equation"]).replace(" ", "")
    left, arrow, result = equation.partition("->")
    terms = left.split(",")
    if not arrow or "." in equation or any(len(set(t)) < len(t) for t in [*terms, result]):
        raise UnfollowedError(f"{visit.label} is written in a way that is not followed")
    flows = [visit.axes(index) for index in range(len(terms))]
    met: dict[str, list[tuple[int, int, Atoms]]] = {}
    for index, (term, axes) in enumerate(zip(terms, flows, strict=True)):
        for axis, (letter, atoms) in enumerate(zip(term, axes, strict=True)):
            met.setdefault(letter, []).append((index, axis, atoms))
    letters = {x: visit.broadcast([[a] for _, _, a in seen])[0] for x, seen in met.items()}
    for letter, seen in met.items():
        if letter not in result:
            wide = [entry for entry in seen if entry[2].ndim == 0 or len(entry[2]) != 1] or seen
            running = [entry for entry in wide if not visit.is_weight(entry[0])] or wide
            visit.sum(*running[0])
        elif len(seen) == len(terms) > 1:
            visit.batch(letters[letter])
        elif all(visit.is_weight(index) for index, _, _ in seen):
            visit.make(letters[letter])
    visit.work(list(letters.values()))
    return [letters[letter] for letter in result]


@follows("RNN", "GRU", "LSTM")
def recurrent(visit: Visit) -> list[Axes]:
    """Hidden units: rows of every gate, columns of R. The directions stay, and so do the gates."""
    gates = GATES[visit.node.op]
    data, weight, state = visit.axes(0), visit.axes(1), visit.axes(2)
    size = visit.shape(2)[2]
    if not isinstance(size, int):
        raise UnfollowedError(f"{visit.label} has an unknown number of hidden units")
    why = f"{visit.label} keeps its gates and directions"
    hidden = state[2] if state[2].ndim else filled(state[2], size)

    def stacked(atoms: Atoms, blocks: int) -> None:
        visit.split(atoms, [filled(visit.fixed(why), blocks), hidden])

    visit.lock([weight[0], state[0]], why)
    visit.join(data[2], weight[2])
    stacked(weight[1], gates)
    stacked(state[1], gates)
    for index, blocks in ((3, 2 * gates), (7, 3)):
        if visit.has(index):
            extra = visit.axes(index)
            visit.lock([extra[0]], why)
            stacked(extra[1], blocks)
    for index in (5, 6):
        if visit.has(index):
            initial = visit.axes(index)
            visit.lock(initial[:2], why)
            visit.join(initial[2], hidden)
    if visit.has(4):
        visit.lock(visit.axes(4), why)
    visit.sum(0, 2, data[2])
    visit.sum(2, 2, state[2])
    visit.make(hidden)
    _recurrent_work(visit, weight, state)
    visit.lock(data[:2], why)
    stays = visit.fixed(why)
    return [[stays, stays, stays, hidden], [stays, stays, hidden], [stays, stays, hidden]]


def _recurrent_work(visit: Visit, weight: Axes, state: Axes) -> None:
    sizes = [math.prod(d for d in visit.shape(index) if isinstance(d, int)) for index in (1, 2)]
    total = sum(sizes) or 1
    visit.work(weight[1:], sizes[0] / total)
    visit.work(state[1:], sizes[1] / total)


@follows(
    *SUMS,
    *("ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceLogSum", "ReduceLogSumExp"),
)
def reduction(visit: Visit) -> Axes:
    """Sums read channels as a product does; a mean or a maximum changes with what leaves."""
    axes = visit.axes(0)
    reduced = reduced_axes(visit.node, visit.facts)
    if reduced is None:
        raise UnfollowedError(f"{visit.label} reduces axes that are not known")
    for axis in reduced:
        if visit.node.op in SUMS:
            visit.sum(0, axis, axes[axis])
        else:
            visit.lock([axes[axis]], f"{visit.label} depends on how many there are")
    if visit.node.attrs.get("keepdims", 1):
        return [visit.fixed().reshape(1) if i in reduced else a for i, a in enumerate(axes)]
    return [a for i, a in enumerate(axes) if i not in reduced]
