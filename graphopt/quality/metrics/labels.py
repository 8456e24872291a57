"""Labels of classes as numbers: integers, one-hot rows, probabilities, or names from a list."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import numpy as np

from graphopt.errors import UsageError, printable
from graphopt.quality.metrics.outputs import as_numbers, is_text, shown

SUM_TOLERANCE = 1e-2
"""How far from 1 the sum of a row of label probabilities may lie; 16-bit floats are that coarse."""

LARGEST = float(1 << 53)
"""The largest float up to which every whole number is one."""


def require(metric: str, labels: np.ndarray | None, size: int) -> np.ndarray:
    """The labels of a batch, in a type of numpy's own.

    Raises:
        UsageError: there are none, or not one per sample.
    """
    if labels is None:
        raise UsageError(
            f"metric {metric} compares with labels, and the data has none",
            "Name the labels of the data (--labels), or choose a metric that needs none: "
            "agreement, cosine, sqnr",
        )
    if labels.ndim == 0 or len(labels) != size:
        raise UsageError(
            f"metric {metric}: the labels are {shown(labels)} for {size} samples",
            "Give one label per sample, samples on the first axis",
        )
    return as_numbers(labels)


def flat(array: np.ndarray) -> np.ndarray:
    """An array without axes of size 1 behind the first; at least one axis stays."""
    return array.reshape(len(array), *(size for size in array.shape[1:] if size != 1))


def class_numbers(
    metric: str, labels: np.ndarray, count: int | None, names: Sequence[str] = ()
) -> np.ndarray:
    """Labels of one class per sample as its number.

    Args:
        metric: for messages.
        labels: numbers ``(samples,)``; one-hot rows or probabilities ``(samples, count)``; or names.
        count: how many classes there are; None where that is not known.
        names: of the classes in order, for labels that are strings.

    Returns:
        int64 of shape ``(samples,)``.

    Raises:
        UsageError: the labels are of another form, or name a class that there is not.
    """
    labels = flat(labels)
    if is_text(labels):
        return named(metric, labels, names)
    if labels.ndim == 2 and labels.shape[1] == count and labels.dtype.kind in "fiub":
        return _one_hot(metric, labels)
    if labels.ndim != 1:
        raise UsageError(
            f"metric {metric} wants one class per sample; the labels are {shown(labels)}"
        )
    return whole(metric, labels, count)


def are_whole(labels: np.ndarray) -> bool:
    """Whether numbers are whole, whatever their type."""
    if labels.dtype.kind != "f":
        return True
    exact = labels.astype(np.float64)
    return bool(((np.abs(exact) <= LARGEST) & (exact == np.floor(exact))).all())


def whole(metric: str, labels: np.ndarray, count: int | None) -> np.ndarray:
    """Labels that are whole numbers from 0 to ``count - 1`` as int64, of any shape."""
    if labels.dtype.kind not in "fiub":
        raise UsageError(f"metric {metric} cannot read labels of the type {labels.dtype.name}")
    if not are_whole(labels):
        raise UsageError(
            f"metric {metric} wants numbers of classes; the labels are not whole numbers",
            "For a regression choose mse",
        )
    if labels.size and count is not None:
        low, high = labels.min(), labels.max()
        if low < 0 or high >= count:
            raise UsageError(
                f"metric {metric}: a label is {low if low < 0 else high}, and the output has "
                f"{count} classes",
                f"Labels must lie from 0 to {count - 1}",
            )
    return labels.astype(np.int64)


def named(metric: str, labels: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Names of classes as numbers.

    Raises:
        UsageError: there is no list of names, or it lacks one.
    """
    if not names:
        raise UsageError(
            f"metric {metric}: the labels are strings, and the order of the classes is not known",
            "Name them: classes=FILE with one per line, or classes=@KEY of the model's metadata",
        )
    numbers = {name: number for number, name in enumerate(names)}
    words = texts(metric, labels)
    missing = next((word for word in words if word not in numbers), None)
    if missing is not None:
        near = difflib.get_close_matches(missing, names, 3)
        raise UsageError(
            f"metric {metric}: there is no class {printable(missing, 80)!r}",
            f"Did you mean {' or '.join(printable(n, 80) for n in near)}?" if near else "",
        )
    return np.array([numbers[word] for word in words], np.int64)


def texts(metric: str, labels: np.ndarray) -> list[str]:
    """An array of strings as a list.

    Raises:
        UsageError: an element is no string.
    """
    found = []
    for value in labels.reshape(-1).tolist():
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        if not isinstance(text, str):
            raise UsageError(f"metric {metric}: a label is neither a number nor a string")
        found.append(text)
    return found


def _one_hot(metric: str, labels: np.ndarray) -> np.ndarray:
    rows = labels.astype(np.float64)
    with np.errstate(invalid="ignore"):
        likely = (rows >= 0).all(axis=1) & (np.abs(rows.sum(axis=1) - 1) <= SUM_TOLERANCE)
    if not likely.all():
        raise UsageError(
            f"metric {metric}: the labels {shown(labels)} have the output's shape, but are neither "
            "one-hot nor probabilities",
            "For several classes per sample choose a function of your own; for a regression mse",
        )
    return np.asarray(rows.argmax(axis=1), np.int64)
