"""Arrays that are read side by side, a few samples of each at a time."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import BinaryIO, Protocol

import numpy as np

from graphopt.errors import ResourceError, UsageError, printable
from graphopt.quality.data.reading import damaged, reading
from graphopt.quality.data.source import CHUNK, LARGEST_SAMPLE, Piece, Source

_READ = 1 << 18
"""Bytes that are asked of a stream at once; one that unpacks holds several times as many."""


class Reader(Protocol):
    """A place in a column."""

    def read(self, count: int) -> np.ndarray:
        """The next samples, ``(count, ...)``."""

    def close(self) -> None:
        """Read no more."""


@dataclass(frozen=True)
class Column(abc.ABC):
    """An array that stands somewhere; axis 0 = sample, or no axis at all.

    Attributes:
        where: the file that holds it, printable.
        name: what it is called in there.
        dtype: its element type.
        shape: its shape.
    """

    where: str
    name: str
    dtype: np.dtype
    shape: tuple[int, ...]

    @abc.abstractmethod
    def reader(self) -> Reader:
        """Start at the first sample."""

    @property
    def nbytes(self) -> int:
        """Bytes of all samples."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize


@dataclass(frozen=True)
class MemoryColumn(Column):
    """An array in memory."""

    values: np.ndarray

    def reader(self) -> Reader:
        """Start at the first sample."""
        return _MemoryReader(self.values)


class _MemoryReader:
    def __init__(self, values: np.ndarray) -> None:
        self.values = values
        self.at = 0

    def read(self, count: int) -> np.ndarray:
        self.at += count
        return self.values[self.at - count : self.at] if self.values.ndim else self.values

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class StoredColumn(Column):
    """An array whose values stand one after another in a stream of bytes, the last axis fastest.

    Attributes:
        start: opens the stream at the first value.
    """

    start: Callable[[], BinaryIO]

    def __post_init__(self) -> None:
        """Refuse what cannot be read as plain values, before anything is read.

        Raises:
            UsageError: an element type that is no number, flag or text, or an impossible shape.
            ResourceError: a single sample is larger than ``LARGEST_SAMPLE``.
        """
        what = f"the array {printable(self.name)!r} of {self.where}"
        plain = self.dtype.kind in "biufcUS" or (self.dtype.kind == "V" and self.dtype.isbuiltin)
        if self.dtype.hasobject or self.dtype.names is not None:
            raise UsageError(
                f"{what} holds objects or records, which are never read",
                "Store one array of numbers per input",
            )
        if self.dtype.itemsize == 0 or not plain:
            raise UsageError(
                f"{what} is of the type {printable(str(self.dtype), 60)}, which no model takes",
                "Store numbers; a .safetensors file can hold bfloat16 and 8-bit floats",
            )
        if any(size < 0 for size in self.shape):
            raise damaged(self.where, f"the array {printable(self.name)!r} has a negative size")
        if self.sample_bytes > LARGEST_SAMPLE:
            raise ResourceError(
                f"{what} declares samples of {self.sample_bytes} bytes, "
                f"the most is {LARGEST_SAMPLE}",
                "Axis 0 must count the samples",
            )

    def reader(self) -> Reader:
        """Start at the first sample."""
        with reading(self.where):
            return _StoredReader(self, self.start())


class _StoredReader:
    def __init__(self, column: StoredColumn, stream: BinaryIO) -> None:
        self.column = column
        self.stream = stream

    def read(self, count: int) -> np.ndarray:
        column = self.column
        shape = (count, *column.shape[1:]) if column.shape else ()
        with reading(column.where):
            array = np.empty(shape, column.dtype)
            left = array.reshape(-1).view(np.uint8).data
            while len(left):
                got = self.stream.readinto(left[:_READ])  # type: ignore[attr-defined]
                if not got:
                    raise damaged(
                        column.where, f"it ends within the array {printable(column.name)!r}"
                    )
                left = left[got:]
        return array

    def close(self) -> None:
        self.stream.close()


@dataclass(frozen=True)
class Table(Source):
    """Columns with one row for each sample.

    Attributes:
        columns: by input.
        labels: of the samples.
    """

    columns: Mapping[str, Column]
    labels: Column | None = None

    def __post_init__(self) -> None:
        """Make sure that all columns have the same number of rows.

        Raises:
            UsageError: they have not, or they have none.
        """
        if self.labels is not None and not self.labels.shape:
            raise UsageError(
                f"the labels {printable(self.labels.name)!r} of {self.labels.where} have no axis",
                "Axis 0 counts the samples",
            )
        rows = [column for column in self._all() if column.shape]
        if not rows:
            raise UsageError(
                f"{self.about.shown} holds no samples: no array has an axis to count them"
            )
        first = rows[0]
        for column in rows:
            name = printable(column.name)
            if column.shape[0] == 0:
                raise UsageError(f"the array {name!r} of {column.where} holds no samples")
            if column.shape[0] != first.shape[0]:
                raise UsageError(
                    f"{self.about.shown} has {first.shape[0]} samples of {printable(first.name)!r} and "
                    f"{column.shape[0]} of {name!r}",
                    "Axis 0 of every array counts the samples; an input whose own first axis does "
                    "not, such as a state, takes one more axis in front",
                )
        if not any(column.sample_bytes for column in rows):
            raise UsageError(f"the samples of {self.about.shown} are empty")

    def _all(self) -> list[Column]:
        return [*self.columns.values(), *([self.labels] if self.labels is not None else [])]

    def pieces(self) -> Iterator[Piece]:
        """All samples in order, about ``CHUNK`` bytes at a time."""
        rows = [column for column in self._all() if column.shape]
        count = rows[0].shape[0]
        step = max(1, CHUNK // sum(column.sample_bytes for column in rows))
        with ExitStack() as stack:
            fixed, moving = {}, {}
            for name, column in self.columns.items():
                reader = stack.enter_context(closing(column.reader()))
                if column.shape:
                    moving[name] = reader
                else:
                    fixed[name] = reader.read(1)
            labels = self.labels and stack.enter_context(closing(self.labels.reader()))
            for start in range(0, count, step):
                size = min(step, count - start)
                arrays = {name: reader.read(size) for name, reader in moving.items()}
                yield Piece(fixed | arrays, labels.read(size) if labels else None, self.about.shown)
