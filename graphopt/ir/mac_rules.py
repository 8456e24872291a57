"""Multiply-accumulates by operator, as the textbooks count them: outputs times the length of their sums.

    Conv, ConvInteger, QLinearConv  N M prod(out) (C / g) prod(k)       (Dumoulin, Visin, 2016)
    ConvTranspose                   N C prod(in) (M / g) prod(k)
    DeformConv                      as Conv; sampling the input is not counted
    Gemm, MatMul and their kin      batch M N K
    Einsum                          product of the sizes of all indices, operand by operand from the left
    RNN, GRU, LSTM                  steps batch (elements of W + elements of R); peepholes are not counted
    Attention                       batch heads queries keys (width + width of a value); masks spare nothing
    LinearAttention                 the recurrent form: what updates the state and what reads it
    CausalConvWithState             N C length k

Convolutions count products with padding, sequences every step whatever their lengths say. Element-wise
products, poolings, normalizations, resampling and Fourier transforms (DFT, STFT: a runtime chooses the
algorithm) count as none.

Source: ONNX operator specification.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from graphopt.ir.frames import Frame, UnprovenError
from graphopt.ir.inference.call import Call
from graphopt.ir.inference.windows import convolved

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Operands:
    """A node with the sizes of what it reads.

    Attributes:
        call: the node where it stands, for attributes.
        frame: the run of its scope.
    """

    call: Call
    frame: Frame

    def given(self, index: int) -> bool:
        """Whether this input is there."""
        return self.call.has(index)

    def shape(self, index: int, rank: int | None = None) -> Shape:
        """The sizes of an input's axes.

        Raises:
            UnprovenError: they are not known, the input is omitted or has another rank.
        """
        if not self.given(index):
            raise UnprovenError(f"input {index} is omitted")
        shape = self.frame.shape(self.call.inputs[index])
        if rank is not None and len(shape) != rank:
            raise UnprovenError(f"input {index} has rank {len(shape)}")
        return shape

    def positive(self, name: str) -> int:
        """An integer attribute that must be there and positive."""
        value = self.call.integer(name, 0)
        if value < 1:
            raise UnprovenError(f"attribute {name} is {value}")
        return value


Rule = Callable[[Operands], int]


def broadcast(*sizes: int) -> int:
    """The size that sizes broadcast to: 0 where one is empty, else the largest."""
    return 0 if 0 in sizes else max(sizes, default=1)


def conv(data: int = 0, weight: int = 1) -> Rule:
    """A convolution whose input and weight stand at these positions."""

    def count(node: Operands) -> int:
        call = node.call
        weights = node.shape(weight)
        sizes = node.shape(data)
        if call.integer("channels_last", 0) or call.node.op.startswith("Nhwc"):
            sizes = (sizes[0], sizes[-1], *sizes[1:-1])
        found = convolved(call, None, sizes, weights).shape
        if found is None:
            raise UnprovenError("the output has no known shape")
        return math.prod(map(node.frame.number, found)) * math.prod(weights[1:])

    return count


def conv_transpose(node: Operands) -> int:
    """Every input element meets every output channel of its group at every place of the kernel."""
    return math.prod(node.shape(0)) * math.prod(node.shape(1)[1:])


def causal_conv(node: Operands) -> int:
    """Depthwise, as many outputs as inputs."""
    return math.prod(node.shape(0, 3)) * node.shape(1, 3)[2]


def gemm(left: int = 0, right: int = 1) -> Rule:
    """A product of two matrices, either of them transposed or not."""

    def count(node: Operands) -> int:
        a, b = node.shape(left, 2), node.shape(right, 2)
        columns = b[0] if node.call.integer("transB", 0) else b[1]
        return math.prod(a) * columns

    return count


def matmul(left: int = 0, right: int = 1) -> Rule:
    """A product of stacks of matrices as numpy.matmul, with the transpositions of FusedMatMul."""

    def count(node: Operands) -> int:
        a, b = node.shape(left), node.shape(right)
        if not a or not b:
            raise UnprovenError("a product of a scalar")
        rows, inner, stack_a = _matrix(node, (1, *a) if len(a) == 1 else a, "A")
        _, columns, stack_b = _matrix(node, (*b, 1) if len(b) == 1 else b, "B")
        depth = max(len(stack_a), len(stack_b))
        pairs = zip(_deepened(stack_a, depth), _deepened(stack_b, depth), strict=True)
        return math.prod(broadcast(x, y) for x, y in pairs) * rows * inner * columns

    return count


def _matrix(node: Operands, shape: Shape, side: str) -> tuple[int, int, Shape]:
    """Rows, columns and stack of one operand."""
    if node.call.integer(f"transBatch{side}", 0):
        shape = (*shape[1:-1], shape[0], shape[-1])
    rows, columns = shape[-2:]
    if node.call.integer(f"trans{side}", 0):
        rows, columns = columns, rows
    return rows, columns, shape[:-2]


def _deepened(stack: Shape, depth: int) -> Shape:
    return (1,) * (depth - len(stack)) + stack


def recurrent(node: Operands) -> int:
    """Every step of every sequence meets every weight of every direction."""
    steps, batch, _ = node.shape(0, 3)
    return steps * batch * (math.prod(node.shape(1, 3)) + math.prod(node.shape(2, 3)))


def einsum(node: Operands) -> int:
    """Operand by operand from the left; an index goes as soon as nothing later needs it."""
    left, arrow, result = node.call.text("equation", "").replace(" ", "").partition("->")
    terms = left.split(",")
    labels: list[list[str]] = []
    sizes: dict[str, int] = {}
    for index, term in enumerate(terms):
        shape = node.shape(index)
        labels.append(_labels(term, len(shape)))
        for label, size in zip(labels[-1], shape, strict=True):
            sizes[label] = broadcast(sizes.get(label, 1), size)
    written = left.replace(".", "").replace(",", "")
    counts = Counter(written)
    kept = set(result if arrow else (x for x in written if counts[x] == 1))
    last = {label: index for index, term in enumerate(labels) for label in term}
    total, held = 0, set(labels[0])
    for index, term_labels in enumerate(labels[1:], 1):
        held |= set(term_labels)
        total += math.prod(sizes[label] for label in held)
        held = {x for x in held if x in kept or len(x) > 1 or last[x] > index}
    return total


def _labels(term: str, rank: int) -> list[str]:
    """The index of each axis; those of an ellipsis are numbered from the right."""
    before, dots, after = term.partition("...")
    count = rank - len(before) - len(after)
    if count < 0 or (count and not dots):
        raise UnprovenError(f"{term} does not name {rank} axes")
    return [*before, *(f"...{number}" for number in range(count, 0, -1)), *after]


def attention(node: Operands) -> int:
    """Scores and weighted values; heads apart [B, H, S, E] or packed [B, S, H E] (opset 23)."""
    query, key, value = (node.shape(index) for index in range(3))
    if len(query) == 3:
        heads, shared = node.positive("q_num_heads"), node.positive("kv_num_heads")
        batch, queries, width = query[0], query[1], query[2] // heads
        keys, value_width = key[-2], value[-1] // shared if len(value) == 3 else value[-1]
    elif len(query) == 4:
        batch, heads, queries, width = query
        keys, value_width = key[-2], value[-1]
    else:
        raise UnprovenError("neither packed nor separate heads")
    if node.given(4):
        keys += node.shape(4, 4)[2]
    return batch * heads * queries * keys * (width + value_width)


def linear_attention(node: Operands) -> int:
    """Per step: k v' into each state, q' S out of it; the delta rules also read it by the key."""
    heads, shared = node.positive("q_num_heads"), node.positive("kv_num_heads")
    batch, steps, width = node.shape(0, 3)
    state = (width // heads) * (node.shape(2, 3)[2] // shared)
    delta = "delta" in node.call.text("update_rule", "gated_delta")
    return batch * steps * state * (heads + shared * (2 if delta else 1))


STANDARD: dict[str, Rule] = {
    "Attention": attention,
    "CausalConvWithState": causal_conv,
    "Conv": conv(),
    "ConvInteger": conv(),
    "ConvTranspose": conv_transpose,
    "DeformConv": conv(),
    "Einsum": einsum,
    "GRU": recurrent,
    "Gemm": gemm(),
    "LSTM": recurrent,
    "LinearAttention": linear_attention,
    "MatMul": matmul(),
    "MatMulInteger": matmul(),
    "QLinearConv": conv(0, 3),
    "QLinearMatMul": matmul(0, 3),
    "RNN": recurrent,
}
"""Operators of the standard; those that are not here have no sums of products."""
