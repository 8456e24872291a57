"""What the compiler knows of operators beside their shapes: one table, read by everybody."""

from __future__ import annotations

import functools

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
