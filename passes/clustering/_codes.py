"""Weights of few distinct values as codes in a file: which integers hold them, and the nodes that read them.

    W = Reshape(Gather(T, Cast(Q)), shape)

With one code to an integer T is the codebook, Q has the shape of W, and there is no Reshape. With m codes to
an integer, for k values ``q = c_1 k^(m-1) + .. + c_m``, and T has a row for each of the ``k^m`` sequences:

    T [k^m, m],  Q [ceil(n / m)]

so 4 values take 2 bits in integers of 4 bits, and 3 values 1.6 bits in those of 8.

With several codebooks T has a row for each, and the codes of the weights that it serves are a row of Q,
channels first and the last row filled up. With m codes to an integer, a table of digits D comes before.

    W = Transpose(Reshape(GatherElements(T [books, k], Cast(Q [books, n / books]), axis = 1), shape))
    Q = Reshape(Gather(D [k^m, m], Cast(P)), [books, n / books])

A vector of d weights can have a code of its own. Vectors lie along one axis, which comes last, and are the
rows of the codebook, or parts of the rows of T:

    W = Transpose(Reshape(Gather(C [k, d], Cast(Q [n / d])), shape))

A runtime computes this once, when it loads the model, and then has the weights as floats.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.graph import Constant, Node

from ..quantization._weight_formats import OPSETS, SLICE_OPSET
from ..quantization._weight_forms import Chain

TYPES: dict[int, np.dtype[Any]] = {
    2: np.dtype(ml_dtypes.uint2),
    4: np.dtype(ml_dtypes.uint4),
    8: np.dtype(np.uint8),
}
"""Of the integers, by bits."""

ELEMENTS_OPSET = 11
"""The first operator set with GatherElements."""


@dataclass(frozen=True)
class Packing:
    """How codes lie in integers.

    Args:
        values: k, distinct ones.
        size: n, weights.
        itemsize: bytes of a weight.
        bits: of an integer.
        together: m, codes in an integer.
        books: codebooks.
    """

    values: int
    size: int
    itemsize: int
    bits: int
    together: int
    books: int = 1

    @property
    def opset(self) -> int:
        """The operator set that it needs."""
        several = ELEMENTS_OPSET if self.books > 1 else 0
        return max(OPSETS[self.bits], SLICE_OPSET if self.size % self.together else 0, several)

    @property
    def nbytes(self) -> int:
        """What integers and the table take."""
        integers = -(-self.size // self.together)
        return -(-integers * self.bits // 8) + self.table_bytes

    @property
    def table_bytes(self) -> int:
        """What codebooks take, or the table that they are in, and the table of digits."""
        entries = self.rows * self.together
        if self.books == 1:
            return entries * self.itemsize
        digits = entries if self.together > 1 else 0
        return self.books * self.values * self.itemsize + digits

    @property
    def rows(self) -> int:
        """Rows of the table."""
        return int(self.values**self.together)


def packings(values: int, size: int, itemsize: int, books: int = 1) -> list[Packing]:
    """All that there are for so many distinct values, 2 to 256; the smallest first."""
    found = [
        Packing(values, size, itemsize, bits, together, books)
        for bits in TYPES
        for together in range(1, bits + 1)
        if values**together <= 2**bits
    ]
    return sorted(found, key=lambda each: (each.nbytes, each.opset, each.together))


def store_vectors(weight: Constant, opset: int, axis: int, width: int) -> Node:
    """Let everything that reads a weight read codes of vectors.

    Args:
        weight: of 256 distinct vectors at most, all finite.
        opset: that the model is written in.
        axis: along which vectors lie.
        width: entries of a vector.

    Returns:
        A node that reads it.
    """
    chain, moved = Chain.before(weight, "shared"), np.moveaxis(weight.values, axis, -1)
    book, codes = np.unique(moved.reshape(-1, width), axis=0, return_inverse=True)
    codes = codes.reshape(-1)
    every = packings(max(len(book), 2), codes.size, weight.dtype.itemsize * width)
    packing = next(each for each in every if each.opset <= opset)
    if packing.together == 1:
        flat = chain.add("Gather", [chain.constant("codebook", book), _read(chain, codes, packing)])
    else:
        flat = _split(chain, "table", _resized(book, packing), codes, packing)
    shape = chain.constant("shape", np.array(moved.shape, np.int64))
    if axis == weight.values.ndim - 1:
        chain.end("Reshape", [flat, shape])
    else:
        order = [*range(axis), len(moved.shape) - 1, *range(axis, len(moved.shape) - 1)]
        chain.end("Transpose", [chain.add("Reshape", [flat, shape])], {"perm": order})
    return chain.near


def store(weight: Constant, opset: int, axis: int | None = None, channels: int = 0) -> Node:
    """Let everything that reads a weight read codes.

    Args:
        weight: of 256 distinct values at most for each codebook, all finite.
        opset: that the model is written in.
        axis: along which codebooks differ; None where there is one.
        channels: along the axis that share a codebook.

    Returns:
        A node that reads it.
    """
    chain = Chain.before(weight, "shared")
    if axis is not None:
        _several(chain, np.moveaxis(weight.values, axis, 0), opset, axis, channels)
        return chain.near
    book, codes = np.unique(weight.values, return_inverse=True)
    packing = _smallest(max(len(book), 2), codes.size, weight, opset)
    if packing.together == 1:
        codes = codes.reshape(weight.shape)
        chain.end("Gather", [chain.constant("codebook", book), _read(chain, codes, packing)])
    else:
        shape = chain.constant("shape", np.array(weight.shape, np.int64))
        chain.end(
            "Reshape", [_split(chain, "table", _resized(book, packing), codes, packing), shape]
        )
    return chain.near


def _smallest(values: int, size: int, weight: Constant, opset: int, books: int = 1) -> Packing:
    """The smallest form that an operator set has."""
    every = packings(values, size, weight.dtype.itemsize, books)
    return next(each for each in every if each.opset <= opset)


def _several(chain: Chain, values: np.ndarray, opset: int, axis: int, channels: int) -> None:
    """Codes of several codebooks, in the place of a weight whose channels come first here."""
    shape, flat = values.shape, values.ravel()
    long = channels * (flat.size // shape[0])
    rows = np.pad(flat, (0, -flat.size % long), mode="edge").reshape(-1, long)
    found = [np.unique(row, return_inverse=True) for row in rows]
    most = max(2, *(len(book) for book, _ in found))
    table = np.stack([np.pad(book, (0, most - len(book)), mode="edge") for book, _ in found])
    codes = np.stack([code.reshape(-1) for _, code in found])
    packing = _smallest(most, codes.size, chain.weight, opset, len(table))
    if packing.together == 1:
        index = _read(chain, codes, packing)
    else:
        digits = _resized(np.arange(most, dtype=np.uint8), packing)
        split = chain.cast(_split(chain, "digits", digits, codes, packing), np.dtype(np.int32))
        size = chain.constant("rows", np.array(codes.shape, np.int64))
        index = chain.add("Reshape", [split, size])
    last: gs.Tensor = chain.constant("codebooks", table)
    last = chain.add("GatherElements", [last, index], {"axis": 1})
    if codes.size > flat.size:
        last = _cut(chain, last, flat.size)
    wanted = [last, chain.constant("shape", np.array(shape, np.int64))]
    if axis == 0:
        chain.end("Reshape", wanted)
    else:
        order = [*range(1, axis + 1), 0, *range(axis + 1, len(shape))]
        chain.end("Transpose", [chain.add("Reshape", wanted)], {"perm": order})


def _resized(book: np.ndarray, packing: Packing) -> np.ndarray:
    """As many values as the packing counts."""
    return book[np.minimum(np.arange(packing.values), len(book) - 1)]


def _read(chain: Chain, codes: np.ndarray, packing: Packing) -> gs.Tensor:
    """Codes, or packed ones, as indices."""
    return chain.cast(
        chain.constant("codes", codes.astype(TYPES[packing.bits])), np.dtype(np.int32)
    )


def _cut(chain: Chain, tensor: gs.Tensor, size: int) -> gs.Tensor:
    """The first so many elements of a tensor, flat."""
    ends = {"flat": -1, "start": 0, "end": size}
    whole, *cut = (chain.constant(what, np.array([n], np.int64)) for what, n in ends.items())
    return chain.add("Slice", [chain.add("Reshape", [tensor, whole]), *cut])


def _split(
    chain: Chain, what: str, book: np.ndarray, codes: np.ndarray, packing: Packing
) -> gs.Tensor:
    """Look up all codes of an integer at once; what they stand for, in the order of the codes."""
    together, size = packing.together, packing.size
    powers = packing.values ** np.arange(together - 1, -1, -1)
    filled = np.pad(codes.ravel(), (0, -size % together)).reshape(-1, together)
    table = book[np.arange(packing.rows)[:, None] // powers % packing.values]
    flat = chain.add(
        "Gather", [chain.constant(what, table), _read(chain, filled @ powers, packing)]
    )
    return _cut(chain, flat, size * (table[0, 0].size)) if size % together else flat
