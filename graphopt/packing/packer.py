"""Packing: a model's file, and the data files beside it, into one archive."""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from graphopt.errors import GraphoptError, ModelError, ResourceError, UsageError, printable
from graphopt.files import AtomicFile, checked_path, is_same, regular_size
from graphopt.packing.archive import ArchiveWriter, Member, is_packed, is_safe
from graphopt.packing.blocks import pack_block, unpack_block
from graphopt.packing.format import FILES, FREE, MAGIC, PIECE, SEGMENTS, SUFFIX
from graphopt.packing.summary import PackSummary, Tally
from graphopt.packing.transforms import view
from graphopt.packing.wire import Buffer, Outside, Span, Walk

WHOSE = "external data of the model"


def pack(
    source: str | os.PathLike[str], output: str | os.PathLike[str] | None = None
) -> PackSummary:
    """Pack a model without loss: ``unpack`` gives back every byte of its files.

    Whatever the file holds is packed; what is not recognised as a tensor of an ONNX model is coded as plain
    bytes. Each block is read back before it is written. The same files give the same archive, as long as
    Zstandard and liblzma are of the same version.

    Args:
        source: the model's file; the data files that it names are packed with it.
        output: the archive; by default beside the model, with its name and the end ``.gopt``.

    Returns:
        What it took before and after, by kind of element.

    Raises:
        ModelError: the model or its data files cannot be read, or are unsafe to read.
        UsageError: it is packed already, or the archive would replace it.
        OutputError: the archive cannot be written; what stood there is untouched.
    """
    started = time.perf_counter()
    path = Path(source)
    target = path.with_suffix(SUFFIX) if output is None else Path(output)
    with _mapped(path) as buffer:
        if is_packed(bytes(buffer[: len(MAGIC)])):
            raise UsageError(f"{printable(str(path))} is packed already")
        walk = _walked(buffer)
        sources = [Source(path, Member("", len(buffer))), *_beside(path, walk.outside)]
        if any(is_same(source.path, target) for source in sources):
            raise UsageError(
                f"the archive would replace what is packed, {printable(str(target))}",
                "Give another name with -o",
            )
        tally = Tally()
        with AtomicFile(target) as file:
            writer = ArchiveWriter(file, [source.member for source in sources])
            sha256 = _write(writer, sources[0], _forgetting(buffer), tally)
            for other in sources[1:]:
                spans = walk.outside[other.member.name.encode()]
                _write(writer, other, _apart(spans, other.member.size), tally)
            file.commit()
    kinds = tally.kinds()
    stored = sum(source.member.size for source in sources)
    seconds = time.perf_counter() - started
    return PackSummary(
        source=str(path),
        archive=str(target),
        files=len(sources),
        stored_bytes=stored,
        packed_bytes=file.size,
        bound_bytes=sum(kind.bound_bytes for kind in kinds),
        ratio=stored / file.size,
        sha256=sha256.hex(),
        archive_sha256=file.hash.hexdigest(),
        seconds=seconds,
        megabytes_per_second=stored / seconds / 1e6,
        kinds=kinds,
        notes=_notes(walk),
    )


@dataclass(frozen=True)
class Source:
    """A file to be packed, and what the archive says of it."""

    path: Path
    member: Member


@contextlib.contextmanager
def _mapped(path: Path) -> Iterator[Buffer]:
    """A file mapped into memory; an empty one cannot be."""
    if not regular_size(path):
        yield b""
        return
    try:
        with path.open("rb") as file:
            buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {printable(str(path))}: {error}") from None
    with buffer:
        yield buffer


def _walked(buffer: Buffer) -> Walk:
    """A walk over the whole file, for what it says of its data files."""
    walk = Walk(buffer)
    for _ in _forgetting(buffer, walk):
        pass
    return walk


def _forgetting(buffer: Buffer, walk: Walk | None = None) -> Iterator[Span]:
    """The tensors in a file; the memory of its parts that were walked over is given back."""
    last = 0
    for span in (walk or Walk(buffer)).spans():
        yield span
        if span.start - last > PIECE and isinstance(buffer, mmap.mmap):
            last = span.start
            with contextlib.suppress(AttributeError, OSError):
                buffer.madvise(mmap.MADV_DONTNEED)


def _notes(walk: Walk) -> list[str]:
    if not walk.graphs:
        return ["no ONNX graph was found in it: it was packed as plain bytes"]
    return [] if walk.whole else ["parts of it are not protobuf; they were packed as plain bytes"]


def _beside(path: Path, outside: Outside) -> list[Source]:
    """The data files of a model, in the order of their names."""
    if len(outside) >= FILES:
        raise ResourceError(f"the model names {len(outside)} data files; {FILES - 1} can be packed")
    folder = path.resolve().parent
    found = []
    for raw in sorted(outside):
        name = raw.decode(errors="replace")
        data = checked_path(folder, name, WHOSE)
        if name.encode() != raw or not is_safe(name):
            raise ModelError(
                f"the name {printable(name)!r} of a data file cannot be packed",
                "Names that begin with a dot or hold control characters would not be unpacked",
            )
        found.append(Source(data, Member(name, regular_size(data))))
    return found


def _apart(spans: list[Span], size: int) -> Iterator[Span]:
    """Those of the tensors that a model says are in a data file that are, and that share no byte."""
    end = 0
    for span in sorted(spans, key=lambda span: (span.start, span.length)):
        if end <= span.start and span.start + span.length <= size:
            end = span.start + span.length
            yield span


def _write(writer: ArchiveWriter, source: Source, spans: Iterable[Span], tally: Tally) -> bytes:
    """Write one file into the archive; return its SHA-256."""
    hash = hashlib.sha256()
    size = source.member.size
    try:
        file = source.path.open("rb")
    except OSError as error:
        raise ModelError(f"cannot read {printable(str(source.path))}: {error.strerror}") from None
    with file:
        for start, end, tensors in cut(spans, size):
            data = _read(file, end - start, source.path)
            if len(data) != end - start:
                raise ModelError(f"{printable(str(source.path))} became shorter while it was read")
            hash.update(data)
            packed = pack_block(view(data), tensors, start)
            _prove(packed.payload, data)
            tally.add(packed.shares)
            writer.block(packed.payload, end - start)
    writer.end(hash.digest())
    return hash.digest()


def _prove(payload: bytes, data: bytes) -> None:
    """Read a block back before it is written.

    Raises:
        GraphoptError: it does not hold what was packed.
    """
    try:
        same = b"".join(run.data for run in unpack_block(payload, len(data))) == data
    except ModelError:
        same = False
    if not same:
        raise GraphoptError(
            "a block of the archive does not unpack to what was packed",
            "Nothing was written; please report this with the model",
        )


def _read(file: BinaryIO, count: int, path: Path) -> bytes:
    try:
        return file.read(count)
    except OSError as error:
        raise ModelError(f"cannot read {printable(str(path))}: {error.strerror}") from None


def cut(spans: Iterable[Span], size: int) -> Iterator[tuple[int, int, list[Span]]]:
    """Cut a file into blocks.

    Args:
        spans: the tensors in it, in their order.
        size: of the file.

    Yields:
        Where a block begins and ends, and the tensors in it; one that is longer than a block is cut.
    """
    start = last = 0
    held: list[Span] = []
    for span in _pieces(spans):
        if span.start + span.length - start > PIECE or len(held) == SEGMENTS:
            while span.start - start >= FREE:
                end = max(min(span.start, start + PIECE), last)
                yield start, end, held
                start, held = end, []
        held.append(span)
        last = span.start + span.length
    while start < size:
        end = max(min(size, start + PIECE), last)
        yield start, end, held
        start, held = end, []


def _pieces(spans: Iterable[Span]) -> Iterator[Span]:
    """Cut tensors that are longer than a block."""
    for span in spans:
        for begin in range(0, span.length, PIECE):
            length = min(PIECE, span.length - begin)
            yield Span(span.start + begin, length, span.kind)
