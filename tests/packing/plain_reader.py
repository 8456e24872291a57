"""A second reader of archives, written from docs/packing.md alone: slow, plain, and without numpy."""

from __future__ import annotations

import hashlib
import lzma

import zstandard


class Reader:
    """Takes bytes from the front."""

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0

    def take(self, count: int) -> bytes:
        found = self.data[self.place : self.place + count]
        assert len(found) == count
        self.place += count
        return found

    def byte(self) -> int:
        return self.take(1)[0]

    def number(self) -> int:
        value = shift = 0
        while True:
            part = self.byte()
            value |= (part & 127) << shift
            shift += 7
            if part < 128:
                return value


def files(archive: bytes) -> dict[str, bytes]:
    """All files of an archive by their names."""
    reader = Reader(archive)
    assert reader.take(8) == bytes.fromhex("89474F50540D0A1A")
    assert reader.byte() == 1
    members = []
    for _ in range(reader.number()):
        name = reader.take(reader.number()).decode()
        members.append((name, reader.number()))
    found, digest, since = {}, b"", 0
    for name, size in members:
        content = b""
        while len(content) < size:
            count, length = reader.number(), reader.number()
            content += piece(Reader(reader.take(length)), count)
            digest = hashlib.sha256(digest + archive[since : reader.place]).digest()[:16]
            assert reader.take(16) == digest
            since = reader.place
        told = archive[since : reader.place] + hashlib.sha256(content).digest()
        digest = hashlib.sha256(digest + told).digest()[:16]
        assert reader.take(16) == digest
        since = reader.place
        found[name] = content
    assert reader.place == len(archive)
    return found


def piece(reader: Reader, count: int) -> bytes:
    """What a block holds."""
    plan_size, structure_size = reader.number(), reader.number()
    plan = Reader(tree(reader, plan_size))
    structure = tree(reader, structure_size)
    number = plan.number()
    gaps, lengths, choices = ([plan.number() for _ in range(number)] for _ in range(3))
    homes: list[int | None] = []  # of each tensor its group, or None for a copy
    sizes: list[int] = []
    place = 0
    for index, choice in enumerate(choices):
        place += gaps[index]
        if choice % 2:
            lengths[index] = lengths[index - (choice + 1) // 2]
            homes.append(None)
            continue
        lengths[index] = lengths[index] or told(structure[place - gaps[index] : place])
        if choice == 0:
            sizes.append(0)
        homes.append(len(sizes) - 1 if choice == 0 else len(sizes) - choice // 2)
        sizes[homes[-1]] += lengths[index]
    groups = [Reader(tree(reader, size)) for size in sizes]
    assert not any(reader.data[reader.place :])
    out, tensors, rest = b"", [], Reader(structure)
    for index, home in enumerate(homes):
        out += rest.take(gaps[index])
        if home is None:
            tensors.append(tensors[index - (choices[index] + 1) // 2])
        else:
            tensors.append(groups[home].take(lengths[index]))
        out += tensors[-1]
    out += structure[rest.place :]
    assert len(out) == count
    return out


def told(gap: bytes) -> int:
    """The number that ends a gap."""
    if not gap or gap[-1] >= 128:
        return 0
    start = len(gap) - 1
    while start and gap[start - 1] >= 128 and len(gap) - start < 9:
        start -= 1
    return Reader(gap[start:]).number()


def tree(reader: Reader, count: int) -> bytes:
    """A stream of so many bytes."""
    return NODES[reader.byte()](reader, count) if count else b""


def planes(reader: Reader, count: int) -> bytes:
    width = reader.byte()
    parts = [tree(reader, count // width) for _ in range(width)]
    whole = bytes(part[i] for i in range(count // width) for part in parts)
    return whole + reader.take(count % width)


def rotate(reader: Reader, count: int) -> bytes:
    width = reader.byte()
    data = tree(reader, count - count % width)
    out = b""
    for place in range(0, len(data), width):
        word = int.from_bytes(data[place : place + width], "little")
        out += (word >> 1 | (word & 1) << (8 * width - 1)).to_bytes(width, "little")
    return out + reader.take(count % width)


def bits(reader: Reader, count: int) -> bytes:
    number = reader.byte()
    each = 8 // number
    data = tree(reader, count * each)
    low = (1 << number) - 1
    return bytes(
        sum((data[place + i] & low) << number * i for i in range(each))
        for place in range(0, len(data), each)
    )


def tuples(reader: Reader, count: int) -> bytes:
    size, base = reader.byte(), reader.byte()
    symbols = reader.take(base)
    data = tree(reader, -(-count // size))
    digits = (byte // base**i % base for byte in data for i in reversed(range(size)))
    return bytes(symbols[digit] for digit in digits)[:count]


def mask(reader: Reader, count: int) -> bytes:
    width = reader.byte()
    usual = reader.take(width)
    number = count // width
    marks = tree(reader, -(-number // 8))
    where = [marks[i // 8] >> (7 - i % 8) & 1 for i in range(number)]
    rest = Reader(tree(reader, sum(where) * width))
    whole = b"".join(rest.take(width) if one else usual for one in where)
    return whole + reader.take(count % width)


def palette(reader: Reader, count: int) -> bytes:
    width, number = reader.byte(), reader.byte() + 1
    table = tree(reader, number * width)
    places = tree(reader, count // width)
    whole = b"".join((table[p * width : (p + 1) * width] or bytes(width)) for p in places)
    return whole + reader.take(count % width)


def classes(reader: Reader, count: int) -> bytes:
    number, size = reader.byte(), reader.number()
    names = tree(reader, count // size)
    parts = [Reader(tree(reader, names.count(name) * size)) for name in range(number)]
    return b"".join(parts[name].take(size) for name in names) + reader.take(count % size)


def zstd(reader: Reader, count: int) -> bytes:
    frame = b"\x28\xb5\x2f\xfd" + reader.take(reader.number())
    return zstandard.ZstdDecompressor().decompressobj().decompress(frame)


def lzma1(reader: Reader, count: int) -> bytes:
    how = {"id": lzma.FILTER_LZMA1, "dict_size": 1 << 20, "lc": 3, "lp": 0, "pb": 0}
    decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[how])
    return decoder.decompress(reader.take(reader.number()), count)


NODES = {
    0: lambda reader, count: reader.take(count),
    1: lambda reader, count: reader.take(1) * count,
    2: zstd,
    3: lzma1,
    16: planes,
    17: rotate,
    18: bits,
    19: tuples,
    20: mask,
    21: palette,
    22: classes,
}
