"""Layers y = W x + b with constant W, and their W and b once x or y is scaled and shifted.

    after:   s (W x + b) + t  =  (s W) x + (s b + t)         s, t one number per output channel
    before:  W (s x + t) + b  =  (W s) x + (b + W t)         s, t one number per input channel

Conv, ConvTranspose, Gemm (alpha, beta, transA, transB) and MatMul by a constant on the right are
seen as one array W[group, output, input, tap]. Arithmetic is in float64 and is rounded once.

Refused, with a reason: weights that another node reads too; a result that its element type cannot
hold; constants that would outgrow their budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.graph import Constant, Node
from graphopt.ir.operators import QUANTIZED_STORAGE
from graphopt.ir.surgery import input_or_none, new_constant, producer, replace
from graphopt.pass_base import Context
from graphopt.passes.folding._affine_maps import FLOATS, AffineMap
from graphopt.passes.folding._folded_constants import owned, rounded, spend

CONVOLUTIONS = ("Conv", "ConvTranspose")
PRODUCTS = ("Gemm", "MatMul")

GEMM_TYPES = frozenset({"float16", "float32", "float64"})
"""Element types that runtimes have both MatMul and Gemm for."""

SHARED = "its weights are shared with another node"
SLICES = ((2, 3), (1, 3))
"""Axes of a ``view`` to look at together: all that makes one output, all that reads one input."""


@dataclass(frozen=True)
class LinearLayer:
    """A node with constant weights.

    Attributes:
        node: the node.
        weight: its weights.
        bias: what it adds, as float64 and with Gemm's beta applied; None for nothing.
        known_bias: whether ``bias`` is all that it adds; False for a bias computed at run time.
        groups: of a convolution; else 1.
    """

    node: Node
    weight: Constant
    bias: np.ndarray | None
    known_bias: bool
    groups: int = 1

    @property
    def is_convolution(self) -> bool:
        """Whether the channels lie on axis 1; otherwise they lie on the last axis."""
        return self.node.op in CONVOLUTIONS

    @property
    def view(self) -> np.ndarray:
        """The weights as float64 [group, output, input, tap]."""
        values = self.weight.values.astype(np.float64)
        if self.node.op == "MatMul":
            return np.moveaxis(values.reshape(1, -1, *values.shape[-2:]), 1, 3).swapaxes(1, 2)
        if self.node.op == "Gemm":
            return (values if self.node.attrs.get("transB", 0) else values.T)[None, :, :, None]
        rows, columns = values.shape[:2]
        grouped = values.reshape(self.groups, rows // self.groups, columns, -1)
        return grouped if self.node.op == "Conv" else grouped.swapaxes(1, 2)

    def stored(self, view: np.ndarray) -> np.ndarray:
        """The inverse of ``view``, in the layout of the node."""
        if self.node.op == "MatMul":
            values = np.moveaxis(view.swapaxes(1, 2), 3, 1)
        elif self.node.op == "Gemm":
            values = view[0, :, :, 0] if self.node.attrs.get("transB", 0) else view[0, :, :, 0].T
        else:
            values = view if self.node.op == "Conv" else view.swapaxes(1, 2)
        return np.ascontiguousarray(values).reshape(self.weight.shape)

    @property
    def outputs(self) -> int:
        """The number of output channels."""
        shape = self.weight.shape
        if self.node.op == "Gemm":
            return int(shape[0 if self.node.attrs.get("transB", 0) else 1])
        return int(
            {"Conv": shape[0], "ConvTranspose": shape[1] * self.groups}.get(self.node.op, shape[-1])
        )

    @property
    def inputs(self) -> int:
        """The number of input channels."""
        shape = self.weight.shape
        if self.node.op == "Gemm":
            return int(shape[1 if self.node.attrs.get("transB", 0) else 0])
        return int(
            {"Conv": shape[1] * self.groups, "ConvTranspose": shape[0]}.get(self.node.op, shape[-2])
        )

    def output_axis(self, context: Context) -> tuple[int | None, int]:
        """Rank of the output, None when unknown, and the channels' axis."""
        if self.is_convolution:
            return len(self.weight.shape), 1
        rank = 2 if self.node.op == "Gemm" else context.facts.rank(self.node.outputs[0])
        return rank, -1

    def input_axis(self, context: Context) -> tuple[int | None, int]:
        """Rank of the data input, None when unknown, and the channels' axis."""
        if self.is_convolution:
            return len(self.weight.shape), 1
        if self.node.op == "Gemm":
            return 2, (0 if self.node.attrs.get("transA", 0) else -1)
        return context.facts.rank(self.node.inputs[0]), -1

    def after(self, affine: AffineMap) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Weights as a ``view`` (None: as they are) and bias of ``affine(layer(x))``."""
        weight, bias = None, self.bias
        if affine.scale is not None:
            per_output = np.broadcast_to(affine.scale, (self.outputs,))
            weight = self.view * per_output.reshape(self.groups, -1, 1, 1)
            bias = None if bias is None else bias * affine.scale
        return weight, _plus(bias, affine.shift)

    def before(self, affine: AffineMap) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Weights as a ``view`` (None: as they are) and bias of ``layer(affine(x))``.

        A shift is right only where every output is reached by every tap: no padding.
        """
        weight, bias, view = None, self.bias, self.view
        if affine.scale is not None:
            weight = view * self._per_input(affine.scale)
        if affine.shift is not None:
            reached = (view * self._per_input(affine.shift)).sum((2, 3)).reshape(-1)
            if self.node.op == "Gemm":
                reached = reached * float(self.node.attrs.get("alpha", 1.0))
            bias = _plus(bias, reached)
        return weight, bias

    def _per_input(self, values: np.ndarray) -> np.ndarray:
        return np.broadcast_to(values, (self.inputs,)).reshape(self.groups, 1, -1, 1)


def _plus(bias: np.ndarray | None, shift: np.ndarray | None) -> np.ndarray | None:
    if bias is None or shift is None:
        return shift if bias is None else bias
    total: np.ndarray = bias + shift
    return total


def linear_layer(node: Node | None) -> LinearLayer | None:
    """A node as a linear layer; None where it is none or its weights are not constant floats."""
    if node is None or node.dead or not node.standard or node.graph is None:
        return None
    if node.op not in (*CONVOLUTIONS, *PRODUCTS) or len(node.inputs) < 2:
        return None
    if any(isinstance(value, gs.Node.AttributeRef) for value in node.attrs.values()):
        return None
    weight = node.inputs[1]
    if not isinstance(weight, Constant) or weight.dtype.name not in FLOATS or 0 in weight.shape:
        return None
    if isinstance(node.inputs[0], Constant):
        return None
    if node.op == "MatMul":
        return LinearLayer(node, weight, None, True) if len(weight.shape) > 1 else None
    if node.op == "Gemm" and (int(node.graph.opset) < 7 or len(weight.shape) != 2):
        return None
    groups = int(node.attrs.get("group", 1)) if node.op in CONVOLUTIONS else 1
    if node.op in CONVOLUTIONS and (len(weight.shape) < 3 or weight.shape[0] % max(groups, 1)):
        return None
    third = input_or_none(node, 2)
    if third is not None and not isinstance(third, Constant):
        return LinearLayer(node, weight, None, False, groups)
    bias = None if third is None else third.values.astype(np.float64)
    if bias is not None and node.op == "Gemm":
        bias = bias * float(node.attrs.get("beta", 1.0))
    return LinearLayer(node, weight, bias, True, groups)


def multiplies_matrices(node: Node, context: Context) -> bool:
    """Whether a node multiplies two matrices, and Gemm has their type; both may be variable.

    A product of dequantized matrices counts as none: runtimes look for just these operators.
    """
    if not node.standard or any(isinstance(v, gs.Node.AttributeRef) for v in node.attrs.values()):
        return False
    made = [producer(tensor) for tensor in node.inputs[:2]]
    if any(maker is not None and maker.op in QUANTIZED_STORAGE for maker in made):
        return False
    if node.op == "Gemm":
        return int(node.graph.opset) >= 7  # type: ignore[union-attr]
    dtype = context.facts.dtype(node.outputs[0])
    if node.op != "MatMul" or dtype is None or dtype.name not in GEMM_TYPES:
        return False
    return all(context.facts.rank(tensor) == 2 for tensor in node.inputs)


def unpadded(node: Node) -> bool:
    """Whether a convolution certainly adds no padding."""
    if node.attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return False
    return not any(node.attrs.get("pads") or ())


def install(
    layer: LinearLayer,
    context: Context,
    weight: np.ndarray | None,
    bias: np.ndarray | None,
    freed: Sequence[gs.Tensor] = (),
) -> Node | str:
    """Give a layer other weights and another bias.

    Args:
        layer: the layer; a MatMul becomes a Gemm when it gets a bias.
        context: what may be spent.
        weight: a ``view``; None to keep the weights.
        bias: float64; None for none.
        freed: constants that go away with the rewrite if nothing else reads them.

    Returns:
        The layer's node, or why nothing was changed.
    """
    node = layer.node
    if weight is not None and not owned(layer.weight):
        return SHARED
    dtype = layer.weight.dtype
    if bias is not None and layer.is_convolution:
        bias = np.broadcast_to(bias, (layer.outputs,))
    new_weight = None if weight is None else rounded(weight, dtype, SLICES)
    new_bias = None if bias is None else rounded(bias, dtype)
    for made in (new_weight, new_bias):
        if isinstance(made, str):
            return made
    assert not isinstance(new_weight, str)
    assert not isinstance(new_bias, str)
    old_bias = input_or_none(node, 2)
    growth = 0 if new_bias is None else new_bias.nbytes
    going = (*freed, *([] if new_bias is None or old_bias is None else [old_bias]))
    growth -= sum(t.nbytes for t in going if owned(t))
    why = spend(context, growth)
    if why:
        return why
    inputs = list(node.inputs[:2])
    if new_weight is not None:
        base = layer.weight.name.split("/folded")[0] + "/folded"
        values = layer.stored(new_weight)
        inputs[1] = new_constant(node.graph, base, values)  # type: ignore[arg-type]
    return _rewired(node, inputs, new_bias)


def cannot_become(layer: LinearLayer, weight: np.ndarray) -> str:
    """Why a layer cannot have other weights, given as a ``view``; empty where it can."""
    if not owned(layer.weight):
        return SHARED
    values = rounded(weight, layer.weight.dtype, SLICES)
    return values if isinstance(values, str) else ""


def _rewired(node: Node, inputs: list[gs.Tensor], bias: np.ndarray | None) -> Node:
    if bias is None:
        node.inputs = [*inputs, *node.inputs[2:]]
        return node
    base = node.inputs[2].name if input_or_none(node, 2) is not None else f"{node.label}/bias"
    inputs.append(new_constant(node.graph, base, bias))  # type: ignore[arg-type]
    if node.op == "MatMul":
        return replace(node, "Gemm", inputs)
    node.inputs = inputs
    if node.op == "Gemm":
        node.attrs.pop("beta", None)
    return node
