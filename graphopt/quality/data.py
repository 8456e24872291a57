"""Real inputs for judging, read from files that cannot run code."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from graphopt.errors import UsageError, printable
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
    try:
        with np.load(path, allow_pickle=False) as file:
            if not hasattr(file, "files"):
                raise UsageError(f"{shown} holds a single array", "Save a .npz with one per input")
            arrays = {name: file[name] for name in file.files}
    except OSError as error:
        raise UsageError(f"cannot read the data {shown}: {error.strerror or error}") from None
    except (ValueError, EOFError, zipfile.BadZipFile, KeyError) as error:
        raise UsageError(
            f"cannot read the data {shown}: {error}", "It must be a .npz file without objects"
        ) from None
    _require(inputs, arrays, shown)
    return _batches(inputs, arrays, shown)


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
        raise UsageError(f"the array {name!r} of {shown} is {part.dtype}, the model wants {spec.dtype}")
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
