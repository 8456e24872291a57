"""How integers stand in a file in the place of a weight.

foldable    Mul(Cast(Q), s), or Mul(Sub(Cast(Q), Cast(z)), s), and a Reshape behind where s belongs to blocks.
            A runtime computes it once, when it loads the model, and then has the weight as floats.
dequantize  DequantizeLinear(Q, s, z). ONNX Runtime's CPU kernels take it into a product of a matrix that
            stays in few bits (MatMulNBits), and compute any other one in every run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import ml_dtypes
import numpy as np
import onnx_graphsurgeon as gs
from onnx import helper

from graphopt.ir.graph import Constant, Node
from graphopt.ir.surgery import Scope, insert, new_constant, new_tensor, redirect, users

from ._weight_integers import Integers
from ._weight_places import Layout, Place

Form = Literal["foldable", "dequantize"]

TYPES = {
    (2, True): np.dtype(ml_dtypes.int2),
    (2, False): np.dtype(ml_dtypes.uint2),
    (4, True): np.dtype(ml_dtypes.int4),
    (4, False): np.dtype(ml_dtypes.uint4),
    (8, True): np.dtype(np.int8),
    (8, False): np.dtype(np.uint8),
}
"""By bits and whether they have a sign."""

OPSETS = {2: 25, 4: 21, 8: 7}
"""The first operator set with integers of so many bits, and with a Mul that broadcasts."""

SLICE_OPSET = 10
"""The first with a Slice that takes its ends as inputs."""

DEQUANTIZE_OPSETS = {"channels": 13, "float16": 19, "blocks": 21}
"""The first with a DequantizeLinear that has scales of channels, of half precision, of blocks."""


def form_of(place: Place, wanted: Form) -> Form:
    """The form that a weight gets: DequantizeLinear only where a kernel takes it in."""
    plain = place.weight.dtype.name in ("float16", "float32") and len(place.weight.shape) == 2
    product = place.reader.op == "MatMul" or (
        place.reader.op == "Gemm" and not place.reader.attrs.get("transB", 0)
    )
    return wanted if plain and product and place.index == 1 else "foldable"


def opset_of(place: Place, layout: Layout, bits: int, form: Form) -> int:
    """The operator set that a form needs."""
    needed = [OPSETS[bits]]
    if form == "dequantize":
        needed += [DEQUANTIZE_OPSETS["blocks" if layout.axis is not None else "channels"]]
        needed += [DEQUANTIZE_OPSETS.get(place.weight.dtype.name, 0)]
    elif layout.filled:
        needed += [SLICE_OPSET]
    return max(needed)


def stored_bytes(place: Place, layout: Layout, bits: int, symmetric: bool) -> int:
    """What integers, scales and zero points take."""
    elements = int(np.prod(layout.padded, dtype=np.int64))
    scales = layout.scales
    zeros = 0 if symmetric else -(-scales * bits // 8)
    return -(-elements * bits // 8) + scales * int(place.weight.dtype.itemsize) + zeros


def store(place: Place, found: Integers, bits: int, form: Form) -> Node:
    """Let everything that reads a weight read integers with scales.

    Returns:
        The first of the readers.
    """
    weight = place.weight
    chain = Chain.before(weight)
    signed = found.grid.low < 0
    dtype, layout = TYPES[bits, signed], found.layout
    zero = None if signed else found.zero_point.astype(dtype)
    if form == "dequantize":
        inputs = [chain.constant(f"{dtype.name}", found.steps.astype(dtype))]
        for what, part in (("scale", found.scale), ("zero", zero)):
            if part is not None:
                inputs.append(chain.constant(what, _parameters(part, layout)))
        attrs = {"axis": layout.axis, "block_size": layout.block}
        if layout.axis is None:
            attrs = {"axis": layout.channels[0]}
        chain.end("DequantizeLinear", inputs, attrs)
        return chain.near
    floats = {"to": helper.np_dtype_to_tensor_dtype(weight.dtype)}
    steps = chain.constant(dtype.name, layout.cut(found.steps).astype(dtype))
    value = chain.add("Cast", [steps], floats)
    if zero is not None:
        value = chain.add("Sub", [value, chain.add("Cast", [chain.constant("zero", zero)], floats)])
    _joined(chain, "Mul", [value, chain.constant("scale", found.scale)], layout)
    return chain.near


def _parameters(values: np.ndarray, layout: Layout) -> np.ndarray:
    """Scales as DequantizeLinear takes them."""
    return np.squeeze(values, layout.shared) if layout.axis is not None else values.reshape(-1)


def _joined(chain: Chain, op: str, inputs: Sequence[gs.Tensor], layout: Layout) -> None:
    """End with an operator whose output is cut into blocks, and bring it into the weight's shape."""
    if layout.axis is None:
        chain.end(op, inputs)
        return
    cut = chain.add(op, inputs)
    shape = chain.constant("shape", np.array(layout.padded, np.int64))
    if not layout.filled:
        chain.end("Reshape", [cut, shape])
        return
    whole = chain.add("Reshape", [cut, shape])
    ends = [
        chain.constant(what, np.array([number], np.int64))
        for what, number in (
            ("start", 0),
            ("end", layout.shape[layout.axis]),
            ("axis", layout.axis),
        )
    ]
    chain.end("Slice", [whole, *ends])


@dataclass(frozen=True)
class Chain:
    """Nodes that compute a tensor in the place of a weight.

    Attributes:
        weight: the weight.
        near: the first of its readers.
        target: the tensor.
    """

    weight: Constant
    near: Node
    target: gs.Tensor

    @classmethod
    def before(cls, weight: Constant) -> Chain:
        """Let the readers of a weight read a new tensor, still to be computed."""
        near = users(weight)[0]
        scope = near.graph
        assert scope is not None
        target = new_tensor(scope, f"{weight.name}_scaled")
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

    def end(
        self, op: str, inputs: Sequence[gs.Tensor], attrs: dict[str, Any] | None = None
    ) -> None:
        """The node that computes the tensor."""
        insert(self.near, op, inputs, [self.target], attrs, name=f"{self.weight.name}/{op}")

    @property
    def _scope(self) -> Scope:
        scope = self.near.graph
        assert scope is not None
        return scope
