"""The archive around the blocks: its header, its files one behind the other, and their digests.

    magic  version  header   { block  digest }  digest   { block  digest }  digest ...

Each digest is taken over the digest before it and all bytes since, so that no byte can be changed, no block
moved, left out or repeated; the one that ends a file also over the SHA-256 of what was packed.
docs/packing.md tells every byte.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

from graphopt.errors import ModelError, printable
from graphopt.files import stays_inside
from graphopt.packing.blocks import unpack_block
from graphopt.packing.format import (
    BLOCK_LEAST,
    BLOCK_LIMIT,
    DIGEST,
    EXPANSION,
    FILES,
    FREE,
    MAGIC,
    NAME_LIMIT,
    VERSION,
    Cursor,
    damaged,
    varint,
)
from graphopt.packing.transforms import Bytes

_SMALLEST = 2 + DIGEST
"""The fewest bytes of a block in the archive."""


@dataclass(frozen=True)
class Member:
    """A file in an archive.

    Attributes:
        name: where it stood beside the model, with ``/`` between folders; empty for the model itself.
        size: its bytes.
    """

    name: str
    size: int


class Sink(Protocol):
    """What an archive is written into."""

    def write(self, data: bytes, /) -> object:
        """Append bytes."""


class Hash(Protocol):
    """A hash of ``hashlib``."""

    def update(self, data: Any, /) -> None:
        """Take in more bytes."""

    def digest(self) -> bytes:
        """What came out."""


class ArchiveWriter:
    """Writes an archive from its start to its end.

    Args:
        file: where to.
        members: the files that will follow; the first is the model.
    """

    def __init__(self, file: Sink, members: list[Member]) -> None:
        self._file = file
        self._digest = b""
        self._header = MAGIC + bytes([VERSION]) + varint(len(members))
        for member in members:
            name = member.name.encode()
            self._header += varint(len(name)) + name + varint(member.size)
        self._file.write(self._header)

    def _put(self, data: bytes, unwritten: bytes = b"") -> None:
        """Write bytes and the digest over them, over what is not written, and over the digest before."""
        self._digest = chained(self._digest, self._header + data + unwritten)
        self._header = b""
        self._file.write(data + self._digest)

    def block(self, payload: bytes, count: int) -> None:
        """Write a block that holds ``count`` bytes of the file; zeros make up for one far too small."""
        payload = payload.ljust(-((FREE - count) // EXPANSION), b"\0")
        self._put(varint(count) + varint(len(payload)) + payload)

    def end(self, sha256: bytes) -> None:
        """End a file whose bytes have this SHA-256."""
        self._put(b"", sha256)


class ArchiveReader:
    """Reads an archive; nothing is handed out of a block whose digest is wrong.

    Args:
        file: the archive, at its start.
        size: its bytes.

    Attributes:
        members: the files in it.

    Raises:
        ModelError: from every method, where the bytes are not those of an archive.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._left = size
        self._digest = b""
        self._read = bytearray()
        self.members = self._header(size)

    def _header(self, size: int) -> list[Member]:
        if self._take(len(MAGIC)) != MAGIC:
            raise damaged("it does not begin as one")
        version = self._take(1)[0]
        if version != VERSION:
            raise ModelError(
                f"the packed model has version {version} of the format; this program reads {VERSION}",
                "Install a newer graphopt",
            )
        number = self._varint()
        if not 1 <= number <= FILES:
            raise damaged(f"it says that it holds {number} files")
        members = [self._member() for _ in range(number)]
        if sum(member.size for member in members) > most(size):
            raise damaged("it says that it holds more than so few bytes can")
        names = [member.name for member in members]
        if names[0] or not all(map(is_safe, names[1:])) or len(set(names)) != len(names):
            bad = next((name for name in names[1:] if not is_safe(name)), "")
            raise damaged(f"the name {printable(bad)!r} of a file in it is unsafe or there twice")
        return members

    def _member(self) -> Member:
        length = self._varint()
        if length > NAME_LIMIT:
            raise damaged("a file in it has a name that is too long")
        try:
            name = self._take(length).decode()
        except UnicodeDecodeError:
            raise damaged("the name of a file in it is not UTF-8") from None
        return Member(name, self._varint())

    def contents(self, member: Member, told: Hash | None = None) -> Iterator[Bytes]:
        """The bytes of the next file, run after run, all of them checked at the end.

        Args:
            member: the next file.
            told: a SHA-256 that whoever takes a run has told it of before taking the next.
        """
        hash = told or hashlib.sha256()
        left = member.size
        while left:
            count, payload = self._block(left)
            left -= count
            for run in unpack_block(payload, count):
                if told is None:
                    hash.update(run.data)
                yield run
        self._read += hash.digest()
        self._check()

    def _block(self, left: int) -> tuple[int, memoryview]:
        """The next block's count of bytes, at most ``left``, and its payload."""
        count, length = self._varint(), self._varint()
        if not 1 <= count <= min(left, BLOCK_LIMIT) or (count < BLOCK_LEAST and count != left):
            raise damaged(f"a block of {count} bytes, of {left} that are left")
        if count > FREE + EXPANSION * length or length > FREE + count:
            raise damaged(f"a block of {count} bytes in {length}")
        head = len(self._read)
        self._take(length)
        block = memoryview(self._read)[head:]
        self._check()
        return count, block

    def end(self) -> None:
        """Require that nothing follows."""
        if self._left or self._file.read(1):
            raise damaged("there are bytes behind its end")

    def _check(self) -> None:
        """Compare the digest over what was read since the last with the one that follows."""
        self._digest = chained(self._digest, self._read)
        if self._raw(DIGEST) != self._digest:
            raise damaged("a digest does not fit the bytes before it")
        self._read = bytearray()

    def _take(self, count: int) -> bytes:
        found = self._raw(count)
        self._read += found
        return found

    def _raw(self, count: int) -> bytes:
        try:
            found = self._file.read(count) if count <= self._left else b""
        except OSError as error:
            raise ModelError(f"cannot read the packed model: {error.strerror}") from None
        if len(found) != count:
            raise damaged("it ends too early")
        self._left -= count
        return found

    def _varint(self) -> int:
        found = b""
        while not found or found[-1] >= 0x80:
            found += self._take(1)
            if len(found) > 9:
                break
        return Cursor(found).varint()


def chained(before: bytes, data: bytes | bytearray) -> bytes:
    """The digest of bytes that stand behind others with the digest ``before``."""
    hash = hashlib.sha256(before)
    hash.update(data)
    return hash.digest()[:DIGEST]


def most(size: int) -> int:
    """The most bytes that an archive of so many can hold."""
    return size // _SMALLEST * FREE + size * EXPANSION


def is_safe(name: str) -> bool:
    """Whether a name leads to a file below a folder and hides nowhere."""
    parts = name.split("/")
    plain = all(part.strip() and not part.startswith(".") for part in parts)
    return plain and stays_inside(name) and name.isprintable()


def is_packed(head: bytes) -> bool:
    """Whether a file that begins so is an archive, of whatever version."""
    return head.startswith(MAGIC)
