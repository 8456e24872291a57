"""Arrays in a ``.safetensors`` file.

The format: https://huggingface.co/docs/safetensors/index. Eight bytes give the length of a JSON header that
maps a name to an element type, a shape and the place of its values. It is read as a stream here: the
format's own package maps the whole file into the address space, which a limit on memory forbids.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from onnx import TensorProto, helper

from graphopt.errors import UsageError, printable
from graphopt.quality.data.columns import StoredColumn, Table
from graphopt.quality.data.npy import require_size
from graphopt.quality.data.reading import damaged, open_file, reading, require_file, show
from graphopt.quality.data.source import About, Needs

LARGEST_HEADER = 1 << 23
"""Bytes of a header beyond which it is not parsed."""

_LENGTH = struct.Struct("<Q")

_TYPES = {
    "BOOL": TensorProto.BOOL,
    "U8": TensorProto.UINT8,
    "I8": TensorProto.INT8,
    "U16": TensorProto.UINT16,
    "I16": TensorProto.INT16,
    "U32": TensorProto.UINT32,
    "I32": TensorProto.INT32,
    "U64": TensorProto.UINT64,
    "I64": TensorProto.INT64,
    "F16": TensorProto.FLOAT16,
    "F32": TensorProto.FLOAT,
    "F64": TensorProto.DOUBLE,
    "C64": TensorProto.COMPLEX64,
    "BF16": TensorProto.BFLOAT16,
    "F8_E4M3": TensorProto.FLOAT8E4M3FN,
    "F8_E5M2": TensorProto.FLOAT8E5M2,
}


def safetensors_source(path: Path, needs: Needs) -> Table:
    """The samples in a ``.safetensors`` file.

    Raises:
        UsageError: the file is damaged, or an input or the labels are missing.
    """
    shown = show(path)
    header, offset = _header(path)
    names, key = needs.pick(header.keys(), shown)
    room = require_file(path) - offset
    columns = {name: _column(path, name, header[name], offset, room) for name in names}
    labels = None if key is None else _column(path, key, header[key], offset, room)
    return Table(About(shown), columns, labels)


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """What the header says of each array, and where the values begin."""
    shown, size = show(path), require_file(path)
    with open_file(path) as file, reading(shown):
        head = file.read(_LENGTH.size)
        length = _LENGTH.unpack(head)[0] if len(head) == _LENGTH.size else size
        if not 2 <= length <= min(LARGEST_HEADER, size - _LENGTH.size):
            raise damaged(shown, "it is not a whole .safetensors file")
        text = file.read(length)
    try:
        header = json.loads(text, object_pairs_hook=_without_twins)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise damaged(shown, "it has no .safetensors header")
    header.pop("__metadata__", None)
    return header, _LENGTH.size + length


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found


def _column(path: Path, name: str, entry: Any, offset: int, room: int) -> StoredColumn:
    shown = show(path)
    try:
        kind, shape = str(entry["dtype"]), tuple(entry["shape"])
        begin, end = entry["data_offsets"]
        numbers = [*shape, begin, end]
    except (KeyError, TypeError, ValueError):
        numbers, kind, shape, begin, end = [-1], "", (), 0, 0
    if not all(type(n) is int and 0 <= n < 1 << 63 for n in numbers) or not begin <= end <= room:
        raise damaged(shown, f"its header does not describe the array {printable(name)!r}")
    if kind not in _TYPES:
        raise UsageError(
            f"the array {printable(name)!r} of {shown} is of the type {printable(kind, 60)}, "
            "which numpy does not have",
            f"Store one of: {', '.join(_TYPES)}",
        )

    def start() -> BinaryIO:
        stream = open_file(path)
        stream.seek(offset + begin)
        return stream

    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(_TYPES[kind]))
    column = StoredColumn(shown, name, dtype, shape, start)
    require_size(column, end - begin)
    return column
