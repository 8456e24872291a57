"""Opening what a user named: regular files only, every failure in one line."""

from __future__ import annotations

import contextlib
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from graphopt.errors import ResourceError, UsageError, printable


def show(path: str | os.PathLike[str]) -> str:
    """A path for a message."""
    return printable(os.fsdecode(path))


def require_file(path: Path) -> int:
    """Make sure that a path leads to a regular file.

    Returns:
        Its size in bytes.

    Raises:
        UsageError: there is none, or it is something else.
    """
    try:
        state = path.stat()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        why = "no such file" if isinstance(error, FileNotFoundError) else reason
        raise UsageError(f"cannot read the data {show(path)}: {why}", "Check the path") from None
    if not stat.S_ISREG(state.st_mode):
        raise UsageError(
            f"cannot read the data {show(path)}: not a regular file", "Give a file or a folder"
        )
    return state.st_size


def open_file(path: Path) -> BinaryIO:
    """Open a regular file to read bytes of it.

    Raises:
        UsageError: it cannot be opened.
    """
    require_file(path)
    with reading(show(path)):
        return path.open("rb")


@contextlib.contextmanager
def reading(shown: str) -> Iterator[None]:
    """Turn failures of the system into one line that names what was being read."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"cannot read the data {shown}: {error.strerror or error}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError):
        raise damaged(shown, "its compressed contents are broken") from None
    except MemoryError:
        raise ResourceError(
            f"cannot read the data {shown}: not enough memory for a chunk of it",
            "Store fewer or smaller values in one sample, or allow more memory",
        ) from None


def damaged(shown: str, why: str) -> UsageError:
    """The error for a file whose contents make no sense."""
    return UsageError(
        f"cannot read the data {shown}: {why}", "The file is damaged or was not fully written"
    )
