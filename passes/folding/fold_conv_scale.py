"""Fold the multiplication by a constant into the weights of the convolution before it.

    s (W x + b) = (s W) x + s b          (W x + b) / d = (W / d) x + b / d

Refuses: a constant that varies along another axis than the channels (``[C]`` runs along the last
axis, not the channels) or makes the result larger; division by zero; a convolution with a second
user; a bias that is not constant; shared weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from graphopt.ir.surgery import Scope
from graphopt.pass_base import Context, Edit, Pass, Skip
from graphopt.passes.folding._absorption import absorb_after
from graphopt.passes.folding._linear_layers import CONVOLUTIONS


@dataclass(frozen=True)
class FoldConvScale(Pass):
    """Mul and Div by a constant go into the weights of Conv and ConvTranspose."""

    name = "fold-conv-scale"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        for node in context.nodes(graph, "Mul", "Div"):
            outcome = absorb_after(node, CONVOLUTIONS, context)
            if outcome is not None:
                yield outcome
