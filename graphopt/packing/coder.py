"""Which tree of transforms a stream is written as: the smallest of a few, found by trying them.

Every choice here changes only sizes; ``trees`` reads whatever comes out.
"""

from __future__ import annotations

import functools
import lzma
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import zstandard

from graphopt.packing import rans, transforms, trees
from graphopt.packing.format import DEPTH, varint
from graphopt.packing.transforms import Bytes
from graphopt.packing.wire import Kind

_SAMPLE = 1 << 18
"""Bytes on which the dear settings of Zstandard must show that they gain before all is tried."""

_GAIN = 0.995
"""What a dear or slow way must come to beside the cheap one."""


@dataclass(frozen=True)
class Coded:
    """A stream as it would be written.

    Attributes:
        tree: its nodes.
        streams: what its RANS nodes stand for, in their order.
    """

    tree: bytes
    streams: tuple[rans.Stream, ...] = ()

    @functools.cached_property
    def cost(self) -> float:
        """Bytes that it takes."""
        return len(self.tree) + sum(stream.cost for stream in self.streams)

    def __add__(self, other: Coded) -> Coded:
        """One behind the other."""
        return Coded(self.tree + other.tree, self.streams + other.streams)


def _node(kind: int, parameters: bytes = b"", children: Iterable[Coded] = ()) -> Coded:
    return sum(children, Coded(bytes([kind]) + parameters))


def _least(candidates: Iterable[Coded]) -> Coded:
    return min(candidates, key=lambda coded: coded.cost)


def text(data: bytes) -> Coded:
    """A stream with many repetitions, such as a graph's structure: by its matches."""
    if not data:
        return Coded(b"")
    packed = lzma.compress(data, lzma.FORMAT_RAW, filters=trees.LZMA_FILTERS)
    found = [_node(trees.RAW, data), _zstd(data, _dear()), _zstd(data, _literal())]
    return _least([*found, _node(trees.LZMA, varint(len(packed)) + packed)])


def tensor(data: Bytes, kind: Kind) -> Coded:
    """The elements of tensors of one kind."""
    if data.size == 0:
        return Coded(b"")
    if kind.bits < 8:
        split = transforms.split_bits(data, kind.bits)
        return _least([_node(trees.BITS, bytes([kind.bits]), [stream(split, 1)]), stream(data)])
    if kind.bits == 8:
        return stream(data)
    return _least(_wide(data, kind))


def _wide(data: Bytes, kind: Kind) -> Iterator[Coded]:
    """Words of 2, 4 or 8 bytes."""
    width = kind.bits // 8
    tail = Coded(data[data.size - data.size % width :].tobytes())
    whole = data[: data.size - data.size % width]
    yield stream(data)
    if whole.size == 0:
        return
    found = transforms.palette(whole, width)
    if found is not None:
        colours, places = found
        size = bytes([width, colours.size // width - 1])
        yield _node(trees.PALETTE, size, [_words(colours, kind), stream(places, 1)]) + tail
        return
    yield _words(whole, kind) + tail
    zero = bytes(width)
    bits, rest = transforms.mask(whole, width, zero)
    if rest.size < 0.95 * whole.size:
        yield _node(trees.MASK, bytes([width]) + zero, [stream(bits, 1), _words(rest, kind)]) + tail


def _words(data: Bytes, kind: Kind) -> Coded:
    """Whole words, byte by byte; of floats the exponents apart from the signs."""
    if data.size == 0:
        return Coded(b"")
    width = kind.bits // 8
    plain = _planes(data, width, 1)
    if not kind.floating:
        return _least([plain, _node(trees.RAW, data.tobytes())])
    turned = _node(
        trees.ROTATE, bytes([width]), [_planes(transforms.rotate(data, width), width, 2)]
    )
    return _least([plain, turned])


def _planes(data: Bytes, width: int, depth: int) -> Coded:
    parts = [stream(part, depth) for part in transforms.planes(data, width)]
    return _node(trees.PLANES, bytes([width]), parts)


def stream(data: Bytes, depth: int = 0) -> Coded:
    """Any bytes: as they are, by their frequencies, their matches, or what they are mostly."""
    if data.size == 0:
        return Coded(b"")
    counts = np.bincount(data, minlength=256)
    used = np.flatnonzero(counts).astype(np.uint8)
    if used.size == 1:
        return _node(trees.FILL, used.tobytes())
    raw = data.tobytes()
    found = [_node(trees.RAW, raw), _zstd(raw, _literal())]
    found += _dearly(raw, found[-1])
    if depth < DEPTH - 1:
        found += _tuples(data, used, depth)
        found += _masked(data, counts, depth)
    return _least(found)


def _dearly(raw: bytes, literal: Coded) -> Iterator[Coded]:
    """By the matches that Zstandard finds at its dearest, if a sample shows that there are some."""
    if len(raw) > 2 * _SAMPLE:
        middle = len(raw) // 2
        sample = raw[middle : middle + _SAMPLE]
        if _zstd(sample, _dear()).cost > _GAIN * _zstd(sample, _literal()).cost:
            return
    if literal.cost > 0 or raw:
        yield _zstd(raw, _dear())


def _tuples(data: Bytes, used: Bytes, depth: int) -> Iterator[Coded]:
    """Few symbols: several in one byte."""
    if used.size > 16:
        return
    digits = transforms.digits_of(data, used)
    for size in range(1, transforms.tuple_size(used.size) + 1):
        together = transforms.tuples(digits, used.size, size)
        coded = [_ranged(together, used.size, size), _zstd(together.tobytes(), _literal())]
        if size in (1, transforms.tuple_size(used.size)):
            coded += [_node(trees.RAW, together.tobytes()), _zstd(together.tobytes(), _dear())]
        yield _node(trees.TUPLES, bytes([size, used.size]) + used.tobytes(), [_least(coded)])


def _masked(data: Bytes, counts: Bytes, depth: int) -> Iterator[Coded]:
    """Mostly one symbol: where it is not, and what is there."""
    usual = int(np.argmax(counts))
    if counts[usual] < 0.3 * data.size or data.size < 64:
        return
    bits, rest = transforms.mask(data, 1, bytes([usual]))
    where = _least([stream(bits, depth + 1), _ranged(bits, 2, 8)])
    yield _node(trees.MASK, bytes([1, usual]), [where, stream(rest, depth + 1)])


def _ranged(symbols: Bytes, base: int, size: int) -> Coded:
    return Coded(bytes([trees.RANS]), (rans.modelled(symbols, base, size),))


def _zstd(data: bytes, compressor: zstandard.ZstdCompressor) -> Coded:
    packed = compressor.compress(data)
    return _node(trees.ZSTD, varint(len(packed)) + packed)


def _settings(**settings: int) -> zstandard.ZstdCompressor:
    """Settings that are written out, since what a level stands for changes between versions."""
    return zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(
            format=zstandard.FORMAT_ZSTD1_MAGICLESS,
            write_content_size=False,
            write_checksum=False,
            write_dict_id=False,
            threads=0,
            **settings,
        )
    )


@functools.cache
def _literal() -> zstandard.ZstdCompressor:
    """Zstandard as an order-0 Huffman coder: hardly any match is found."""
    return _settings(
        window_log=17,
        hash_log=6,
        chain_log=6,
        search_log=1,
        min_match=7,
        target_length=0,
        strategy=zstandard.STRATEGY_FAST,
    )


@functools.cache
def _dear() -> zstandard.ZstdCompressor:
    """Zstandard at what its level 22 stood for in version 1.5."""
    return _settings(
        window_log=24,
        hash_log=22,
        chain_log=23,
        search_log=9,
        min_match=3,
        target_length=999,
        strategy=zstandard.STRATEGY_BTULTRA2,
    )
