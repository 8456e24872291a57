"""What the kernels of a target want of a quantized model: types, grids, and which operators run on integers.

    ort-cpu     activations uint8 affine, weights int8 symmetric per channel, bias int32 (s_x s_w), and a
                quantized output: the pattern that ONNX Runtime turns into QLinearConv, QLinearAdd, ...
    tensorrt    int8 symmetric throughout, weights per channel, floating-point bias, only what is multiplied
                is quantized: explicit quantization of TensorRT, and of ONNX Runtime's CUDA provider
    openvino    as ort-cpu, but the bias stays a float: OpenVINO's fake quantization
    qnn         uint8 affine activations, int8 symmetric weights, bias int32: Qualcomm's HTP backend

Source: ONNX Runtime's and TensorRT's documentation of quantization; the operators of ``ort-cpu`` are those
that ONNX Runtime 1.31 has selectors for, checked by what it runs (see ``timing``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from graphopt.numerics.grids import AffineGrid

TargetName = Literal["ort-cpu", "tensorrt", "openvino", "qnn"]

LINEAR = ("Conv", "Gemm", "MatMul")
ARITHMETIC = ("Add", "Mul", "AveragePool", "GlobalAveragePool", "Concat", "Sigmoid", "LeakyRelu")
MOVEMENT = (
    "Expand",
    "Flatten",
    "Gather",
    "MaxPool",
    "Reshape",
    "Resize",
    "Slice",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)

Activations = Literal["auto", "uint8", "int8", "uint16", "int16"]
Weights = Literal["auto", "int8", "uint8"]

UINT8, INT8 = AffineGrid.of(8, signed=False), AffineGrid.of(8, signed=True)

SYMMETRIC = AffineGrid(-127, 127)
"""Of weights: with as many steps on both sides, their sums with activations need no correction."""

OFFSET = 128
"""The zero point of weights that are stored without a sign."""

OPSETS = {1: 13, 2: 21}
"""The first operator set that quantizes to integers of so many bytes, with scales per channel."""


@dataclass(frozen=True)
class Target:
    """A pattern of quantization.

    Attributes:
        name: for users.
        activations: the grid of activations.
        symmetric: whether activations have their zero point in the middle.
        linear: operators that multiply by weights, or two activations with each other.
        arithmetic: operators with scales of their own for inputs and output.
        movement: operators that only move or choose elements; input and output share one scale.
        integer_bias: whether the bias is stored as int32.
        quantizes_output: whether what a linear operator computes is quantized, and not only what it reads.
        timed: whether the machine at hand can say what pays.
        weights: the grid of weights, symmetric.
        unsigned_weights: whether weights are stored without a sign, ``OFFSET`` being 0.
        per_channel: whether each output channel of weights has a scale of its own.
    """

    name: TargetName
    activations: AffineGrid = UINT8
    symmetric: bool = False
    linear: tuple[str, ...] = LINEAR
    arithmetic: tuple[str, ...] = ARITHMETIC
    movement: tuple[str, ...] = MOVEMENT
    integer_bias: bool = True
    quantizes_output: bool = True
    timed: bool = False
    weights: AffineGrid = SYMMETRIC
    unsigned_weights: bool = False
    per_channel: bool = True

    @property
    def opset(self) -> int:
        """The operator set that its types need."""
        return OPSETS[self.activations.dtype.itemsize]

    def of_types(
        self, activations: Activations, weights: Weights, reduced: bool, per_channel: bool
    ) -> Target:
        """The same with other types.

        Args:
            activations: the type of activations; ``auto``: as it is. Integers with a sign and 16 bits are
                symmetric.
            weights: the type of weights.
            reduced: whether weights leave out a bit, for kernels that add pairs of products in 16 bits.
            per_channel: whether each output channel has a scale.
        """
        grid, symmetric = self.activations, self.symmetric
        if activations != "auto":
            signed, bits = not activations.startswith("u"), int(activations.partition("int")[2])
            grid = AffineGrid.of(bits, signed)
            symmetric = self.symmetric or (signed and bits > 8)
        return replace(
            self,
            activations=grid,
            symmetric=symmetric,
            weights=AffineGrid(-63, 63) if reduced else self.weights,
            unsigned_weights=weights == "uint8",
            per_channel=per_channel,
        )


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("ort-cpu", timed=True),
        Target(
            "tensorrt",
            INT8,
            symmetric=True,
            linear=(*LINEAR, "ConvTranspose"),
            arithmetic=(),
            movement=(),
            integer_bias=False,
            quantizes_output=False,
        ),
        Target("openvino", linear=(*LINEAR, "ConvTranspose"), integer_bias=False),
        Target("qnn", linear=(*LINEAR, "ConvTranspose")),
    )
}
