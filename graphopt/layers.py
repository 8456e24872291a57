"""Layers with weights, before and after: how the weights are distributed, how well the layers compute."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.assessment import Running
from graphopt.ir.graph import Constant, Node
from graphopt.ir.model import Model
from graphopt.ir.operators import WEIGHTS
from graphopt.ir.surgery import producer
from graphopt.report import HistogramInfo, LayerInfo
from graphopt.runtime.evaluation import Evaluator
from graphopt.runtime.native import Native

BINS = 48
"""Bins of a histogram of weights."""

CODEBOOK = 256
"""Values up to which a set of weights counts as taken from a codebook."""

MOST_BYTES = 256 << 20
"""Bytes of a weight beyond which its distribution is not described."""


def layer_outputs(model: Model) -> list[str]:
    """The names of what the layers of the main graph give."""
    layers = [node for node in model.graph.nodes if node.op in WEIGHTS and node.outputs]
    return [str(node.outputs[0].name) for node in layers]


def describe_layers(
    before: Model, after: Model, native: Native, ratios: Mapping[str, float], running: Running
) -> list[LayerInfo]:
    """Every layer with weights, in order, beside what became of it.

    Args:
        before: the model that the lossy passes began with: the original as the exact passes left it. (These
            move scales from one layer to another, so tensors of one name are not the same tensors.)
        after: the result; its nodes keep the numbers of those that they come from.
        native: the process to compute stored weights in.
        ratios: signal-to-noise ratios of outputs, in dB, by name.
        running: how models are run.
    """
    evaluate = Evaluator(native, running.seconds)
    news = {node.uid: node for node in after.nodes()}
    pairs = [(node, news.get(node.uid)) for node in before.nodes() if node.op in WEIGHTS]
    found = []
    for old, new in pairs:
        for index in WEIGHTS[old.op]:
            weight = _weight(before, old, index, evaluate)
            if weight is None or weight[0].dtype.kind not in "fV" or weight[0].size < 2:
                continue
            same = new is not None and new.op == old.op
            changed = _weight(after, new, index, evaluate) if new is not None and same else None
            inner = new is None or old.graph is not before.graph
            ratio = None if inner else ratios.get(str(old.outputs[0].name))
            found.append(_layer(old, index, weight, changed, ratio))
    return found


def _layer(
    node: Node,
    index: int,
    weight: tuple[np.ndarray, int],
    changed: tuple[np.ndarray, int] | None,
    ratio: float | None,
) -> LayerInfo:
    old, stored = weight
    new, stored_after = changed if changed is not None else (None, None)
    edges = _edges(old, new)
    same = new is not None and new.shape == old.shape and np.array_equal(old, new)
    return LayerInfo(
        name=node.label,
        op=node.op,
        weight=node.inputs[index].name,
        parameters=int(old.size),
        parameters_after=None if new is None else int(new.size),
        weight_bytes=stored,
        weight_bytes_after=stored_after,
        before=_histogram(old, edges),
        after=None if new is None or same else _histogram(new, edges),
        codebook=None if new is None else _codebook(new),
        sqnr_db=ratio,
    )


def _weight(
    model: Model, node: Node, index: int, evaluate: Evaluator
) -> tuple[np.ndarray, int] | None:
    """The weights that a node computes with, and the bytes that they are stored in."""
    tensor = node.inputs[index] if index < len(node.inputs) else None
    if tensor is None:
        return None
    nodes, constants = origin(tensor)
    stored = sum(constant.nbytes for constant in constants)
    if not constants or stored > MOST_BYTES:
        return None
    if isinstance(tensor, Constant):
        return tensor.values, stored
    if any(made.op == "Constant" for made in nodes) and len(nodes) == 1:
        value = nodes[0].attrs.get("value")
        return (value.values, value.nbytes) if isinstance(value, Constant) else None
    found = evaluate(model, nodes, [tensor])[id(tensor)]
    return (found, stored) if isinstance(found, np.ndarray) else None


def origin(tensor: gs.Tensor) -> tuple[list[Node], list[Constant]]:
    """The nodes that make a tensor from constants, and these; nothing where anything else enters."""
    nodes: dict[int, Node] = {}
    constants: dict[int, Constant] = {}
    stack = [tensor]
    while stack:
        entry = stack.pop()
        made = producer(entry)
        if isinstance(entry, Constant):
            constants[id(entry)] = entry
        elif made is None or any(True for _ in made.bodies()):
            return [], []
        elif id(made) not in nodes:
            nodes[id(made)] = made
            stack.extend(t for t in made.inputs if t.name)
            constants.update({id(v): v for v in made.attrs.values() if isinstance(v, Constant)})
    return sorted(nodes.values(), key=lambda node: node.order), list(constants.values())


def _edges(old: np.ndarray, new: np.ndarray | None) -> np.ndarray:
    parts = [part.astype(np.float64).ravel() for part in (old, new) if part is not None]
    values = np.concatenate(parts)
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if low == high:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, BINS + 1)


def _histogram(values: np.ndarray, edges: np.ndarray) -> HistogramInfo:
    flat = values.astype(np.float64).ravel()
    counts, _ = np.histogram(flat[np.isfinite(flat)], edges)
    return HistogramInfo([float(f"{edge:.6g}") for edge in edges], [int(c) for c in counts])


def _codebook(values: np.ndarray) -> list[float] | None:
    distinct = np.unique(values.astype(np.float64))
    if len(distinct) > CODEBOOK or len(distinct) * 2 > values.size:
        return None
    return [float(f"{value:.6g}") for value in distinct if math.isfinite(value)]
