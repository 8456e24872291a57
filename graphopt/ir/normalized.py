"""What the BatchNormalizations of a model tell of the data that it was trained on.

    y = gamma (x - mean) / sqrt(var + eps) + beta,     E y = beta,  Var y = gamma^2 var / (var + eps)

for data of the statistics that they were trained to (Nagel et al., "Data-free quantization through weight
equalization and bias correction", 2019).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from graphopt.ir.graph import Node
from graphopt.ir.model import Model
from graphopt.ir.surgery import constant


class ChannelMoments(NamedTuple):
    """What a BatchNormalization gives.

    Attributes:
        mean: of each channel, float64, of shape ``(channels,)``.
        deviation: of each channel, likewise.
        source: the name of what it reads, which may carry its result when it is folded.
    """

    mean: np.ndarray
    deviation: np.ndarray
    source: str


def normalized_moments(model: Model) -> dict[str, ChannelMoments]:
    """The moments of what the BatchNormalizations of the main graph give, by the name of the tensor.

    Those in training mode, and those whose parameters are computed or not finite, tell nothing.
    """
    found: dict[str, ChannelMoments] = {}
    for node in model.graph.nodes:
        if (
            node.standard
            and node.op == "BatchNormalization"
            and not node.attrs.get("training_mode")
        ):
            moments = _moments(node)
            if moments is not None:
                found[node.outputs[0].name] = moments
    return found


def _moments(node: Node) -> ChannelMoments | None:
    parameters = [constant(tensor) for tensor in node.inputs[1:5]]
    if len(parameters) < 4 or any(values is None for values in parameters):
        return None
    gamma, beta, _, variance = (np.asarray(values, np.float64) for values in parameters)
    epsilon = float(node.attrs.get("epsilon", 1e-5))
    with np.errstate(all="ignore"):
        deviation = np.abs(gamma) * np.sqrt(variance / (variance + epsilon))
    known = np.isfinite(beta).all() and np.isfinite(deviation).all()
    return ChannelMoments(beta, deviation, str(node.inputs[0].name)) if known else None
