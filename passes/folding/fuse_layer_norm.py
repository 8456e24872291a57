"""Recognize a LayerNormalization that is written out.

    d / sqrt(mean(d^2) + eps) * gamma + beta = LayerNormalization(x, gamma, beta),   d = x - mean(x)

The means run over the last axes. Source: Ba, Kiros, Hinton, Layer Normalization, arXiv 1607.06450;
ONNX LayerNormalization-17. Without a gamma, ones take its place.

Refuses: an opset below 17; doubles, which the operator computes in single precision; normalized
sizes that are not known; a gamma or beta of another shape is left as a Mul or Add; inner results
that something else reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from graphopt.ir.surgery import Scope, replace
from graphopt.pass_base import Context, Edit, Pass, Skip
from graphopt.passes.folding._normalizations import normalization
from graphopt.passes.folding._scalar_expressions import ACTIVATION_TYPES

LAYER_NORMALIZATION_OPSET = 17


@dataclass(frozen=True)
class FuseLayerNorm(Pass):
    """A written-out LayerNormalization becomes one node."""

    name = "fuse-layer-norm"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        if int(graph.opset) < LAYER_NORMALIZATION_OPSET:
            return
        for node in context.nodes(graph, "Div", "Mul"):
            dtype = context.facts.dtype(node.outputs[0])
            if dtype is None or dtype.name not in ACTIVATION_TYPES:
                continue
            found = normalization(node, context)
            if found is None or not found.centered:
                continue
            gamma = found.parameter(found.gamma, dtype, context)
            beta = None if found.beta is None else found.parameter(found.beta, dtype, context)
            if isinstance(gamma, str) or isinstance(beta, str):
                yield Skip(node, gamma if isinstance(gamma, str) else str(beta))
                continue
            attrs: dict[str, object] = {"axis": found.axis, "epsilon": found.epsilon}
            inputs = [found.x, gamma] if beta is None else [found.x, gamma, beta]
            replace(found.last, "LayerNormalization", inputs, attrs)
            yield Edit(node, "was part of a LayerNormalization")
