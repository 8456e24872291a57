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

from dataclasses import dataclass
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

UINT8, INT8 = AffineGrid.of(8, signed=False), AffineGrid.of(8, signed=True)


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
