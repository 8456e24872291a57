"""Outputs as metrics read them: which one is meant, samples on the first axis, plain numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from graphopt.errors import UsageError, printable
from graphopt.quality.metrics.base import Metric

SHOWN = 8
"""Outputs that an error message lists."""

NARROW_INTEGERS = frozenset({"int8", "uint8", "int16", "uint16"})
"""Integer types of quantized values. The wider ones, and booleans, hold numbers of things."""

T = TypeVar("T")


def is_float(array: np.ndarray) -> bool:
    """Whether the elements are floats, of numpy or of ml_dtypes (bfloat16, float8...)."""
    return array.dtype.kind == "f" or (array.dtype.kind == "V" and "float" in array.dtype.name)


def is_wide_integer(array: np.ndarray) -> bool:
    """Whether the elements are integers that count or number things."""
    return array.dtype.kind in "iu" and array.dtype.name not in NARROW_INTEGERS


def is_score(array: np.ndarray) -> bool:
    """Whether the elements can be scores: floats, or integers that stand for quantized floats."""
    return is_float(array) or array.dtype.name in NARROW_INTEGERS


def is_text(array: np.ndarray) -> bool:
    """Whether the elements are strings."""
    return array.dtype.kind in "OUS"


def as_numbers(array: np.ndarray) -> np.ndarray:
    """The same values in a type of numpy's own: float32 for what numpy lacks, else as it is."""
    lacking = array.dtype.kind == "V" and not array.dtype.name.startswith("void")
    return array.astype(np.float32) if lacking else array


def by_sample(array: np.ndarray, size: int) -> np.ndarray | None:
    """An output with samples on axis 0.

    Args:
        array: the output of one run.
        size: samples in the run.

    Returns:
        The array, where its first axis is the batch; with a first axis added, where one sample was run
        and the whole output is about it; else None.
    """
    if array.ndim and array.shape[0] == size:
        return array
    return array[np.newaxis] if size == 1 else None


def tensors(outputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The outputs that are tensors, not sequences, maps or absent."""
    return {name: array for name, array in outputs.items() if isinstance(array, np.ndarray)}


def shown(array: Any) -> str:
    """Type and shape for people, as in ``float32[8,10]``."""
    if not isinstance(array, np.ndarray):
        return "(no tensor)"
    kind = "string" if is_text(array) else array.dtype.name
    return f"{kind}[{','.join(map(str, array.shape))}]"


def listed(outputs: Mapping[str, Any]) -> str:
    """Outputs for people, as in ``logits float32[8,10], boxes float32[8,4]``."""
    parts = [f"{printable(name, 80)} {shown(array)}" for name, array in outputs.items()]
    more = [f"{len(parts) - SHOWN} more"] if len(parts) > SHOWN else []
    return ", ".join(parts[:SHOWN] + more) or "none"


def tensor(metric: Metric, outputs: Mapping[str, Any], name: str) -> np.ndarray:
    """The output of a name.

    Raises:
        UsageError: it is not there, or not a tensor.
    """
    found = outputs.get(name)
    if not isinstance(found, np.ndarray):
        raise UsageError(
            f"metric {metric.name}: the output {printable(name)!r} is no tensor",
            f"Outputs: {listed(outputs)}",
        )
    return found


def select(
    metric: Metric,
    outputs: Mapping[str, np.ndarray],
    fit: Callable[[np.ndarray], T | None],
    wanted: str,
) -> tuple[str, T]:
    """The one output that a metric is of.

    Args:
        metric: its ``output`` names one, or is empty: then exactly one must fit.
        outputs: all of them.
        fit: brings an output into the form that the metric wants; None where it is of another form.
        wanted: that form in words.

    Returns:
        The output's name, and what ``fit`` made of it.

    Raises:
        UsageError: none fits, or several do.
    """
    if metric.output:
        array = tensor(metric, outputs, metric.output)
        made = fit(array)
        if made is None:
            raise UsageError(
                f"metric {metric.name} wants {wanted}; the output {printable(metric.output)!r} is "
                f"{shown(array)}",
                f"Outputs: {listed(outputs)}",
            )
        return metric.output, made
    fitting = {name: made for name, a in tensors(outputs).items() if (made := fit(a)) is not None}
    if not fitting:
        raise UsageError(
            f"metric {metric.name} wants {wanted}, and no output is that",
            f"Outputs: {listed(outputs)}",
        )
    if len(fitting) > 1:
        raise UsageError(
            f"metric {metric.name} fits several outputs: "
            f"{listed({name: outputs[name] for name in fitting})}",
            f"Name one, as in {metric.name}@{printable(next(iter(fitting)), 80)}",
        )
    return next(iter(fitting.items()))
