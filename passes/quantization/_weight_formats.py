"""In what a weight is stored: integers of which type, scales of which type, and what that takes and needs.

foldable    Mul(Cast(Q), s), or Mul(Sub(Cast(Q), Cast(z)), s), and a Reshape behind where s belongs to blocks.
            A runtime computes it once, when it loads the model, and then has the weight as floats. Scales of
            blocks are of half precision, and cast too.
dequantize  DequantizeLinear(Q, s, z). ONNX Runtime's CPU kernels take it into a product of a matrix that
            stays in few bits (MatMulNBits), and compute any other one in every run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import ml_dtypes
import numpy as np

from graphopt.ir.graph import Node
from graphopt.numerics.grids import AffineGrid

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
"""By bits and whether there is a sign."""

OPSETS = {2: 25, 4: 21, 8: 7}
"""The first operator set with integers of so many bits, and with a Mul that broadcasts."""

SLICE_OPSET = 10
"""The first with a Slice that takes its ends as inputs."""

DEQUANTIZE_OPSETS = {"channels": 13, "float16": 19, "blocks": 21}
"""The first with a DequantizeLinear that has scales of channels, of half precision, of blocks."""


@dataclass(frozen=True)
class Format:
    """In what a weight is stored.

    Args:
        layout: which elements share a scale.
        floats: the type that the weight is computed with.
        bits: of an integer.
        signed: whether integers have a sign; the zero point is 0 then.
        form: how they stand in the file.
    """

    layout: Layout
    floats: np.dtype
    bits: int
    signed: bool
    form: Form

    @classmethod
    def of(
        cls, place: Place, bits: int, block: int, symmetric: bool | None, wanted: Form
    ) -> Format:
        """That of a weight.

        Args:
            place: the weight.
            bits: of an integer.
            block: elements that share a scale, where the weight can be cut; 0: all of a channel.
            symmetric: whether the zero point is 0; None: where it is not cut.
            wanted: DequantizeLinear is only written where a kernel takes it in.
        """
        weight, layout = place.weight, place.layout(block)
        plain = weight.dtype.name in ("float16", "float32") and len(weight.shape) == 2
        taken = plain and place.index == 1 and _is_plain_product(place.reader)
        form = wanted if taken else "foldable"
        signed = layout.axis is None if symmetric is None else symmetric
        return cls(layout, weight.dtype, bits, signed, form)

    @property
    def grid(self) -> AffineGrid:
        """The integers."""
        return AffineGrid.of(self.bits, self.signed)

    @property
    def integers(self) -> np.dtype[Any]:
        """Their type."""
        found: np.dtype[Any] = TYPES[self.bits, self.signed]
        return found

    @property
    def scales(self) -> np.dtype:
        """The type that scales are stored in, where it can express them."""
        blocks = self.layout.axis is not None and self.form == "foldable"
        return np.dtype(np.float16) if blocks else self.floats

    @property
    def opset(self) -> int:
        """The operator set that it needs."""
        needed = [OPSETS[self.bits]]
        if self.form == "dequantize":
            needed += [DEQUANTIZE_OPSETS["channels" if self.layout.axis is None else "blocks"]]
            needed += [DEQUANTIZE_OPSETS.get(self.floats.name, 0)]
        elif self.layout.filled:
            needed += [SLICE_OPSET]
        return max(needed)

    @property
    def nbytes(self) -> int:
        """What integers, scales and zero points take."""
        whole = self.form == "foldable"
        elements = math.prod(self.layout.padded if whole else self.layout.shape)
        scales = self.layout.scales
        zeros = 0 if self.signed else -(-scales * self.bits // 8)
        return -(-elements * self.bits // 8) + scales * self.scales.itemsize + zeros


def _is_plain_product(node: Node) -> bool:
    """Whether a node is a product as kernels for few bits compute it."""
    attrs = node.attrs
    if node.op == "Gemm":
        turned = attrs.get("transA", 0) or attrs.get("transB", 0)
        return not turned and attrs.get("alpha", 1.0) == attrs.get("beta", 1.0) == 1.0
    return str(node.op) == "MatMul"
