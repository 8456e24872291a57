"""Weights of few distinct values as codes in a file: which integers hold them, and the nodes that read them.

    W = Reshape(Gather(T, Cast(Q)), shape)

With one code to an integer T is the codebook, Q has the shape of W, and there is no Reshape. With m codes to
an integer, for k values ``q = c_1 k^(m-1) + .. + c_m``, and T has a row for each of the ``k^m`` sequences:

    T [k^m, m],  Q [ceil(n / m)]

so 4 values take 2 bits in integers of 4 bits, and 3 values 1.6 bits in those of 8. A runtime computes this
once, when it loads the model, and then has the weights as floats.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from graphopt.ir.graph import Constant, Node

from ..quantization._weight_formats import OPSETS, SLICE_OPSET
from ..quantization._weight_forms import Chain

TYPES: dict[int, np.dtype[Any]] = {
    2: np.dtype(ml_dtypes.uint2),
    4: np.dtype(ml_dtypes.uint4),
    8: np.dtype(np.uint8),
}
"""Of the integers, by bits."""


@dataclass(frozen=True)
class Packing:
    """How codes lie in integers.

    Args:
        values: k, distinct ones.
        size: n, weights.
        itemsize: bytes of a weight.
        bits: of an integer.
        together: m, codes in an integer.
    """

    values: int
    size: int
    itemsize: int
    bits: int
    together: int

    @property
    def opset(self) -> int:
        """The operator set that it needs."""
        return max(OPSETS[self.bits], SLICE_OPSET if self.size % self.together else 0)

    @property
    def nbytes(self) -> int:
        """What integers and the table take."""
        integers = -(-self.size // self.together)
        return -(-integers * self.bits // 8) + self.rows * self.together * self.itemsize

    @property
    def rows(self) -> int:
        """Rows of the table."""
        return int(self.values**self.together)


def packings(values: int, size: int, itemsize: int) -> list[Packing]:
    """All that there are for so many distinct values, 2 to 256; the smallest first."""
    found = [
        Packing(values, size, itemsize, bits, together)
        for bits in TYPES
        for together in range(1, bits + 1)
        if values**together <= 2**bits
    ]
    return sorted(found, key=lambda each: (each.nbytes, each.opset, each.together))


def store(weight: Constant, opset: int) -> Node:
    """Let everything that reads a weight read codes.

    Args:
        weight: of 256 distinct values at most, all finite.
        opset: that the model is written in.

    Returns:
        A node that reads it.
    """
    book, codes = np.unique(weight.values, return_inverse=True)
    packing = next(
        each
        for each in packings(max(len(book), 2), codes.size, weight.dtype.itemsize)
        if each.opset <= opset
    )
    chain = Chain.before(weight, "shared")
    if packing.together == 1:
        chain.end("Gather", [chain.constant("codebook", book), _read(chain, codes, packing)])
    else:
        _split(chain, np.resize(book, packing.values), codes, packing)
    return chain.near


def _read(chain: Chain, codes: np.ndarray, packing: Packing) -> Any:
    """Codes of the shape of the weight, or packed ones, as the indices of a Gather."""
    shape = chain.weight.shape if packing.together == 1 else codes.shape
    held = chain.constant("codes", codes.reshape(shape).astype(TYPES[packing.bits]))
    return chain.cast(held, np.dtype(np.int32))


def _split(chain: Chain, book: np.ndarray, codes: np.ndarray, packing: Packing) -> None:
    """Look up all codes of an integer at once."""
    together, size = packing.together, packing.size
    powers = packing.values ** np.arange(together - 1, -1, -1)
    filled = np.pad(codes.ravel(), (0, -size % together)).reshape(-1, together)
    table = book[np.arange(packing.rows)[:, None] // powers % packing.values]
    flat = chain.add(
        "Gather", [chain.constant("table", table), _read(chain, filled @ powers, packing)]
    )
    if size % together:
        ends = {"flat": -1, "start": 0, "end": size}
        whole, *cut = (chain.constant(what, np.array([n], np.int64)) for what, n in ends.items())
        flat = chain.add("Slice", [chain.add("Reshape", [flat, whole]), *cut])
    shape = chain.constant("shape", np.array(chain.weight.shape, np.int64))
    chain.end("Reshape", [flat, shape])
