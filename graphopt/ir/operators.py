"""What the compiler knows of operators beside their shapes: one table, read by everybody."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import onnx.defs

NONDETERMINISTIC = frozenset(
    {
        "Bernoulli",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)
"""Operators that give other results each time: never computed beforehand, never merged."""

CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap"})
"""Operators with bodies."""

QUANTIZED_STORAGE = frozenset({"DequantizeLinear"})
"""Operators that keep weights small in the file: computing them beforehand would undo it."""

TRAINING_OPS = frozenset({"Dropout", "BatchNormalization"})
"""Operators that behave differently, or at random, in training mode."""

NON_TENSOR = frozenset(
    {
        "SequenceConstruct",
        "SequenceEmpty",
        "SequenceInsert",
        "SequenceErase",
        "SequenceAt",
        "SequenceLength",
        "SplitToSequence",
        "ConcatFromSequence",
        "Optional",
        "OptionalGetElement",
        "OptionalHasElement",
    }
)
"""Operators that read or make sequences and optionals."""


WEIGHTS: dict[str, dict[int, tuple[int, ...]]] = {
    "Conv": {1: (0,)},
    "ConvTranspose": {1: (1,)},
    "GRU": {1: (0, 1), 2: (0, 1)},
    "Gather": {0: (0,)},
    "Gemm": {0: (0,), 1: (1,)},
    "LSTM": {1: (0, 1), 2: (0, 1)},
    "MatMul": {0: (-2,), 1: (-1,)},
    "RNN": {1: (0, 1), 2: (0, 1)},
}
"""Inputs that may be weights, by operator, with the axes that count what the operator gives out: filters,
units, gates. ``weight_channels`` knows what attributes change of it."""


def weight_channels(op: str, index: int, attrs: Mapping[str, Any], rank: int) -> tuple[int, ...]:
    """The axes of a weight that count what its operator gives out.

    Args:
        op: the operator.
        index: the input that the weight is.
        attrs: the node's attributes.
        rank: of the weight.
    """
    axes = WEIGHTS[op][index]
    if op == "Gemm":
        transposed = bool(attrs.get("transA" if index == 0 else "transB", 0))
        return (1 - axes[0],) if transposed else axes
    if op == "Gather" and attrs.get("axis", 0):
        return ()
    return tuple(axis % rank for axis in axes if -rank <= axis < rank)


@functools.lru_cache(maxsize=4096)
def schema(op: str, opset: int) -> onnx.defs.OpSchema | None:
    """The standard's definition of an operator at an opset; None where there is none."""
    try:
        return onnx.defs.get_schema(op, opset, "")
    except onnx.defs.SchemaError:
        return None


def deterministic(op: str) -> bool:
    """Whether equal inputs give equal outputs, as far as the operator alone tells."""
    return op not in NONDETERMINISTIC and op not in CONTROL_FLOW


def optional_outputs(op: str, opset: int) -> frozenset[int]:
    """The positions of an operator's outputs that may be omitted."""
    found = schema(op, opset)
    if found is None:
        return frozenset()
    optional = onnx.defs.OpSchema.FormalParameterOption.Optional
    return frozenset(i for i, output in enumerate(found.outputs) if output.option == optional)
