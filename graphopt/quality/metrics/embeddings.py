"""Whether an output is an embedding: a vector whose direction counts, not scores of which the highest wins.

It has the form of scores of classes, ``(samples, features)``. Two things tell it apart:

- all its rows have length 1, and are no probabilities;
- the graph computes it by a normalization or Tanh with no layer behind it, only pooling and arithmetic, where
  a classifier ends in a Gemm, MatMul or Conv.

What a linear layer gives may be either; it counts as scores.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.graph import Node
from graphopt.ir.model import Model
from graphopt.ir.ranges import MOVING
from graphopt.ir.surgery import producer
from graphopt.quality.metrics.kl import are_probabilities
from graphopt.quality.metrics.scores import LINEAR, MAX_STEPS

NORMALIZING = frozenset(
    {
        "LayerNormalization",
        "LpNormalization",
        "RMSNormalization",
        "SimplifiedLayerNormalization",
        "SkipLayerNormalization",
        "SkipSimplifiedLayerNormalization",
        "Tanh",
    }
)
"""Operators whose results are no scores."""

LENGTHS = frozenset({"Sqrt", "ReduceL2"})
"""What a vector is divided by when it is normalized."""

PASSED = (
    MOVING
    | LENGTHS
    | {"Add", "Cast", "Clip", "Div", "Max", "Mul", "Sub"}
    | {"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"}
    | {"ReduceMax", "ReduceMean", "ReduceSum"}
)
"""Operators that may stand behind."""

UNIT = 1e-3
"""How far from 1 the length of a row of length 1 may be."""


def is_embedding(model: Model, name: str, rows: np.ndarray) -> bool:
    """Whether an output is an embedding.

    Args:
        model: whose output it is.
        name: of the output.
        rows: what it gave, ``(samples, features)``.
    """
    if are_probabilities(rows):
        return False
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
    if (np.abs(lengths - 1) <= UNIT).all():
        return True
    return any(_normalized(t) for t in model.graph.outputs if t.name == name)


def _normalized(tensor: gs.Tensor) -> bool:
    """Whether a tensor comes from a normalization before a layer is met."""
    waiting, seen = [tensor], set[int]()
    while waiting and len(seen) < MAX_STEPS:
        node = producer(waiting.pop(0))
        if node is None or id(node) in seen or node.op in LINEAR:
            continue
        seen.add(id(node))
        if node.op in NORMALIZING or (node.op == "Div" and _is_length(node)):
            return True
        if node.op in PASSED:
            waiting += node.inputs
    return False


def _is_length(division: Node) -> bool:
    """Whether what a Div divides by is a root."""
    tensor = division.inputs[1]
    for _ in range(MAX_STEPS):
        node = producer(tensor)
        if node is None or node.op not in PASSED | {"Expand"}:
            return False
        if node.op in LENGTHS:
            return True
        tensor = node.inputs[0]
    return False
