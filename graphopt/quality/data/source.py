"""What a source of samples is, and what is wanted of it."""

from __future__ import annotations

import abc
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from graphopt.errors import UsageError, printable
from graphopt.quality.data.image_options import ImageOptions
from graphopt.quality.inputs import InputSpec

CHUNK = 1 << 20
"""Bytes that are read of all arrays together at a time, or one sample where that is more."""

LARGEST_SAMPLE = 1 << 31
"""Bytes of one sample beyond which data is refused."""


@dataclass(frozen=True)
class Piece:
    """Some consecutive samples as a source gives them; nothing of them is checked yet.

    Attributes:
        arrays: by input, axis 0 = sample; an array without axes holds for every sample. Further arrays
            are ignored.
        labels: of the samples, axis 0 = sample; None where there are none.
        where: the file or function that they came from, printable.
        complete: whether all of it is one run of the model: ``rows``, the arrays are the inputs; ``whole``,
            they are so below a first axis of size 1; empty where a run takes any of the samples.
    """

    arrays: dict[str, np.ndarray]
    labels: np.ndarray | None
    where: str
    complete: Literal["", "rows", "whole"] = ""


@dataclass(frozen=True)
class About:
    """What there is to say of a source.

    Attributes:
        shown: how the user named it, printable.
        label_name: what its labels are called where the user gave no name.
        stable: what a user must do so that it gives the same samples each time.
        notes: what a user should know of it.
        images: whether it consists of images.
    """

    shown: str
    label_name: str = ""
    stable: str = "Leave it alone while graphopt runs"
    notes: tuple[str, ...] = ()
    images: bool = False


@dataclass(frozen=True)
class Source(abc.ABC):
    """Samples that can be read any number of times.

    Attributes:
        about: what there is to say of it.
    """

    about: About

    @abc.abstractmethod
    def pieces(self) -> Iterator[Piece]:
        """All samples in order, a new stream each time."""


@dataclass(frozen=True)
class Needs:
    """What is wanted of a source.

    Attributes:
        inputs: the inputs that the model must be given.
        optional: the inputs that have a default value.
        labels: the key or file of the labels; None where the user named none.
        evaluates: whether the source judges; one that only calibrates may lack labels.
        image: the preprocessing of images.
    """

    inputs: tuple[InputSpec, ...]
    optional: tuple[InputSpec, ...] = ()
    labels: str | None = None
    evaluates: bool = True
    image: ImageOptions = field(default_factory=ImageOptions)

    @property
    def all(self) -> tuple[InputSpec, ...]:
        """The inputs, those with a default value last."""
        return (*self.inputs, *self.optional)

    def without_labels(self) -> Needs:
        """The same without labels."""
        return replace(self, labels=None)

    def to_calibrate(self) -> Needs:
        """The same of a source that only calibrates."""
        return replace(self, evaluates=False)

    def sole(self, shown: str, kind: str) -> InputSpec:
        """The one input that must be given.

        Raises:
            UsageError: the model takes several, or none.
        """
        if len(self.inputs) != 1:
            names = ", ".join(printable(spec.name) for spec in self.inputs)
            raise UsageError(
                f"{shown} is {kind}, and the model takes {len(self.inputs)} inputs: {names}",
                "Give a .npz file with one array per input",
            )
        return self.inputs[0]

    def pick(self, keys: Collection[str], shown: str) -> tuple[list[str], str | None]:
        """Choose the arrays to read by their names.

        Args:
            keys: the names that there are.
            shown: where.

        Returns:
            The names of inputs, and the key of the labels or None.

        Raises:
            UsageError: an input or the labels are missing.
        """
        for spec in self.inputs:
            if spec.name not in keys:
                raise _missing(f"the input {printable(spec.name)!r}", keys, shown)
        if self.labels is not None and self.labels not in keys and self.evaluates:
            raise _missing(f"the labels {printable(self.labels)!r}", keys, shown)
        names = [spec.name for spec in self.all if spec.name in keys]
        return names, self.labels if self.labels in keys else None


def _missing(what: str, keys: Collection[str], shown: str) -> UsageError:
    listed = sorted(printable(key, 60) for key in keys)
    more = f" and {len(listed) - 12} more" if len(listed) > 12 else ""
    return UsageError(
        f"{shown} has no array for {what}",
        f"It has: {', '.join(listed[:12]) or 'none'}{more}",
    )
