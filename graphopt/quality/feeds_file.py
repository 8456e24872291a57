"""Real inputs for judging, read from files that cannot run code."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from graphopt.errors import ResourceError, UsageError, printable
from graphopt.ir.model import Model
from graphopt.quality.inputs import Feeds, InputSpec, specs

BATCHES = 4
"""Sets of inputs that are taken from a data file."""

BATCH = 4
"""Samples in a set, where the model's first dimension is free."""


def load_feeds(data: str | os.PathLike[str] | Sequence[Feeds], model: Model) -> list[Feeds]:
    """Inputs for a model from a ``.npz`` file, or checked feeds.

    Args:
        data: the path of a ``.npz`` file with one array per input, axis 0 = sample (further arrays,
            such as labels, are left alone); or complete feeds.
        model: the model they are for.

    Raises:
        UsageError: the file cannot be read, an input is missing, or a type or shape does not fit.
    """
    inputs = specs(model)
    if not isinstance(data, str | os.PathLike):
        for feeds in data:
            _require(inputs, feeds, "the data")
        return list(data)
    path = Path(data)
    shown = printable(str(path))
    arrays = _read(path, shown)
    _require(inputs, arrays, shown)
    return _batches(inputs, arrays, shown)


def _read(path: Path, shown: str) -> dict[str, np.ndarray]:
    """The arrays of a ``.npz`` file; nothing else is opened, and no code in it is run."""
    hint = "It must be a .npz file of arrays without objects"
    try:
        if not path.is_file():
            what = "not a regular file" if path.exists() else "no such file"
            raise UsageError(f"cannot read the data {shown}: {what}", hint)
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise UsageError(f"{shown} holds a single array", "Save a .npz with one per input")
        with file:
            arrays = {name: file[name] for name in file.files}
    except OSError as error:
        raise UsageError(f"cannot read the data {shown}: {error.strerror or error}") from None
    except MemoryError:
        raise ResourceError(
            f"the data {shown} does not fit into memory", "Give less of it"
        ) from None
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error, KeyError, NotImplementedError):
        raise UsageError(
            f"cannot read the data {shown}: it is damaged or holds objects", hint
        ) from None
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise UsageError(f"{printable(name)!r} in the data {shown} is not an array", hint)
    return arrays


def _require(inputs: Sequence[InputSpec], arrays: Feeds, shown: str) -> None:
    missing = [spec.name for spec in inputs if spec.name not in arrays]
    if missing:
        raise UsageError(
            f"{shown} has no array for the input {printable(missing[0])!r}",
            f"It has: {', '.join(sorted(map(printable, arrays))) or 'none'}",
        )


def _batches(inputs: Sequence[InputSpec], arrays: Feeds, shown: str) -> list[Feeds]:
    samples = {spec.name: arrays[spec.name] for spec in inputs}
    for name, array in samples.items():
        if array.ndim == 0 or len(array) == 0:
            raise UsageError(f"the array {printable(name)!r} of {shown} holds no samples")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise UsageError(f"the array {printable(name)!r} of {shown} holds NaN or infinity")
    count = min(len(array) for array in samples.values())
    sizes = [spec.shape[0] for spec in inputs if spec.shape]
    fixed = [size for size in sizes if isinstance(size, int)]
    size = min(fixed) if fixed else min(BATCH, count)
    if size > count:
        raise UsageError(f"{shown} holds {count} samples, one run of the model takes {size}")
    found = []
    for start in range(0, min(count - size + 1, BATCHES * size), size):
        feeds = {spec.name: _slice(spec, samples[spec.name], start, size, shown) for spec in inputs}
        found.append(feeds)
    return found


def _slice(spec: InputSpec, array: np.ndarray, start: int, size: int, shown: str) -> np.ndarray:
    part = array[start] if spec.shape == () else array[start : start + size]
    part = np.asarray(part)
    name = printable(spec.name)
    if spec.dtype is not None and part.dtype != spec.dtype:
        raise UsageError(
            f"the array {name!r} of {shown} is {part.dtype}, the model wants {spec.dtype}"
        )
    if spec.shape is not None:
        wrong = len(part.shape) != len(spec.shape) or any(
            isinstance(want, int) and want != have
            for want, have in zip(spec.shape, part.shape, strict=False)
        )
        if wrong:
            raise UsageError(
                f"the array {name!r} of {shown} has samples of shape {tuple(array.shape[1:])}, "
                f"the model wants {tuple(spec.shape)} with the batch first"
            )
    return part
