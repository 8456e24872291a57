"""LSTM layers on 8-bit integers, by an operator of ONNX Runtime's own.

    com.microsoft.DynamicQuantizeLSTM(x, Wq, Rq, b, ..., s_W, 0, s_R, 0)

W^T and R^T, int8 and symmetric, have a scale for each of the 4 H gate channels of each direction. What is
multiplied by them, x and in each step the state, is rounded to its own range each time; all else of the layer
is computed on floats. Source: the operator's schema and kernel in ONNX Runtime 1.31. There is no such kernel
for GRU and RNN.

Refuses: weights that are computed, are not float32, or hold NaN or infinity; batches in front (``layout``).
"""

from __future__ import annotations

import numpy as np

from graphopt.ir.graph import Constant, Node, Variable
from graphopt.ir.inference import Facts
from graphopt.ir.model import Model
from graphopt.ir.nesting import nodes_within
from graphopt.ir.surgery import discard, input_or_none, new_constant, replace
from graphopt.numerics.grids import AffineGrid

from ._qdq.weights import rounded

DOMAIN = "com.microsoft"

OPERATOR = "DynamicQuantizeLSTM"

INPUTS = 8
"""Of an LSTM, peepholes last; those of its quantized form begin with the same ones."""

FOREIGN = (
    "the integer kernel is an operator of ONNX Runtime's own, which nothing else runs: "
    "recurrent=true asks for it"
)


def lstm_layers(
    model: Model, facts: Facts, smallest: int, wanted: bool
) -> tuple[dict[str, list[Node]], dict[str, str]]:
    """The LSTM nodes that can run on integers, and why other recurrent ones cannot.

    Args:
        model: the model.
        facts: what is proven of its tensors.
        smallest: elements that both weights of a layer have together at least.
        wanted: whether an operator of ONNX Runtime's own may be used.

    Returns:
        Nodes by the name of their recurrent weights, and reasons by the label of the node.
    """
    found: dict[str, list[Node]] = {}
    refused: dict[str, str] = {}
    for node in nodes_within(model.graph):
        if not node.standard or node.op not in ("LSTM", "GRU", "RNN"):
            continue
        why = _objection(node, facts, smallest, wanted)
        if why:
            refused[node.label] = why
        else:
            found.setdefault(node.inputs[2].name, []).append(node)
    return found, refused


def _objection(node: Node, facts: Facts, smallest: int, wanted: bool) -> str:
    if node.op != "LSTM":
        return f"ONNX Runtime has no kernel for {node.op} on integers"
    weights = [node.inputs[1], node.inputs[2]]
    if not all(isinstance(weight, Constant) for weight in weights):
        return "its weights are computed"
    if any(weight.dtype != np.float32 for weight in weights):
        return f"its weights are {weights[0].dtype.name}"
    if not all(np.isfinite(weight.values).all() for weight in weights):
        return "its weights hold NaN or infinity"
    if facts.dtype(node.inputs[0]) != np.float32:
        return "what it reads is not known to be float32"
    if int(node.attrs.get("layout", 0)):
        return "the batch is its first axis"
    if sum(weight.values.size for weight in weights) < smallest:
        return f"its weights have fewer than {smallest} elements"
    return "" if wanted else FOREIGN


def run_on_integers(model: Model, node: Node, grid: AffineGrid) -> None:
    """Let an LSTM of a model run on integers; the node keeps its number.

    Args:
        model: the model.
        node: of it, as ``lstm_layers`` gives it.
        grid: of weights, symmetric.
    """
    graph, old = node.graph, [node.inputs[1], node.inputs[2]]
    assert graph is not None
    inputs = [input_or_none(node, place) or Variable("") for place in range(INPUTS)]
    for place, weight in enumerate(old, 1):
        turned = np.ascontiguousarray(weight.values.transpose(0, 2, 1))
        parts = [rounded(entry, 1, grid) for entry in turned]
        scale = np.stack([part.scale for part in parts])
        steps = np.stack([part.steps for part in parts])
        inputs[place] = new_constant(graph, f"{weight.name}_quantized", steps)
        inputs.append(new_constant(graph, f"{weight.name}_scale", scale))
        zeros = np.zeros(scale.shape, np.int8)
        inputs.append(new_constant(graph, f"{weight.name}_zero_point", zeros))
    attrs = {key: value for key, value in node.attrs.items() if key != "layout"}
    made = replace(node, OPERATOR, inputs, attrs)
    made.domain = DOMAIN
    if all(entry.domain != DOMAIN for entry in model.header.opset_import):
        model.header.opset_import.add(domain=DOMAIN, version=1)
    for weight in old:
        for scope in model.scopes():
            discard(scope, weight)
