"""Whether tensors have one shape whatever the sizes of the inputs.

Dimensions of the model's inputs that are declared by one name have one size (ONNX IR specification, "static
tensor shapes"). On that, dimensions are compared by their values at random sizes: polynomials that agree at
random points are the same (Schwartz, "Fast probabilistic algorithms for verification of polynomial
identities", 1980). Sizes of all magnitudes are drawn, so that minima, maxima and quotients tell too.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.graph import Graph
from graphopt.ir.inference import Facts
from graphopt.numerics.dims import Dim, Expr, evaluate, symbols

POINTS = 24
"""Sizes that are drawn for each name."""

LARGEST = 20.0
"""Sizes are drawn below two to the power of this."""

Key = tuple[str, tuple[object, ...]]
"""The same for tensors of floats of one type and shape."""


class Shapes:
    """The shapes of the tensors of a main graph.

    Args:
        graph: the graph.
        facts: what is proven of its tensors.
    """

    def __init__(self, graph: Graph, facts: Facts) -> None:
        self.facts = facts
        rng = np.random.default_rng(0)
        drawn: dict[str, list[int]] = {}
        named: dict[str, list[int]] = {}
        for tensor in graph.inputs:
            declared = tensor.shape or ()
            for axis, dim in enumerate(facts.shape(tensor) or ()):
                if not isinstance(dim, Expr):
                    continue
                name = declared[axis] if axis < len(declared) else None
                label = name if isinstance(name, str) and name else repr(dim)
                if label not in drawn:
                    drawn[label] = (2 ** rng.uniform(0, LARGEST, POINTS)).astype(int).tolist()
                named.update(dict.fromkeys(symbols(dim), drawn[label]))
        self._points = [{s: sizes[i] for s, sizes in named.items()} for i in range(POINTS)]
        self._seen: dict[Expr, object] = {}

    def key(self, tensor: gs.Tensor) -> Key | None:
        """What two tensors share if they have one type and shape; None where either is not known.

        Tensors that hold no floats have none.
        """
        dtype, shape = self.facts.dtype(tensor), self.facts.shape(tensor)
        if dtype is None or dtype.kind != "f" or shape is None:
            return None
        return dtype.name, tuple(map(self._dim, shape))

    def _dim(self, dim: Dim) -> object:
        if not isinstance(dim, Expr):
            return dim
        if dim not in self._seen:
            try:
                self._seen[dim] = tuple(evaluate(dim, point) for point in self._points)
            except (KeyError, ZeroDivisionError):
                self._seen[dim] = dim
        return self._seen[dim]
