"""External data: tensor bytes that lie in files beside the model (ONNX IR spec, external data).

A model names these files itself, so the names are hostile until shown otherwise: a location must be
relative, stay inside the model's folder, and lead to one regular file through no symbolic or hard link.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx

from graphopt.errors import ModelError, printable
from graphopt.files import checked_path
from graphopt.packing.unpacker import Folder

_KEYS = frozenset({"location", "offset", "length", "checksum"})


@dataclass(frozen=True)
class ExternalRegion:
    """A checked range of bytes in a file beside the model.

    Attributes:
        path: of the file.
        offset: where the range begins.
        length: its bytes.
        folder: what keeps the file there, where it was unpacked from an archive.
    """

    path: Path
    offset: int
    length: int
    folder: Folder | None = field(default=None, compare=False)

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


def locate(proto: onnx.TensorProto, folder: Path | Folder | None, nbytes: int) -> ExternalRegion:
    """Check where a tensor says that its bytes lie, and open the way to them.

    Args:
        proto: a tensor with ``data_location`` EXTERNAL.
        folder: the folder of the model or what it was unpacked to; None where the model came as bytes.
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
    unpacked = folder if isinstance(folder, Folder) else None
    place = folder.path if isinstance(folder, Folder) else folder
    path = checked_path(place, keys.get("location", ""), f"external data of tensor {name!r}")
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
    return ExternalRegion(path, offset, length, unpacked)


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
