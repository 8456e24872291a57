"""Fold an inference BatchNormalization into the linear layer that alone reads it.

    W (s x + t) + b = (W s) x + (b + W t),   s = gamma / sqrt(var + eps),  t = beta - s mean

Source: Ioffe, Szegedy, Batch Normalization, arXiv 1502.03167, section 3.1; ONNX BatchNormalization.
For Conv (any groups), Gemm, and MatMul of matrices, which becomes a Gemm. A padded border is 0
where the shift would have to be seen, so only layers without padding are exact.

Refuses: padding; ConvTranspose, whose borders see fewer taps; a second user; training mode;
parameters, weights or a bias that are not constant; shared weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from graphopt.ir.surgery import Scope
from graphopt.pass_base import Context, Edit, Pass, Skip
from graphopt.passes.folding._absorption import absorb_before
from graphopt.passes.folding._linear_layers import PRODUCTS


@dataclass(frozen=True)
class FoldBatchnormForward(Pass):
    """A BatchNormalization goes into the layer behind it."""

    name = "fold-batchnorm-forward"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        for node in context.nodes(graph, "BatchNormalization"):
            outcome = absorb_before(node, ("Conv", *PRODUCTS), context)
            if outcome is not None:
                yield outcome
