"""The numbers in codebooks and tables: how many bytes each takes in a file.

    C = Cast(C_16)

Values that weights share are rounded to half precision, and a table of many is stored so, with a node that
casts it: half of its bytes. A runtime folds that node with the others. A rounded value is off by a part in
4,096 of itself at most, far less than values lie apart. On small tensors of many values this matters: their
256 values take 1 KiB, as much as the codes of a thousand weights.

Values stay as they are where half precision does not suit the weights: where these are no wider, hold some
beyond its range or none that it has all bits for, or take no more values than asked for, so that they would
be kept exactly.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

HALF = np.dtype(np.float16)
"""Half precision, IEEE 754."""

SMALLEST = 2.0**-10
"""A weight at least must be so large: 16 times the smallest number that half precision has all bits for."""

LARGEST = float(np.finfo(HALF).max)
"""And no weight larger than what it reaches to."""

NODE_BYTES = 100
"""About what a node with its names takes in a file."""

GLANCE = 1 << 12
"""Weights that are looked at first, evenly spaced, beside twice as many as there are values."""


class Numbers(NamedTuple):
    """Numbers in codebooks and tables.

    Attributes:
        itemsize: bytes of one as the weight has it.
        half: whether they can be stored in half precision.
    """

    itemsize: int
    half: bool = False

    def halved(self, count: int) -> bool:
        """Whether so many are stored in half precision, which takes a node."""
        return self.half and 2 * count + NODE_BYTES < self.itemsize * count

    def nbytes(self, count: int) -> int:
        """What so many take."""
        return count * (HALF.itemsize if self.halved(count) else self.itemsize)


def shared_type(weights: np.ndarray, values: int) -> np.dtype[Any]:
    """The type that values are rounded to which weights are to share; see the module's docstring.

    Args:
        weights: of a tensor, finite.
        values: that they are to share at most.
    """
    if weights.dtype.kind != "f" or weights.dtype.itemsize <= HALF.itemsize or not weights.size:
        return weights.dtype
    largest = max(float(weights.max()), -float(weights.min()))
    if not SMALLEST <= largest <= LARGEST:
        return weights.dtype
    return weights.dtype if _few(weights, values) else HALF


def exact(numbers: np.ndarray) -> bool:
    """Whether half precision holds numbers as they are."""
    with np.errstate(over="ignore"):
        rounded = numbers.astype(HALF)
    return bool(np.array_equal(rounded.astype(numbers.dtype), numbers))


def _few(weights: np.ndarray, values: int) -> bool:
    """Whether there are so many different weights at most."""
    some = weights.reshape(-1)[:: -(-weights.size // (GLANCE + 2 * values))]
    return len(np.unique(some)) <= values and len(np.unique(weights)) <= values
