"""Equalize the channels between two layers, so that they share one grid better.

    W2 f(W1 x + b1) = (W2 diag(s)) f((W1 / s) x + b1 / s)

for any positive s and a function f that is positively homogeneous in each channel: none, Relu, LeakyRelu,
PRelu, pooling, or several of these. Cross-layer equalization (Nagel et al., "Data-free quantization through
weight equalization and bias correction", 2019) takes the s that lets both weights spread alike. Where weights
have a scale for each output channel, as here, W1 does not care; what matters is the grid that all channels of
the tensor between share, and the spread of W2. So s is chosen by what is foreseen to be lost at the second
layer, from the ranges and moments of the channels on the data, and kept only where measuring it confirms that
half as much is lost, or less. Every refusal says both losses.

All factors are powers of two. Floats keep their digits; the model gives the very same numbers as before, and
is neither smaller nor faster. It is a preparation: quantize behind it, in the same run.

``measured`` off: s is what lets the weights on both sides spread alike, W1 by output and W2 by input,
wherever there are two layers. It needs no data, and helps or harms.

Layers are Conv, ConvTranspose, Gemm and MatMul by constants, with any number of groups: three with a
depthwise convolution in the middle are two such pairs. A sum with a bias behind a MatMul goes along.

Refuses: other functions between, such as Sigmoid and Clip (Relu6 reaches its bound elsewhere once its input
is scaled); a tensor that others read, too; constants that are shared or computed; types other than float32;
factors that would push a constant out of the range of its type; bodies of control flow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from graphopt.ir.surgery import Scope
from graphopt.pass_base import Context, Edit, Pass, Skip

from ._channel_places import LAYERS, Place
from ._channel_scaling import scaled


@dataclass(frozen=True)
class EqualizeChannels(Pass):
    """The channels between two layers are scaled alike where rounding them then loses less."""

    name = "equalize-channels"
    observes = True

    measured: bool = field(
        default=True,
        metadata={"help": "only where rounding is measured to lose less; false: by weights alone"},
    )

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        yield from scaled(graph, context, _between_layers, measured=self.measured)


def _between_layers(place: Place) -> str:
    root = place.division.root
    return "" if root.op in LAYERS else f"{root.label} is a {root.op} and no layer"
