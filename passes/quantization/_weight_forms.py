"""Integers written into a graph in the place of a weight; see ``_weight_formats`` for the forms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from onnx import helper

from graphopt.ir.graph import Constant, Node
from graphopt.ir.surgery import Scope, insert, new_constant, new_tensor, redirect, users

from ._weight_integers import Integers
from ._weight_places import Layout


@dataclass(frozen=True)
class Chain:
    """Nodes that compute a tensor in the place of a weight.

    Attributes:
        weight: the weight.
        near: a node that reads the tensor.
        target: the tensor.
    """

    weight: Constant
    near: Node
    target: gs.Tensor

    @classmethod
    def before(cls, weight: Constant, what: str = "scaled") -> Chain:
        """Let the readers of a weight read a new tensor, named by this, still to be computed."""
        near = users(weight)[0]
        scope = near.graph
        assert scope is not None
        target = new_tensor(scope, f"{weight.name}_{what}")
        redirect(weight, target)
        return cls(weight, near, target)

    def constant(self, what: str, values: np.ndarray) -> Constant:
        """A constant."""
        return new_constant(self._scope, f"{self.weight.name}_{what}", values)

    def add(
        self, op: str, inputs: Sequence[gs.Tensor], attrs: dict[str, Any] | None = None
    ) -> gs.Tensor:
        """A node; what it computes."""
        made = new_tensor(self._scope, f"{self.weight.name}_{op.lower()}")
        insert(self.near, op, inputs, [made], attrs, name=f"{self.weight.name}/{op}")
        return made

    def floats(self, what: str, values: np.ndarray) -> gs.Tensor:
        """A constant of another type, cast to the weight's; one of the weight's type as it is."""
        held = self.constant(what, values)
        return held if values.dtype == self.weight.dtype else self.cast(held)

    def cast(self, tensor: gs.Tensor, dtype: np.dtype | None = None) -> gs.Tensor:
        """A tensor in another type; None: the weight's."""
        wanted = helper.np_dtype_to_tensor_dtype(dtype or self.weight.dtype)
        return self.add("Cast", [tensor], {"to": wanted})

    def end(
        self, op: str, inputs: Sequence[gs.Tensor], attrs: dict[str, Any] | None = None
    ) -> Node:
        """The node that computes the tensor."""
        return insert(self.near, op, inputs, [self.target], attrs, name=f"{self.weight.name}/{op}")

    @property
    def _scope(self) -> Scope:
        scope = self.near.graph
        assert scope is not None
        return scope


def store(weight: Constant, found: Integers) -> Node:
    """Let everything that reads a weight read integers with scales.

    Args:
        weight: the weight.
        found: it as integers.

    Returns:
        A node that reads it.
    """
    chain = Chain.before(weight)
    if found.format.form == "dequantize":
        _dequantize(chain, found)
    else:
        _fold(chain, found)
    return chain.near


def _dequantize(chain: Chain, found: Integers) -> None:
    layout, dtype = found.format.layout, found.format.integers
    inputs = [chain.constant(dtype.name, found.steps.astype(dtype))]
    parts = {"scale": found.scale}
    if not found.format.signed:
        parts["zero_point"] = found.zero_point.astype(dtype)
    for what, part in parts.items():
        inputs.append(chain.constant(what, np.squeeze(part, layout.shared)))
    if layout.axis is None:
        chain.end("DequantizeLinear", inputs, {"axis": layout.channels[0]})
    else:
        attrs = {"axis": layout.axis, "block_size": layout.block}
        chain.end("DequantizeLinear", inputs, attrs)


def _fold(chain: Chain, found: Integers) -> None:
    layout, dtype = found.format.layout, found.format.integers
    value = chain.floats(dtype.name, layout.cut(found.steps).astype(dtype))
    if not found.format.signed:
        zero = chain.floats("zero_point", found.zero_point.astype(dtype))
        value = chain.add("Sub", [value, zero])
    factors = [value, chain.floats("scale", found.scale)]
    if layout.axis is None:
        chain.end("Mul", factors)
    else:
        _join(chain, chain.add("Mul", factors), layout)


def _join(chain: Chain, cut: gs.Tensor, layout: Layout) -> None:
    """Bring what is cut into blocks into the weight's shape."""
    shape = chain.constant("shape", np.array(layout.padded, np.int64))
    if not layout.filled:
        chain.end("Reshape", [cut, shape])
        return
    assert layout.axis is not None
    whole = chain.add("Reshape", [cut, shape])
    ends = {"start": 0, "end": layout.shape[layout.axis], "axis": layout.axis}
    chain.end(
        "Slice",
        [whole, *(chain.constant(what, np.array([n], np.int64)) for what, n in ends.items())],
    )
