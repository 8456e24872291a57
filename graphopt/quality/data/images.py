"""A folder of images, one sample each, in the order of their paths.

Labels are the positions of the sub-folders in sorted order, or come from a CSV file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from graphopt.errors import UsageError, printable
from graphopt.quality.data.image_labels import csv_labels
from graphopt.quality.data.pixels import Preparation, preparation
from graphopt.quality.data.reading import reading, show
from graphopt.quality.data.source import About, Needs, Piece, Source

SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
"""Ends of file names that are taken for images."""

FOLDERS = "folder"
"""What labels from sub-folders are called."""


@dataclass(frozen=True)
class Images(Source):
    """Images and how they become arrays.

    Attributes:
        folder: it.
        names: of the images, with / between folders.
        labels: one for each; None where there are none.
        input: the model's input.
        prepare: from a file to an array.
    """

    folder: Path
    names: tuple[str, ...]
    labels: np.ndarray | None
    input: str
    prepare: Preparation

    def pieces(self) -> Iterator[Piece]:
        """One piece for each image."""
        for number, name in enumerate(self.names):
            path = self.folder / name
            array = self.prepare.read(path)
            labels = None if self.labels is None else self.labels[number : number + 1]
            yield Piece({self.input: array[None]}, labels, show(path))


def image_source(folder: Path, needs: Needs) -> Images:
    """The samples in a folder of images.

    Raises:
        UsageError: there are none, or the labels do not fit.
    """
    shown = show(folder)
    with reading(shown):
        names = tuple(sorted(_images(folder)))
    if not names:
        raise UsageError(
            f"{shown} holds no data",
            "It must hold .npz, .safetensors or .npy files, test_data_set_* folders, or images",
        )
    spec = needs.sole(shown, "a folder of images")
    prepare = preparation(needs.image, spec)
    if needs.labels is not None and needs.labels.endswith(".csv"):
        table = csv_labels(Path(needs.labels), names)
        left = len(names) - len(table.names)
        note = f"{left} of {len(names)} images of {shown} have no label and are left out"
        about = About(shown, needs.labels, notes=(note,) if left else (), images=True)
        return Images(about, folder, table.names, table.labels, spec.name, prepare)
    classes = _classes(names)
    if needs.labels not in (None, FOLDERS) or (needs.labels == FOLDERS and not classes):
        raise UsageError(
            f"{shown} holds images and no labels {printable(needs.labels or '')!r}",
            "Name a .csv file of file,label or a .npy file, or sort the images into sub-folders",
        )
    if not classes or not needs.evaluates:
        return Images(About(shown, images=True), folder, names, None, spec.name, prepare)
    labels = np.array([classes[name.split("/", 1)[0]] for name in names], np.int64)
    note = f"labels are the positions of the sub-folders in sorted order: {_listed(classes)}"
    about = About(shown, FOLDERS, notes=(note,), images=True)
    return Images(about, folder, names, labels, spec.name, prepare)


def _images(folder: Path) -> Iterator[str]:
    """The images below a folder; links to folders are not followed, so that no circle is."""
    for place, folders, files in os.walk(folder, onerror=_stop):
        folders[:] = [name for name in folders if not name.startswith(".")]
        base = Path(place).relative_to(folder)
        for name in files:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES:  # noqa: PTH122
                yield (base / name).as_posix()


def _stop(error: OSError) -> None:
    raise error


def _classes(names: tuple[str, ...]) -> dict[str, int]:
    """The number of each sub-folder; empty where images do not lie in several."""
    if any("/" not in name for name in names):
        return {}
    found = sorted({name.split("/", 1)[0] for name in names})
    return {name: number for number, name in enumerate(found)} if len(found) > 1 else {}


def _listed(classes: dict[str, int]) -> str:
    shown = [f"{printable(name, 40)}={number}" for name, number in list(classes.items())[:6]]
    return ", ".join(shown) + (", ..." if len(classes) > 6 else "")
