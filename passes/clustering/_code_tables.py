"""Codes that are looked up in several codebooks, or in one of vectors; the codes as in ``_codes``.

With several codebooks there is a table that has a row for each, and the codes of the weights that a codebook
serves are a row of Q, channels first and the last row filled up:

    W = Transpose(Reshape(GatherElements(T [books, k], Q [books, n / books], axis = 1), shape))

A vector of d weights can have a code of its own. Vectors lie along one axis, which comes last:

    W = Transpose(Reshape(Gather(C [k, d], Q [n / d]), shape))

T and C are stored in half precision where that holds them and pays (``_numbers``). A runtime computes this
once, when it loads the model, and then has the weights as floats.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.graph import Constant, Node

from ..quantization._weight_forms import Chain
from ._codes import INDEX, PLACES, Form, Packing, cost, cut, indices, packings, stored_numbers
from ._numbers import NODE_BYTES, Numbers, exact

ELEMENTS_OPSET = 11
"""The first operator set with GatherElements."""


def index_forms(values: int, size: int) -> list[Form]:
    """The forms of codes as indices, the smallest first; as ``packings``, with no codebook."""
    return sorted(packings(values, size, PLACES), key=lambda f: (index_cost(f), f.opset))


def index_cost(form: Form) -> int:
    """About the bytes that codes take in a file, with the nodes that read them."""
    table = isinstance(form, Packing) and form.together > 1
    return cost(form) - (0 if table else form.values * INDEX.itemsize) + 2 * NODE_BYTES


def store_books(weight: Constant, opset: int, axis: int, channels: int) -> Node:
    """Let everything that reads a weight read codes of several codebooks.

    Args:
        weight: of 256 distinct values at most for each codebook, all finite.
        opset: that the model is written in.
        axis: along which codebooks differ.
        channels: along the axis that share a codebook.

    Returns:
        A node that reads it.
    """
    moved = np.moveaxis(weight.values, axis, 0)
    flat = moved.ravel()
    long = channels * (flat.size // len(moved))
    rows = np.pad(flat, (0, -flat.size % long), mode="edge").reshape(-1, long)
    found = [np.unique(row, return_inverse=True) for row in rows]
    most = max(2, *(len(book) for book, _ in found))
    table = np.stack([np.pad(book, (0, most - len(book)), mode="edge") for book, _ in found])
    codes = np.stack([code.reshape(-1) for _, code in found])
    chain = Chain.before(weight, "shared")
    index = indices(chain, codes, _smallest(most, codes.size, opset))
    books = _stored(chain, "codebooks", table)
    given = chain.add("GatherElements", [books, index], {"axis": 1})
    if codes.size > flat.size:
        given = cut(chain, given, flat.size)
    return _shaped(chain, given, moved.shape, [*range(1, axis + 1), 0])


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
    moved = np.moveaxis(weight.values, axis, -1)
    book, codes = np.unique(moved.reshape(-1, width), axis=0, return_inverse=True)
    chain = Chain.before(weight, "shared")
    form = _smallest(max(len(book), 2), codes.size, opset)
    index = indices(chain, codes.reshape(-1), form)
    given = chain.add("Gather", [_stored(chain, "codebook", book), index])
    last = moved.ndim - 1
    return _shaped(chain, given, moved.shape, [*range(axis), last, *range(axis, last)])


def _stored(chain: Chain, what: str, values: np.ndarray) -> gs.Tensor:
    return stored_numbers(chain, what, values, Numbers(values.dtype.itemsize, exact(values)))


def _smallest(values: int, size: int, opset: int) -> Form:
    return next(each for each in index_forms(values, size) if each.opset <= opset)


def _shaped(chain: Chain, given: gs.Tensor, shape: tuple[int, ...], begun: list[int]) -> Node:
    """Bring numbers into a shape and its axes into an order, of which others follow as they are."""
    order = [*begun, *range(len(begun), len(shape))]
    wanted = [given, chain.constant("shape", np.array(shape, np.int64))]
    if order == sorted(order):
        chain.end("Reshape", wanted)
    else:
        chain.end("Transpose", [chain.add("Reshape", wanted)], {"perm": order})
    return chain.near
