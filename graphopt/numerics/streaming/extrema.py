"""Smallest and largest elements, zeros, and elements that are not finite."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphopt.numerics.streaming.accumulator import (
    Accumulator,
    Shape,
    Spec,
    by_channel,
    channels_of,
    readable,
    require_same_channels,
)


class Range(Accumulator):
    """Where the elements lie, of all or per channel of an axis.

    Every attribute has shape ``()``, or ``(channels,)`` where there is an axis; they are empty before the
    first array.

    Attributes:
        axis: of the channels; None for one statistic of all elements.
        minimum: float64; int64 or uint64 for integers; +inf (the largest integer) where count is 0.
        maximum: the same, -inf (the smallest integer) where count is 0.
        count: finite elements, int64.
        zeros: those that are exactly 0, int64.
        rejected: elements that are infinite or not a number, int64.
    """

    PARTS = ("minimum", "maximum", "count", "zeros", "rejected")

    def __init__(self, axis: int | None = None) -> None:
        self.axis = axis
        self.minimum = self.maximum = np.empty(0)
        self.count = self.zeros = self.rejected = np.empty(0, np.int64)

    @property
    def absolute(self) -> np.ndarray:
        """The largest magnitude, float64; 0 where count is 0."""
        ends = np.maximum(np.abs(self.minimum, dtype=float), np.abs(self.maximum, dtype=float))
        return np.where(self.count > 0, ends, 0.0)

    def add(self, array: np.ndarray) -> None:
        """Take in an array of floats, integers or booleans.

        Raises:
            ValueError: it has no such axis, or other channels than the ones before.
        """
        view = by_channel(readable(array), self.axis)
        every = view.shape[0] * view.shape[2]
        where: bool | np.ndarray = True
        first, last = _ends(view.dtype)
        minimum = view.min(axis=(0, 2), initial=last)
        maximum = view.max(axis=(0, 2), initial=first)
        zeros = every - np.count_nonzero(view, axis=(0, 2))
        rejected = np.zeros(view.shape[1], np.int64)
        if every and view.dtype.kind == "f" and not _finite(minimum, maximum):
            where = np.isfinite(view)
            rejected = every - np.count_nonzero(where, axis=(0, 2))
            minimum = view.min(axis=(0, 2), initial=last, where=where)
            maximum = view.max(axis=(0, 2), initial=first, where=where)
        found = Range(self.axis)
        found.minimum, found.maximum = _widened(minimum), _widened(maximum)
        found.count, found.zeros, found.rejected = every - rejected, zeros, rejected
        shape = () if self.axis is None else (view.shape[1],)
        for name in self.PARTS:
            setattr(found, name, np.asarray(getattr(found, name)).reshape(shape))
        self.merge(found)

    def merge(self, other: Range) -> None:
        """Take in what another one was fed.

        Raises:
            ValueError: it has other channels.
        """
        if not other.count.size:
            return
        if not self.count.size:
            self.copy_from(other)
            return
        require_same_channels(self.count, other.count)
        self.minimum = np.minimum(self.minimum, other.minimum)
        self.maximum = np.maximum(self.maximum, other.maximum)
        self.count = self.count + other.count
        self.zeros = self.zeros + other.zeros
        self.rejected = self.rejected + other.rejected


def _ends(dtype: np.dtype) -> tuple[float | int, float | int]:
    """The smallest and the largest number of a type."""
    if dtype.kind == "f":
        return -np.inf, np.inf
    return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)


def _finite(minimum: np.ndarray, maximum: np.ndarray) -> bool:
    return bool(np.isfinite(minimum).all() and np.isfinite(maximum).all())


def _widened(ends: np.ndarray) -> np.ndarray:
    if ends.dtype.kind == "f":
        return ends.astype(np.float64)
    return ends.astype(np.uint64 if ends.dtype == np.uint64 else np.int64)


@dataclass(frozen=True)
class RangeSpec(Spec[Range]):
    """Ask for a ``Range``.

    Args:
        axis: of the channels; None for one statistic of all elements.
    """

    axis: int | None = None

    integers = True

    def start(self) -> Range:
        """An empty accumulator."""
        return Range(self.axis)

    def nbytes(self, *shapes: Shape) -> int:
        """Bytes that an accumulator holds."""
        return 5 * 8 * channels_of(shapes[0], self.axis)
