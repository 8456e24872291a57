"""Weights of few distinct values as codes in a file: which integers hold them, and the nodes that read them.

    W = Reshape(Gather(T, Cast(Q)), shape)

With one code to an integer T is the codebook, Q has the shape of W, and there is no Reshape. With m codes to
an integer, for k values ``q = c_1 k^(m-1) + .. + c_m``, and T has a row for each of the ``k^m`` sequences:

    T [k^m, m],  Q [ceil(n / m)]

so 4 values take 2 bits in integers of 4 bits, and 3 values 1.6 bits in those of 8. A code can also be held in
two planes, each of which is held so for itself:

    W = Gather(C, l H + L),   code = l H + L,   H of the k / l values 0, 1, .., L of 0 .. l - 1

so 64 values take 6 bits, 32 take 5, 12 take 3.6 and 8 take 3. T and C are stored in half precision where that
holds them and pays (``_numbers``). A runtime computes this once, when it loads the model, and then has the
weights as floats.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.graph import Constant, Node
from graphopt.ir.indexed import Indexed
from graphopt.packing.entropy import entropy

from ..quantization._weight_formats import OPSETS, SLICE_OPSET
from ..quantization._weight_forms import Chain
from ._numbers import HALF, NODE_BYTES, Numbers, exact

TYPES: dict[int, np.dtype[Any]] = {
    2: np.dtype(ml_dtypes.uint2),
    4: np.dtype(ml_dtypes.uint4),
    8: np.dtype(np.uint8),
}
"""Of the integers, by bits."""

INDEX = np.dtype(np.int32)
"""Of what a Gather is given."""

LOW = (2, 3, 4, 6)
"""Values of a low plane: those whose codes fill integers well."""

HIGH = 16
"""Values of a high plane at most."""

PLACES = Numbers(INDEX.itemsize)
"""Of tables of a plane."""


@dataclass(frozen=True)
class Packing:
    """How codes lie in integers.

    Args:
        values: k, distinct ones.
        size: n, weights.
        numbers: of the table.
        bits: of an integer.
        together: m, codes in an integer.
    """

    values: int
    size: int
    numbers: Numbers
    bits: int
    together: int

    @property
    def opset(self) -> int:
        """The operator set that it needs."""
        return max(OPSETS[self.bits], SLICE_OPSET if self.size % self.together else 0)

    @property
    def integer_bytes(self) -> int:
        """What the integers take."""
        integers = -(-self.size // self.together)
        return -(-integers * self.bits // 8)

    @property
    def nbytes(self) -> int:
        """What integers and the table take."""
        return self.integer_bytes + self.numbers.nbytes(self.entries)

    @property
    def rows(self) -> int:
        """Rows of the table."""
        return int(self.values**self.together)

    @property
    def entries(self) -> int:
        """Numbers in the table."""
        return self.rows * self.together

    @property
    def nodes(self) -> int:
        """Nodes that read it."""
        cut = 2 if self.size % self.together else 0
        halved = self.numbers.halved(self.entries)
        return 2 + (cut + 1 if self.together > 1 else 0) + halved


@dataclass(frozen=True)
class Planes:
    """How codes lie in two planes.

    Args:
        values: k, distinct ones.
        numbers: of the codebook.
        high: how H lies in integers.
        low: how L does.
    """

    values: int
    numbers: Numbers
    high: Packing
    low: Packing

    @property
    def opset(self) -> int:
        """The operator set that it needs."""
        return max(self.high.opset, self.low.opset)

    @property
    def nbytes(self) -> int:
        """What integers, tables and the codebook take."""
        planes = (self.high, self.low)
        held = sum(n.integer_bytes if n.together == 1 else n.nbytes for n in planes)
        return held + self.numbers.nbytes(self.values)

    @property
    def nodes(self) -> int:
        """Nodes that read it."""
        scaled = 1 if self.low.together > 1 else 0
        return self.high.nodes + self.low.nodes + scaled + 1 + self.numbers.halved(self.values)


Form = Packing | Planes


def packings(values: int, size: int, numbers: Numbers) -> list[Form]:
    """All that there are for so many distinct values, 2 to 256; the smallest first."""
    found: list[Form] = [*_packings(values, size, numbers)]
    for low in LOW:
        high = -(-values // low)
        if low < values and high <= HIGH:
            planes = (_packings(n, size, PLACES) for n in (high, low))
            found += [Planes(values, numbers, *both) for both in itertools.product(*planes)]
    return sorted(found, key=lambda each: (cost(each), each.opset))


def cost(form: Form) -> int:
    """About the bytes that a form takes in a file, with the nodes that read it."""
    return form.nbytes + form.nodes * NODE_BYTES


def _packings(values: int, size: int, numbers: Numbers) -> list[Packing]:
    return [
        Packing(values, size, numbers, bits, together)
        for bits in TYPES
        for together in range(1, bits + 1)
        if values**together <= 2**bits
    ]


def store(weight: Constant, opset: int) -> Node:
    """Let everything that reads a weight read codes.

    Args:
        weight: of 256 distinct values at most, all finite.
        opset: that the model is written in.

    Returns:
        A node that reads it.
    """
    found = weight.indexed or Indexed.of(weight.values)
    assert found is not None
    book, codes = found.book, found.places
    numbers = Numbers(weight.dtype.itemsize, exact(book))
    packing = next(
        each for each in packings(max(len(book), 2), codes.size, numbers) if each.opset <= opset
    )
    chain = Chain.before(weight, "shared")
    if isinstance(packing, Packing):
        _decode(chain, codes, packing, np.resize(book, packing.values), "", last=True)
    else:
        order = _order(np.bincount(codes.ravel(), minlength=len(book)), packing)
        values = stored_numbers(chain, "codebook", book[order], numbers)
        codes = np.argsort(order).astype(codes.dtype)[codes]
        chain.end("Gather", [values, indices(chain, codes, packing)])
    return chain.near


def _order(counts: np.ndarray, form: Planes) -> np.ndarray:
    """The order of values in which the codes in two planes tell least about each other.

    An entropy code for each plane then takes hardly more than one for both together.

    Args:
        counts: how often each value occurs.
        form: of the codes.
    """
    often = np.argsort(-counts, kind="stable")
    high, low = form.high.values, form.low.values
    orders = [np.arange(len(counts)), often]
    if len(counts) == high * low:  # the most frequent ones in the first of the low plane
        orders.append(often.reshape(low, high).T.ravel())

    def bound(order: np.ndarray) -> float:
        found = np.zeros(high * low)
        found[: len(order)] = counts[order]
        plane = found.reshape(high, low)
        return entropy(plane.sum(axis=0)) + entropy(plane.sum(axis=1))

    return min(orders, key=bound)


def stored_numbers(chain: Chain, what: str, values: np.ndarray, numbers: Numbers) -> gs.Tensor:
    """Numbers as a tensor of their type, stored in half precision where that pays."""
    if numbers.halved(values.size):
        return chain.floats(what, values.astype(HALF))
    return chain.constant(what, values)


def indices(chain: Chain, codes: np.ndarray, form: Form) -> gs.Tensor:
    """Codes as the indices of a Gather, of their shape."""
    if isinstance(form, Packing):
        return _decode(chain, codes, form, np.arange(form.values, dtype=INDEX), "")
    high, low = np.divmod(codes, form.low.values)
    places = np.arange(form.high.values, dtype=INDEX) * INDEX.type(form.low.values)
    planes = [
        _decode(chain, high, form.high, places, "high_"),
        _decode(chain, low, form.low, np.arange(form.low.values, dtype=INDEX), "low_"),
    ]
    return chain.add("Add", planes)


def _decode(
    chain: Chain,
    codes: np.ndarray,
    packing: Packing,
    book: np.ndarray,
    what: str,
    last: bool = False,
) -> gs.Tensor | Node:
    """The numbers of a codebook that codes stand for, in the shape of the codes.

    Args:
        chain: to write to.
        codes: of the shape that is wanted.
        packing: how they are held.
        book: the numbers.
        what: begins the names of constants.
        last: whether this is what the chain is to give.
    """
    finish = chain.end if last else chain.add
    if packing.together == 1:
        held = _read(chain, codes, packing, what)
        if book.dtype != INDEX or last:
            values = stored_numbers(chain, f"{what}codebook", book, packing.numbers)
            return finish("Gather", [values, held])
        step = book[-1:] // max(len(book) - 1, 1)
        return held if step == 1 else chain.add("Mul", [held, chain.constant(f"{what}step", step)])
    table, integers = _table(codes, packing, book)
    rows = stored_numbers(chain, f"{what}table", table, packing.numbers)
    flat = chain.add("Gather", [rows, _read(chain, integers, packing, what)])
    if packing.size % packing.together:
        flat = cut(chain, flat, packing.size, what)
    shape = chain.constant(f"{what}shape", np.array(codes.shape, np.int64))
    return finish("Reshape", [flat, shape])


def cut(chain: Chain, tensor: gs.Tensor, size: int, what: str = "") -> gs.Tensor:
    """The first so many elements of a tensor, flat."""
    ends = {"flat": -1, "start": 0, "end": size}
    whole, *rest = (
        chain.constant(what + name, np.array([n], np.int64)) for name, n in ends.items()
    )
    return chain.add("Slice", [chain.add("Reshape", [tensor, whole]), *rest])


def _read(chain: Chain, codes: np.ndarray, packing: Packing, what: str) -> gs.Tensor:
    """Integers as the indices of a Gather."""
    held = chain.constant(f"{what}codes", codes.astype(TYPES[packing.bits]))
    return chain.cast(held, INDEX)


def _table(codes: np.ndarray, packing: Packing, book: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of every sequence of codes, and the sequences as integers."""
    together = packing.together
    powers = packing.values ** np.arange(together - 1, -1, -1)
    filled = np.pad(codes.ravel(), (0, -packing.size % together)).reshape(-1, together)
    table = book[np.arange(packing.rows)[:, None] // powers % packing.values]
    return table, filled @ powers
