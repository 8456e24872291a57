"""Which tree of transforms a stream is written as: the smallest of a few, found by trying them.

Every choice here changes only sizes; ``trees`` reads whatever comes out.
"""

from __future__ import annotations

import functools
import lzma
from collections.abc import Iterable, Iterator

import numpy as np
import zstandard

from graphopt.packing import transforms, trees
from graphopt.packing.format import varint
from graphopt.packing.transforms import Bytes
from graphopt.packing.wire import Kind

_SAMPLE = 1 << 14
"""Bytes on which the dear settings of Zstandard must show that they gain before all is tried."""

_GAIN = 0.995
"""What they must come to there, beside the cheap ones."""

_EVEN = 0.97
"""What bytes come to by their frequencies from which these are too even for near matches."""

_SHORT = 1 << 20
"""The longest stream that LZMA is tried on: it is smaller than Zstandard, and read far slower."""

_LONG = 1 << 13
"""Bytes from which a stream may fall into classes."""

_CLASSES = 4
"""How many classes are tried."""

_RUN = 256
"""Bytes of a run that is of one class."""

_NESTED = 4
"""Transforms one behind the other that are tried; ``trees`` reads some more."""

_MOSTLY = 0.3
"""The share of a symbol from which it is tried to say where it is not."""

_DENSE = 0.95
"""The share of words that are not zero from which that is not tried."""

_DIGITS = 16
"""The most symbols of which several are written into one byte."""


def _node(kind: int, parameters: bytes = b"", children: Iterable[bytes] = ()) -> bytes:
    return bytes([kind]) + parameters + b"".join(children)


def _least(candidates: Iterable[bytes]) -> bytes:
    return min(candidates, key=len)


def text(data: bytes) -> bytes:
    """A stream with many repetitions, such as a graph's structure: by its matches."""
    if not data:
        return b""
    found = [_plain(data)]
    if len(data) <= _SHORT:
        packed = lzma.compress(data, lzma.FORMAT_RAW, filters=trees.LZMA_FILTERS)
        found.append(_node(trees.LZMA, varint(len(packed)) + packed))
    return _least(found)


def tensor(data: Bytes, kind: Kind) -> bytes:
    """The elements of tensors of one kind."""
    if data.size == 0:
        return b""
    if kind.bits == 8:
        return stream(data)
    return _least(_narrow(data, kind) if kind.bits < 8 else _wide(data, kind))


def _narrow(data: Bytes, kind: Kind) -> Iterator[bytes]:
    """Elements of 2 or 4 bits."""
    yield stream(data)
    elements = transforms.split_bits(data, kind.bits)
    yield _node(trees.BITS, bytes([kind.bits]), [stream(elements, 1)])


def _wide(data: Bytes, kind: Kind) -> Iterator[bytes]:
    """Words of 2, 4 or 8 bytes."""
    yield _plain(data.tobytes())
    width = kind.bits // 8
    whole = data[: data.size - data.size % width]
    tail = data[whole.size :].tobytes()
    if whole.size == 0:
        return
    found = transforms.palette(whole, width)
    if found is not None:
        colours, places = found
        size = bytes([width, colours.size // width - 1])
        parts = [_words(colours, kind), stream(places, 1)]
        yield _node(trees.PALETTE, size, parts) + tail
        return
    yield _words(whole, kind) + tail
    zero = bytes(width)
    bits, rest = transforms.mask(whole, width, zero)
    if rest.size < _DENSE * whole.size:
        parts = [stream(bits, 1), _words(rest, kind)]
        yield _node(trees.MASK, bytes([width]) + zero, parts) + tail


def _words(data: Bytes, kind: Kind) -> bytes:
    """Whole words, byte by byte; of floats the exponents apart from the signs."""
    if data.size == 0:
        return b""
    width = kind.bits // 8
    if not kind.floating:
        return _planes(data, width)
    turned = transforms.rotate(data, width)
    found = [_node(trees.ROTATE, bytes([width]), [_planes(turned, width)])]
    if not data[::width].any():  # the sign would take a byte of its own
        found.append(_planes(data, width))
    return _least(found)


def _planes(data: Bytes, width: int) -> bytes:
    parts = [stream(part, 2) for part in transforms.planes(data, width)]
    return _node(trees.PLANES, bytes([width]), parts)


def stream(data: Bytes, depth: int = 0) -> bytes:
    """Any bytes: as they are, by their frequencies, their matches, or what they are mostly.

    Args:
        data: the bytes.
        depth: how many transforms stand before.
    """
    if data.size == 0:
        return b""
    counts = np.bincount(data, minlength=256)
    used = np.flatnonzero(counts).astype(np.uint8)
    if used.size == 1:
        return _node(trees.FILL, used.tobytes())
    found = [_plain(data.tobytes())]
    found += _tuples(data, used)
    if data.size >= _LONG:
        found += _classed(data, len(found[0]))
    usual = int(np.argmax(counts))
    if depth < _NESTED and counts[usual] > _MOSTLY * data.size:
        bits, rest = transforms.mask(data, 1, bytes([usual]))
        parts = [stream(bits, depth + 1), stream(rest, depth + 1)]
        found.append(_node(trees.MASK, bytes([1, usual]), parts))
    return _least(found)


def _classed(data: Bytes, plain: int) -> Iterator[bytes]:
    """Runs that spread more or less, such as the weights of one channel, each by their own frequencies."""
    if plain > _EVEN * data.size:
        return
    names = transforms.spread_classes(data, _RUN, _CLASSES)
    parts = [transforms.of_class(data, _RUN, names, name) for name in range(_CLASSES)]
    coded = [
        _plain(names.tobytes()),
        *(_plain(part.tobytes()) if part.size else b"" for part in parts),
    ]
    tail = data[names.size * _RUN :].tobytes()
    yield _node(trees.CLASSES, bytes([_CLASSES]) + varint(_RUN), coded) + tail


def _tuples(data: Bytes, used: Bytes) -> Iterator[bytes]:
    """Few symbols: several in one byte, so that no whole bits are lost on each."""
    if used.size > _DIGITS:
        return
    digits = transforms.digits_of(data, used)
    for size in range(2, transforms.tuple_size(used.size) + 1):
        together = transforms.tuples(digits, used.size, size).tobytes()
        yield _node(trees.TUPLES, bytes([size, used.size]) + used.tobytes(), [_plain(together)])


def _plain(data: bytes) -> bytes:
    """Bytes as they are, by their frequencies or, where there seem to be any, by their matches."""
    found = [_node(trees.RAW, data), _zstd(data, _literal())]
    if len(data) <= _SAMPLE or _repeats(data, len(found[1])):
        found.append(_zstd(data, _dear()))
    return _least(found)


def _repeats(data: bytes, literal: int) -> bool:
    """Whether matches gain anything: far ones that are found fast, or, of uneven bytes, any in a sample."""
    if len(_zstd(data, _fast())) < _GAIN * literal:
        return True
    sample = data[len(data) // 2 :][:_SAMPLE]
    uneven = literal < _EVEN * len(data)
    return uneven and len(_zstd(sample, _dear())) < _GAIN * len(_zstd(sample, _literal()))


def _zstd(data: bytes, compressor: zstandard.ZstdCompressor) -> bytes:
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
def _fast() -> zstandard.ZstdCompressor:
    """Zstandard where it is fast and still finds what is repeated far away."""
    return _settings(
        window_log=24,
        hash_log=17,
        chain_log=16,
        search_log=1,
        min_match=5,
        target_length=0,
        strategy=zstandard.STRATEGY_DFAST,
    )


@functools.cache
def _dear() -> zstandard.ZstdCompressor:
    """Zstandard at what its level 19 stands for in version 1.5, with a longer window."""
    return _settings(
        window_log=24,
        hash_log=22,
        chain_log=23,
        search_log=7,
        min_match=3,
        target_length=256,
        strategy=zstandard.STRATEGY_BTULTRA2,
    )
