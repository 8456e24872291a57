"""Samples whose labels stand in a ``.npy`` file of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from graphopt.errors import UsageError
from graphopt.quality.data.columns import StoredColumn
from graphopt.quality.data.npy import npy_column
from graphopt.quality.data.source import Piece, Source


@dataclass(frozen=True)
class Labelled(Source):
    """A source with labels beside it.

    Attributes:
        source: the samples.
        labels: one for each, in the same order.
    """

    source: Source
    labels: StoredColumn

    def pieces(self) -> Iterator[Piece]:
        """The pieces of the source with their labels."""
        count = self.labels.shape[0]
        at = 0
        with closing(self.labels.reader()) as reader:
            for piece in self.source.pieces():
                size = next((len(a) for a in piece.arrays.values() if a.ndim), 0)
                at += size
                if at <= count:
                    yield replace(piece, labels=reader.read(size))
                    continue
                break
        if at != count:
            held = f"more than {count}" if at > count else at
            raise UsageError(
                f"{self.labels.where} holds {count} labels, {self.about.shown} {held} samples",
                "Give one label for each sample, in the same order",
            )


def labelled(source: Source, path: str) -> Labelled:
    """Put the labels of a ``.npy`` file to a source.

    Raises:
        UsageError: the file cannot be read or holds no labels.
    """
    column = npy_column(Path(path), "labels")
    if not column.shape:
        raise UsageError(f"{column.where} is a single number, not one label for each sample")
    return Labelled(replace(source.about, label_name=path), source, column)
