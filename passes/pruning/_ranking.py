"""In which order the units of a group can go, and what is lost without the first n of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from graphopt.ir.channels import ChannelGroup
from graphopt.ir.graph import Node
from graphopt.ir.model import Model
from graphopt.numerics.importance import l2_scores, random_scores
from graphopt.numerics.obs import damped, joint_removal_order
from graphopt.numerics.streaming import Gram, GramSpec, Sampling
from graphopt.pass_base import Context
from graphopt.runtime.observing import Request

from ._layers import Layer, layer_of

Importance = Literal["obs", "l2", "random"]

ROWS = Sampling(4096)
"""Rows of each batch that the moments of a layer's input are taken from."""


@dataclass(frozen=True)
class Candidate:
    """A group that may be cut, the layers that read it, and the rows of each that a unit has."""

    group: ChannelGroup
    layers: tuple[Layer, ...]
    blocks: tuple[tuple[np.ndarray, ...], ...]


def removals(
    candidates: Sequence[Candidate], importance: Importance, context: Context
) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each group the order in which its units go, and what is lost without the first n."""
    if importance == "obs" and context.observe is not None:
        return _by_obs(candidates, context)
    found = []
    for number, candidate in enumerate(candidates):
        if importance == "random":
            scores = random_scores(candidate.group.size, number)
        else:
            slices = [
                np.stack([np.concatenate(list(layer.matrices()))[rows].ravel() for rows in blocks])
                for layer, blocks in zip(candidate.layers, candidate.blocks, strict=True)
            ]
            scores = l2_scores(slices) ** 2
        order = np.argsort(scores, kind="stable")
        found.append((order, np.cumsum(scores[order]) / max(float(scores.sum()), 1e-30)))
    return found


def candidate_of(group: ChannelGroup, model: Model) -> Candidate | str:
    """A group with the layers that read it, or why it is left alone."""
    nodes: dict[int, Node] = {node.uid: node for node in model.nodes()}
    layers, blocks, why = [], [], "nothing with weights reads it"
    for slot in group.reads:
        node = nodes[slot.node]
        layer = layer_of(node, slot.index)
        if isinstance(layer, str):
            why = layer
            continue
        features = np.concatenate(list(layer.matrices())).shape[0]
        channels = slot.indices.max() + 1
        size = _kernel(layer)
        if channels * size > features:
            continue
        layers.append(layer)
        blocks.append(tuple(_rows(places, size) for places in slot.indices))
    if not layers:
        return why
    return Candidate(group, tuple(layers), tuple(blocks))


def _kernel(layer: Layer) -> int:
    """Features of one input channel."""
    return int(np.prod(layer.weight.shape[2:])) if layer.node.op == "Conv" else 1


def _rows(places: np.ndarray, size: int) -> np.ndarray:
    return (places[:, None] * size + np.arange(size)).ravel()


def _by_obs(
    candidates: Sequence[Candidate], context: Context
) -> list[tuple[np.ndarray, np.ndarray]]:
    asked: dict[int, Request[Gram]] = {}
    for candidate in candidates:
        for layer in candidate.layers:
            spec = GramSpec(layer.rows, sampling=ROWS)
            asked[layer.node.uid] = Request(layer.node.inputs[0].name, spec)
    assert context.observe is not None
    answers = context.observe(context.model, list(asked.values()))
    found = []
    for candidate in candidates:
        consumers = []
        for layer, blocks in zip(candidate.layers, candidate.blocks, strict=True):
            gram = answers[asked[layer.node.uid]].value
            assert gram is not None
            weights = np.concatenate(list(layer.matrices()))
            width = len(weights) // layer.groups
            hessian = [
                (np.arange(g * width, (g + 1) * width), damped(gram.covariance(g)))
                for g in range(layer.groups)
            ]
            whole = hessian[0][1] if layer.groups == 1 else hessian
            consumers.append((whole, weights, blocks))
        removal = joint_removal_order(consumers)
        found.append((removal.order, removal.errors))
    return found
