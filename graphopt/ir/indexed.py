"""Constants of few values, held as the place of each element among them."""

from __future__ import annotations

import numpy as np
from onnx_graphsurgeon.ir.tensor import LazyValues

MOST = 256
"""Values at most: a place takes a byte."""

PORTION = 1 << 20
"""Elements whose places are found together."""


class Indexed(LazyValues):
    """Contents that are made anew whenever they are asked for: a quarter of the memory that 32 bits take.

    Args:
        book: the values, rising, of the type of the contents.
        places: of each element's value, uint8 of the shape of the contents.
    """

    def __init__(self, book: np.ndarray, places: np.ndarray) -> None:
        self.book = book
        self.places = places
        self.dtype: np.dtype = book.dtype
        self.shape: tuple[int, ...] = places.shape

    @classmethod
    def of(cls, values: np.ndarray) -> Indexed | None:
        """An array of finite numbers, -0 as 0; None where it takes more than 256 different values."""
        book = np.unique(values)
        if not 0 < len(book) <= MOST:
            return None
        places, flat = np.empty(values.size, np.uint8), values.reshape(-1)
        for start in range(0, values.size, PORTION):
            own = slice(start, start + PORTION)
            places[own] = np.searchsorted(book, flat[own])
        return cls(book + book.dtype.type(0), places.reshape(values.shape))

    @property
    def nbytes(self) -> int:
        """Bytes that the contents take in a file as they are."""
        return self.places.size * self.dtype.itemsize

    def load(self) -> np.ndarray:
        """The contents, read-only."""
        found: np.ndarray = self.book[self.places]
        found.flags.writeable = False
        return found
