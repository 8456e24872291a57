"""Reading a large model file without holding its weights in memory.

Protobuf copies every byte of a message, and arrays of the weights are a second copy. So the contents of large
initializers go to a file in a temporary folder, and the message that is parsed says of each one where it lies
there: as for external data, pages are mapped when they are looked at. The model's own file may be replaced
meanwhile.

    ModelProto  .. 7: GraphProto ..  5: TensorProto ..  9: raw_data
    becomes                          5: TensorProto ..  13: external_data, 14: data_location

Files whose tensors do not lie so, or with tensors in other files already, are left to be read whole.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import IO

from onnx import TensorProto

from graphopt.packing.unpacker import Folder
from graphopt.packing.wire import Walk

SMALLEST = 1 << 16
"""Bytes of a tensor below which it stays in the message."""

NAME = "weights"
"""Of the file in the folder."""

_GRAPH, _INITIALIZER, _RAW, _EXTERNAL, _LOCATION = 7, 5, 9, 13, 14
"""Numbers of fields in onnx.proto."""

_CHUNK = 1 << 20


class _UnusualError(Exception):
    """The file is to be read whole."""


def spooled(path: Path) -> tuple[bytes, Folder] | None:
    """Move the contents of a model's large initializers to a temporary folder.

    Args:
        path: of the model's file, which is not empty.

    Returns:
        The bytes of the model with external data, and the folder in which that lies; None where the file has
        another form than expected, or there is no room.
    """
    folder = Folder()
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
            (folder.path / NAME).open("wb") as target,
        ):
            model = _Stripping(data, file, target).model()
    except (OSError, ValueError, _UnusualError):
        return None
    return model, folder


class _Stripping:
    """One walk over a file.

    Args:
        data: the file, mapped.
        file: the file, to copy from.
        target: what to copy to.
    """

    def __init__(self, data: mmap.mmap, file: IO[bytes], target: IO[bytes]) -> None:
        self.data, self.file, self.target = data, file, target
        self.walk = Walk(data)

    def model(self) -> bytes:
        """The message without the contents."""
        parts, graphs, last = [], 0, 0
        for number, begin, stop in self.walk.fields(0, len(self.data)):
            if number == _GRAPH and begin >= 0:
                graphs += 1
                parts.append(_field(_GRAPH, self._graph(begin, stop)))
            else:
                parts.append(self.data[last:stop])
            last = stop
        if graphs != 1 or not self.walk.whole:
            raise _UnusualError
        return b"".join(parts)

    def _graph(self, begin: int, end: int) -> bytes:
        parts, last = [], begin
        for number, start, stop in self.walk.fields(begin, end):
            if number == _INITIALIZER and start >= 0 and stop - start >= SMALLEST:
                parts.append(_field(_INITIALIZER, self._tensor(start, stop)))
            else:
                parts.append(self.data[last:stop])
            last = stop
        return b"".join(parts)

    def _tensor(self, begin: int, end: int) -> bytes:
        parts, raw, last = [], [], begin
        for number, start, stop in self.walk.fields(begin, end):
            if number in (_EXTERNAL, _LOCATION):
                raise _UnusualError
            if number == _RAW and start >= 0:
                raw.append((start, stop - start))
            else:
                parts.append(self.data[last:stop])
            last = stop
        if not raw:
            return self.data[begin:end]
        if len(raw) > 1:
            raise _UnusualError
        return b"".join([*parts, self._moved(*raw[0])])

    def _moved(self, start: int, length: int) -> bytes:
        """Copy contents; the fields that say where they lie now."""
        offset = self.target.seek(-self.target.tell() % mmap.PAGESIZE, 1)
        self.file.seek(start)
        for done in range(0, length, _CHUNK):
            self.target.write(self.file.read(min(_CHUNK, length - done)))
        found = TensorProto(data_location=TensorProto.EXTERNAL)
        for key, value in (("location", NAME), ("offset", offset), ("length", length)):
            found.external_data.add(key=key, value=str(value))
        return bytes(found.SerializeToString())


def _field(number: int, message: bytes) -> bytes:
    """A message as a field of another one."""
    return bytes(_varint(number << 3 | 2) + _varint(len(message)) + message)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
