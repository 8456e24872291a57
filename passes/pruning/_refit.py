"""Least squares after slicing: each layer learns to give again what it gave before, from what it gets now.

    W = argmin ||X W + b - Y||^2 + c ||W - W_0||^2     X: the layer's input in the sliced model,
                                                       Y: its output in the original, kept channels only

Layers are refitted in the order of computation, so each makes up for what the ones before it still lose.
The ridge pulls towards the sliced weights, not towards 0, so a layer without enough data degrades to plain
slicing.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from graphopt.errors import NativeError
from graphopt.ir.model import Model
from graphopt.ir.surgery import insert, new_constant, new_tensor
from graphopt.numerics.least_squares import ridge
from graphopt.numerics.streaming import Cross, CrossSpec, Sampling
from graphopt.pass_base import Context, Edit, Skip
from graphopt.runtime.observing import Request

from ._layers import Layer, layers_of

ROWS = Sampling(4096)
"""Rows of each batch that a layer is fitted on."""


def refit(
    model: Model, dense: Model, kept: dict[int, np.ndarray], context: Context
) -> Iterator[Edit | Skip]:
    """Refit the layers whose input or output has changed.

    Args:
        model: the sliced model; changed in place.
        dense: the original.
        kept: by node, the outputs that are left.
        context: observes.
    """
    assert context.observe is not None
    targets = _with_targets(dense, kept)
    for uid, layer in layers_of(model).items():
        name = targets[1].get(uid)
        if name is None:
            continue
        spec = CrossSpec(layer.rows, layer.outputs, sampling=ROWS)
        request = Request(layer.node.inputs[0].name, spec, name, target_in_other=True)
        try:
            answer = context.observe(model, [request], other=targets[0])[request]
            if answer.value is None:
                yield Skip(layer.node, f"its weights stay as sliced: {answer.why}")
                continue
            if not answer.value.gram.rows:
                continue
            _fit(layer, answer.value)
        except (NativeError, ValueError) as error:
            yield Skip(layer.node, f"its weights stay as sliced: {error}")
        else:
            yield Edit(layer.node, "its weights were refitted to the original's outputs")


def _fit(layer: Layer, found: Cross) -> None:
    groups = layer.groups
    means = found.gram.mean.reshape(groups, -1)
    wanted = found.mean.reshape(groups, -1)
    old = layer.matrices()
    if layer.takes_bias:
        grams = np.stack([found.gram.covariance(g) for g in range(groups)])
        crosses = np.stack([found.covariance(g) for g in range(groups)])
    else:  # without a bias the mean has to come from the weights too
        count = found.gram.rows
        grams = np.stack([found.gram.product(g) / count for g in range(groups)])
        crosses = np.stack([found.product(g) / count for g in range(groups)])
    fitted = ridge(grams, crosses, means, wanted, old)
    layer.assign(fitted.weights, fitted.bias.reshape(-1) if layer.takes_bias else None)


def _with_targets(dense: Model, kept: dict[int, np.ndarray]) -> tuple[Model, dict[int, str]]:
    """The original with a tensor for each layer that holds only what is left of its outputs."""
    model = dense.copy()
    names: dict[int, str] = {}
    for uid, layer in layers_of(model).items():
        keep = kept.get(uid)
        output = layer.node.outputs[0]
        if keep is None:
            names[uid] = output.name
            continue
        graph = layer.node.graph
        assert graph is not None
        picked = new_tensor(graph, f"{output.name}/kept")
        axis = -1 if layer.node.op == "MatMul" else 1
        places = new_constant(graph, f"{output.name}/places", keep.astype(np.int64))
        made = insert(layer.node, "Gather", [output, places], [picked], {"axis": axis})
        made.order += 0.5
        names[uid] = picked.name
    return model, names
