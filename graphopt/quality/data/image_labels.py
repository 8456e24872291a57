"""Labels of images from a CSV file of ``file,label``, with or without a line of headings."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from graphopt.errors import UsageError, printable
from graphopt.quality.data.reading import reading, require_file, show

_WHOLE = re.compile(r"-?(0|[1-9]\d{0,30})", re.ASCII)
_NUMBER = re.compile(
    r"[-+]?(0|[1-9]\d*)(\.\d+)?(e[-+]?\d+)?|[-+]?(nan|inf(inity)?)", re.ASCII | re.IGNORECASE
)


@dataclass(frozen=True)
class LabelTable:
    """Images and their labels, in the order of the file.

    Attributes:
        names: of the images.
        labels: int64 where all are whole numbers, float64 where all are numbers, text otherwise.
    """

    names: tuple[str, ...]
    labels: np.ndarray


def csv_labels(path: Path, names: Sequence[str]) -> LabelTable:
    """Read the labels of images.

    Args:
        path: of the CSV file; its first field is the path of an image below the folder, or its bare
            name where only one image has it.
        names: the images that there are.

    Raises:
        UsageError: the file cannot be read, names other images, or names one twice.
    """
    shown = show(path)
    known = _by_any_name(names)
    suffixes = {Path(name).suffix.lower() for name in names}
    found: dict[str, str] = {}
    for line, row in _rows(path):
        if len(row) != 2:
            raise UsageError(
                f"line {line} of {shown} has {len(row)} fields", "Each line is file,label"
            )
        name = known.get(row[0].strip().replace("\\", "/"))
        if name is None:
            if line == 1 and Path(row[0].strip()).suffix.lower() not in suffixes:
                continue  # headings
            raise UsageError(f"line {line} of {shown} names {printable(row[0])!r}, no such image")
        if name in found:
            raise UsageError(f"line {line} of {shown} names {printable(row[0])!r} a second time")
        found[name] = row[1].strip()
    if not found:
        raise UsageError(f"{shown} names no image of the folder", "Each line is file,label")
    return LabelTable(tuple(found), _as_numbers(list(found.values()), shown))


def _by_any_name(names: Sequence[str]) -> dict[str, str]:
    """Images by path and, where only one has it, by bare name."""
    bare = Counter(name.rsplit("/", 1)[-1] for name in names)
    alone = {name.rsplit("/", 1)[-1]: name for name in names}
    return {short: name for short, name in alone.items() if bare[short] == 1} | {
        n: n for n in names
    }


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    shown = show(path)
    require_file(path)
    with reading(shown):
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                rows = csv.reader(file, strict=True)
                for row in rows:
                    if row:
                        yield rows.line_num, row
        except (csv.Error, UnicodeDecodeError) as error:
            raise UsageError(
                f"cannot read the labels {shown}: {printable(str(error))}",
                "It must be a CSV file in UTF-8",
            ) from None


def _as_numbers(texts: list[str], shown: str) -> np.ndarray:
    """Numbers where every label is written as one; ``007`` is text, which may be what an image shows."""
    if all(map(_WHOLE.fullmatch, texts)):
        try:
            return np.array([int(text) for text in texts], np.int64)
        except OverflowError:
            raise UsageError(f"the labels of {shown} hold numbers beyond 64 bits") from None
    if not all(map(_NUMBER.fullmatch, texts)):
        return np.array(texts)
    labels = np.array([float(text) for text in texts])
    if not np.isfinite(labels).all():
        raise UsageError(f"the labels of {shown} hold NaN or infinity")
    return labels
