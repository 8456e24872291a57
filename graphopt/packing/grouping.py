"""Which tensors of a block are coded together, and which are there twice.

Tensors whose elements are distributed alike share tables when they are coded as one; others are better off
alone. Going through the file, each tensor joins the latest group of its kind where the entropy of both
together and one table is less than of both apart and two.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from graphopt.packing.entropy import entropy, entropy_bytes
from graphopt.packing.transforms import Bytes, exponents
from graphopt.packing.wire import Kind

_GROUP = 24
"""Bytes that a group costs beside its symbols and their table, about."""

_SYMBOL = 0.5
"""Bytes that a symbol costs in a table, about."""

Counts = NDArray[np.intp]


@dataclass
class Group:
    """Tensors that are coded together.

    Attributes:
        kind: of their elements.
        counts: how often each value of a telling byte occurs in them.
        parts: their bytes.
        bound: the entropy of all of them, each by itself, in bytes.
    """

    kind: Kind
    counts: Counts
    parts: list[Bytes] = field(default_factory=list)
    bound: float = 0.0


@dataclass
class Grouping:
    """The tensors of a block so far.

    Attributes:
        groups: in the order of their first tensors.
        repeated: bytes of tensors that are there once before, by kind, and how many these are.
    """

    groups: list[Group] = field(default_factory=list)
    repeated: dict[Kind, tuple[int, int]] = field(default_factory=dict)
    _latest: dict[Kind, int] = field(default_factory=dict)
    _seen: dict[bytes, tuple[int, Bytes]] = field(default_factory=dict)
    _number: int = 0

    def add(self, part: Bytes, kind: Kind) -> int:
        """Put in the next tensor.

        Returns:
            0 where it begins a group, ``2 n`` where it joins the group that was begun as the n-th last, and
            ``2 n - 1`` where it equals the n-th last tensor.
        """
        number, self._number = self._number, self._number + 1
        digest = hashlib.blake2b(part.data, digest_size=16).digest()
        index, same = self._seen.setdefault(digest, (number, part))
        if index < number and np.array_equal(same, part):
            count, size = self.repeated.get(kind, (0, 0))
            self.repeated[kind] = count + 1, size + part.size
            return 2 * (number - index) - 1
        return self._join(part, kind)

    def _join(self, part: Bytes, kind: Kind) -> int:
        counts = _counts(part, kind)
        index = self._latest.get(kind)
        back = 0 if index is None else 2 * (len(self.groups) - index)
        if index is None or not _alike(self.groups[index].counts, counts):
            index, back = len(self.groups), 0
            self.groups.append(Group(kind, np.zeros(256, np.intp)))
            self._latest[kind] = index
        group = self.groups[index]
        group.counts = group.counts + counts
        group.parts.append(part)
        group.bound += entropy_bytes(part, kind)
        return back


def _counts(part: Bytes, kind: Kind) -> Counts:
    """Of the byte that tells most about a kind: exponents of floats, the highest bytes of integers."""
    width = max(1, kind.bits // 8)
    telling = exponents(part, width) if kind.floating else part[width - 1 :: width]
    return np.bincount(telling, minlength=256)


def _alike(first: Counts, second: Counts) -> bool:
    """Whether symbols with these counts take fewer bytes in one group than in two."""
    together = first + second
    return _bytes(together) <= _bytes(first) + _bytes(second) + _GROUP


def _bytes(counts: Counts) -> float:
    return entropy(counts) + _SYMBOL * np.count_nonzero(counts)
