"""Fold the addition of a constant into the bias of the convolution before it.

    (W x + b) + t = W x + (b + t)          t - (W x + b) = (-W) x + (t - b)

Refuses: a constant that varies along another axis than the channels (``[C]`` runs along the last
axis, not the channels) or makes the result larger; a convolution with a second user; a bias that is
not constant; for ``t - conv``, shared weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from graphopt.ir.surgery import Scope
from graphopt.pass_base import Context, Edit, Pass, Skip
from graphopt.passes.folding._absorption import absorb_after
from graphopt.passes.folding._linear_layers import CONVOLUTIONS


@dataclass(frozen=True)
class FoldConvBias(Pass):
    """Add and Sub of a constant go into the bias of Conv and ConvTranspose."""

    name = "fold-conv-bias"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        for node in context.nodes(graph, "Add", "Sub"):
            outcome = absorb_after(node, CONVOLUTIONS, context)
            if outcome is not None:
                yield outcome
