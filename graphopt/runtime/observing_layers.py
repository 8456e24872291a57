"""How the input of a node that multiplies by weights is read as rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_graphsurgeon as gs

from graphopt.ir.graph import Node
from graphopt.numerics.streaming import ConvRows, ConvTransposeRows, FeatureRows, Rows


def rows_of(node: Node, index: int = 0, shape: Sequence[int] | None = None) -> Rows | str:
    """The rows of one input of a Conv, ConvTranspose, Gemm or MatMul.

    Args:
        node: the node.
        index: of the input that is data; the other one holds the weights. For input 1 of Gemm or MatMul the
            layer is read as its transpose: ``y^T = B^T A^T``.
        shape: of the weights, for where they are computed and their tensor does not tell it.

    Returns:
        How to read the input, or why it cannot be read so.
    """
    readers = {"Conv": _conv, "ConvTranspose": _conv_transpose, "Gemm": _gemm, "MatMul": _matmul}
    if not node.standard or node.op not in readers:
        return f"{node.label} is a {node.op}, not a Conv, ConvTranspose, Gemm or MatMul"
    if any(isinstance(value, gs.Node.AttributeRef) for value in node.attrs.values()):
        return f"{node.label} takes attributes from the call of a function"
    if not 0 <= index < min(2, len(node.inputs)):
        return f"{node.label} has no input {index} that holds data"
    try:
        return readers[node.op](node, index, shape)
    except (ValueError, TypeError) as error:
        return f"{node.label}: {error}"


def _gemm(node: Node, index: int, shape: Sequence[int] | None) -> Rows:
    if index == 0:
        return FeatureRows(0 if node.attrs.get("transA", 0) else 1)
    return FeatureRows(1 if node.attrs.get("transB", 0) else 0)


def _matmul(node: Node, index: int, shape: Sequence[int] | None) -> Rows:
    return FeatureRows(-1 if index == 0 else -2)


def _conv(node: Node, index: int, shape: Sequence[int] | None) -> Rows:
    return ConvRows(**_window(node, index, shape))


def _conv_transpose(node: Node, index: int, shape: Sequence[int] | None) -> Rows:
    window = _window(node, index, shape)
    wanted = _ints(node, "output_shape")[-len(window["kernel"]) :]
    return ConvTransposeRows(
        **window, output_padding=_ints(node, "output_padding"), output_shape=wanted
    )


def _window(node: Node, index: int, shape: Sequence[int] | None) -> dict[str, Any]:
    """The arguments of ``ConvRows``.

    Raises:
        ValueError: the input is not the data, or the size of the kernel is not known.
    """
    if index:
        raise ValueError("only the first input of a convolution is read as rows")
    kernel = _ints(node, "kernel_shape")
    if not kernel:
        known = node.inputs[1].shape if shape is None else shape
        if known is None or len(known) < 3 or not all(isinstance(d, int) for d in known[2:]):
            raise ValueError("the size of its kernel is not known")
        kernel = tuple(known[2:])
    return {
        "kernel": kernel,
        "strides": _ints(node, "strides"),
        "pads": _ints(node, "pads"),
        "dilations": _ints(node, "dilations"),
        "auto_pad": str(node.attrs.get("auto_pad") or "NOTSET"),
        "group": int(node.attrs.get("group", 1)),
    }


def _ints(node: Node, name: str) -> tuple[int, ...]:
    return tuple(int(value) for value in node.attrs.get(name, ()))
