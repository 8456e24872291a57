"""Checked samples: what every later step works on."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from graphopt.quality.data.dataset import Batch
from graphopt.quality.inputs import Feeds

Form = Literal["joined", "whole", "scalar"]
"""How samples feed an input: joined along its axis 0; each is the whole input; each is its one value."""


@dataclass(frozen=True)
class Rows:
    """Consecutive samples that one run of the model could take together.

    Attributes:
        arrays: by input, axis 0 = sample, of the input's element type.
        labels: axis 0 = sample; None where there are none.
        forms: by input.
        run: how many samples a run takes; 0: any number.
    """

    arrays: dict[str, np.ndarray]
    labels: np.ndarray | None
    forms: dict[str, Form]
    run: int

    @property
    def unit(self) -> int:
        """Samples that cannot be parted."""
        return max(self.run, 1)

    @cached_property
    def count(self) -> int:
        """Samples."""
        return len(next(iter(self.arrays.values())))

    @cached_property
    def key(self) -> Hashable:
        """What must be equal for samples to feed the same run."""
        inputs = tuple(
            (name, self.forms[name], array.shape[1:], self._value(name))
            for name, array in self.arrays.items()
        )
        return self.run, inputs, None if self.labels is None else self.labels.shape[1:]

    def _value(self, name: str) -> bytes | None:
        scalar = self.forms[name] == "scalar" and self.count
        return self.arrays[name][:1].tobytes() if scalar else None

    @property
    def sample_bytes(self) -> int:
        """Bytes of the inputs of one sample."""
        return sum(array.nbytes for array in self.arrays.values()) // max(self.count, 1)

    def take(self, which: slice | np.ndarray) -> Rows:
        """Some of the samples, by a slice or a mask."""
        arrays = {name: array[which] for name, array in self.arrays.items()}
        labels = None if self.labels is None else self.labels[which]
        return replace(self, arrays=arrays, labels=labels)

    def batch(self) -> Batch:
        """All of the samples as one run."""
        feeds: Feeds = {
            name: array if self.forms[name] == "joined" else array[:1].reshape(array.shape[1:])
            for name, array in self.arrays.items()
        }
        return Batch(feeds, self.labels, self.count)


def join(parts: list[Rows]) -> Rows:
    """Rows with the same key, one after another."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    arrays = {name: np.concatenate([p.arrays[name] for p in parts]) for name in first.arrays}
    labels = None
    if first.labels is not None:
        labels = np.concatenate([p.labels for p in parts if p.labels is not None])
    return replace(first, arrays=arrays, labels=labels)
