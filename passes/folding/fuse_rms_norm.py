"""Recognize an RMSNormalization that is written out.

    x / sqrt(mean(x^2) + eps) * gamma = RMSNormalization(x, gamma)

The mean runs over the last axes. Source: Zhang, Sennrich, Root Mean Square Layer Normalization,
arXiv 1910.07467; ONNX RMSNormalization-23. Without a gamma, ones take its place.

Refuses: an opset below 23; doubles, which the operator computes in single precision; normalized
sizes that are not known; a gamma of another shape is left as a Mul; inner results that something
else reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from graphopt.ir.surgery import Scope, replace
from graphopt.pass_base import Context, Edit, Pass, Skip
from graphopt.passes.folding._normalizations import normalization
from graphopt.passes.folding._scalar_expressions import ACTIVATION_TYPES

RMS_NORMALIZATION_OPSET = 23


@dataclass(frozen=True)
class FuseRmsNorm(Pass):
    """A written-out RMSNormalization becomes one node."""

    name = "fuse-rms-norm"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        if int(graph.opset) < RMS_NORMALIZATION_OPSET:
            return
        for node in context.nodes(graph, "Div", "Mul"):
            dtype = context.facts.dtype(node.outputs[0])
            if dtype is None or dtype.name not in ACTIVATION_TYPES:
                continue
            found = normalization(node, context)
            if found is None or found.centered:
                continue
            gamma = found.parameter(found.gamma, dtype, context)
            if isinstance(gamma, str):
                yield Skip(node, gamma)
                continue
            attrs: dict[str, object] = {"axis": found.axis, "epsilon": found.epsilon}
            replace(found.last, "RMSNormalization", [found.x, gamma], attrs)
            yield Edit(node, "was part of an RMSNormalization")
