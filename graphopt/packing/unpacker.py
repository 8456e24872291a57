"""Unpacking: an archive back into the files that it was made of, or into memory."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from graphopt.errors import ModelError, OutputError, ResourceError, UsageError, printable
from graphopt.files import AtomicFile, is_same, regular_size, unwritable
from graphopt.packing.archive import ArchiveReader, Member, is_packed
from graphopt.packing.format import MAGIC
from graphopt.packing.summary import UnpackSummary


def unpack(
    archive: str | os.PathLike[str], output: str | os.PathLike[str] | None = None
) -> UnpackSummary:
    """Unpack a model: its files come back byte for byte.

    Data files go beside the model, under the names that the model knows them by. One that stands there
    already is left as it is if it holds the same bytes, and is an error otherwise.

    Args:
        archive: what ``pack`` wrote.
        output: where the model goes; by default beside the archive, with its name and the end ``.onnx``.

    Returns:
        What was written.

    Raises:
        ModelError: the archive cannot be read, is damaged, or would write outside of the model's folder.
        UsageError: the model would replace the archive.
        OutputError: a file cannot be written, or another one stands in its place; nothing was changed.
    """
    started = time.perf_counter()
    path = Path(archive)
    target = path.with_suffix(".onnx") if output is None else Path(output)
    with _opened(path) as reader, ExitStack() as stack:
        if is_same(path, target):
            raise UsageError(
                f"the model would replace the archive, {printable(str(path))}",
                "Give another name with -o",
            )
        _require_space(target, reader.members)
        folders = stack.enter_context(_Folders(target.parent))
        written = []
        for member in reader.members:
            place = folders.place(member.name, target) if member.name else target
            file = stack.enter_context(AtomicFile(place))
            for run in reader.contents(member, file.hash):
                file.write(run.data)
            file.finish()
            written.append(file)
        reader.end()
        _commit(written[0], written[1:])
        folders.keep()
    stored = sum(member.size for member in reader.members)
    size = path.stat().st_size
    seconds = time.perf_counter() - started
    return UnpackSummary(
        archive=str(path),
        model=str(target),
        files=[str(file.path) for file in written],
        stored_bytes=stored,
        packed_bytes=size,
        ratio=stored / size,
        sha256=written[0].hash.hexdigest(),
        seconds=seconds,
        megabytes_per_second=stored / seconds / 1e6,
    )


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[ArchiveReader]:
    """A reader of an archive's file."""
    size = regular_size(path)
    shown = printable(str(path))
    try:
        file = path.open("rb")
    except OSError as error:
        raise ModelError(f"cannot read {shown}: {error.strerror}") from None
    with file:
        if not is_packed(file.read(len(MAGIC))):
            raise ModelError(f"{shown} is not a packed model", "Only graphopt pack writes these")
        file.seek(0)
        yield ArchiveReader(file, size)


def _require_space(target: Path, members: list[Member]) -> None:
    """Refuse to begin what the disk cannot hold."""
    needed = sum(member.size for member in members)
    with contextlib.suppress(OSError):
        free = shutil.disk_usage(target.parent).free
        if needed > free:
            raise OutputError(
                f"cannot write {printable(str(target))}: it takes {needed} bytes, and {free} are free"
            )


class _Folders:
    """The folders of data files below that of the model; new ones go again unless they are kept."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.made: list[Path] = []

    def __enter__(self) -> _Folders:
        return self

    def place(self, name: str, target: Path) -> Path:
        """Where a data file goes; its folder is made where it is not there.

        Raises:
            ModelError: the name is the model's.
            OutputError: a link or a file stands where a folder must.
        """
        if name.casefold() == target.name.casefold():
            raise ModelError(
                f"a data file in the archive has the name of the model, {printable(name)!r}",
                "Unpack the model under another name",
            )
        *above, last = name.split("/")
        folder = self.base
        for part in above:
            folder = folder / part
            try:
                if not os.path.lexists(folder):
                    folder.mkdir()
                    self.made.append(folder)
            except OSError as error:
                raise unwritable(folder, error) from None
            if folder.is_symlink() or not folder.is_dir():
                raise OutputError(f"cannot write into {printable(str(folder))}: it is no folder")
        return folder / last

    def keep(self) -> None:
        """Let the new folders stay."""
        self.made.clear()

    def __exit__(self, *_: object) -> None:
        for folder in reversed(self.made):
            with contextlib.suppress(OSError):
                folder.rmdir()


def _commit(model: AtomicFile, beside: list[AtomicFile]) -> None:
    """Give all files their names, the model last; on failure none has it."""
    fresh = [file for file in beside if not _stands(file)]
    named: list[Path] = []
    try:
        for file in fresh:
            file.commit()
            named.append(file.path)
        model.commit()
    except BaseException:
        for path in named:
            with contextlib.suppress(OSError):
                path.unlink()
        raise


def _stands(file: AtomicFile) -> bool:
    """Whether a data file is there already.

    Raises:
        OutputError: another one is.
    """
    if not os.path.lexists(file.path):
        return False
    shown = printable(str(file.path))
    if not file.path.is_symlink() and file.path.is_file():
        with contextlib.suppress(OSError):
            hash = hashlib.sha256()
            with file.path.open("rb") as there:
                while part := there.read(1 << 20):
                    hash.update(part)
            if hash.digest() == file.hash.digest():
                return True
    raise OutputError(
        f"cannot write {shown}: another file stands there",
        "Nothing was changed; unpack into another folder, or move that file away",
    )


class Folder:
    """A folder for the data files of a model in memory; it goes when nothing refers to it any more.

    Attributes:
        path: where it is.
    """

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="graphopt-")).resolve()
        weakref.finalize(self, shutil.rmtree, self.path, True)


def read_packed(source: Path | bytes, limit: int) -> tuple[bytes, Folder | None]:
    """Unpack a model into memory, and its data files into a temporary folder.

    Args:
        source: an archive, or its path.
        limit: the most bytes that the model's file may have.

    Returns:
        The bytes of the model's file, and where its data files are, if it has any.

    Raises:
        ModelError: the archive cannot be read or is damaged.
        ResourceError: the model is larger than the limit.
    """
    with _opened(source) if isinstance(source, Path) else _reading(source) as reader:
        first, *beside = reader.members
        if first.size > limit:
            raise ResourceError(
                f"the packed model has {first.size} bytes; {limit} are the most that can be read",
                "Save the model with external data",
            )
        data = b"".join(run.tobytes() for run in reader.contents(first))
        folder = Folder() if beside else None
        for member in beside:
            assert folder is not None
            with _Folders(folder.path) as folders:
                place = folders.place(member.name, folder.path)
                folders.keep()
            try:
                with place.open("xb") as file:
                    for run in reader.contents(member):
                        file.write(run.data)
            except OSError as error:
                raise unwritable(place, error) from None
        reader.end()
    return data, folder


@contextlib.contextmanager
def _reading(data: bytes) -> Iterator[ArchiveReader]:
    """A reader of an archive in memory."""
    yield ArchiveReader(io.BytesIO(data), len(data))


@dataclass(frozen=True)
class ArchiveInfo:
    """What an archive says of itself.

    Attributes:
        files: how many files are in it.
        stored_bytes: of these files.
        packed_bytes: of the archive.
        ratio: stored bytes over packed bytes.
    """

    files: int
    stored_bytes: int
    packed_bytes: int
    ratio: float


def look(path: Path) -> ArchiveInfo | None:
    """What the header of an archive says; None where the file is no archive.

    Raises:
        ModelError: the header is damaged.
    """
    if not has_magic(path):
        return None
    with _opened(path) as reader:
        stored = sum(member.size for member in reader.members)
        size = path.stat().st_size
        return ArchiveInfo(len(reader.members), stored, size, stored / size)


def has_magic(path: Path) -> bool:
    """Whether a file is there that begins as an archive does."""
    try:
        with contextlib.suppress(ModelError):
            if regular_size(path):
                with path.open("rb") as file:
                    return is_packed(file.read(len(MAGIC)))
    except OSError:
        return False
    return False
