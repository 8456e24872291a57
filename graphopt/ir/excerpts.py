"""A node on its own, at any sizes: what a runtime is asked when the question is what that node takes.

Weights are not stored but made by ConstantOfShape, which every runtime computes when it loads the model. So
an excerpt takes a few hundred bytes however large its weights are, and two of equal sizes are equal byte for
byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

from graphopt.ir.model import Model

FILLED = 0.01
"""What every element of a weight is: no kernel that computes all products takes more or less time for it."""

IR_VERSION = 8
"""Of the format; an opset that is newer raises it."""


@dataclass(frozen=True)
class Operand:
    """An input of a node on its own.

    Attributes:
        dtype: the name of its element type, as numpy has it.
        shape: its sizes.
        constant: whether it is a weight, and not given at run time.
    """

    dtype: str
    shape: tuple[int, ...]
    constant: bool = False


@dataclass(frozen=True)
class Excerpt:
    """One node at given sizes. Equal ones take equally long.

    Attributes:
        op: its operator, of the standard domain.
        opset: the version of the operators.
        operands: its inputs; None for one that is omitted.
        attrs: its attributes by name, lists as tuples.
    """

    op: str
    opset: int
    operands: tuple[Operand | None, ...]
    attrs: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(
        cls, op: str, opset: int, operands: tuple[Operand | None, ...], attrs: Mapping[str, Any]
    ) -> Excerpt:
        """An excerpt with attributes as a node has them."""
        told = {key: tuple(v) if isinstance(v, list) else v for key, v in attrs.items()}
        return cls(op, opset, operands, tuple(sorted(told.items())))

    def model(self) -> Model:
        """The node as a model whose inputs are the operands that are no constants."""
        inputs, shapes, nodes, names = [], [], [], []
        for number, operand in enumerate(self.operands):
            name = f"operand{number}" if operand is not None else ""
            names.append(name)
            if operand is None:
                continue
            kind = helper.np_dtype_to_tensor_dtype(np.dtype(operand.dtype))
            if not operand.constant:
                inputs.append(helper.make_tensor_value_info(name, kind, operand.shape))
                continue
            sizes = np.array(operand.shape, np.int64)
            shapes.append(onnx.numpy_helper.from_array(sizes, f"shape{number}"))
            filling = np.full(1, FILLED).astype(operand.dtype)
            value = onnx.numpy_helper.from_array(filling)
            nodes.append(
                helper.make_node("ConstantOfShape", [f"shape{number}"], [name], value=value)
            )
        attrs: dict[str, Any] = {
            key: list(v) if isinstance(v, tuple) else v for key, v in self.attrs
        }
        nodes.append(helper.make_node(self.op, names, ["result"], name=self.op, **attrs))
        result = onnx.ValueInfoProto(name="result")
        first = next(o for o in self.operands if o is not None)
        result.type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(first.dtype))
        graph = helper.make_graph(nodes, self.op, inputs, [result], shapes)
        opsets = [helper.make_opsetid("", self.opset)]
        least = helper.find_min_ir_version_for(opsets, ignore_unknown=True)
        proto = helper.make_model(graph, opset_imports=opsets, ir_version=max(IR_VERSION, least))
        return Model.load(proto)
