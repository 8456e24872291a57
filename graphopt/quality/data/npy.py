"""Arrays in the ``.npy`` format, alone in a file.

The format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html. A header is a magic
string, a version, a length and a Python literal; only its length is believed before it is bounded.
"""

from __future__ import annotations

import io
import os
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from graphopt.errors import UsageError, printable
from graphopt.quality.data.columns import StoredColumn, Table
from graphopt.quality.data.reading import damaged, open_file, reading, require_file, show
from graphopt.quality.data.source import About, Needs

LARGEST_HEADER = 10_000
"""Bytes of a header beyond which it is not parsed; numpy's own limit."""

_MAGIC = len(np.lib.format.magic(1, 0))

_VERSIONS: dict[tuple[int, int], tuple[str, Callable[[BinaryIO], Any]]] = {
    (1, 0): ("<H", np.lib.format.read_array_header_1_0),
    (2, 0): ("<I", np.lib.format.read_array_header_2_0),
}


def npy_source(path: Path, needs: Needs) -> Table:
    """The samples in a ``.npy`` file, for a model with one input.

    Raises:
        UsageError: the file is damaged, or the model takes several inputs.
    """
    shown = show(path)
    spec = needs.sole(shown, "a single array")
    if needs.labels is not None and needs.evaluates:
        raise UsageError(
            f"{shown} is a single array and has no labels {printable(needs.labels)!r}",
            "Name a .npy file of labels, or give a .npz file",
        )
    return Table(About(shown), {spec.name: npy_column(path, spec.name)})


def npy_column(path: Path, name: str) -> StoredColumn:
    """The array in a ``.npy`` file.

    Args:
        path: of the file.
        name: what the array is called in messages.

    Raises:
        UsageError: the file cannot be read or is damaged.
    """
    shown, size = show(path), require_file(path)
    with open_file(path) as file, reading(shown):
        dtype, shape = read_header(file, name, shown)
        offset = file.tell()

    def start() -> BinaryIO:
        stream = open_file(path)
        stream.seek(offset, os.SEEK_SET)
        return stream

    column = StoredColumn(shown, name, dtype, shape, start)
    require_size(column, size - offset)
    return column


def read_header(stream: BinaryIO, name: str, shown: str) -> tuple[np.dtype, tuple[int, ...]]:
    """Read the header of an array and leave the stream at its first value.

    Raises:
        UsageError: it is no header of this format, or the array is not stored row by row.
    """
    try:
        shape, by_column, dtype = _parse_header(stream)
    except OSError:
        raise
    except Exception:  # noqa: BLE001 - whatever a hostile text provokes in numpy's parser
        raise damaged(shown, f"{printable(name)!r} is not an array in the .npy format") from None
    if by_column and len(shape) > 1:
        raise UsageError(
            f"the array {printable(name)!r} of {shown} is stored column by column (Fortran order)",
            "Store np.ascontiguousarray(...) of it",
        )
    return dtype, tuple(int(size) for size in shape)


def _parse_header(stream: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether it is stored column by column, and element type; bounded before it is parsed."""
    version = np.lib.format.read_magic(io.BytesIO(stream.read(_MAGIC)))
    if version not in _VERSIONS:
        raise ValueError("a version that numpy writes for records only, or none at all")
    length_format, parse = _VERSIONS[version]
    length_bytes = stream.read(struct.calcsize(length_format))
    (length,) = struct.unpack(length_format, length_bytes)
    if length > LARGEST_HEADER:
        raise ValueError("a header beyond what numpy writes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a header that Python 2 wrote is as good
        shape, by_column, dtype = parse(io.BytesIO(length_bytes + stream.read(length)))
    return shape, by_column, dtype


def require_size(column: StoredColumn, size: int) -> None:
    """Make sure that a header tells the truth about the bytes behind it.

    Raises:
        UsageError: it does not.
    """
    if column.nbytes != size:
        raise damaged(
            column.where,
            f"the array {printable(column.name)!r} declares {column.nbytes} bytes and has {size}",
        )
