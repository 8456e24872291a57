"""External data: tensor bytes that lie in files beside the model (ONNX IR spec, external data).

A model names these files itself, so the names are hostile until shown otherwise: a location must be
relative, stay inside the model's folder, and lead to one regular file through no symbolic or hard link.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import onnx

from graphopt.errors import ModelError, printable

_KEYS = frozenset({"location", "offset", "length", "checksum"})
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)


@dataclass(frozen=True)
class ExternalRegion:
    """A checked range of bytes in a file beside the model."""

    path: Path
    offset: int
    length: int

    def map(self) -> np.ndarray:
        """The bytes as a read-only array of uint8, mapped rather than read."""
        if self.length == 0:
            return np.empty(0, np.uint8)
        return np.memmap(self.path, np.uint8, "r", self.offset, (self.length,))

    def read(self) -> bytes:
        """The bytes, read."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.length)


def locate(proto: onnx.TensorProto, folder: Path | None, nbytes: int) -> ExternalRegion:
    """Check where a tensor says that its bytes lie, and open the way to them.

    Args:
        proto: a tensor with ``data_location`` EXTERNAL.
        folder: the folder of the model, or None where the model came as bytes.
        nbytes: bytes that the tensor's shape and type call for.

    Raises:
        ModelError: anything about the location is unsafe, missing or does not fit.
    """
    name = printable(proto.name)
    if folder is None:
        raise ModelError(
            f"tensor {name!r} keeps its data in a file, but the model was given as bytes",
            "Load it by its path",
        )
    keys = _entries(proto.external_data, name)
    path = _checked_path(folder, keys.get("location", ""), name)
    offset = _number(keys.get("offset", "0"), "offset", name)
    size = path.stat().st_size
    length = _number(keys["length"], "length", name) if "length" in keys else nbytes
    if length != nbytes:
        raise ModelError(
            f"tensor {name!r} needs {nbytes} bytes but its external data says {length}"
        )
    if offset + length > size:
        raise ModelError(
            f"tensor {name!r} reads bytes {offset} to {offset + length} of {path.name!r}, "
            f"which has {size}",
            "The data file is cut short or belongs to another model",
        )
    return ExternalRegion(path, offset, length)


def _entries(entries: Sequence[onnx.StringStringEntryProto], name: str) -> dict[str, str]:
    keys = {entry.key: entry.value for entry in entries}
    unknown = sorted(set(keys) - _KEYS)
    if unknown:
        raise ModelError(
            f"tensor {name!r} has the unknown external data key {printable(unknown[0])!r}"
        )
    return keys


def _number(text: str, key: str, name: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 19:
        raise ModelError(f"tensor {name!r} has a bad external data {key}: {printable(text)!r}")
    return int(text)


def _checked_path(folder: Path, location: str, name: str) -> Path:
    shown = printable(location)
    refused = f"external data of tensor {name!r} is outside the model folder: {shown!r}"
    parts = PurePosixPath(location).parts
    windows = PureWindowsPath(location)
    if not parts or "\x00" in location:
        raise ModelError(f"tensor {name!r} names no file for its external data: {shown!r}")
    if (
        location.startswith("/")
        or windows.drive
        or windows.root
        or ".." in parts
        or "\\" in location
    ):
        raise ModelError(refused, "Refused")
    path = folder
    state = folder.lstat()
    for part in parts:
        path = path / part
        try:
            state = path.lstat()
        except OSError as error:
            raise ModelError(
                f"external data of tensor {name!r} cannot be read: {shown!r}: {error.strerror}",
                "Put the data file beside the model",
            ) from None
        if stat.S_ISLNK(state.st_mode):
            raise ModelError(f"{refused} (a symbolic link)", "Refused")
    if not stat.S_ISREG(state.st_mode):
        raise ModelError(f"external data of tensor {name!r} is not a regular file: {shown!r}")
    if state.st_nlink > 1:
        raise ModelError(f"{refused} (a hard link)", "Refused: copy the file instead")
    _open_once(path, name)
    return path


def _open_once(path: Path, name: str) -> None:
    try:
        os.close(os.open(path, os.O_RDONLY | _NOFOLLOW))
    except OSError as error:
        raise ModelError(
            f"external data of tensor {name!r} cannot be opened: {path.name!r}: {error.strerror}"
        ) from None
