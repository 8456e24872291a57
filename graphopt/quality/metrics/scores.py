"""From outputs to predicted classes.

*Scores* of shape ``(samples, classes)``: the class with the highest, the first of them on a tie. *One
column*: class 1 where the number exceeds a threshold, 0.5 for probabilities and 0 for logits; which of
them it is, is told once from the graph (``thresholds``), never from a batch: logits may happen to lie
between 0 and 1. *Numbers of classes*, integers or strings: as they are. A NaN among the scores of a
sample predicts nothing (-1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.errors import UsageError, printable
from graphopt.ir.graph import Constant
from graphopt.ir.model import Model
from graphopt.ir.ranges import MOVING, RANGES, UNIT
from graphopt.ir.surgery import producer
from graphopt.quality.metrics.base import Metric, Observed
from graphopt.quality.metrics.labels import flat, texts
from graphopt.quality.metrics.outputs import (
    as_numbers,
    by_sample,
    is_score,
    is_text,
    is_wide_integer,
    select,
)

WANTED = "scores of classes (samples, classes), one number per sample, or numbers of classes"

NOTHING = -1
"""The prediction where scores are not numbers."""

LINEAR = frozenset({"Gemm", "MatMul", "Conv"})
"""Operators whose results are logits, should they be scores."""

CARRYING = MOVING | {"Cast", "QuantizeLinear", "DequantizeLinear"}
"""Operators that carry a probability on as a probability."""

PROBABILITY = 0.5
"""The threshold of what is a probability."""

MAX_STEPS = 16
"""Nodes that are looked at behind an output."""


def class_scores(array: np.ndarray, size: int) -> np.ndarray | None:
    """Scores of at least two classes per sample, ``(samples, classes)``; None for other outputs.

    Further axes of size 1, as convolutional classifiers leave them, are dropped.
    """
    rows = _rows(array, size)
    if rows is None or not is_score(rows) or rows.shape[1] < 2:
        return None
    return as_numbers(rows)


def classified(array: np.ndarray, size: int) -> np.ndarray | None:
    """An output that tells one class per sample, ``(samples, columns)``; None for other outputs."""
    rows = _rows(array, size)
    if rows is None or rows.shape[1] < 1:
        return None
    if is_score(rows) or (rows.shape[1] == 1 and (is_wide_integer(rows) or is_text(rows))):
        return as_numbers(rows)
    return None


def _rows(array: np.ndarray, size: int) -> np.ndarray | None:
    found = by_sample(array, size)
    if found is None:
        return None
    found = flat(found)
    return found.reshape(len(found), -1) if found.ndim <= 2 and len(found) else None


def highest(scores: np.ndarray) -> np.ndarray:
    """The class of the highest score of each row, the first on a tie; -1 where a score is NaN."""
    best = scores.argmax(axis=-1).astype(np.int64)
    if scores.dtype.kind == "f":
        best[np.isnan(scores).any(axis=-1)] = NOTHING
    return np.asarray(best)


def predictions(
    metric: Metric,
    seen: Observed,
    names: Sequence[str],
    threshold: float | None,
    known: Mapping[str, float],
) -> tuple[np.ndarray, int | None]:
    """The predicted class of each sample.

    Args:
        metric: that asks.
        seen: a batch.
        names: of the classes, for outputs that are strings.
        threshold: of an output of one column, as the user gave it.
        known: thresholds that the graph tells, by output.

    Returns:
        int64 of shape ``(samples,)``, and how many classes there are, None where that is not known.

    Raises:
        UsageError: no output tells classes, several do, or it is not known what one number means.
    """
    name, rows = select(metric, seen.outputs, lambda a: classified(a, seen.size), WANTED)
    if rows.shape[1] > 1:
        _require_names(metric, names, rows.shape[1], name)
        return highest(rows), rows.shape[1]
    column = rows[:, 0]
    if is_text(column):
        return _known(metric, column, names), len(names)
    if is_wide_integer(column):
        return column.astype(np.int64), None
    _require_names(metric, names, 2, name)
    cut = known.get(name) if threshold is None else threshold
    if cut is None:
        raise UsageError(
            f"metric {metric.name}: the output {printable(name)!r} is one number per sample; whether a "
            "probability or a logit, the model does not tell",
            "Give the number above which it means class 1: threshold=0.5 or threshold=0",
        )
    return np.where(np.isnan(column), NOTHING, column > cut).astype(np.int64), 2


def _require_names(metric: Metric, names: Sequence[str], count: int, output: str) -> None:
    if names and len(names) != count:
        raise UsageError(
            f"metric {metric.name}: the list of classes has {len(names)} names, the output "
            f"{printable(output)!r} {count} classes"
        )


def _known(metric: Metric, column: np.ndarray, names: Sequence[str]) -> np.ndarray:
    if not names:
        raise UsageError(
            f"metric {metric.name}: the output holds strings, and the classes are not known",
            "Name them: classes=FILE with one per line, or classes=@KEY of the model's metadata",
        )
    numbers = {name: number for number, name in enumerate(names)}
    return np.array([numbers.get(word, NOTHING) for word in texts(metric.name, column)], np.int64)


def thresholds(model: Model) -> dict[str, float]:
    """By output, the number above which it means class 1, were it one number per sample.

    0.5 behind a Sigmoid or the like, 0 behind a linear operator and its bias; nothing for the rest.
    """
    found = {str(tensor.name): _threshold(tensor) for tensor in model.graph.outputs}
    return {name: cut for name, cut in found.items() if cut is not None}


def _threshold(tensor: gs.Tensor) -> float | None:
    biased = False
    for _ in range(MAX_STEPS):
        node = producer(tensor)
        if node is None or not node.standard:
            return None
        if node.op in LINEAR:
            return 0.0
        if RANGES.get(node.op) == UNIT and not biased:
            return PROBABILITY
        if node.op == "Add":
            summands = [t for t in node.inputs if not isinstance(t, Constant)]
            if len(summands) != 1:
                return None
            tensor, biased = summands[0], True
        elif node.op in CARRYING and node.inputs:
            tensor = node.inputs[0]
        else:
            return None
    return None
