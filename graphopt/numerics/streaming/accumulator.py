"""What all statistics of a stream of arrays share.

An accumulator starts empty. ``add`` takes in one array, ``merge`` another accumulator of the same kind, and
memory does not grow with what went in. Both are associative up to the rounding of float64 sums; counts,
extremes and histograms are exact in any order. Elements that are not finite are counted and left out.

A spec is a value that says what is to be accumulated. It makes empty accumulators and tells beforehand how
many bytes one will hold.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

BLOCK = 1 << 16
"""Elements that are turned into float64 at a time: half a megabyte, which a core keeps close."""

FOREIGN = 2
"""What ``dtype.isbuiltin`` is for a type that another package registered, such as bfloat16."""

Shape = tuple[int, ...]


class Accumulator(abc.ABC):
    """A statistic of all arrays that it was fed."""

    PARTS: ClassVar[tuple[str, ...]]
    """The attributes, arrays or plain numbers, that hold all that it knows."""

    @abc.abstractmethod
    def merge(self, other: Any) -> None:
        """Take in what another accumulator of the same spec was fed."""

    def state(self) -> dict[str, np.ndarray]:
        """All that it knows, as arrays by name."""
        return {name: np.asarray(getattr(self, name)) for name in self.PARTS}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Forget everything and know what ``state`` of another accumulator of the same spec gave.

        The arrays are taken over, not copied, where they can be written.

        Raises:
            KeyError: the state is not of this kind.
        """
        for name in self.PARTS:
            plain = isinstance(getattr(self, name), int | float)
            setattr(self, name, state[name].item() if plain else owned(state[name]))

    def copy_from(self, other: Accumulator) -> None:
        """Know what another accumulator of the same spec knows; nothing is shared with it."""
        self.restore({name: array.copy() for name, array in other.state().items()})


def owned(array: np.ndarray) -> np.ndarray:
    """The array itself if it can be written, else a copy."""
    return array if array.flags.writeable else array.copy()


A = TypeVar("A", bound=Accumulator)


class Spec(abc.ABC, Generic[A]):
    """What to accumulate; a frozen value whose ``repr`` names it completely."""

    arrays: ClassVar[int] = 1
    """How many arrays each ``add`` takes."""

    integers: ClassVar[bool] = False
    """Whether arrays of integers and booleans make sense."""

    @abc.abstractmethod
    def start(self) -> A:
        """An empty accumulator."""

    @abc.abstractmethod
    def nbytes(self, *shapes: Shape) -> int:
        """Bytes that an accumulator holds, with what it needs while it takes in an array.

        Args:
            shapes: of the arrays that it will be fed.

        Raises:
            ValueError: arrays of such shapes cannot be taken in; the message says why.
        """


def by_channel(array: np.ndarray, axis: int | None) -> np.ndarray:
    """A view ``[before, channels, after]`` of an array; ``[1, 1, size]`` where ``axis`` is None.

    Raises:
        ValueError: the array has no such axis.
    """
    if axis is None:
        return array.reshape(1, 1, array.size)
    at = checked_axis(array.shape, axis)
    shape = array.shape
    return array.reshape(math.prod(shape[:at]), shape[at], math.prod(shape[at + 1 :]))


def checked_axis(shape: Shape, axis: int) -> int:
    """An axis counted from the front.

    Raises:
        ValueError: there is no such axis.
    """
    if not -len(shape) <= axis < len(shape):
        raise ValueError(f"a tensor of shape {list(shape)} has no axis {axis}")
    return axis % len(shape)


def channels_of(shape: Shape, axis: int | None) -> int:
    """How many channels a statistic per channel of an axis has; 1 for one of all elements."""
    return 1 if axis is None else shape[checked_axis(shape, axis)]


def blocks(view: np.ndarray) -> Iterator[np.ndarray]:
    """A ``[before, channels, after]`` view in pieces of about ``BLOCK`` elements, channels whole."""
    before, channels, after = view.shape
    if channels * after <= BLOCK:
        step = BLOCK // max(1, channels * after)
        for start in range(0, before, step):
            yield view[start : start + step]
        return
    step = max(1, BLOCK // channels)
    for row in range(before):
        for start in range(0, after, step):
            yield view[row : row + 1, :, start : start + step]


def require_same_channels(known: np.ndarray, new: np.ndarray) -> None:
    """Refuse an array whose channels are not those of the ones before.

    Raises:
        ValueError: their number differs.
    """
    if known.shape != new.shape:
        raise ValueError(f"it has {new.size} channels now, but had {known.size} before")


def readable(array: np.ndarray) -> np.ndarray:
    """The same numbers in a type that numpy computes with; what it knows is left as it is.

    Raises:
        ValueError: the elements are not real numbers.
    """
    kind, name = array.dtype.kind, array.dtype.name
    if array.dtype.isbuiltin == FOREIGN:
        if "float" in name:
            return array.astype(np.float32)
        if "int" in name:
            return array.astype(np.int64)
    elif kind in "fiu":
        return array
    elif kind == "b":
        return array.view(np.uint8)
    raise ValueError(f"its elements are of type {name}, not real numbers")
