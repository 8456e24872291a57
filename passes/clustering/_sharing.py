"""Which weights of a tensor share a codebook, and what its entries are.

    tensor     one codebook of k values
    group      one for so many consecutive channels, along the axis that counts what the reader gives out
    channel    one for each

A codebook that would take more bytes than the codes that it serves is shared by twice as many channels, and
so on: a tensor of few weights for each channel, such as a depthwise convolution's, has one for all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..pruning._fitting.layers import Layer
from ..quantization._weight_places import Place
from ._codes import Packing, packings

Granularity = Literal["tensor", "group", "channel"]


@dataclass(frozen=True)
class Sharing:
    """How the weights of a tensor share values.

    Attributes:
        shape: of the tensor.
        values: k, of a codebook.
        axis: along which codebooks differ; None where there is one.
        channels: along the axis that share a codebook.
    """

    shape: tuple[int, ...]
    values: int
    axis: int | None = None
    channels: int = 0

    @property
    def books(self) -> int:
        """Codebooks."""
        return 1 if self.axis is None else -(-self.shape[self.axis] // self.channels)

    @property
    def numbers(self) -> np.ndarray:
        """The number of the codebook of each weight, of a shape that broadcasts to the tensor's."""
        rank = len(self.shape)
        if self.axis is None:
            return np.zeros((1,) * rank, np.int64)
        order = np.arange(self.shape[self.axis]) // self.channels
        return order.reshape([-1 if n == self.axis else 1 for n in range(rank)])

    def of_outputs(self, layer: Layer) -> np.ndarray:
        """The number of the codebook of each output of a layer, of shape ``(groups, outputs)``."""
        whole = np.broadcast_to(self.numbers, self.shape)
        return layer.as_matrices(whole)[:, 0]

    def rows(self, values: np.ndarray) -> np.ndarray:
        """Numbers of weights by codebook, of shape ``(books, numbers)``; the last is filled up with zeros."""
        assert self.axis is not None
        flat = np.moveaxis(values, self.axis, 0).ravel()
        width = flat.size // self.shape[self.axis] * self.channels
        return np.pad(flat, (0, -flat.size % width)).reshape(-1, width)

    def joined(self, rows: np.ndarray) -> np.ndarray:
        """Numbers as ``rows`` gives them in the shape of the tensor."""
        assert self.axis is not None
        size, first = int(np.prod(self.shape)), self.shape[self.axis]
        others = (*self.shape[: self.axis], *self.shape[self.axis + 1 :])
        return np.moveaxis(rows.ravel()[:size].reshape(first, *others), 0, self.axis)

    def packings(self, itemsize: int) -> list[Packing]:
        """The forms that there are, the smallest first."""
        size = int(np.prod(self.shape))
        if self.axis is not None:
            size = size // self.shape[self.axis] * self.books * self.channels
        return packings(self.values, size, itemsize, self.books)

    @property
    def told(self) -> str:
        """In words."""
        if self.axis is None:
            return f"{self.values} values"
        each = "each channel" if self.channels == 1 else f"every {self.channels} channels"
        return f"{self.values} values for {each}"


def sharing_of(place: Place, k: int, granularity: Granularity, group: int) -> Sharing:
    """How the weights of a place share codebooks of so many values.

    Args:
        place: the weight.
        k: values.
        granularity: see the module's docstring.
        group: channels of a group.
    """
    shape, axis = tuple(place.weight.shape), place.channels[-1:]
    if granularity == "tensor" or not axis:
        return Sharing(shape, k)
    itemsize, channels = place.weight.dtype.itemsize, 1 if granularity == "channel" else group
    while channels < shape[axis[0]]:
        found = Sharing(shape, k, axis[0], channels)
        smallest = found.packings(itemsize)[0]
        if 2 * smallest.table_bytes <= smallest.nbytes:
            return found
        channels *= 2
    return Sharing(shape, k)
