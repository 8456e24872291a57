"""Which weights of a tensor share a codebook, and what its entries are.

    tensor     one codebook of k values
    group      one for so many consecutive channels, along the axis that counts what the reader gives out
    channel    one for each

With ``vector`` d > 1 there is one codebook, of k vectors of d weights: those of d outputs in a row for the
same input; of a table that is looked up, d in a row. Where outputs are no multiple of d, there are vectors
of the largest divisor c below it, ``k^(c / d)`` of them, so that a weight takes as many bits. Where a tenth
of the weights or more is 0, or nothing divides, there are single values: vectors would not keep zeros.

With ``merge`` the smallest of the k clusters are merged into their neighbours while the error of the layer,
or of the weights, grows by no more than that share. Milder levels merge none.

A codebook that would take more bytes than the codes that it serves is shared by twice as many channels, and
so on: a tensor of few weights for each channel, such as a depthwise convolution's, has one for all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from ..pruning._fitting.layers import Layer
from ..quantization._weight_places import Place
from ._code_tables import ELEMENTS_OPSET, index_cost, index_forms
from ._codes import cost, packings
from ._levels import COUNTS, MOST
from ._numbers import HALF, NODE_BYTES, Numbers, shared_type

Granularity = Literal["tensor", "group", "channel"]

NOTABLE = 0.1
"""The share of zeros from which on zeros stay zeros."""


def zeros_of(weights: np.ndarray) -> np.ndarray | None:
    """Which weights are 0, where that are many; else None."""
    zeros = weights == 0
    return zeros if zeros.mean() >= NOTABLE else None


@dataclass(frozen=True)
class Sharing:
    """How the weights of a tensor share values.

    Attributes:
        shape: of the tensor.
        values: k, of a codebook.
        axis: along which codebooks differ, or vectors lie; None where there is one, of single values.
        channels: along the axis that share a codebook; 0 where there is one.
        vector: weights that share a code.
        merge: share by which the error may grow as clusters are merged away.
    """

    shape: tuple[int, ...]
    values: int
    axis: int | None = None
    channels: int = 0
    vector: int = 1
    merge: float = 0.0

    @property
    def books(self) -> int:
        """Codebooks."""
        return (
            1
            if not self.channels or self.axis is None
            else -(-self.shape[self.axis] // self.channels)
        )

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

    @property
    def entries(self) -> int:
        """Numbers in all codebooks."""
        return self.books * self.values * self.vector

    def type_for(self, weights: np.ndarray) -> np.dtype[Any]:
        """The type that the values which weights are to share are rounded to; see ``_numbers``."""
        return shared_type(weights, self.entries)

    @property
    def simple(self) -> bool:
        """Whether there is one codebook of single values, all of which count."""
        return self.axis is None and not self.merge

    def forms(self, weights: np.ndarray) -> list[tuple[int, int]]:
        """The bytes and the operator sets of the forms that there are for weights, the smallest first."""
        size = math.prod(self.shape)
        numbers = Numbers(weights.dtype.itemsize, self.type_for(weights) == HALF)
        if self.axis is None:
            return [(cost(form), form.opset) for form in packings(self.values, size, numbers)]
        least = 0
        if self.vector > 1:
            size //= self.vector
        else:
            size = size // self.shape[self.axis] * self.books * self.channels
            least = ELEMENTS_OPSET
        table = numbers.nbytes(self.entries) + NODE_BYTES * numbers.halved(self.entries)
        found = index_forms(self.values, size)
        return [(index_cost(form) + table, max(form.opset, least)) for form in found]

    @property
    def told(self) -> str:
        """In words."""
        if self.vector > 1:
            return f"{self.values} vectors of {self.vector}"
        if self.axis is None:
            return f"{'at most ' * (self.merge > 0)}{self.values} values"
        each = "each channel" if self.channels == 1 else f"every {self.channels} channels"
        return f"{self.values} values for {each}"


@dataclass(frozen=True)
class Wanted:
    """How weights are to share values, where they can.

    Attributes:
        clusters: k, the fewest entries of a codebook.
        granularity: see the module's docstring.
        group: channels of a group.
        vector: d.
        merge: see ``Sharing``.
    """

    clusters: int
    granularity: Granularity = "tensor"
    group: int = 16
    vector: int = 1
    merge: float = 0.0

    def check(self) -> None:
        """Refuse what makes no sense.

        Raises:
            ValueError: so it is.
        """
        single = self.vector == 1 and self.granularity == "tensor"
        if self.group < 1:
            raise ValueError(f"a group has a channel or more, not {self.group}")
        if self.vector > 1 and self.granularity != "tensor":
            raise ValueError("vectors have one codebook for a tensor: granularity=tensor")
        if not 0 <= self.merge <= 1:
            raise ValueError(f"merge is a share from 0 to 1, not {self.merge}")
        if self.merge and not single:
            raise ValueError("clusters are merged in codebooks of single values for a tensor")

    def levels(self, place: Place) -> dict[float, Sharing]:
        """The ways for a weight, from the one of the fewest values; by how many values a weight can take.

        That is the d-th root of k for vectors of d; behind them come single values, so that a place has
        milder levels than 256 vectors: powers of two. Where clusters are merged away there are not quite k.
        """
        axis, vector = _vectors(place, self.vector) if self.vector > 1 else (0, 1)
        found: dict[float, Sharing] = {}
        least = self.clusters
        if vector > 1:
            shape = tuple(place.weight.shape)
            first = max(round(self.clusters ** (vector / self.vector)), 2)
            for k in doubled(first):
                found[k ** (1 / vector)] = Sharing(shape, k, axis, vector=vector)
            least = 2 << 8 // vector
        elif self.vector > 1:
            least = plain_clusters(self.clusters, self.vector)
        one = self.granularity == "tensor" and not self.merge
        if self.merge:
            found[least - 0.5] = replace(self._single(place, least), merge=self.merge)
        return found | {k: self._single(place, k) for k in (more if one else doubled)(least)}

    def _single(self, place: Place, k: int) -> Sharing:
        """Codebooks of so many single values."""
        shape, axis = tuple(place.weight.shape), place.channels[-1:]
        if self.granularity == "tensor" or not axis:
            return Sharing(shape, k)
        itemsize = place.weight.dtype.itemsize
        channels = 1 if self.granularity == "channel" else self.group
        while channels < shape[axis[0]]:
            found = Sharing(shape, k, axis[0], channels)
            codes = math.prod(shape) * math.log2(k)
            if 8 * found.books * k * itemsize <= codes:
                return found
            channels *= 2
        return Sharing(shape, k)


def plain_clusters(clusters: int, vector: int) -> int:
    """Single values that take as many bits as a weight does in so many vectors."""
    return max(math.ceil(round(math.pow(clusters, 1 / vector), 9)), 2)


def more(first: int) -> list[int]:
    """A number of values, and those beyond it that are offered."""
    return sorted({first, *(k for k in COUNTS if k > first)})


def doubled(first: int) -> list[int]:
    """A number of values, twice as many, and so on up to 256."""
    counts = [first]
    while counts[-1] < MOST:
        counts.append(min(2 * counts[-1], MOST))
    return counts


def _vectors(place: Place, wanted: int) -> tuple[int, int]:
    """Along which axis of a weight vectors lie, and the most entries, up to so many, that divide it."""
    shape, axes = tuple(place.weight.shape), place.channels[-1:]
    if place.reader.op == "Gather" and axes:
        axes = (len(shape) - 1,) if len(shape) > 1 else ()
    if not axes or zeros_of(place.weight.values) is not None:
        return 0, 1
    axis, size = axes[0], int(shape[axes[0]])
    if place.reader.op == "Conv":
        size //= int(place.reader.attrs.get("group", 1))
    width: int = next(d for d in range(wanted, 0, -1) if size % d == 0)
    return axis, width
