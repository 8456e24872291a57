"""One block: a piece of a file, taken apart into its structure and the tensors in it.

A block begins with the lengths of its plan and its structure. Then come their trees, and one for each group
of tensors that are coded together. The plan is a list of numbers, one column behind the other: how many bytes
of structure stand before each tensor, how many bytes it has, and which group it belongs to or which tensor it
equals. A tensor has as many bytes as the protobuf varint just before it says, where the plan says 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from graphopt.packing import coder
from graphopt.packing.format import BLOCK_LIMIT, SEGMENTS, Cursor, damaged, varint
from graphopt.packing.grouping import Group, Grouping
from graphopt.packing.transforms import Bytes, view
from graphopt.packing.trees import TreeReader
from graphopt.packing.wire import STRUCTURE, Kind, Span

_PLAN_LIMIT = 16 * SEGMENTS


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
    grouping = Grouping()
    gaps, lengths, choices, structure = bytearray(), bytearray(), bytearray(), []
    place = 0
    for span in spans:
        begin = span.start - start
        gap, part = data[place:begin], data[begin : begin + span.length]
        choice = grouping.add(part, span.kind)
        told = _is_copy(choice) or _announced(gap) == span.length
        structure.append(gap)
        gaps += varint(gap.size)
        lengths += varint(0 if told else span.length)
        choices += varint(choice)
        place = begin + span.length
    structure.append(data[place:])
    plain = np.concatenate(structure)
    plan = varint(len(spans)) + bytes(gaps + lengths + choices)
    trees = [coder.tensor(np.concatenate(group.parts), group.kind) for group in grouping.groups]
    head = varint(len(plan)) + varint(plain.size)
    head += coder.text(plan) + coder.text(plain.tobytes())
    shares = [Share(STRUCTURE, 0, plain.size, len(head), len(head))]
    shares += [_share(group, tree) for group, tree in zip(grouping.groups, trees, strict=True)]
    shares += [Share(kind, *found, 0, 0.0) for kind, found in grouping.repeated.items()]
    return Packed(head + b"".join(trees), shares)


def _share(group: Group, tree: bytes) -> Share:
    size = sum(part.size for part in group.parts)
    return Share(group.kind, len(group.parts), size, len(tree), group.bound)


def _is_copy(choice: int) -> bool:
    """Whether a number of the plan says that a tensor equals an earlier one."""
    return choice % 2 == 1


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
    tree = TreeReader(cursor, count)
    plan_size, structure_size = cursor.varint(), cursor.varint()
    if plan_size > _PLAN_LIMIT or structure_size > count:
        raise damaged("its plan does not fit a block")
    plan = Cursor(tree.read(plan_size).data)
    structure = tree.read(structure_size)
    pieces = _pieces(plan, structure)
    sizes = [0] * (1 + max((piece.group for piece in pieces), default=-1))
    for piece in pieces:
        if piece.copied is None:
            sizes[piece.group] += piece.length
    if sum(piece.length for piece in pieces) + structure_size != count:
        raise damaged("its tensors do not fill the block")
    groups = [Cursor(tree.read(size).data) for size in sizes]
    cursor.end()
    yield from _woven(pieces, Cursor(structure.data), groups)


@dataclass(frozen=True)
class _Piece:
    """A tensor in a block.

    Attributes:
        gap: bytes of structure before it.
        length: its bytes.
        group: which it is coded in.
        copied: which earlier tensor it equals; it is in no group then.
    """

    gap: int
    length: int
    group: int
    copied: int | None


def _pieces(plan: Cursor, structure: Bytes) -> list[_Piece]:
    """What the plan says."""
    number = plan.varint()
    if number > SEGMENTS:
        raise damaged("its tensors are too many")
    gaps, lengths, choices = ([plan.varint() for _ in range(number)] for _ in range(3))
    plan.end()
    found: list[_Piece] = []
    place = groups = 0
    for gap, length, choice in zip(gaps, lengths, choices, strict=True):
        place += gap
        back = (choice + 1) // 2
        if place > structure.size or back > (len(found) if _is_copy(choice) else groups):
            raise damaged("its plan names what is not there")
        if _is_copy(choice):
            copied = len(found) - back
            found.append(_Piece(gap, found[copied].length, -1, copied))
            continue
        length = length or _announced(structure[place - gap : place])
        found.append(_Piece(gap, length, groups - back, None))
        groups += choice == 0
    return found


def _woven(pieces: list[_Piece], structure: Cursor, groups: list[Cursor]) -> Iterator[Bytes]:
    """The runs of the file in their order."""
    parts: list[memoryview] = []
    for piece in pieces:
        yield view(structure.take(piece.gap))
        copied = None if piece.copied is None else parts[piece.copied]
        parts.append(groups[piece.group].take(piece.length) if copied is None else copied)
        yield view(parts[-1])
    yield view(structure.take(len(structure.data) - structure.place))
