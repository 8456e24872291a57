"""Rounding what a node reads to integers of few bits, as QuantizeLinear and DequantizeLinear would.

    x' = s clip(round(x / s), low - z, high - z)

written with operators of floats, so that any number of bits will do. The grid is affine, with one scale for a
tensor; its range comes from the calibration data (``numerics.ranges``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.graph import Constant, Node
from graphopt.ir.inference import Facts
from graphopt.ir.model import Model
from graphopt.ir.surgery import insert, new_constant, new_tensor, tidy
from graphopt.layers import origin
from graphopt.numerics import ranges
from graphopt.numerics.grids import AffineGrid
from graphopt.numerics.streaming import Histogram, HistogramSpec
from graphopt.runtime.observer import Observer
from graphopt.runtime.observing import Request

OPSET = 13
"""Of models whose activations are rounded: Round is there from 11 on, a Clip of this form from 12 on."""

BINS = 2048
"""Of a histogram of an activation."""


def read_activations(node: Node, facts: Facts) -> list[str]:
    """The names of the floats that a node reads and that depend on the inputs of the model, each once."""
    found: dict[str, None] = {}
    for tensor in node.inputs:
        dtype = facts.dtype(tensor) if tensor.name else None
        if dtype is None or dtype.name != "float32" or isinstance(tensor, Constant):
            continue
        if not origin(tensor)[1]:
            found[str(tensor.name)] = None
    return list(found)


@dataclass(frozen=True)
class Calibration:
    """What was seen of activations.

    Attributes:
        histograms: by name.
        unknown: why there is none, by name.
        method: how ranges are chosen.
    """

    histograms: Mapping[str, Histogram]
    unknown: Mapping[str, str]
    method: ranges.Method

    @classmethod
    def of(
        cls, model: Model, names: Sequence[str], observe: Observer, method: ranges.Method
    ) -> Calibration:
        """Look at activations of a model.

        Raises:
            NativeError: the model does not run on the data.
        """
        asked = {name: Request(name, HistogramSpec(BINS)) for name in dict.fromkeys(names)}
        answers = observe(model, list(asked.values()))
        found: dict[str, Histogram] = {}
        unknown: dict[str, str] = {}
        for name, request in asked.items():
            value = answers[request].value
            if value is None:
                unknown[name] = answers[request].why
            elif value.rejected or not value.count:
                unknown[name] = "the data makes it NaN, infinite or empty"
            else:
                found[name] = value
        return cls(found, unknown, method)

    def objections(self, names: Sequence[str]) -> Iterator[str]:
        """Why some activations cannot be rounded."""
        yield from (f"{name!r}: {self.unknown[name]}" for name in names if name in self.unknown)

    def rounded(self, model: Model, uid: int, names: Sequence[str], bits: int) -> Model:
        """A copy of a model of which one node reads rounded numbers.

        Args:
            model: not changed.
            uid: the number of the node.
            names: the activations that it reads; all were seen.
            bits: that they are rounded to.
        """
        copy = model.copy()
        node = next(entry for entry in copy.graph.nodes if entry.uid == uid)
        read = {tensor.name: tensor for tensor in node.inputs}
        made = {name: self._rounded(node, read[name], bits) for name in names}
        node.inputs = [made.get(tensor.name, tensor) for tensor in node.inputs]
        tidy(copy.graph)
        return copy

    def _rounded(self, node: Node, tensor: gs.Tensor, bits: int) -> gs.Tensor:
        """A tensor, rounded in front of a node."""
        graph = node.graph
        assert graph is not None
        grid = AffineGrid.of(bits, signed=False)
        range_ = ranges.chosen(self.histograms[tensor.name], self.method, grid, symmetric=False)
        low, high = min(range_.minimum, 0.0), max(range_.maximum, 0.0)
        scale, zero = grid.parameters(low, high)
        ends = [np.asarray(end - zero, np.float32) for end in (grid.low, grid.high)]
        step, *limits = (new_constant(graph, "grid", np.asarray(v)) for v in (scale, *ends))
        for op, more in (("Div", [step]), ("Round", []), ("Clip", limits), ("Mul", [step])):
            result = new_tensor(graph, f"{tensor.name}/{op}")
            insert(node, op, [tensor, *more], [result])
            tensor = result
        return tensor
