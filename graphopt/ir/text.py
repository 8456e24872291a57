"""A model as a few readable lines, the same for models that differ only in inner names."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.graph import Constant, Node
from graphopt.ir.model import Model
from graphopt.ir.surgery import Scope

_SHOWN_ELEMENTS = 8


def canonical(model: Model) -> str:
    """One line per node: ``outputs = Op<attributes>(inputs)``, bodies indented below their node.

    Inner tensors are called %0, %1, ... in order of appearance; graph inputs and outputs keep their
    names. A constant shows its type and shape, and its values when they are few and whole numbers.
    """
    names: dict[int, str] = {}
    lines = _scope(model.graph, names, "", keep=True)
    for function in model.functions:
        inputs = [_name(t, names) for t in function.inputs]
        lines.append(f"function {function.name}({', '.join(inputs)})")
        lines += _scope(function, names, "  ", keep=False)
    return "\n".join(lines)


def _scope(graph: Scope, names: dict[int, str], indent: str, keep: bool) -> list[str]:
    if keep:
        for tensor in (*graph.inputs, *graph.outputs):
            if not isinstance(tensor, Constant):
                names[id(tensor)] = tensor.name
    lines = []
    for node in graph.nodes:
        lines.append(indent + _line(node, names))
        for body in node.bodies():
            inputs = ", ".join(_name(t, names) for t in body.inputs)
            lines.append(f"{indent}  body({inputs})")
            lines += _scope(body, names, indent + "    ", keep=False)
            outputs = ", ".join(_name(t, names) for t in body.outputs)
            lines.append(f"{indent}    return {outputs}")
    lines += [
        f"{indent}{tensor.name} = {_constant(tensor)}"
        for tensor in graph.outputs
        if keep and isinstance(tensor, Constant)
    ]
    return lines


def _line(node: Node, names: dict[int, str]) -> str:
    inputs = ", ".join(_name(t, names) for t in node.inputs)
    outputs = ", ".join(_name(t, names) for t in node.outputs) or "()"
    op = node.op if node.standard else f"{node.domain}.{node.op}"
    attrs = {
        name: value
        for name, value in sorted(node.attrs.items())
        if value is not None and not _is_body(value)
    }
    shown = ", ".join(f"{name}={_attribute(value)}" for name, value in attrs.items())
    return f"{outputs} = {op}{f'<{shown}>' if shown else ''}({inputs})"


def _is_body(value: object) -> bool:
    return isinstance(value, gs.Graph) or (
        isinstance(value, list) and bool(value) and isinstance(value[0], gs.Graph)
    )


def _attribute(value: object) -> str:
    if isinstance(value, Constant):
        return _constant(value)
    if isinstance(value, gs.Node.AttributeRef):
        return f"@{value.name}"
    if isinstance(value, float):
        return f"{np.float32(value):g}"
    if isinstance(value, list):
        return f"[{', '.join(_attribute(entry) for entry in value)}]"
    return str(value)


def _name(tensor: gs.Tensor, names: dict[int, str]) -> str:
    if not tensor.name:
        return "_"
    if isinstance(tensor, Constant):
        return _constant(tensor)
    return names.setdefault(id(tensor), f"%{sum(1 for n in names.values() if n[0] == '%')}")


def _constant(tensor: Constant) -> str:
    kind = f"{tensor.dtype.name}[{','.join(map(str, tensor.shape))}]"
    values = tensor.values if int(np.prod(tensor.shape)) <= _SHOWN_ELEMENTS else None
    if values is None or values.dtype == object or values.dtype.kind not in "fiub":
        return kind
    if not np.all(np.isfinite(values)) or not np.array_equal(values, np.round(values)):
        return kind
    return f"{kind}{{{','.join(str(int(value)) for value in values.flat)}}}"
