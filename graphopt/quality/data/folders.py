"""Folders of data: shards, arrays named after inputs, test sets, images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from graphopt.errors import UsageError, printable
from graphopt.quality.data.columns import Table
from graphopt.quality.data.images import SUFFIXES, image_source
from graphopt.quality.data.npy import npy_column
from graphopt.quality.data.npz import npz_source
from graphopt.quality.data.reading import reading, show
from graphopt.quality.data.safetensors import safetensors_source
from graphopt.quality.data.source import About, Needs, Piece, Source
from graphopt.quality.data.tensor_sets import is_set, sets_in, tensor_set_source

ARRAY_FILES: dict[str, Callable[[Path, Needs], Table]] = {
    ".npz": npz_source,
    ".safetensors": safetensors_source,
}
"""Files of arrays by name."""


@dataclass(frozen=True)
class Shards(Source):
    """Several files of arrays by name, one after another.

    Attributes:
        tables: one for each file, in the order of their names.
    """

    tables: tuple[Table, ...]

    def pieces(self) -> Iterator[Piece]:
        """The pieces of all files."""
        for table in self.tables:
            yield from table.pieces()


def folder_source(path: Path, needs: Needs) -> Source:
    """The samples in a folder.

    Raises:
        UsageError: it holds no data, several kinds of it, or damaged files.
    """
    shown = show(path)
    with reading(shown):
        if is_set(path):
            return tensor_set_source(shown, [path], needs)
        if sets := sets_in(path):
            return tensor_set_source(shown, sets, needs)
        files = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
    kinds = {p.suffix.lower() for p in files} & {*ARRAY_FILES, ".npy", *SUFFIXES}
    arrays = sorted(kinds - SUFFIXES)
    if len(arrays) > 1 or (arrays and kinds & SUFFIXES):
        raise UsageError(
            f"{shown} holds several kinds of data: {', '.join(sorted(kinds))}",
            "Keep one kind in a folder",
        )
    if not arrays:
        return image_source(path, needs)
    chosen = [p for p in files if p.suffix.lower() == arrays[0]]
    if arrays[0] == ".npy":
        return _named_arrays(shown, chosen, needs)
    return Shards(About(shown), tuple(ARRAY_FILES[arrays[0]](p, needs) for p in chosen))


def _named_arrays(shown: str, files: list[Path], needs: Needs) -> Table:
    """A folder of ``.npy`` files, each named after an input or the labels."""
    found = {p.stem: p for p in files}
    wanted = [spec.name for spec in needs.all]
    if needs.labels is not None:
        wanted.append(needs.labels)
    for name in wanted:
        stand_in = file_name(name)
        if name not in found and stand_in in found:
            if sum(file_name(other) == stand_in for other in wanted) > 1:
                raise UsageError(
                    f"{printable(stand_in)}.npy of {shown} could be one of several inputs",
                    "Give a .npz file, whose names may hold any character",
                )
            found[name] = found[stand_in]
    names, key = needs.pick(found.keys(), shown)
    columns = {name: npy_column(found[name], name) for name in names}
    return Table(About(shown), columns, None if key is None else npy_column(found[key], key))


def file_name(name: str) -> str:
    """The name of an input with the characters that a file's name cannot have replaced by ``_``."""
    return "".join("_" if c in '/\\:*?"<>|\0' else c for c in name)
