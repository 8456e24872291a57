"""What is known of a tensor, and of all tensors of a graph (ONNX IR specification, types)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx_graphsurgeon as gs

from graphopt.numerics.dims import Dim

Kind = Literal["tensor", "sequence", "optional", "unknown"]
Shape = tuple[Dim, ...]
Value = npt.NDArray[Any]

MAX_ELEMENTS = 256
"""Elements beyond which the contents of a tensor are not followed."""

MAX_VALUE_RANK = 2
MAX_RANK = 64


@dataclass(frozen=True, eq=False, slots=True)
class Fact:
    """What is known of one tensor.

    Attributes:
        dtype: element type; of the elements of a sequence or optional; None when unknown.
        shape: one dim per axis, None when the rank is unknown. Of a sequence: of each element.
        value: the contents as an object array of dims (a bool is 0 or 1), None when unknown. A
            symbol that occurs nowhere else stands for an element that is not known.
        kind: what the tensor holds; "unknown" when that is not known either.
    """

    dtype: np.dtype | None = None
    shape: Shape | None = None
    value: Value | None = None
    kind: Kind = "tensor"


UNKNOWN = Fact(kind="unknown")


class Facts:
    """Facts by tensor. A tensor that was never seen has the empty fact."""

    __slots__ = ("_facts", "_kept")

    def __init__(self) -> None:
        self._facts: dict[int, Fact] = {}
        self._kept: list[gs.Tensor] = []

    def fact(self, tensor: gs.Tensor) -> Fact:
        """All that is known of a tensor."""
        return self._facts.get(id(tensor), UNKNOWN)

    def shape(self, tensor: gs.Tensor) -> Shape | None:
        """The dims, or None when the rank is unknown."""
        fact = self.fact(tensor)
        return fact.shape if fact.kind == "tensor" else None

    def rank(self, tensor: gs.Tensor) -> int | None:
        """The number of axes, or None."""
        shape = self.shape(tensor)
        return None if shape is None else len(shape)

    def dtype(self, tensor: gs.Tensor) -> np.dtype | None:
        """The element type, or None."""
        fact = self.fact(tensor)
        return fact.dtype if fact.kind == "tensor" else None

    def value(self, tensor: gs.Tensor) -> Value | None:
        """The contents as an object array of dims, or None."""
        return self.fact(tensor).value

    def constant_value(self, tensor: gs.Tensor) -> npt.NDArray[np.int64] | None:
        """The contents as int64 when every element is a known integer, else None."""
        value = self.fact(tensor).value
        if value is None or not all(isinstance(entry, int) for entry in value.flat):
            return None
        try:
            return value.astype(np.int64)
        except OverflowError:
            return None

    def static_shape(self, tensor: gs.Tensor) -> tuple[int, ...] | None:
        """The shape when every dim is a number, else None."""
        return static(self.shape(tensor))

    def __contains__(self, tensor: gs.Tensor) -> bool:
        return id(tensor) in self._facts

    def __len__(self) -> int:
        return len(self._facts)

    def _set(self, tensor: gs.Tensor, fact: Fact) -> None:
        if id(tensor) not in self._facts:
            self._kept.append(tensor)
        self._facts[id(tensor)] = fact


def static(shape: Shape | None) -> tuple[int, ...] | None:
    """The shape when every dim is a number, else None."""
    if shape is None:
        return None
    ints = tuple(dim for dim in shape if isinstance(dim, int))
    return ints if len(ints) == len(shape) else None


def value_of(elements: Iterable[Dim], shape: tuple[int, ...]) -> Value | None:
    """The object array of these elements, or None where it is larger than what is followed."""
    flat = list(elements)
    if len(flat) > MAX_ELEMENTS or len(shape) > MAX_VALUE_RANK:
        return None
    return object_array(flat, shape)


def object_array(elements: Sequence[Dim], shape: tuple[int, ...]) -> Value:
    """The object array of these elements in row order."""
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return array.reshape(shape)
