"""Files: reading a model that may be hostile, writing one that is never half there."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import onnx
from google.protobuf.message import DecodeError

from graphopt.errors import ModelError, OutputError, ResourceError, printable

PROTOBUF_LIMIT = 2**31 - 1
"""Bytes beyond which protobuf neither reads nor writes a message."""

EMBED_LIMIT = 2**31 - 2**24
"""Bytes of weights beyond which a model is written with external data; leaves room for the graph."""

_MAGIC = (
    (b"version https://git-lfs", "a Git LFS pointer, not the model itself", "Run: git lfs pull"),
    (b"<!DOCTYPE", "an HTML page", "Download the file itself, not the page around it"),
    (b"<html", "an HTML page", "Download the file itself, not the page around it"),
    (b"PK\x03\x04", "a zip archive (perhaps a PyTorch checkpoint)", "Export the model to ONNX"),
    (b"\x80\x02", "a pickle (perhaps a PyTorch checkpoint)", "Export the model to ONNX"),
    (b"\x80\x04", "a pickle", "Export the model to ONNX"),
    (b"\x1f\x8b", "a gzip archive", "Unpack it first"),
    (b"\x89HDF", "an HDF5 file (perhaps Keras)", "Export the model to ONNX"),
    (b"ORTM", "an ORT-format model", "Use the .onnx file that it was made from"),
)


def read_model(path: Path) -> onnx.ModelProto:
    """Read and parse a model file; its external data is not touched.

    Raises:
        ModelError: no such file, not a regular file, or not an ONNX model.
        ResourceError: the file is larger than protobuf can read.
    """
    shown = printable(str(path))
    try:
        state = path.stat()
    except OSError as error:
        raise ModelError(f"cannot read {shown}: {error.strerror}", "Check the path") from None
    if stat.S_ISDIR(state.st_mode):
        raise ModelError(f"cannot read {shown}: it is a folder", "Give the path of a .onnx file")
    if not stat.S_ISREG(state.st_mode):
        raise ModelError(
            f"cannot read {shown}: not a regular file", "Give the path of a .onnx file"
        )
    if state.st_size > PROTOBUF_LIMIT:
        raise ResourceError(
            f"cannot read {shown}: {state.st_size} bytes is more than protobuf's limit of 2 GiB",
            "Save the model with external data",
        )
    try:
        with path.open("rb") as file:
            _refuse_foreign(file.read(64), shown)
            file.seek(0)
            data = file.read()
    except OSError as error:
        raise ModelError(f"cannot read {shown}: {error.strerror}") from None
    return parse_model(data, shown)


def _refuse_foreign(head: bytes, shown: str) -> None:
    if not head:
        raise ModelError(f"{shown} is empty")
    if not head.strip(b"\0"):
        raise ModelError(f"{shown} starts with zeros: not an ONNX model")
    for magic, what, hint in _MAGIC:
        if head.startswith(magic):
            raise ModelError(f"{shown} is {what}", hint)


def parse_model(data: bytes, shown: str = "the model") -> onnx.ModelProto:
    """Parse the bytes of a model.

    Raises:
        ModelError: the bytes are not an ONNX model with a graph.
    """
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError:
        raise ModelError(
            f"{shown} is not an ONNX model: its bytes do not parse",
            "The file is damaged, cut short, nested too deeply or of another format",
        ) from None
    if not proto.HasField("graph"):
        raise ModelError(f"{shown} is not an ONNX model: it has no graph")
    if proto.ir_version < 3:
        raise ModelError(
            f"{shown} has IR version {proto.ir_version}; 3 is the oldest that is supported",
            "Export the model again",
        )
    return proto


class AtomicFile:
    """A file that appears under its name whole or not at all.

    The bytes go to a temporary file in the same folder; ``commit`` syncs and renames it. Leaving the
    ``with`` block without ``commit`` removes it.

    Args:
        path: where the file shall appear.

    Raises:
        OutputError: the folder is missing or not writable, or the disk is full.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.hash = hashlib.sha256()
        self.size = 0
        try:
            if path.is_dir():
                raise OutputError(f"cannot write {printable(str(path))}: it is a folder")
            handle, name = tempfile.mkstemp(prefix=f".{path.name[:40]}.", dir=path.parent)
        except OSError as error:
            raise _unwritable(path, error) from None
        self.temporary = Path(name)
        self.file: BinaryIO = os.fdopen(handle, "wb")

    def __enter__(self) -> AtomicFile:
        return self

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes."""
        try:
            self.file.write(data)
        except OSError as error:
            raise _unwritable(self.path, error) from None
        self.hash.update(data)
        self.size += len(data)

    def pad(self, alignment: int) -> None:
        """Append zeros up to a multiple of ``alignment`` bytes."""
        self.write(b"\0" * (-self.size % alignment))

    def finish(self) -> None:
        """Bring the bytes to the disk and check that they arrived."""
        try:
            self.file.flush()
            os.fsync(self.file.fileno())
            self.file.close()
            arrived = self.temporary.stat().st_size
        except OSError as error:
            raise _unwritable(self.path, error) from None
        if arrived != self.size:
            raise OutputError(f"cannot write {printable(str(self.path))}: bytes were lost")

    def commit(self) -> None:
        """Give the finished file its name."""
        if not self.file.closed:
            self.finish()
        try:
            self.temporary.chmod(_mode(self.path))
            self.temporary.replace(self.path)
            _sync_folder(self.path.parent)
        except OSError as error:
            raise _unwritable(self.path, error) from None

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self.file.close()
        with contextlib.suppress(OSError):
            self.temporary.unlink(missing_ok=True)


def _mode(path: Path) -> int:
    """The mode of the file that is replaced, or what the umask gives a new one."""
    with contextlib.suppress(OSError):
        return stat.S_IMODE(path.stat().st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot write {printable(str(path))}: {error.strerror}",
        "Nothing was changed; check the folder, its permissions and the free space",
    )


def data_name(path: Path, digest: str) -> str:
    """The name of the data file beside a model: ours, and tied to its contents.

    The digest in the name lets a new pair of files replace an old one without a moment at which the
    old model would read the new data.
    """
    return f"{path.name}.{digest[:12]}.data"


def stale_data(path: Path, keep: str | None) -> Iterator[Path]:
    """Data files that an earlier save of the same output left, by the name we give them."""
    pattern = re.compile(re.escape(path.name) + r"\.[0-9a-f]{12}\.data")
    for entry in path.parent.iterdir():
        if pattern.fullmatch(entry.name) and entry.name != keep:
            yield entry


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file atomically."""
    with AtomicFile(path) as file:
        file.write(data)
        file.commit()
