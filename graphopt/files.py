"""Files: which may be read, and how one is written that is never half there."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO

from graphopt.errors import ModelError, OutputError, printable

_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)


def stays_inside(location: str) -> bool:
    """Whether a name that a file gives leads, read as a path on any system, to something below a folder."""
    parts = PurePosixPath(location).parts
    windows = PureWindowsPath(location)
    outside = location.startswith("/") or windows.drive or windows.root
    return not (outside or ".." in parts or "\\" in location)


def checked_path(folder: Path, location: str, whose: str) -> Path:
    """The file that a model names, where it is safe to read.

    Args:
        folder: of the model.
        location: what the model says.
        whose: what it says it of, for the error.

    Raises:
        ModelError: the name is not one of a regular file inside the folder, reached through no link.
    """
    shown = printable(location)
    refused = f"{whose} is outside the model folder: {shown!r}"
    parts = PurePosixPath(location).parts
    if not parts or "\x00" in location:
        raise ModelError(f"{whose} names no file: {shown!r}")
    if not stays_inside(location):
        raise ModelError(refused, "Refused")
    path = folder
    state = folder.lstat()
    for part in parts:
        path = path / part
        try:
            state = path.lstat()
        except OSError as error:
            raise ModelError(
                f"{whose} cannot be read: {shown!r}: {error.strerror}",
                "Put the data file beside the model",
            ) from None
        if stat.S_ISLNK(state.st_mode):
            raise ModelError(f"{refused} (a symbolic link)", "Refused")
    if not stat.S_ISREG(state.st_mode):
        raise ModelError(f"{whose} is not a regular file: {shown!r}")
    if state.st_nlink > 1:
        raise ModelError(f"{refused} (a hard link)", "Refused: copy the file instead")
    try:
        os.close(os.open(path, os.O_RDONLY | _NOFOLLOW))
    except OSError as error:
        raise ModelError(f"{whose} cannot be opened: {path.name!r}: {error.strerror}") from None
    return path


def is_same(first: Path, second: Path) -> bool:
    """Whether two paths lead to one file that is there."""
    try:
        return first.samefile(second)
    except OSError:
        return False


def regular_size(path: Path) -> int:
    """The bytes of a regular file.

    Raises:
        ModelError: there is no such file, or it is something else.
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
    return state.st_size


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
            raise unwritable(path, error) from None
        self.temporary = Path(name)
        self.file: BinaryIO = os.fdopen(handle, "wb")

    def __enter__(self) -> AtomicFile:
        return self

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes."""
        try:
            self.file.write(data)
        except OSError as error:
            raise unwritable(self.path, error) from None
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
            raise unwritable(self.path, error) from None
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
            raise unwritable(self.path, error) from None

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


def unwritable(path: Path, error: OSError) -> OutputError:
    """The error of a path that cannot be written."""
    return OutputError(
        f"cannot write {printable(str(path))}: {error.strerror}",
        "Nothing was changed; check the folder, its permissions and the free space",
    )


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file atomically."""
    with AtomicFile(path) as file:
        file.write(data)
        file.commit()
