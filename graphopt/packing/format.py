"""The figures of the archive format, and the few primitives that all its parts are written in.

The format is specified in docs/packing.md. Whatever is read here is hostile until its digest is checked,
and also after that: anybody can compute a digest.
"""

from __future__ import annotations

from graphopt.errors import ModelError

MAGIC = b"\x89GOPT\r\n\x1a"
"""The first bytes of every archive; the line ends show a transfer that took it for text."""

VERSION = 1
"""The version of the format that is written, and the only one that is read."""

SUFFIX = ".gopt"
"""The end of an archive's name; reading goes by the magic bytes alone."""

PIECE = 8 << 20
"""Bytes of a file that one block aims to hold."""

FREE = 1 << 16
"""Bytes that a block may hold, and its payload take, beyond what stands in proportion to the other."""

BLOCK_LIMIT = PIECE + FREE
"""The most bytes of a file that one block holds."""

BLOCK_LEAST = 1 << 14
"""The fewest bytes that a block holds, but for the last of a file; bounds the number of blocks."""

EXPANSION = 1 << 12
"""How many bytes a block may hold for each of its payload, beyond ``FREE``."""

SEGMENTS = 1 << 16
"""The most tensors that one block holds apart."""

NODES = 1 << 18
"""The most nodes of all trees of one block."""

DEPTH = 8
"""The most transforms one behind the other."""

WORK = 32
"""How many bytes all streams of a block may have for each that it holds, inner ones included ..."""

WORK_FREE = 1 << 20
"""... and beyond that."""

MOST_CLASSES = 16
"""The most classes that runs of a stream may fall into."""

SHORTEST_RUN = 16
"""The fewest bytes of such a run."""

FILES = 1 << 14
"""The most files of one archive."""

NAME_LIMIT = 1024
"""The most bytes of a file's name."""

DIGEST = 16
"""Bytes of a block's digest, the first of a SHA-256."""

_VARINT_BYTES = 9


class Cursor:
    """Reads a byte string from its start to its end.

    Args:
        data: what is read.

    Raises:
        ModelError: from every method, where the bytes end too early or are no number.
    """

    def __init__(self, data: bytes | memoryview) -> None:
        self.data = memoryview(data)
        self.place = 0

    def take(self, count: int) -> memoryview:
        """The next ``count`` bytes."""
        if not 0 <= count <= len(self.data) - self.place:
            raise damaged("it ends too early")
        found = self.data[self.place : self.place + count]
        self.place += count
        return found

    def byte(self) -> int:
        """The next byte."""
        return self.take(1)[0]

    def varint(self) -> int:
        """The next number."""
        value = 0
        for index in range(_VARINT_BYTES):
            part = self.byte()
            value |= (part & 0x7F) << (7 * index)
            if part < 0x80:
                return value
        raise damaged("a number has too many bytes")

    def end(self) -> None:
        """Require that nothing but zeros is left."""
        if bytes(self.take(len(self.data) - self.place)).strip(b"\0"):
            raise damaged("there are bytes that belong to nothing")


def varint(value: int) -> bytes:
    """A number of 0 to 2^63 - 1, seven bits a byte, lowest first (protobuf's base-128 varint)."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def damaged(why: str) -> ModelError:
    """The error of an archive that is not what it says."""
    return ModelError(f"the packed model is damaged: {why}", "Fetch it again")
