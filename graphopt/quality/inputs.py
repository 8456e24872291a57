"""Inputs for a model, drawn to fit what it declares."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper

from graphopt.ir.graph import Variable, element_bits
from graphopt.ir.model import Model

Feeds = dict[str, Any]

MAX_RANK = 32
"""Dimensions that an array may have in every version of numpy."""

MAX_ELEMENTS = 1 << 26
"""Elements of one input beyond which a size is not tried."""


@dataclass(frozen=True)
class InputSpec:
    """What a model declares of one input.

    Attributes:
        name: its name.
        dtype: its element type; None where it is not a tensor of a known type.
        shape: a positive int where the dimension is fixed, else a key shared by equal dimensions;
            None where not even the rank is known.
        kind: ``tensor``, ``sequence``, or ``optional``.
    """

    name: str
    dtype: np.dtype | None
    shape: tuple[int | str, ...] | None
    kind: str = "tensor"


def specs(model: Model) -> list[InputSpec]:
    """The inputs that a caller of the model must give."""
    return [_spec(t) for t in model.graph.inputs if isinstance(t, Variable) and t.default is None]


def optional_specs(model: Model) -> list[InputSpec]:
    """The inputs that a caller may give instead of the default value that the model has for them."""
    given = [t for t in model.graph.inputs if isinstance(t, Variable)]
    return [_spec(tensor) for tensor in given if tensor.default is not None]


def _spec(tensor: Variable) -> InputSpec:
    dtype, shape, kind = tensor.dtype, tensor.shape, "tensor"
    if tensor.info is not None and dtype is None:
        kind, dtype, shape = _nested(tensor.info.type)
    keys: tuple[int | str, ...] | None = None
    if shape is not None:
        keys = tuple(
            dim if isinstance(dim, int) else (dim or f"{tensor.name}[{axis}]")
            for axis, dim in enumerate(shape)
        )
    return InputSpec(tensor.name, dtype, keys, kind)


def _nested(
    kind: onnx.TypeProto,
) -> tuple[str, np.dtype | None, tuple[int | str | None, ...] | None]:
    """The tensor type inside a sequence or optional type."""
    outer = {"sequence_type": "sequence", "optional_type": "optional"}
    found = outer.get(kind.WhichOneof("value") or "", "unknown")
    while kind.WhichOneof("value") in outer:
        which = kind.WhichOneof("value")
        kind = (
            kind.sequence_type.elem_type
            if which == "sequence_type"
            else kind.optional_type.elem_type
        )
        if kind.WhichOneof("value") == "sequence_type":
            found = f"{found} of sequence"
    if kind.WhichOneof("value") != "tensor_type" or not kind.tensor_type.elem_type:
        return found, None, None
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind.tensor_type.elem_type))
    if not kind.tensor_type.HasField("shape"):
        return found, dtype, None
    dims = kind.tensor_type.shape.dim
    return found, dtype, tuple(d.dim_value if d.dim_value > 0 else d.dim_param for d in dims)


@dataclass
class Plan:
    """One way to draw inputs.

    Attributes:
        sizes: the size of each dynamic dimension, by its key.
        ends: the exclusive upper end of each integer input, by name.
        filled: integer inputs that take one value throughout, by name.
        rank: the rank of inputs that declare none.
        positive: whether floats are drawn from [0, 1) rather than from a normal distribution.
    """

    sizes: dict[str, int] = field(default_factory=dict)
    ends: dict[str, int] = field(default_factory=dict)
    filled: dict[str, int] = field(default_factory=dict)
    rank: int = 2
    positive: bool = False

    def but(self, **changes: Any) -> Plan:
        """The same plan with some fields merged or replaced."""
        made = Plan(dict(self.sizes), dict(self.ends), dict(self.filled), self.rank, self.positive)
        for key, value in changes.items():
            if isinstance(value, dict):
                getattr(made, key).update(value)
            else:
                setattr(made, key, value)
        return made


def draw(inputs: Iterable[InputSpec], plan: Plan, seed: int) -> Feeds | None:
    """Draw inputs by a plan; None where one of them would be too large or cannot be drawn."""
    rng = np.random.default_rng(seed)
    feeds: Feeds = {}
    for spec in inputs:
        if spec.dtype is None or spec.kind.endswith("of sequence"):
            return None
        dims = (
            spec.shape
            if spec.shape is not None
            else tuple(f"{spec.name}[{a}]" for a in range(plan.rank))
        )
        shape = tuple(d if isinstance(d, int) else plan.sizes.get(d, 1) for d in dims)
        if len(shape) > MAX_RANK or int(np.prod(shape, dtype=object)) > MAX_ELEMENTS:
            return None
        values = [
            _values(spec, shape, plan, rng) for _ in range(3 if spec.kind == "sequence" else 1)
        ]
        feeds[spec.name] = values if spec.kind == "sequence" else values[0]
    return feeds


def _values(
    spec: InputSpec, shape: tuple[int, ...], plan: Plan, rng: np.random.Generator
) -> np.ndarray:
    dtype = spec.dtype
    assert dtype is not None
    if dtype == object:
        words = np.array(["", "a", "b", "the cat", "1", "Straße"], dtype=object)
        return words[rng.integers(0, len(words), shape)] if shape else np.array("a", dtype=object)
    if dtype == np.bool_:
        return rng.integers(0, 2, shape).astype(np.bool_)
    if dtype.kind in "iu" or "int" in dtype.name:
        if spec.name in plan.filled:
            return np.full(shape, plan.filled[spec.name]).astype(dtype)
        end = min(plan.ends.get(spec.name, 2), 1 << (element_bits(dtype) - 1))
        return np.asarray(rng.integers(0, end, shape)).astype(dtype)
    if dtype.kind == "c":
        return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(dtype)
    floats = rng.random(shape) if plan.positive else rng.standard_normal(shape)
    return np.asarray(floats).astype(dtype)
