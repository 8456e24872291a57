"""Trees of transforms: how one stream of bytes is written, and how it is read again.

A stream of ``n`` bytes is a node: one byte that says which, its parameters, and the nodes of the streams that
it is made of. How long these are follows from ``n`` and what was read so far, and is never believed from the
archive, so that no node can ask for more memory than its stream needs. docs/packing.md tells all nodes.
"""

from __future__ import annotations

import functools
import lzma
from collections.abc import Callable
from typing import Any

import numpy as np
import zstandard

from graphopt.packing import transforms
from graphopt.packing.format import (
    DEPTH,
    MOST_CLASSES,
    NODES,
    SHORTEST_RUN,
    WORK,
    WORK_FREE,
    Cursor,
    damaged,
)
from graphopt.packing.transforms import Bytes, view

RAW, FILL, ZSTD, LZMA = range(4)
PLANES, ROTATE, BITS, TUPLES, MASK, PALETTE, CLASSES = range(16, 23)

WIDTHS = (1, 2, 4, 8)
"""Bytes that a word may have."""

LZMA_FILTERS: list[dict[str, Any]] = [
    {"id": lzma.FILTER_LZMA1, "dict_size": 1 << 20, "lc": 3, "lp": 0, "pb": 0, "preset": 9}
]
"""The settings of a raw LZMA1 stream, fixed by the format."""

_WINDOW = 1 << 27
"""The longest window of a Zstandard frame that is read; none longer than the stream is ever kept."""

_DECLARES = 0xE3
"""The bits of a Zstandard frame's first byte that say it holds its size or the name of a dictionary."""


class TreeReader:
    """Reads the streams of one block.

    Args:
        cursor: the packed bytes, at the first node.
        count: bytes that the block holds, which bounds those of all streams.

    Raises:
        ModelError: from ``read``, where the bytes are no tree of a stream of that length.
    """

    def __init__(self, cursor: Cursor, count: int) -> None:
        self.cursor = cursor
        self.nodes = 0
        self.left = WORK * count + WORK_FREE

    def read(self, count: int, depth: int = 0) -> Bytes:
        """The next stream, of ``count`` bytes."""
        if count == 0:
            return np.empty(0, np.uint8)
        self.nodes += 1
        self.left -= count
        if self.nodes > NODES or self.left < 0 or depth > DEPTH:
            raise damaged("its streams are too many, too deep or too long")
        kind = self.cursor.byte()
        if kind in _LEAVES:
            found = _LEAVES[kind](self, count)
        elif kind in _BRANCHES:
            found = _BRANCHES[kind](self, count, depth + 1)
        else:
            raise damaged(f"a stream is of the unknown kind {kind}")
        if found.size != count:
            raise damaged("a stream has another length than it must have")
        return found

    def width(self) -> int:
        """The bytes of a word, one of ``WIDTHS``."""
        width = self.cursor.byte()
        if width not in WIDTHS:
            raise damaged(f"words of {width} bytes")
        return width


def _raw(tree: TreeReader, count: int) -> Bytes:
    return view(tree.cursor.take(count))


def _fill(tree: TreeReader, count: int) -> Bytes:
    return np.full(count, tree.cursor.byte(), np.uint8)


@functools.cache
def _zstd() -> zstandard.ZstdDecompressor:
    return zstandard.ZstdDecompressor(
        format=zstandard.FORMAT_ZSTD1_MAGICLESS, max_window_size=_WINDOW
    )


def _read_zstd(tree: TreeReader, count: int) -> Bytes:
    data = tree.cursor.take(tree.cursor.varint())
    if not data or data[0] & _DECLARES:
        raise damaged("a Zstandard frame declares a size of its own")
    try:
        found = _zstd().decompress(data, max_output_size=count, allow_extra_data=False)
    except zstandard.ZstdError:
        raise damaged("a Zstandard frame does not decode") from None
    return view(found)


def _read_lzma(tree: TreeReader, count: int) -> Bytes:
    data = tree.cursor.take(tree.cursor.varint())
    decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, None, LZMA_FILTERS)
    try:
        return view(decoder.decompress(data, count))
    except (lzma.LZMAError, EOFError):
        raise damaged("an LZMA stream does not decode") from None


def _planes(tree: TreeReader, count: int, depth: int) -> Bytes:
    width = tree.width()
    parts = [tree.read(count // width, depth) for _ in range(width)]
    return _with_tail(tree, transforms.join_planes(parts), count % width)


def _rotate(tree: TreeReader, count: int, depth: int) -> Bytes:
    width = tree.width()
    whole = transforms.unrotate(tree.read(count - count % width, depth), width)
    return _with_tail(tree, whole, count % width)


def _bits(tree: TreeReader, count: int, depth: int) -> Bytes:
    bits = tree.cursor.byte()
    if bits not in (1, 2, 4):
        raise damaged(f"elements of {bits} bits")
    return transforms.join_bits(tree.read(count * 8 // bits, depth), bits)


def _tuples(tree: TreeReader, count: int, depth: int) -> Bytes:
    size, base = tree.cursor.byte(), tree.cursor.byte()
    if base < 1 or size < 1 or base**size > 256:
        raise damaged(f"{size} symbols of {base} in one byte")
    symbols = view(tree.cursor.take(base))
    return transforms.untuple(tree.read(-(-count // size), depth), symbols, size, count)


def _mask(tree: TreeReader, count: int, depth: int) -> Bytes:
    width = tree.width()
    usual = bytes(tree.cursor.take(width))
    where = transforms.marked(tree.read(-(-(count // width) // 8), depth), count // width)
    rest = tree.read(int(np.count_nonzero(where)) * width, depth)
    return _with_tail(tree, transforms.unmask(where, rest, width, usual), count % width)


def _palette(tree: TreeReader, count: int, depth: int) -> Bytes:
    width, colours = tree.width(), tree.cursor.byte() + 1
    table = tree.read(colours * width, depth)
    found = transforms.unpalette(table, tree.read(count // width, depth), width)
    return _with_tail(tree, found, count % width)


def _classes(tree: TreeReader, count: int, depth: int) -> Bytes:
    number, size = tree.cursor.byte(), tree.cursor.varint()
    if not 1 <= number <= MOST_CLASSES or not SHORTEST_RUN <= size <= count:
        raise damaged(f"{number} classes of runs of {size} bytes, of {count}")
    names = tree.read(count // size, depth)
    runs = np.bincount(names, minlength=number)
    if runs.size > number:
        raise damaged("a run is of no class")
    parts = [tree.read(int(run) * size, depth) for run in runs]
    return _with_tail(tree, transforms.join_classes(parts, size, names), count % size)


def _with_tail(tree: TreeReader, whole: Bytes, tail: int) -> Bytes:
    """Add the bytes behind the last whole word, which stand as they are behind its streams."""
    return np.concatenate([whole, view(tree.cursor.take(tail))]) if tail else whole


_LEAVES: dict[int, Callable[[TreeReader, int], Bytes]] = {
    RAW: _raw,
    FILL: _fill,
    ZSTD: _read_zstd,
    LZMA: _read_lzma,
}
_BRANCHES: dict[int, Callable[[TreeReader, int, int], Bytes]] = {
    PLANES: _planes,
    ROTATE: _rotate,
    BITS: _bits,
    TUPLES: _tuples,
    MASK: _mask,
    PALETTE: _palette,
    CLASSES: _classes,
}
