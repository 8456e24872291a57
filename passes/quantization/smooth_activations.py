"""Move outlying channels of what products read into their weights.

    W x = (W diag(s)) (x / s),        s_c = max|x_c|^a / max|W_c|^(1 - a)

SmoothQuant (Xiao et al., "SmoothQuant: accurate and efficient post-training quantization for large language
models", 2022). A few channels of what a transformer's products read are many times as large as the others,
and spoil the one grid that all share; weights, with a grid for each output, bear them better. All products of
one tensor, such as queries, keys and values, share s. a is searched for each tensor by what rounding is
foreseen to lose, and s is kept only where measuring it on the data confirms that half as much is lost.
Every refusal says both losses.

The division costs nothing: it goes into the scale and shift of a LayerNormalization, RMSNormalization,
BatchNormalization, InstanceNormalization or GroupNormalization, into a product with or a sum with a constant
(so into a normalization that is written out), into the layer before, or into one factor of a gate. No Mul is
put in where nothing takes it up: folding would only take it into the weights again.

All factors are powers of two. Floats keep their digits; the model gives the very same numbers as before, and
is neither smaller nor faster. It is a preparation: quantize behind it, in the same run.

``measured`` off: s lets the constants on both sides spread alike, everywhere. It needs no data, and helps or
harms.

Refuses: a division that nothing takes up; a tensor that anything but Gemm and MatMul by constants reads;
constants that are shared or computed; types other than float32; factors that would push a constant out of the
range of its type; bodies of control flow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from graphopt.ir.surgery import Scope
from graphopt.numerics.channel_scaling import ALPHAS
from graphopt.pass_base import Context, Edit, Pass, Skip

from ..folding._linear_layers import PRODUCTS
from ._channel_scaling import scaled


@dataclass(frozen=True)
class SmoothActivations(Pass):
    """Outlying channels move into weights where rounding then loses less."""

    name = "smooth-activations"
    observes = True

    alpha: float | None = field(
        default=None,
        metadata={"help": "how much of the spread goes to the weights, 0 to 1; none: searched"},
    )
    measured: bool = field(
        default=True,
        metadata={
            "help": "only where rounding is measured to lose less; false: by constants alone"
        },
    )

    def __post_init__(self) -> None:
        """Refuse what is no share.

        Raises:
            ValueError: so it is.
        """
        if self.alpha is not None and not 0 <= self.alpha <= 1:
            raise ValueError("alpha is a share, from 0 to 1")

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        alphas = ALPHAS if self.alpha is None else (self.alpha,)
        yield from scaled(graph, context, lambda place: "", PRODUCTS, alphas, self.measured)
