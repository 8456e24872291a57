"""Reversible transforms of byte strings that bring equal things together, each with its inverse.

All work on whole arrays of uint8 and know nothing of models. The byte shuffle is Blosc's (Alted 2010); that
the exponents of weights are worth coding apart from their mantissas is ZipNN's observation (Hershcovitch et
al. 2024, arXiv:2411.05239).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

_WORDS = {1: "<u1", 2: "<u2", 4: "<u4", 8: "<u8"}


def view(data: bytes | bytearray | memoryview) -> Bytes:
    """Bytes as an array that shares their memory."""
    return np.frombuffer(data, np.uint8)


def words(data: Bytes, width: int) -> NDArray[np.unsignedinteger]:
    """The whole little-endian words of 1, 2, 4 or 8 bytes."""
    count = data.size // width
    return np.ascontiguousarray(data[: count * width]).view(_WORDS[width])


def planes(data: Bytes, width: int) -> list[Bytes]:
    """Byte ``i`` of every word, for each ``i``; ``data.size`` is a multiple of ``width``."""
    table = data.reshape(-1, width)
    return [np.ascontiguousarray(table[:, index]) for index in range(width)]


def join_planes(parts: list[Bytes]) -> Bytes:
    """Undo ``planes``."""
    table = np.empty((parts[0].size, len(parts)), np.uint8)
    for index, part in enumerate(parts):
        table[:, index] = part
    return table.reshape(-1)


def rotate(data: Bytes, width: int) -> Bytes:
    """Rotate words left by one bit, so that the sign of a float is its last bit, not its first."""
    word = words(data, width)
    one = word.dtype.type(1)
    return ((word << one) | (word >> word.dtype.type(8 * width - 1))).view(np.uint8)


def unrotate(data: Bytes, width: int) -> Bytes:
    """Undo ``rotate``."""
    word = words(data, width)
    one = word.dtype.type(1)
    return ((word >> one) | (word << word.dtype.type(8 * width - 1))).view(np.uint8)


def exponents(data: Bytes, width: int) -> Bytes:
    """The first byte of every rotated word: of a float of 4 bytes its exponent."""
    return rotate(data, width)[width - 1 :: width]


def split_bits(data: Bytes, bits: int) -> Bytes:
    """The elements of 1, 2 or 4 bits, the lowest first as ONNX packs them, a byte for each."""
    count = 8 // bits
    out = np.empty((data.size, count), np.uint8)
    for index in range(count):
        out[:, index] = (data >> np.uint8(bits * index)) & np.uint8((1 << bits) - 1)
    return out.reshape(-1)


def join_bits(symbols: Bytes, bits: int) -> Bytes:
    """Undo ``split_bits``; higher bits of the symbols are dropped."""
    count = 8 // bits
    table = symbols.reshape(-1, count)
    lowest = np.uint8((1 << bits) - 1)
    out = table[:, 0] & lowest
    for index in range(1, count):
        out |= (table[:, index] & lowest) << np.uint8(bits * index)
    return out


def tuple_size(base: int) -> int:
    """How many symbols below ``base`` fit into one byte together."""
    size = 1
    while base ** (size + 1) <= 256:
        size += 1
    return size


def tuples(digits: Bytes, base: int, size: int) -> Bytes:
    """Write ``size`` digits below ``base`` into one byte, the first as the highest; 0 fills the last."""
    filled = np.zeros(-(-digits.size // size) * size, np.uint8)
    filled[: digits.size] = digits
    table = filled.reshape(-1, size)
    out = table[:, 0].copy()
    for index in range(1, size):
        out = out * np.uint8(base) + table[:, index]
    return out


def untuple(data: Bytes, symbols: Bytes, size: int, count: int) -> Bytes:
    """Undo ``tuples``: ``count`` symbols, digit ``d`` standing for ``symbols[d]``.

    A byte that stands for no tuple gives some symbols or other.
    """
    base = symbols.size
    every = np.arange(256)
    table = np.empty((256, size), np.uint8)
    for index in reversed(range(size)):
        table[:, index] = symbols[every % base]
        every //= base
    return table[data].reshape(-1)[:count]


def digits_of(data: Bytes, symbols: Bytes) -> Bytes:
    """The place of each byte in the ascending ``symbols``."""
    places = np.zeros(256, np.uint8)
    places[symbols] = np.arange(symbols.size)
    return places[data]


def mask(data: Bytes, width: int, usual: bytes) -> tuple[Bytes, Bytes]:
    """Split words into a bit for each, whether it differs from ``usual``, and those that do.

    Returns:
        The bits, the first of a byte as its highest, and the bytes of the words that differ.
    """
    word = words(data, width)
    differs = word != np.frombuffer(usual, word.dtype)[0]
    return np.packbits(differs), word[differs].view(np.uint8)


def marked(bits: Bytes, count: int) -> NDArray[np.bool_]:
    """Which of ``count`` words a mask says differ."""
    return np.unpackbits(bits, count=count).view(np.bool_)


def unmask(where: NDArray[np.bool_], rest: Bytes, width: int, usual: bytes) -> Bytes:
    """Undo ``mask``; ``rest`` holds as many words as ``where`` marks."""
    kind = np.dtype(_WORDS[width])
    out = np.full(where.size, np.frombuffer(usual, kind)[0], kind)
    out[where] = rest.view(kind)
    return out.view(np.uint8)


def palette(data: Bytes, width: int) -> tuple[Bytes, Bytes] | None:
    """The distinct words, ascending, and the place of each word among them; None if over 256."""
    word = words(data, width)
    if np.unique(word[:: max(1, word.size // 4096)]).size > 256:
        return None
    distinct = np.unique(word)
    if distinct.size > 256:
        return None
    return distinct.view(np.uint8), np.searchsorted(distinct, word).astype(np.uint8)


def unpalette(colours: Bytes, places: Bytes, width: int) -> Bytes:
    """Undo ``palette``; a place beyond the last colour gives zeros."""
    table = np.zeros(256, _WORDS[width])
    table[: colours.size // width] = words(colours, width)
    return table[places].view(np.uint8)


def spread_classes(data: Bytes, size: int, classes: int) -> Bytes:
    """Sort runs of ``size`` bytes into classes of about as many runs each, by how far their bytes spread.

    Returns:
        The class of every whole run; 0 spreads least around the most frequent byte of all.
    """
    usual = np.uint8(np.argmax(np.bincount(data)))
    runs = data[: data.size - data.size % size].reshape(-1, size)
    spread = np.abs((runs - usual).view(np.int8).astype(np.int16)).sum(axis=1)
    limits = np.sort(spread)[np.arange(1, classes) * spread.size // classes]
    names: Bytes = np.searchsorted(limits, spread, side="right").astype(np.uint8)
    return names


def of_class(data: Bytes, size: int, names: Bytes, name: int) -> Bytes:
    """The bytes of all runs of one class."""
    runs = data[: names.size * size].reshape(-1, size)
    found: Bytes = runs[names == name].reshape(-1)
    return found


def join_classes(parts: list[Bytes], size: int, names: Bytes) -> Bytes:
    """Put the runs of all classes back to where ``names`` says that they were."""
    out = np.empty((names.size, size), np.uint8)
    for name, part in enumerate(parts):
        out[names == name] = part.reshape(-1, size)
    return out.reshape(-1)
