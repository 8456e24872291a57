"""Compute the few channels that reach far beyond the others apart, on floats.

    x W = Where(c, x, 0) W + x[o] W[o]        o: channels with outliers;  c: those without

What is left of x then needs a grid for its common numbers only, and its product runs on integers with little
loss, while the product of k channels costs k / n of it on floats: the decomposition of LLM.int8() (Dettmers
et al., "LLM.int8(): 8-bit matrix multiplication for transformers at scale", 2022), for channels that are
known beforehand. Splitting a channel into halves that are multiplied by the same weights (outlier channel
splitting, Zhao et al., 2019) keeps a single product, but halves the range at most, and each halving costs a
channel of all.

Which channels: of the 1, 2, 4, ... that reach furthest, up to a sixteenth of all, the fewest that are
foreseen to lose little more than the best of these. That is then measured on the data: only where rounding
what is left loses half as much as rounding all, or less, is it done. Every refusal says both losses.
Where, unlike Mul, has no integer kernel, so nobody rounds x before the outliers are out of it.

All Gemm and MatMul by constants that read a tensor share its parts; others go on reading the whole. The
result is the same up to rounding, but has nodes and constants more: the gate judges it as it does lossy
passes. It is a preparation: quantize behind it, in the same run.

Refuses: fewer than ``LEAST`` channels; weights that are no matrix; types other than float32; a transposed
input; opsets below 11; bodies of control flow; a run without data.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.graph import Node
from graphopt.ir.model import Model
from graphopt.ir.surgery import insert, new_constant, new_tensor
from graphopt.lossy_pass import Choice, LossyPass
from graphopt.numerics.channel_scaling import Channels, Product, outliers
from graphopt.pass_base import Context, Edit, Skip

from ..folding._linear_layers import PRODUCTS, LinearLayer, linear_layer
from ._channel_scaling import channels_of, comparison, gain_objection
from ._rounding_trials import Trial, measured_losses

LEAST = 32
"""Channels below which one apart is too many."""

MOST = 16
"""One of so many channels may be computed apart."""

OPSET = 11
"""The first with axes that are counted from the end."""


@dataclass(frozen=True)
class SplitOutliers(LossyPass):
    """Channels with outliers are multiplied apart, on floats."""

    name = "split-outliers"

    def propose(self, context: Context) -> Iterator[Choice | Skip]:
        """See the module's docstring."""
        for where, found in self._study(context).items():
            if isinstance(found, str):
                yield Skip(where, found)
            else:
                yield Choice(where, float(len(found.channels)), found.what)

    def commit(self, chosen: Sequence[Choice], context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        study, places = self._study(context), _places(context.model, context)
        for choice in chosen:
            found = study[choice.where]
            assert isinstance(found, _Found)
            yield Edit(_split(places[choice.where], found.channels), choice.what)

    def _study(self, context: Context) -> dict[str, _Found | str]:
        return context.once(self.name, lambda: _studied(context))


@dataclass(frozen=True)
class _Found:
    """The channels to be computed apart, and the reason in words."""

    channels: np.ndarray
    what: str


def _places(model: Model, context: Context) -> dict[str, list[LinearLayer]]:
    """The products that read each tensor, by its name."""
    found: dict[str, list[LinearLayer]] = {}
    for node in context.nodes(model.graph, *PRODUCTS):
        layer = linear_layer(node)
        if layer is None or len(layer.weight.shape) != 2 or node.attrs.get("transA", 0):
            continue
        tensor = node.inputs[0]
        if context.facts.dtype(tensor) == np.float32 and context.facts.rank(tensor) != 1:
            found.setdefault(tensor.name, []).append(layer)
    return found


def _studied(context: Context) -> dict[str, _Found | str]:
    places = _places(context.model, context)
    found: dict[str, _Found | str] = {}
    if not places:
        return {}
    if context.observe is None:
        return {"the model": "nothing was observed, so nothing is known of its channels"}
    if int(context.model.opset) < OPSET:
        return {"the model": f"it takes opset {OPSET}"}
    known = channels_of([(name, -1) for name in places], context)
    chosen: dict[str, tuple[Channels, np.ndarray]] = {}
    for (name, layers), channels in zip(places.items(), known, strict=True):
        found[name] = why = channels if isinstance(channels, str) else ""
        if isinstance(channels, Channels):
            count = channels.second.size
            products = [Product.of(layer.view) for layer in layers]
            apart = outliers(channels, products, count // MOST if count >= LEAST else 0)
            found[name] = why = "" if apart.size else "no few channels reach far beyond the others"
            if not why:
                chosen[name] = channels, apart
    trials = [trial for name, entry in chosen.items() for trial in _trials(places[name], *entry)]
    losses = measured_losses(context.model, trials, context.observe)
    for number, (name, (channels, apart)) in enumerate(chosen.items()):
        before, after = losses[2 * number : 2 * number + 2]
        counted = f"{apart.size} of {channels.second.size} channels"
        why = gain_objection(before, after, f"with {counted} apart")
        told = f"{comparison(before, after)} since {counted} are computed apart"
        found[name] = why or _Found(apart, told)
    return found


def _trials(
    layers: Sequence[LinearLayer], channels: Channels, apart: np.ndarray
) -> tuple[Trial, Trial]:
    """Rounding all of a tensor, and rounding it without some channels."""
    nodes = tuple(layer.node for layer in layers)
    weights = tuple(layer.weight.values for layer in layers)
    left = channels.without(apart)
    alike = (None,) * len(nodes)
    mask = _mask(channels.second.size, apart)
    return (
        Trial(nodes, -1, None, weights, channels.ends, alike),
        Trial(nodes, -1, mask, weights, left.ends, alike, whole=False),
    )


def _mask(count: int, apart: np.ndarray) -> np.ndarray:
    mask = np.ones(count)
    mask[apart] = 0.0
    return mask


def _split(layers: Sequence[LinearLayer], apart: np.ndarray) -> Node:
    """Compute some channels of what layers read apart; one of the layers."""
    first = layers[0].node
    graph, tensor = first.graph, first.inputs[0]
    assert graph is not None
    mask = new_constant(graph, f"{tensor.name}/mask", _mask(layers[0].inputs, apart) > 0)
    zero = new_constant(graph, f"{tensor.name}/zero", np.zeros((), layers[0].weight.dtype))
    places = new_constant(graph, f"{tensor.name}/outliers", apart)
    common, picked = (new_tensor(graph, f"{tensor.name}/{w}") for w in ("common", "apart"))
    insert(first, "Where", [mask, tensor, zero], [common])
    insert(first, "Gather", [tensor, places], [picked], {"axis": -1})
    for layer in layers:
        _add_apart(layer, common, picked, apart)
    return first


def _add_apart(layer: LinearLayer, common: gs.Tensor, picked: gs.Tensor, apart: np.ndarray) -> None:
    """Let a layer read what is common, and add the product of what is apart."""
    node, output = layer.node, layer.node.outputs[0]
    graph = node.graph
    assert graph is not None
    factor = float(node.attrs.get("alpha", 1.0)) if node.op == "Gemm" else 1.0
    rows = layer.view[0, :, apart, 0] * factor
    held = new_constant(graph, f"{layer.weight.name}/apart", rows.astype(layer.weight.dtype))
    rest, main = (new_tensor(graph, f"{output.name}/{what}") for what in ("apart", "common"))
    insert(node, "MatMul", [picked, held], [rest])
    insert(node, "Add", [main, rest], [output]).order += 0.5
    node.outputs = [main]
    node.inputs = [common, *node.inputs[1:]]
