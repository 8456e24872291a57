"""Samples that are in memory already: arrays by name, or complete sets of inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphopt.errors import UsageError, printable
from graphopt.quality.data.columns import MemoryColumn, Table
from graphopt.quality.data.source import About, Needs, Piece, Source
from graphopt.quality.inputs import Feeds

ARRAYS = "a dict of arrays"
FEEDS = "a list of feeds"

_UNTOUCHED = "Leave the arrays alone while graphopt runs"


def memory_source(arrays: Mapping[str, Any], needs: Needs) -> Table:
    """The samples in arrays by name, axis 0 = sample.

    Raises:
        UsageError: an input or the labels are missing, or something is not an array.
    """
    names, key = needs.pick({str(name) for name in arrays}, ARRAYS)
    columns = {name: _column(arrays, name) for name in names}
    about = About(ARRAYS, stable=_UNTOUCHED)
    return Table(about, columns, None if key is None else _column(arrays, key))


def _column(arrays: Mapping[str, Any], name: str) -> MemoryColumn:
    values = as_array(arrays[name], name, ARRAYS)
    return MemoryColumn(ARRAYS, name, values.dtype, values.shape, values)


def as_array(value: Any, name: str, shown: str) -> np.ndarray:
    """A user's value as an array.

    Raises:
        UsageError: it has no regular shape.
    """
    try:
        return np.asarray(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise UsageError(
            f"{printable(name)!r} of {shown} cannot be made an array: {printable(str(error))}",
            "Give a numpy array",
        ) from None


def feeds_source(feeds: Sequence[Feeds], needs: Needs) -> FeedsSource:
    """The samples in complete sets of inputs."""
    return FeedsSource(About(FEEDS, stable=_UNTOUCHED), feeds, needs)


@dataclass(frozen=True)
class FeedsSource(Source):
    """Complete sets of inputs; each is one run of the model as it stands.

    Attributes:
        feeds: the sets.
        needs: what is wanted of them.
    """

    feeds: Sequence[Feeds]
    needs: Needs

    def pieces(self) -> Iterator[Piece]:
        """One piece for each set."""
        for number, feeds in enumerate(self.feeds):
            shown = f"set {number} of {FEEDS}"
            if not isinstance(feeds, Mapping):
                raise UsageError(f"{shown} is a {type(feeds).__name__}, not a dict by input")
            names, key = self.needs.pick({str(name) for name in feeds}, shown)
            arrays = {name: as_array(feeds[name], name, shown) for name in names}
            labels = None if key is None else as_array(feeds[key], key, shown)
            yield complete_piece(arrays, labels, shown)


def complete_piece(arrays: dict[str, np.ndarray], labels: np.ndarray | None, shown: str) -> Piece:
    """A complete set of inputs as samples.

    Where the first axes of all inputs agree, they count the samples; otherwise the set is one sample.
    """
    sizes = {array.shape[0] if array.ndim else -1 for array in arrays.values()}
    together = len(sizes) == 1 and -1 not in sizes
    count = sizes.pop() if together else 1
    if not together:
        arrays = {name: array[None] for name, array in arrays.items()}
    if labels is not None and count == 1 and (labels.ndim == 0 or len(labels) != 1):
        labels = labels[None]
    return Piece(arrays, labels, shown, complete="rows" if together else "whole")
