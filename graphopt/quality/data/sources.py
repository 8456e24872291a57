"""What the user named, and how it is read."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

from graphopt.errors import UsageError
from graphopt.quality.data.folders import ARRAY_FILES, folder_source
from graphopt.quality.data.function import given_function, is_function, named_function
from graphopt.quality.data.labelled import labelled
from graphopt.quality.data.memory import feeds_source, memory_source
from graphopt.quality.data.npy import npy_source
from graphopt.quality.data.options import DataSource
from graphopt.quality.data.reading import require_file, show
from graphopt.quality.data.source import Needs, Source
from graphopt.quality.inputs import Feeds

FILES: dict[str, Callable[[Path, Needs], Source]] = {**ARRAY_FILES, ".npy": npy_source}


def open_source(given: DataSource, needs: Needs) -> Source:
    """Open data and check what can be checked without reading all of it.

    Args:
        given: what the user named.
        needs: what is wanted of it.

    Raises:
        UsageError: it cannot be read, or does not hold what is wanted.
    """
    labels = needs.labels or ""
    if not labels.endswith((".npy", ".csv")):
        return _open(given, needs)
    if not needs.evaluates:
        return _open(given, needs.without_labels())
    plain = _open(given, needs.without_labels().to_calibrate())
    if labels.endswith(".npy"):
        return labelled(plain, labels)
    if not plain.about.images:
        raise UsageError(
            f"a .csv file can label images, and {plain.about.shown} is something else",
            "Give labels by their key, or in a .npy file",
        )
    return _open(given, needs)


def _open(given: DataSource, needs: Needs) -> Source:
    if isinstance(given, str | os.PathLike):
        return _named(os.fspath(given), needs)
    if isinstance(given, Mapping):
        return memory_source(given, needs)
    if isinstance(given, Sequence):
        return feeds_source(cast("Sequence[Feeds]", given), needs)
    if callable(given):
        return given_function(given, needs)
    raise UsageError(
        f"data cannot be of the type {type(given).__name__}",
        "Give a path, module:function, a dict of arrays, a list of feeds, or a function",
    )


def _named(text: str, needs: Needs) -> Source:
    """A path where one is there, otherwise a function where it reads like one."""
    path = Path(text)
    # os.path answers False to what pathlib may raise an error for, such as a circle of links.
    if os.path.isdir(path):  # noqa: PTH112
        return folder_source(path, needs)
    if not os.path.exists(path) and is_function(text):  # noqa: PTH110
        return named_function(text, needs)
    opened = FILES.get(path.suffix.lower())
    if opened is None:
        require_file(path)
        raise UsageError(
            f"cannot read the data {show(path)}: it is no kind of file that is read",
            f"Give one of {', '.join(FILES)}, a folder, or module:function",
        )
    return opened(path, needs)
