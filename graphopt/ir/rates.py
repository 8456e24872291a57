"""How sparse and how shared the weights of a model are.

    sparse rate = zero weights / weights
    shared rate = shared weights / weights,  shared weights = weights - distinct stored values

Weights are the elements of every stored tensor of two or more elements of a floating-point, 8-, 4- or 2-bit
type that some node computes with. A tensor that several nodes read is stored once and counts once. Scales
and zero points of quantized tensors are no weights, nor are the scales of a Resize.

Both rates look at what is stored. The distinct values are counted in each tensor apart: a weight is shared
where its tensor stores its value once more, so n weights that take k values share n - k. A quantized weight
is zero where it equals its zero point. Where weights are stored as a codebook, ``Gather(codebook, indices)``
of two constants, the weights are the indices: each one is zero where its entry is.

Source: Han, Mao, Dally, Deep Compression, ICLR 2016.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import numpy_helper

from graphopt.ir.graph import Constant, Node, element_bits
from graphopt.ir.model import Model
from graphopt.ir.surgery import input_or_none, producer, users

TRANSPARENT = frozenset(
    {"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
)
"""Operators through which stored elements stay what they are."""

DATA: dict[str, frozenset[int]] = {
    "ConvInteger": frozenset({0, 1}),
    "DequantizeLinear": frozenset({0}),
    "DynamicQuantizeLSTM": frozenset({0, 1, 2, 3, 5, 6, 7}),
    "DynamicQuantizeMatMul": frozenset({0, 1, 4}),
    "MatMulInteger": frozenset({0, 1}),
    "MatMulIntegerToFloat": frozenset({0, 1, 6}),
    "MatMulNBits": frozenset({0, 1, 5}),
    "QAttention": frozenset({0, 1, 2, 8}),
    "QGemm": frozenset({0, 3, 6}),
    "QLinearConv": frozenset({0, 3, 8}),
    "QLinearMatMul": frozenset({0, 3}),
    "QuantizeLinear": frozenset({0}),
    "Resize": frozenset({0}),
    "Upsample": frozenset({0}),
}
"""Inputs that hold numbers to compute with; of operators that are not here, all do."""

ZERO_POINTS: dict[tuple[str, int], tuple[int, int]] = {
    ("ConvInteger", 1): (3, 0),
    ("DequantizeLinear", 0): (2, 1),
    ("DynamicQuantizeMatMul", 1): (3, -1),
    ("MatMulInteger", 1): (3, -1),
    ("MatMulIntegerToFloat", 1): (5, -1),
    ("QGemm", 3): (5, -1),
    ("QLinearConv", 3): (5, 0),
    ("QLinearMatMul", 3): (5, -1),
}
"""For a quantized weight at an input of an operator: the input with its zero point, and that one's axis."""


PART = 1 << 22
"""Elements that are looked at together."""

MAX_CHAIN = 64
"""Nodes between a constant and what computes with it that are looked through."""


ARITY = 16
"""Inputs of operators to which it matters where a tensor is read."""


@dataclass(frozen=True)
class Use:
    """What a stored tensor is read for.

    Attributes:
        node: the node that computes with it.
        index: at which input.
        codebook: what its elements are indices of; None where they are the numbers themselves.
    """

    node: Node
    index: int
    codebook: Constant | None = None


def sparse_rate(model: Model) -> float | None:
    """Zero weights / weights; None where there are no weights."""
    weights = zeros = 0
    for constant, use in _weights(model):
        values, left_out = _elements(constant)
        weights += values.size + left_out
        zeros += _zeros(values, use)
        if left_out:
            zeros += left_out * _zeros(np.zeros(1, values.dtype), use)
    return zeros / weights if weights else None


def shared_rate(model: Model) -> float | None:
    """Weights that share their stored value with another / weights; None where there are no weights."""
    weights = shared = 0
    for constant, use in _weights(model):
        values, left_out = _elements(constant)
        weights += values.size + left_out
        if left_out:
            values = np.append(values, np.zeros(1, values.dtype))
            shared += left_out - 1
        shared += _shared(values, use)
    return shared / weights if weights else None


def _elements(constant: Constant) -> tuple[np.ndarray, int]:
    """The elements that are stored, and how many zeros a sparse tensor leaves out."""
    stored = constant.stored
    if stored is None or not isinstance(stored.tensor, onnx.SparseTensorProto):
        return constant.values, 0
    values = numpy_helper.to_array(stored.tensor.values)
    return values, math.prod(constant.shape) - values.size


def _weights(model: Model) -> Iterator[tuple[Constant, Use]]:
    """Every stored tensor of weights, once, with what it is read for."""
    seen: set[int] = set()
    for node in model.nodes():
        held = node.attrs.get("value") if node.op == "Constant" else None
        pairs = [(held, node.outputs[0])] if isinstance(held, Constant) and node.outputs else []
        pairs += [(tensor, tensor) for tensor in node.inputs if isinstance(tensor, Constant)]
        for constant, tensor in pairs:
            if id(constant) in seen or math.prod(constant.shape) < 2:
                continue
            seen.add(id(constant))
            use = _use(constant, tensor)
            if use is not None:
                yield constant, use


def _use(constant: Constant, tensor: gs.Tensor) -> Use | None:
    """What computes with a constant, through what leaves its elements as they are."""
    numbers = _holds_numbers(constant.dtype)
    stack: list[tuple[gs.Tensor, Constant | None]] = [(tensor, None)]
    seen: set[int] = set()
    while stack:
        read, codebook = stack.pop()
        for node in users(read) if id(read) not in seen else ():
            seen.add(id(read))
            index = next((i for i, entry in enumerate(node.inputs[:ARITY]) if entry is read), ARITY)
            if node.op in TRANSPARENT and index == 0 and node.outputs:
                stack.append((node.outputs[0], codebook))
            elif node.op == "Gather" and len(node.inputs) > 1 and codebook is None:
                book, codes = (_constant(entry) for entry in node.inputs[:2])
                if index == 1 and book is not None and len(book.shape) == 1:
                    stack.append((node.outputs[0], book))
                elif index == 0 and numbers and (codes is None or len(constant.shape) != 1):
                    return Use(node, index)
            elif index in DATA.get(node.op, (index,)) and (numbers or codebook is not None):
                return Use(node, index, codebook)
    return None


def _holds_numbers(dtype: np.dtype) -> bool:
    """Whether a type is one that weights are stored in."""
    narrow = dtype.kind in "iuV" and element_bits(dtype) <= 8
    return narrow or dtype.kind == "f" or "float" in dtype.name


def _constant(tensor: gs.Tensor) -> Constant | None:
    """The constant that a tensor is, through what leaves its elements as they are."""
    for _ in range(MAX_CHAIN):
        if isinstance(tensor, Constant):
            return tensor
        made = producer(tensor)
        if made is None:
            return None
        if made.op == "Constant":
            held = made.attrs.get("value")
            return held if isinstance(held, Constant) else None
        if made.op not in TRANSPARENT or not made.inputs:
            return None
        tensor = made.inputs[0]
    return None


def _zeros(values: np.ndarray, use: Use) -> int:
    """How many weights are zero."""
    index, axis = ZERO_POINTS.get((use.node.op, use.index), (-1, 0))
    tensor = input_or_none(use.node, index) if index >= 0 else None
    held = _constant(tensor) if tensor is not None else None
    zero = held.values.astype(np.float32) if held is not None else np.zeros(1, np.float32)
    if use.codebook is not None:
        counts = _counts(values, use.codebook)
        entries = use.codebook.values.astype(np.float32) == zero.flat[0]
        return int(counts[entries].sum())
    if zero.size > 1:
        named = use.node.attrs.get("axis", axis)
        return _zeros_by_channel(values, zero, named if isinstance(named, int) else axis)
    return sum(int((part.astype(np.float32) == zero.flat[0]).sum()) for part in _parts(values))


def _zeros_by_channel(values: np.ndarray, zero: np.ndarray, axis: int) -> int:
    """Zeros where each slice along an axis, or each block along it, has its own zero point."""
    if not -values.ndim <= axis < values.ndim:
        return 0
    if zero.ndim == 1:
        shape = [1] * values.ndim
        shape[axis] = -1
        zero = zero.reshape(shape)
    size, blocks = values.shape[axis], zero.shape[axis] if zero.ndim == values.ndim else 0
    if not blocks:
        return 0
    which = np.arange(size) * blocks // max(size, 1)
    spread = np.take(zero, which, axis)
    try:
        return int((values.astype(np.float32) == spread).sum())
    except ValueError:
        return 0


def _shared(values: np.ndarray, use: Use) -> int:
    """How many weights repeat a value that their tensor has already."""
    if use.codebook is not None:
        used = use.codebook.values[_counts(values, use.codebook) > 0]
        return values.size - len(np.unique(used.astype(np.float32)))
    if values.dtype.itemsize <= 2:
        return values.size - _distinct_narrow(values)
    ordered = np.sort(values, axis=None)
    missing = int(np.isnan(ordered).sum())
    whole = ordered[: len(ordered) - missing]
    return values.size - int((whole[1:] != whole[:-1]).sum()) - bool(len(whole)) - bool(missing)


def _distinct_narrow(values: np.ndarray) -> int:
    """Distinct values of a type of one or two bytes, by a table of all of them."""
    raw = np.dtype(np.uint8 if values.dtype.itemsize == 1 else np.uint16)
    seen = np.zeros(1 << (8 * raw.itemsize), bool)
    for part in _parts(values):
        seen[part.view(raw)] = True
    present = np.flatnonzero(seen).astype(raw).view(values.dtype)
    return len(np.unique(present.astype(np.float32)))


def _counts(indices: np.ndarray, codebook: Constant) -> np.ndarray:
    """How often each entry of a codebook is used; indices that it has no entry for are left out."""
    size = math.prod(codebook.shape)
    counts = np.zeros(size, np.int64)
    for part in _parts(indices):
        places = part.astype(np.int64)
        places = places[(places >= -size) & (places < size)] % max(size, 1)
        counts += np.bincount(places, minlength=size)
    return counts


def _parts(values: np.ndarray) -> Iterator[np.ndarray]:
    """The elements in pieces of bounded size."""
    flat = np.ascontiguousarray(values).reshape(-1)
    for start in range(0, len(flat), PART):
        yield flat[start : start + PART]
