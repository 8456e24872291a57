"""Arrays in a ``.npz`` file: a zip archive of ``.npy`` members, packed or not.

A member is unpacked as it is read, so that an archive may hold more than fits into memory.
"""

from __future__ import annotations

import contextlib
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from graphopt.errors import UsageError, printable
from graphopt.quality.data.columns import StoredColumn, Table
from graphopt.quality.data.npy import read_header, require_size
from graphopt.quality.data.reading import damaged, reading, require_file, show
from graphopt.quality.data.source import About, Needs

_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 1


def npz_source(path: Path, needs: Needs) -> Table:
    """The samples in a ``.npz`` file.

    Raises:
        UsageError: the file is damaged, or an input or the labels are missing.
    """
    shown = show(path)
    with _archive(path) as archive:
        members = _members(archive, shown)
        names, key = needs.pick(members.keys(), shown)
        columns = {name: _column(path, members[name], name) for name in names}
        labels = None if key is None else _column(path, members[key], key)
    return Table(About(shown), columns, labels)


@contextlib.contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    shown = show(path)
    require_file(path)
    broken = UsageError(
        f"cannot read the data {shown}: it is not a whole .npz archive",
        "Write it with np.savez(file, input=array, ...)",
    )
    with reading(shown):
        try:
            archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, struct.error):
            raise broken from None
        with archive:
            yield archive


def _members(archive: zipfile.ZipFile, shown: str) -> dict[str, zipfile.ZipInfo]:
    found: dict[str, zipfile.ZipInfo] = {}
    for entry in archive.infolist():
        name = entry.filename.removesuffix(".npy")
        if name in found:
            raise damaged(shown, f"it holds {printable(name)!r} twice")
        if name != entry.filename:
            found[name] = entry
    return found


def _column(path: Path, entry: zipfile.ZipInfo, name: str) -> StoredColumn:
    shown = show(path)
    if entry.flag_bits & _ENCRYPTED or entry.compress_type not in _PACKINGS:
        raise UsageError(
            f"cannot read the data {shown}: {printable(name)!r} is encrypted or packed in another "
            "way than numpy does",
            "Write it with np.savez or np.savez_compressed",
        )
    with _member(path, entry.filename) as member, reading(shown):
        dtype, shape = read_header(member, name, shown)
        offset = member.tell()

    def start() -> BinaryIO:
        stream = _member(path, entry.filename)
        stream.read(offset)
        return stream

    column = StoredColumn(shown, name, dtype, shape, start)
    require_size(column, entry.file_size - offset)
    return column


def _member(path: Path, name: str) -> BinaryIO:
    """Open a member; the archive's file is closed with it."""
    with _archive(path) as archive:
        try:
            return cast("BinaryIO", archive.open(name))
        except (KeyError, NotImplementedError, RuntimeError, ValueError, struct.error):
            raise damaged(show(path), f"its member {printable(name)!r} cannot be opened") from None
