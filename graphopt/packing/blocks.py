"""One block: a piece of a file, taken apart into its structure and the tensors in it.

A block begins with the lengths of its plan and its structure. Then come their trees, and one for each group
of tensors that are coded together. The plan is a list of numbers, one column behind the other: how many bytes
of structure stand before each tensor, how many bytes it has, and which group it belongs to. A tensor has as
many bytes as the protobuf varint says that stands just before it, where the plan says 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from graphopt.packing import coder
from graphopt.packing.entropy import entropy, entropy_bytes
from graphopt.packing.format import BLOCK_LIMIT, SEGMENTS, Cursor, damaged, varint
from graphopt.packing.transforms import Bytes, exponents, view
from graphopt.packing.trees import TreeReader
from graphopt.packing.wire import STRUCTURE, Kind, Span

_PLAN_LIMIT = 16 * SEGMENTS

_TABLE = 24
"""Bytes that a group costs beside its symbols, about."""


@dataclass
class Group:
    """Tensors that are coded together.

    Attributes:
        kind: of their elements.
        parts: their bytes.
        counts: how often each value of a telling byte occurs in them.
        bound: the entropy of all of them, each by itself, in bytes.
    """

    kind: Kind
    counts: np.ndarray
    parts: list[Bytes] = field(default_factory=list)
    bound: float = 0.0

    def add(self, part: Bytes) -> None:
        """Put a tensor into the group."""
        self.parts.append(part)
        self.bound += entropy_bytes(part, self.kind)


@dataclass(frozen=True)
class Share:
    """What some tensors of one kind, or the structure, take in a block.

    Attributes:
        kind: of their elements.
        tensors: how many there are.
        size: their bytes.
        packed: what these take in the archive.
        bound: the entropy of each by itself, in bytes; of the structure what it takes.
    """

    kind: Kind
    tensors: int
    size: int
    packed: int
    bound: float


@dataclass(frozen=True)
class Packed:
    """A block as it is written, and what went into it."""

    payload: bytes
    shares: list[Share]


def pack_block(data: Bytes, spans: Sequence[Span], start: int) -> Packed:
    """Write a block.

    Args:
        data: the piece of the file, at most ``BLOCK_LIMIT`` bytes.
        spans: the tensors in it, in their order.
        start: where in the file the piece begins.
    """
    groups: list[Group] = []
    gaps, lengths, choices, structure = bytearray(), bytearray(), bytearray(), []
    place = 0
    for span in spans:
        begin = span.start - start
        gap, part = data[place:begin], data[begin : begin + span.length]
        structure.append(gap)
        gaps += varint(gap.size)
        lengths += varint(0 if _announced(gap) == span.length else span.length)
        choices += varint(_choose(groups, part, span.kind))
        place = begin + span.length
    structure.append(data[place:])
    plain = np.concatenate(structure)
    plan = varint(len(spans)) + bytes(gaps + lengths + choices)
    trees = [coder.tensor(np.concatenate(group.parts), group.kind) for group in groups]
    head = varint(len(plan)) + varint(plain.size)
    head += coder.text(plan) + coder.text(plain.tobytes())
    shares = [Share(STRUCTURE, 0, plain.size, len(head), len(head))]
    shares += [_share(group, tree) for group, tree in zip(groups, trees, strict=True)]
    return Packed(head + b"".join(trees), shares)


def _share(group: Group, tree: bytes) -> Share:
    size = sum(part.size for part in group.parts)
    return Share(group.kind, len(group.parts), size, len(tree), group.bound)


def _announced(gap: Bytes) -> int:
    """The number that ends a run of structure, as protobuf writes the length before a payload; or 0."""
    value = 0
    for place, part in enumerate(reversed(gap[-9:].tolist())):
        if place == 0 and part >= 0x80:
            return 0
        if place and part < 0x80:
            break
        value = value << 7 | part & 0x7F
    return value


def _choose(groups: list[Group], part: Bytes, kind: Kind) -> int:
    """Put a tensor into the latest group of its kind, or into a new one where that takes fewer bytes.

    Returns:
        0 for a new group, else how many groups ago it was made, from 1.
    """
    counts = _counts(part, kind)
    for back, group in enumerate(reversed(groups)):
        if group.kind != kind:
            continue
        apart = _bytes(group.counts) + _bytes(counts) + _TABLE
        together = group.counts + counts
        if _bytes(together) <= apart:
            group.counts = together
            group.add(part)
            return back + 1
        break
    groups.append(Group(kind, counts))
    groups[-1].add(part)
    return 0


def _counts(part: Bytes, kind: Kind) -> np.ndarray:
    """Of the byte that tells most about a kind: exponents of floats, elements of small ones."""
    width = max(1, kind.bits // 8)
    if kind.floating and part.size >= width:
        return np.bincount(exponents(part, width), minlength=256)
    return np.bincount(part[width - 1 :: width], minlength=256)


def _bytes(counts: np.ndarray) -> float:
    """Bytes of symbols with these counts, at their entropy, and of a table of them."""
    return entropy(counts) + 0.5 * np.count_nonzero(counts)


def unpack_block(payload: bytes | memoryview, count: int) -> Iterator[Bytes]:
    """Read a block.

    Args:
        payload: its bytes in the archive.
        count: how many bytes of the file it holds.

    Yields:
        The bytes, run after run.

    Raises:
        ModelError: the payload is not one of a block of that length.
    """
    if not 1 <= count <= BLOCK_LIMIT:
        raise damaged(f"a block of {count} bytes")
    cursor = Cursor(payload)
    tree = TreeReader(cursor)
    plan_size, structure_size = cursor.varint(), cursor.varint()
    if plan_size > _PLAN_LIMIT or structure_size > count:
        raise damaged("its plan does not fit a block")
    plan = Cursor(tree.read(plan_size).data)
    structure = tree.read(structure_size)
    pieces = _pieces(plan, structure)
    sizes = [0] * (1 + max((piece.group for piece in pieces), default=-1))
    for piece in pieces:
        sizes[piece.group] += piece.length
    if sum(sizes) + structure_size != count:
        raise damaged("its tensors do not fill the block")
    groups = [Cursor(tree.read(size).data) for size in sizes]
    cursor.end()
    yield from _woven(pieces, Cursor(structure.data), groups)


@dataclass(frozen=True)
class _Piece:
    """A tensor in a block: the structure before it, its bytes, and where they are coded."""

    gap: int
    length: int
    group: int


def _pieces(plan: Cursor, structure: Bytes) -> list[_Piece]:
    """What the plan says."""
    number = plan.varint()
    if number > SEGMENTS:
        raise damaged("its tensors are too many")
    gaps, lengths, choices = ([plan.varint() for _ in range(number)] for _ in range(3))
    plan.end()
    found, place, groups = [], 0, 0
    for gap, length, choice in zip(gaps, lengths, choices, strict=True):
        place += gap
        if place > structure.size or choice > groups:
            raise damaged("its plan names what is not there")
        length = length or _announced(structure[place - gap : place])
        found.append(_Piece(gap, length, groups - choice))
        groups += choice == 0
    return found


def _woven(pieces: list[_Piece], structure: Cursor, groups: list[Cursor]) -> Iterator[Bytes]:
    """The runs of the file in their order."""
    for piece in pieces:
        yield view(structure.take(piece.gap))
        yield view(groups[piece.group].take(piece.length))
    yield view(structure.take(len(structure.data) - structure.place))
