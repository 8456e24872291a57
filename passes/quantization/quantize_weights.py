"""Store weights in 8, 4 or 2 bits, to be computed with as floats.

    W  becomes  Mul(Cast(Q), s),   Q = clip(round(W / s)),  s per output channel

A runtime folds the Cast and the Mul when it loads the model, so it computes with float weights as before,
as fast as before and with the same kernels, while the file holds the integers. (ONNX Runtime does so from
its basic optimizations on; a DequantizeLinear in the place of the two would not be folded before a float
operator.) The scale of each output channel is the one of the least squared error.

Each weight tensor is a place. Its levels are the bits asked for and, where those are fewer than 8, 8 bits.

Refuses: an operator set older than the integer type (4 bits: 21, 2 bits: 25); tensors that are not floats
or hold NaN or infinity; those that would not become smaller; those that a graph returns, that have a
default's role among the inputs, or that several scopes read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import ml_dtypes
import numpy as np
from onnx import helper

from graphopt.ir.graph import Constant, Node
from graphopt.ir.operators import WEIGHTS, weight_channels
from graphopt.ir.surgery import discard, insert, new_constant, new_tensor, redirect, users
from graphopt.lossy_pass import Choice, LossyPass
from graphopt.numerics.grids import dequantized, fitted_scale, quantized
from graphopt.pass_base import Context, Edit, Skip

TYPES = {2: np.dtype(ml_dtypes.int2), 4: np.dtype(ml_dtypes.int4), 8: np.dtype(np.int8)}
OPSETS = {2: 25, 4: 21, 8: 6}

Bits = Literal[2, 4, 8]


@dataclass(frozen=True)
class QuantizeWeights(LossyPass):
    """Weights are stored in few bits and computed with as floats."""

    name = "quantize-weights"

    bits: Bits = field(default=8, metadata={"help": "bits that a weight is stored in"})
    smallest: int = field(
        default=256, metadata={"help": "elements of the smallest tensor to look at"}
    )

    def propose(self, context: Context) -> Iterator[Choice | Skip]:
        """See the module's docstring."""
        for name, (weight, axes) in _weights(context, self.smallest).items():
            why = _refusal(weight, context, self.bits)
            if why:
                yield Skip(name, why)
                continue
            values = weight.values.astype(np.float64)
            for bits in dict.fromkeys((self.bits, 8)):
                stored = _stored_bytes(weight, axes, bits)
                if stored >= weight.nbytes:
                    yield Skip(name, f"it would not be smaller in {bits} bits")
                    break
                scale = fitted_scale(values, bits, _others(weight, axes))
                gap = dequantized(quantized(values, scale, bits), scale) - values
                power = float(np.square(values).sum())
                loss = float(np.square(gap).sum()) / power if power else 0.0
                yield Choice(name, bits, f"in {bits} bits", loss, weight.nbytes - stored)

    def commit(self, chosen: Sequence[Choice], context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        weights = _weights(context, self.smallest)
        for choice in chosen:
            weight, axes = weights[choice.where]
            reader = _store(weight, axes, int(choice.level))
            for scope in context.scopes():
                discard(scope, weight)
            yield Edit(reader, f"{choice.where} {choice.what}")


def _weights(context: Context, smallest: int) -> dict[str, tuple[Constant, tuple[int, ...]]]:
    """The weight tensors by name, with the axes of their channels as the first reader sees them."""
    found: dict[str, tuple[Constant, tuple[int, ...]]] = {}
    for scope in context.scopes():
        for node in context.nodes(scope, *WEIGHTS):
            for index in WEIGHTS[node.op]:
                tensor = node.inputs[index] if index < len(node.inputs) else None
                if isinstance(tensor, Constant) and np.prod(tensor.shape) >= smallest:
                    axes = weight_channels(node.op, index, node.attrs, len(tensor.shape))
                    found.setdefault(tensor.name, (tensor, axes))
    return found


def _refusal(weight: Constant, context: Context, bits: int) -> str:
    if weight.dtype.name not in ("float16", "float32", "float64"):
        return f"it is {weight.dtype.name}"
    if context.model.opset < OPSETS[bits]:
        return f"{bits} bits need opset {OPSETS[bits]}, the model has {context.model.opset}"
    if any(weight is output for scope in context.scopes() for output in scope.outputs):
        return "a graph returns it"
    if len({id(user.graph) for user in users(weight)}) > 1:
        return "several scopes read it"
    return "" if np.isfinite(weight.values).all() else "it holds NaN or infinity"


def _others(weight: Constant, axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(axis for axis in range(len(weight.shape)) if axis not in axes)


def _stored_bytes(weight: Constant, axes: tuple[int, ...], bits: int) -> int:
    scales = int(np.prod([weight.shape[axis] for axis in axes], dtype=np.int64))
    return int(np.prod(weight.shape) * bits // 8 + scales * weight.dtype.itemsize)


def _store(weight: Constant, axes: tuple[int, ...], bits: int) -> Node:
    """Let everything that reads a weight read the product of integers and scales."""
    near = users(weight)[0]
    scope = near.graph
    assert scope is not None
    values = weight.values.astype(np.float64)
    scale = fitted_scale(values, bits, _others(weight, axes)).astype(weight.dtype)
    steps = quantized(values, scale.astype(np.float64), bits).astype(TYPES[bits])
    kind = helper.np_dtype_to_tensor_dtype(weight.dtype)
    floats, product = (new_tensor(scope, f"{weight.name}_{what}") for what in ("cast", "scaled"))
    integers = new_constant(scope, f"{weight.name}_int{bits}", steps)
    scales = new_constant(scope, f"{weight.name}_scale", scale)
    redirect(weight, product)
    insert(near, "Cast", [integers], [floats], {"to": kind}, name=f"{weight.name}/Cast")
    insert(near, "Mul", [floats, scales], [product], name=f"{weight.name}/Mul")
    return near
