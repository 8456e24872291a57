"""One node as its rule sees it: checked attributes, facts of inputs, fresh symbols."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.inference.constants import constant_array, in_range, is_integer
from graphopt.ir.inference.facts import (
    MAX_RANK,
    UNKNOWN,
    Fact,
    Facts,
    Shape,
    Value,
    static,
    value_of,
)
from graphopt.numerics.dims import Dim, Expr, is_non_negative, upper_bound

if TYPE_CHECKING:
    from graphopt.ir.inference.engine import Engine

Environment = Mapping[str, object]
"""Values of a function's attributes, for the references to them in its body."""

INT64 = np.dtype(np.int64)
BOOL = np.dtype(np.bool_)
FLOAT = np.dtype(np.float32)


class UnknownAttributeError(ValueError):
    """An attribute refers to one of the surrounding function, whose value is not known."""


class Call:
    """A node together with the facts known where it stands."""

    __slots__ = ("engine", "environment", "facts", "inputs", "node", "opset")

    def __init__(
        self, node: gs.Node, opset: int, facts: Facts, engine: Engine, environment: Environment
    ) -> None:
        self.node = node
        self.opset = opset
        self.facts = facts
        self.engine = engine
        self.environment = environment
        self.inputs: list[gs.Tensor] = list(node.inputs)

    def has(self, index: int) -> bool:
        """Whether this input is given (an omitted one has an empty name)."""
        return index < len(self.inputs) and bool(
            self.inputs[index].name or isinstance(self.inputs[index], gs.Constant)
        )

    def fact(self, index: int) -> Fact:
        """The fact of an input; an omitted one is unknown."""
        return self.engine.fact(self.inputs[index], self.facts) if self.has(index) else UNKNOWN

    def shape(self, index: int) -> Shape | None:
        """The dims of an input tensor."""
        fact = self.fact(index)
        return fact.shape if fact.kind == "tensor" else None

    def dtype(self, index: int) -> np.dtype | None:
        """The element type of an input."""
        return self.fact(index).dtype

    def common_dtype(self, *indices: int) -> np.dtype | None:
        """The element type of inputs that must share one; of all inputs when none is named."""
        for index in indices or range(len(self.inputs)):
            dtype = self.dtype(index)
            if dtype is not None:
                return dtype
        return None

    def value(self, index: int) -> Value | None:
        """The contents of an input."""
        return self.fact(index).value

    def elements(self, index: int) -> list[Dim] | None:
        """The contents of a small integer input in row order, unknown ones as fresh symbols."""
        fact = self.fact(index)
        if fact.value is not None:
            return list(fact.value.flat)
        shape = static(fact.shape)
        if shape is None or not is_integer(fact.dtype) or fact.kind != "tensor":
            return None
        count = int(np.prod(shape, dtype=object))
        return [self.any_integer(fact.dtype) for _ in range(count)] if count <= 64 else None

    def ints(self, index: int) -> list[int] | None:
        """The contents of an input in row order when all are known integers."""
        value = self.value(index)
        if value is None:
            return None
        found = [entry for entry in value.flat if isinstance(entry, int)]
        return found if len(found) == value.size else None

    def floats(self, index: int) -> list[float] | None:
        """The contents of a small constant input in row order."""
        if not self.has(index):
            return None
        array = constant_array(self.inputs[index])
        if array is None:
            ints = self.ints(index)
            return None if ints is None else [float(entry) for entry in ints]
        return [float(entry) for entry in array.astype(np.float64).ravel().tolist()]

    def attribute(self, name: str) -> object:
        """An attribute, None when absent; a reference is looked up in the environment."""
        value = self.node.attrs.get(name)
        if isinstance(value, gs.Node.AttributeRef):
            if value.name not in self.environment:
                raise UnknownAttributeError(name)
            return self.environment[value.name]
        return value

    def integer(self, name: str, default: int) -> int:
        """An integer attribute."""
        value = self.attribute(name)
        if value is None:
            return default
        if not isinstance(value, int):
            raise TypeError(name)
        return int(value)

    def integers(self, name: str) -> list[int] | None:
        """A list-of-integers attribute, None when absent."""
        value = self.attribute(name)
        if value is None:
            return None
        if not isinstance(value, (list, tuple)) or not all(isinstance(v, int) for v in value):
            raise TypeError(name)
        return [int(v) for v in value]

    def text(self, name: str, default: str) -> str:
        """A string attribute."""
        value = self.attribute(name)
        if isinstance(value, bytes):
            return value.decode()
        if value is None:
            return default
        if not isinstance(value, str):
            raise TypeError(name)
        return value

    def list_of(self, name: str, index: int) -> tuple[bool, list[int] | None]:
        """A list that newer opsets pass as an input and older ones as an attribute.

        Returns:
            Whether it is given at all, and its entries when they are known.
        """
        given = self.integers(name)
        if given is not None:
            return True, given
        return self.has(index), self.ints(index)

    def fresh(self, low: int | None = 0, high: int | None = None) -> Expr:
        """A symbol that occurs nowhere else, for a dim of which only bounds are known."""
        return self.engine.fresh(low, high)

    def fresh_shape(self, rank: Dim | None) -> Shape | None:
        """A shape of which only the rank is known."""
        if not isinstance(rank, int) or not 0 <= rank <= MAX_RANK:
            return None
        return tuple(self.fresh() for _ in range(rank))

    def any_integer(self, dtype: np.dtype | None) -> Expr:
        """A symbol for an element of which only the type is known."""
        if dtype is not None and dtype.kind == "b":
            return self.fresh(0, 1)
        return self.fresh(0 if dtype is not None and dtype.kind == "u" else None)

    def result(
        self, dtype: np.dtype | None, shape: Shape | None, entries: Iterable[Dim] | None
    ) -> Fact:
        """A tensor with contents; what its type cannot hold is dropped."""
        fixed = static(shape)
        if entries is None or dtype is None or fixed is None:
            return Fact(dtype, shape)
        flat = list(entries)
        if len(flat) != int(np.prod(fixed, dtype=object)):
            return Fact(dtype, shape)
        for entry in flat:
            if isinstance(entry, int):
                if not in_range(entry, dtype):
                    return Fact(dtype, shape)
            elif not _holds(dtype, entry) or not self.engine.follow():
                return Fact(dtype, shape)
        return Fact(dtype, shape, value_of(flat, fixed))


def axis_of(axis: int, rank: int) -> int:
    """An axis counted from the front.

    Raises:
        IndexError: there is no such axis.
    """
    if not -rank <= axis < rank:
        raise IndexError(axis)
    return axis % rank


def axes_of(axes: Iterable[int], rank: int) -> list[int]:
    """Axes counted from the front, each once.

    Raises:
        IndexError: there is no such axis.
        ValueError: an axis is named twice.
    """
    found = [axis_of(axis, rank) for axis in axes]
    if len(set(found)) != len(found):
        raise ValueError(axes)
    return found


def _holds(dtype: np.dtype, entry: Expr) -> bool:
    """Whether symbolic arithmetic is followed in this type: it must not wrap around."""
    if dtype.kind == "b":
        high = upper_bound(entry)
        return is_non_negative(entry) and high is not None and high <= 1
    if dtype.kind == "u":
        return dtype.itemsize >= 4 and is_non_negative(entry)
    return dtype.kind == "i" and dtype.itemsize >= 4
