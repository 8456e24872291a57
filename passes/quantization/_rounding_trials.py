"""What rounding a tensor and the weights that read it loses at what they compute, measured on the data.

    loss = mean over readers of  sum_o q_o E (y'_o - y_o)^2 / sum_o q_o Var y_o

y_o is an output of a layer, q_o its importance, y' what the layer gives with its input on a grid of 8 bits
for the whole tensor and its weights on one of 8 bits for each output. All trials are computed beside each
other in one model, on the data; the model's own operators run on floats. A grid that ends within the range
clips what lies beyond, and may lose less: of ``PARTS`` of the range the best counts, as a search for ranges
would find it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.errors import NativeError
from graphopt.ir.graph import Node
from graphopt.ir.model import Model
from graphopt.ir.operators import weight_channels
from graphopt.ir.surgery import insert, new_constant, new_tensor, tidy
from graphopt.numerics.streaming import Moments, MomentsSpec
from graphopt.pass_base import Observe
from graphopt.runtime.observing import Request

from ..folding._linear_layers import CONVOLUTIONS
from ._qdq.losses import SAMPLES
from ._qdq.targets import SYMMETRIC, UINT8
from ._qdq.weights import rounded

OPSET = 10
"""The first with QuantizeLinear."""

PARTS = (1.0, 0.7, 0.5)
"""Of a range, that are tried."""

NODES = 4000
"""Nodes of a model beyond which no further trial is put into it."""


@dataclass(frozen=True, eq=False)
class Trial:
    """One tensor on a grid, with the weights that read it.

    Attributes:
        readers: layers that read the tensor first, as nodes of the model.
        axis: of the tensor's channels, from the end.
        factors: by which its channels are multiplied before they are rounded; None for nothing.
        weights: of each reader, as they are multiplied with that, in the shape that they are stored in.
        ends: of the range of what is rounded.
        importance: of each reader, by what squared errors of its outputs count; None for alike.
        whole: whether the readers then give what they gave before. Otherwise what is rounded is compared
            with the same that is not.
    """

    readers: tuple[Node, ...]
    axis: int
    factors: np.ndarray | None
    weights: tuple[np.ndarray, ...]
    ends: tuple[float, float]
    importance: tuple[np.ndarray | None, ...]
    whole: bool = True


def measured_losses(model: Model, trials: Sequence[Trial], observe: Observe) -> list[float]:
    """What each of some trials loses; infinite where it cannot be measured.

    Args:
        model: that the trials' nodes are of; not changed.
        trials: any number.
        observe: gives statistics of tensors.
    """
    found: list[float] = []
    bench, few = _Bench(model.copy()), observe.first(SAMPLES)
    for trial in trials:
        if len(bench.model.graph.nodes) > NODES and bench.tests:
            found += bench.losses(few)
            bench = _Bench(model.copy())
        bench.add(trial)
    return found + bench.losses(few)


class _Bench:
    """A copy of a model in which trials are computed, too."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.nodes = {node.uid: node for node in model.graph.nodes}
        self.tests: list[list[list[_Test]]] = []  # by trial, part and reader

    def add(self, trial: Trial) -> None:
        """Put a trial beside what the model computes."""
        readers = [self.nodes[node.uid] for node in trial.readers]
        source = readers[0].inputs[0]
        if trial.factors is not None:
            shape = (-1, *[1] * (-trial.axis - 1))
            held = self._constant(trial.factors.astype(np.float32).reshape(shape))
            source = self._compute(readers[0], "Mul", [source, held])
        weights = [
            (self._constant(values), self._constant(_on_grid(node, values)))
            for node, values in zip(readers, trial.weights, strict=True)
        ]
        plain = [
            node.outputs[0] if trial.whole else self._again(node, source, exact)
            for node, (exact, _) in zip(readers, weights, strict=True)
        ]
        found = []
        for part in PARTS:
            grid = self._rounded(readers[0], source, [end * part for end in trial.ends])
            tests = []
            for node, (_, steps), right, counts in zip(
                readers, weights, plain, trial.importance, strict=True
            ):
                wrong = self._again(node, grid, steps)
                gap = self._compute(node, "Sub", [wrong, right])
                spec = MomentsSpec(1 if node.op in CONVOLUTIONS else -1)
                pair = Request(gap.name, spec), Request(node.outputs[0].name, spec)
                tests.append(_Test(*pair, counts))
            found.append(tests)
        self.tests.append(found)

    def _rounded(self, near: Node, tensor: gs.Tensor, ends: Sequence[float]) -> gs.Tensor:
        scale, zero = UINT8.parameters(ends[0], ends[1])
        held = [self._constant(scale), self._constant(zero.astype(np.uint8))]
        steps = self._compute(near, "QuantizeLinear", [tensor, *held])
        return self._compute(near, "DequantizeLinear", [steps, *held])

    def _again(self, node: Node, tensor: gs.Tensor, weight: gs.Tensor) -> gs.Tensor:
        inputs = [tensor, weight, *node.inputs[2:]]
        return self._compute(node, node.op, inputs, dict(node.attrs))

    def _compute(
        self,
        near: Node,
        op: str,
        inputs: Sequence[gs.Tensor],
        attrs: dict[str, object] | None = None,
    ) -> gs.Tensor:
        made = new_tensor(self.model.graph, f"{near.label}/trial")
        insert(near, op, inputs, [made], attrs).order += 0.5
        return made

    def _constant(self, values: np.ndarray) -> gs.Tensor:
        return new_constant(self.model.graph, "trial", values)

    def losses(self, observe: Observe) -> list[float]:
        """What the trials lose."""
        tidy(self.model.graph)
        every = [test for trial in self.tests for part in trial for test in part]
        asked = list(dict.fromkeys(request for test in every for request in (test.gap, test.whole)))
        if not asked:
            return []
        try:
            answers = observe(self.model, asked)
        except NativeError:
            return [math.inf] * len(self.tests)
        return [
            min(float(np.mean([test.share(answers) for test in part])) for part in trial)
            for trial in self.tests
        ]


@dataclass(frozen=True, eq=False)
class _Test:
    """What is asked of one reader.

    Attributes:
        gap: moments of the error of each output.
        whole: moments of the outputs.
        importance: by what their squared errors count; None for alike.
    """

    gap: Request[Moments]
    whole: Request[Moments]
    importance: np.ndarray | None

    def share(self, answers: Mapping[Any, Any]) -> float:
        """The error as a share of the variance; infinite where it is not known."""
        gap, whole = answers[self.gap].value, answers[self.whole].value
        if gap is None or whole is None or gap.rejected.any():
            return math.inf
        counts = 1.0 if self.importance is None else self.importance
        error = float((counts * gap.second).sum())
        spread = float((counts * whole.variance).sum())
        found = error / spread if spread > 0 else (math.inf if error else 0.0)
        return found if math.isfinite(found) else math.inf


def _on_grid(node: Node, values: np.ndarray) -> np.ndarray:
    """Weights rounded to 8 bits with a scale for each output."""
    axes = weight_channels(node.op, 1, node.attrs, values.ndim)
    found = rounded(values, axes[0], SYMMETRIC)
    shape = [1] * values.ndim
    shape[axes[0]] = -1
    return np.asarray(found.steps * found.scale.reshape(shape), np.float32)
