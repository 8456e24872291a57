"""The tensors in the bodies of a model's control flow, and why some of them cannot be observed."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import onnx_graphsurgeon as gs
from onnx import helper

from graphopt.ir.graph import Constant, Node
from graphopt.ir.inference import Facts, infer
from graphopt.ir.model import Model
from graphopt.ir.nesting import bodies_of, enclosing
from graphopt.ir.opset_raising import objection as raising_objection
from graphopt.ir.surgery import Scope
from graphopt.runtime.hoisting import OPSET

AROUND = ("If", "Loop", "Scan")
"""Operators whose bodies are looked into."""


class InnerTensors:
    """What is computed in bodies, by name.

    Args:
        model: not changed.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._found: dict[str, tuple[gs.Tensor, Scope]] = {}
        self._twice: set[str] = set()
        for body in bodies_of(model.graph):
            for tensor in _held(body):
                known = self._found.setdefault(tensor.name, (tensor, body))[0]
                if known is not tensor:
                    self._twice.add(tensor.name)
        self._of_functions = {
            tensor.name
            for function in model.functions
            for tensor in (*function.inputs, *(t for n in function.nodes for t in n.outputs))
        }

    def tensor(self, name: str) -> gs.Tensor:
        """A tensor of a body.

        Raises:
            KeyError: there is none of this name.
        """
        return self._found[name][0]

    def objection(self, name: str) -> str:
        """Why a tensor cannot be observed; empty where it can."""
        if name not in self._found:
            if name in self._of_functions:
                return "it lies in the body of a local function"
            return "the model has no tensor of this name"
        tensor, body = self._found[name]
        if name in self._twice:
            return "several bodies have a tensor of this name"
        if isinstance(tensor, Constant):
            return ""
        if self._type(name) is None:
            return "it lies in the body of a control-flow operator, and its type is not known"
        return self._raising or next(filter(None, map(_around, enclosing(body))), "")

    def types(self) -> dict[str, int]:
        """The element types, as in TensorProto, of what is computed in bodies, as far as they are known."""
        found = {name: self._type(name) for name in self._found}
        return {name: kind for name, kind in found.items() if kind is not None}

    def _type(self, name: str) -> int | None:
        dtype = self._facts.dtype(self._found[name][0])
        return None if dtype is None else int(helper.np_dtype_to_tensor_dtype(dtype))

    @functools.cached_property
    def _facts(self) -> Facts:
        return infer(self._model.graph, self._model.functions)

    @functools.cached_property
    def _raising(self) -> str:
        """Why the operator set cannot be raised to one whose control flow takes sequences."""
        if self._model.opset >= OPSET:
            return ""
        why = raising_objection(self._model, OPSET)
        return f"it lies in the body of a control-flow operator, and {why}" if why else ""


def _held(body: Scope) -> Iterator[gs.Tensor]:
    """The tensors that a body defines, each once."""
    found = {id(t): t for t in (*body.inputs, *body.initializers)}
    for node in body.nodes:
        found.update((id(t), t) for t in node.outputs if t.name)
    return iter(found.values())


def _around(node: Node) -> str:
    """Why nothing in the bodies of a node can be observed; empty where it can."""
    if node.op not in AROUND or not node.standard:
        return f"it lies in the body of {node.label}, a {node.op}, which is not looked into"
    if node.op == "Scan" and any(node.attrs.get("scan_output_axes") or ()):
        return f"it lies in {node.label}, a Scan that stacks along another axis than the first"
    return ""
