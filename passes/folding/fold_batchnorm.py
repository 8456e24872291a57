"""Fold an inference BatchNormalization into the linear layer that feeds it.

    y = gamma * (W x + b - mean) / sqrt(var + eps) + beta
      = (s W) x + (beta + s (b - mean)),   s = gamma / sqrt(var + eps)

Source: Ioffe, Szegedy, Batch Normalization, arXiv 1502.03167, section 3.1; ONNX BatchNormalization.
For Conv and ConvTranspose (any groups), Gemm, and MatMul of matrices, which becomes a Gemm.

Refuses: a parameter that is not constant; a layer with a second user; training mode; statistics per
element (``spatial = 0``); shared weights; a MatMul of rank above 2, whose features are not on the
axis that is normalized; a MatMul whose rank is not known.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from graphopt.ir.surgery import Scope
from graphopt.pass_base import Context, Edit, Pass, Skip
from graphopt.passes.folding._absorption import absorb_after
from graphopt.passes.folding._linear_layers import CONVOLUTIONS, PRODUCTS


@dataclass(frozen=True)
class FoldBatchnorm(Pass):
    """A BatchNormalization goes into the layer before it."""

    name = "fold-batchnorm"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        for node in context.nodes(graph, "BatchNormalization"):
            outcome = absorb_after(node, (*CONVOLUTIONS, *PRODUCTS), context)
            if outcome is not None:
                yield outcome
