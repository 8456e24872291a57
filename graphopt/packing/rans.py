"""Entropy coding to within half a per cent of the entropy, in numpy: interleaved range ANS.

Duda 2013 (arXiv:1311.2540) gives the arithmetic and Giesen 2014 (arXiv:1402.3392) the interleaving. A state
``x`` in [2^16, 2^32) holds what is still to be read; a symbol that has ``f`` of 2^14 slots, the first being
``c``, is written and read by

    write:  x -> (x / f) * 2^14 + c + x mod f,  where x >= f * 2^18 first gives its low 16 bits away
    read:   x -> f * (x / 2^14) + x mod 2^14 - c, where x < 2^16 then takes 16 bits in

All streams of a block are read in the same steps, each in lanes of its own and by its own frequencies, so that
numpy works on long arrays and short streams cost little. A symbol is a tuple of ``size`` digits below ``base``,
the first the highest, whose frequency is the product of those of its digits: a table of ``base`` bytes does for
256 symbols, and whole bits are not lost on symbols that need less than one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graphopt.packing.format import NODES, STREAM_LIMIT, Cursor, damaged, varint
from graphopt.packing.transforms import Bytes

_SLOTS = 14
_LOW = 16
_LANES = 4096
_STEPS = 1024

Table = NDArray[np.uint32]


@dataclass(frozen=True)
class Stream:
    """Symbols to be coded, and how they are modelled.

    Attributes:
        symbols: of one byte each, below ``base ** size``.
        base: how many digits there are.
        size: digits in a symbol.
        weights: by digit, 255 times the root of its share.
    """

    symbols: Bytes
    base: int
    size: int
    weights: bytes

    @property
    def cost(self) -> float:
        """Bytes that the stream will take, lanes aside."""
        counts = np.bincount(self.symbols, minlength=self.base**self.size)
        share = np.maximum(frequencies(self.weights, self.size), 1) / (1 << _SLOTS)
        return float(-(counts * np.log2(share)).sum()) / 8 + self.base + 8


def modelled(symbols: Bytes, base: int, size: int) -> Stream:
    """A stream with the weights that fit its symbols."""
    counts = np.bincount(symbols, minlength=base**size).reshape((base,) * size)
    digits = np.zeros(base, np.int64)
    for axis in range(size):
        digits += counts.sum(axis=tuple(a for a in range(size) if a != axis))
    roots = np.sqrt(digits / digits.sum())
    weights = np.where(digits > 0, np.maximum(np.rint(255 * roots), 1), 0)
    return Stream(symbols, base, size, weights.astype(np.uint8).tobytes())


def frequencies(weights: bytes, size: int) -> Table:
    """Slots of every symbol, 2^14 together; whole numbers throughout, the same on every machine."""
    squares = np.frombuffer(weights, np.uint8).astype(np.uint64) ** 2
    share = (squares << np.uint64(16)) // squares.sum()
    share = np.where(squares > 0, np.maximum(share, 1), 0).astype(np.uint64)
    product = share << np.uint64(16)
    for _ in range(size - 1):
        possible = np.outer(product, share).reshape(-1)
        product = np.where(possible > 0, np.maximum(possible >> np.uint64(16), 1), 0)
    slots = np.where(product > 0, np.maximum(product >> np.uint64(32 - _SLOTS), 1), 0)
    slots = slots.astype(np.int64)
    while excess := int(slots.sum()) - (1 << _SLOTS):
        largest = int(np.argmax(slots))
        slots[largest] -= min(excess, int(slots[largest]) // 2)
    return slots.astype(np.uint32)


@dataclass(frozen=True)
class _Layout:
    """Where the symbols of all streams stand: lanes of a stream are neighbours, longest streams first."""

    counts: Sequence[int]
    steps: int

    def lanes(self) -> list[int]:
        return [-(-count // self.steps) for count in self.counts]

    def lengths(self) -> list[int]:
        return [-(-count // lane) for count, lane in zip(self.counts, self.lanes(), strict=True)]

    def order(self) -> list[int]:
        """The streams by falling length."""
        lengths = self.lengths()
        return sorted(range(len(lengths)), key=lambda index: -lengths[index])

    def active(self) -> Iterator[int]:
        """At each step, the lanes that still have a symbol: the first so many."""
        lanes, lengths, order = self.lanes(), self.lengths(), self.order()
        running = sum(lanes)
        last = len(order) - 1
        for step in range(max(lengths, default=0)):
            while lengths[order[last]] <= step:
                running -= lanes[order[last]]
                last -= 1
            yield running


def _tables(streams: Sequence[tuple[bytes, int]], layout: _Layout) -> tuple[list[Table], Table]:
    """The frequencies of each stream, and for every lane the place of its stream's slots."""
    lanes = layout.lanes()
    made = [frequencies(weights, size) for weights, size in streams]
    order = layout.order()
    places = np.repeat(
        np.arange(len(order), dtype=np.uint32) << np.uint32(_SLOTS), [lanes[i] for i in order]
    )
    return made, places


def encode(streams: Sequence[Stream]) -> bytes:
    """Write all streams of a block.

    Returns:
        Their number, each one's count, base, size and weights; where there are any: the steps, the last
        states of all lanes, the number of words of 16 bits, and the words.
    """
    out = bytearray(varint(len(streams)))
    for stream in streams:
        out += varint(stream.symbols.size) + bytes([stream.base - 1, stream.size]) + stream.weights
    if not streams:
        return bytes(out)
    counts = [stream.symbols.size for stream in streams]
    layout = _Layout(counts, max(_STEPS, -(-sum(counts) // _LANES)))
    rows = _grid(streams, layout)
    tables, _ = _tables([(s.weights, s.size) for s in streams], layout)
    order = layout.order()
    size, start = _starts([tables[i] for i in order])
    offset = np.repeat(np.arange(len(order)) * 256, [layout.lanes()[i] for i in order])
    states = np.full(sum(layout.lanes()), 1 << _LOW, np.uint64)
    chunks = []
    for step in reversed(range(len(rows))):
        row = rows[step] + offset[: len(rows[step])]
        chunks.append(_write(states, size[row], start[row]))
    words = np.concatenate(chunks[::-1])
    out += varint(layout.steps) + states.astype("<u4").tobytes()
    out += varint(words.size) + words.tobytes()
    return bytes(out)


def _starts(tables: list[Table]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Slots and first slot of the symbols of all streams, 256 for each."""
    size = np.zeros((len(tables), 256), np.uint64)
    start = np.zeros((len(tables), 256), np.uint64)
    for index, table in enumerate(tables):
        size[index, : table.size] = table
        start[index, 1 : table.size] = np.cumsum(table[:-1])
    return size.reshape(-1), start.reshape(-1)


def _grid(streams: Sequence[Stream], layout: _Layout) -> list[NDArray[np.int64]]:
    """The symbols of each step, lane after lane; a stream's last step is filled up with its likeliest."""
    lanes, lengths = layout.lanes(), layout.lengths()
    blocks = {}
    for index, stream in enumerate(streams):
        likely = int(np.argmax(frequencies(stream.weights, stream.size)))
        block = np.full(lanes[index] * lengths[index], likely, np.int64)
        block[: stream.symbols.size] = stream.symbols
        blocks[index] = block.reshape(lengths[index], lanes[index])
    order = layout.order()
    return [
        np.concatenate([blocks[i][step] for i in order if lengths[i] > step])
        for step in range(max(lengths))
    ]


def _write(
    states: NDArray[np.uint64], size: NDArray[np.uint64], start: NDArray[np.uint64]
) -> NDArray[np.uint16]:
    """Write one symbol into each of the first lanes; return the words that leave."""
    part = states[: size.size]
    full = part >= size << np.uint64(32 - _SLOTS)
    words = part[full].astype("<u2")
    part[full] >>= np.uint64(16)
    part[:] = (part // size << np.uint64(_SLOTS)) + start + part % size
    return words


def decode(cursor: Cursor) -> list[Bytes]:
    """Read all streams of a block.

    Raises:
        ModelError: the bytes are not what ``encode`` writes.
    """
    counts, models = _read_models(cursor)
    if not counts:
        return []
    steps = cursor.varint()
    if steps < 1 or -(-sum(counts) // steps) > STREAM_LIMIT // 64:
        raise damaged("its lanes are too many")
    layout = _Layout(counts, steps)
    lanes = sum(layout.lanes())
    states = np.frombuffer(cursor.take(4 * lanes), "<u4").astype(np.uint32)
    words = np.frombuffer(cursor.take(2 * cursor.varint()), "<u2").astype(np.uint32)
    slots = _slots(states, words, models, layout)
    return _symbols(slots, models, layout)


def _read_models(cursor: Cursor) -> tuple[list[int], list[tuple[bytes, int]]]:
    number = cursor.varint()
    if number > NODES >> 4:
        raise damaged("its streams are too many")
    counts, models = [], []
    for _ in range(number):
        counts.append(cursor.varint())
        base, size = cursor.byte() + 1, cursor.byte()
        if counts[-1] < 1 or not 1 <= size <= 8 or base**size > 256:
            raise damaged(f"a stream of {counts[-1]} symbols of {size} digits below {base}")
        weights = bytes(cursor.take(base))
        if not any(weights):
            raise damaged("a stream without symbols")
        models.append((weights, size))
    if sum(counts) > STREAM_LIMIT:
        raise damaged("its streams are too long")
    return counts, models


def _slots(
    states: Table, words: Table, models: list[tuple[bytes, int]], layout: _Layout
) -> NDArray[np.uint16]:
    """The slots that all lanes come by, step after step."""
    tables, places = _tables(models, layout)
    size, bias = _by_slot([tables[i] for i in layout.order()])
    found = np.empty(sum(layout.active()), np.uint16)
    place = done = 0
    for running in layout.active():
        state = states[:running]
        slot = state & np.uint32((1 << _SLOTS) - 1)
        found[done : done + running] = slot
        done += running
        slot += places[:running]
        state >>= np.uint32(_SLOTS)
        state *= size.take(slot)
        state += bias.take(slot)
        empty = np.flatnonzero(state < (1 << _LOW))
        part = words[place : place + empty.size]
        if part.size != empty.size:
            raise damaged("its words are too few")
        state[empty] = (state[empty] << np.uint32(16)) | part
        place += empty.size
    if place != words.size or (states != 1 << _LOW).any():
        raise damaged("its words are too many")
    return found


def _by_slot(tables: list[Table]) -> tuple[Table, Table]:
    """For every slot of every stream: the slots of its symbol, and its place among them."""
    size = np.concatenate([np.repeat(table, table) for table in tables])
    start = np.concatenate([np.repeat(np.cumsum(table) - table, table) for table in tables])
    slot = np.tile(np.arange(1 << _SLOTS, dtype=np.uint32), len(tables))
    return size, slot - start.astype(np.uint32)


def _symbols(
    slots: NDArray[np.uint16], models: list[tuple[bytes, int]], layout: _Layout
) -> list[Bytes]:
    """Gather each stream's symbols from the slots of all steps."""
    lanes, lengths, order = layout.lanes(), layout.lengths(), layout.order()
    starts = np.concatenate([[0], np.cumsum(list(layout.active()))])
    found: dict[int, Bytes] = {}
    first = 0
    for index in order:
        names = np.repeat(
            np.arange(256)[: len(models[index][0]) ** models[index][1]],
            frequencies(*models[index]),
        ).astype(np.uint8)
        where = starts[: lengths[index], None] + np.arange(first, first + lanes[index])
        found[index] = names[slots[where.reshape(-1)]][: layout.counts[index]]
        first += lanes[index]
    return [found[index] for index in range(len(order))]
