"""Store weights in 8, 4 or 2 bits, to be computed with as floats.

    W  becomes  Mul(Cast(Q), s),   Q = clip(round(W / s)),  s per output channel

A runtime folds the Cast and the Mul when it loads the model, so it computes with float weights as before,
as fast as before and with the same kernels, while the file holds the integers. (ONNX Runtime does so from
its basic optimizations on; a DequantizeLinear in the place of the two would not be folded before a float
operator.) A scale is the one of the least squared error of those that it belongs to.

``block``       the weights of a product, and the rows of a table, get a scale for each so many inputs of a
                channel. A scale of 32 bits for 32 weights takes a bit for each. Layers with fewer inputs and
                all other operators keep one scale per channel.
``rounding``    ``least-squares``: a weight goes to the integer with which the output of its layer changes
                least on the calibration data, given what the others of its channel went to (GPTQ and
                coordinate descent, see ``numerics.rounding``), and the scale is chosen by what each weight is
                multiplied with. ``auto`` is that where there is data and fewer than 8 bits, else ``nearest``.
                Tables, recurrent layers, weights in bodies and shared ones go to the nearest.
``symmetric``   ``false`` gives each scale a zero point: W = (Q - z) s. A block of few weights hardly ever
                lies evenly about 0, so this pays in small blocks.
``form``        ``dequantize`` writes DequantizeLinear in front of a MatMul, or of a Gemm that does not
                transpose its weight; others keep the foldable form. ONNX Runtime's CPU kernels then keep the
                weights in few bits in memory, too (MatMulNBits), which is fast for few rows and slow for
                many; and unless a session says ``session.qdq_matmulnbits_accuracy_level=1``, they round what
                the layer reads to 8 bits in blocks, on top of what was judged.

Each weight tensor is a place. Its levels are the bits asked for and, where those are fewer than 8, 8 bits.
The operator set is raised where the integers need it (4 bits: 21, 2 bits: 25).

Refuses: a model that cannot be raised so far; tensors that are not floats, hold NaN or infinity or numbers
beyond float32; those that would not become smaller; those that a graph returns, that have a default's role
among the inputs, or that several scopes read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, field
from typing import Literal, NamedTuple

from graphopt.ir.opset_raising import objection, raise_opset
from graphopt.ir.surgery import discard
from graphopt.lossy_pass import Choice, LossyPass
from graphopt.numerics.grids import AffineGrid
from graphopt.pass_base import Context, Edit, Skip

from ..pruning._fitting.layers import Layer
from ._layer_moments import Moments, moments_of
from ._weight_forms import Form, form_of, opset_of, store, stored_bytes
from ._weight_integers import Integers, fitted_to_outputs, loss_of, nearest
from ._weight_places import Place, places_of, refusal

Bits = Literal[2, 4, 8]

MILDEST = 8
"""Bits of the mildest level."""


class _Plan(NamedTuple):
    """What can be done to a model, and the weights whose rounding took data, by name."""

    entries: list[Choice | Skip]
    fitted: dict[str, Integers]


@dataclass(frozen=True)
class QuantizeWeights(LossyPass):
    """Weights are stored in few bits and computed with as floats."""

    name = "quantize-weights"

    bits: Bits = field(default=8, metadata={"help": "bits that a weight is stored in"})
    block: Literal[0, 16, 32, 64, 128] = field(
        default=0, metadata={"help": "inputs that share a scale; 0: all of an output channel"}
    )
    rounding: Literal["auto", "nearest", "least-squares"] = field(
        default="auto", metadata={"help": "to the nearest integers, or to those that fit the data"}
    )
    symmetric: bool = field(default=True, metadata={"help": "whether 0 is the zero point"})
    form: Form = field(
        default="foldable", metadata={"help": "folded when loaded, or taken in by kernels"}
    )
    smallest: int = field(
        default=256, metadata={"help": "elements of the smallest tensor to look at"}
    )

    def propose(self, context: Context) -> Iterator[Choice | Skip]:
        """See the module's docstring."""
        yield from self._plan(context).entries

    def commit(self, chosen: Sequence[Choice], context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        fitted = self._plan(context).fitted
        places = places_of(context, self.smallest)
        opset = max((self._opset(places[c.where], int(c.level)) for c in chosen), default=0)
        if _is_older(context, opset):
            raise_opset(context.model, opset)
            context.refresh()
            places = places_of(context, self.smallest)
        for choice in chosen:
            place, bits = places[choice.where], int(choice.level)
            found = fitted.get(choice.where) if bits == self.bits else None
            if found is None:
                found = nearest(place, place.layout(self.block), self._grid(bits))
            reader = store(place, found, bits, form_of(place, self.form))
            for scope in context.scopes():
                discard(scope, place.weight)
            yield Edit(reader, f"{choice.where} {choice.what}")

    def _plan(self, context: Context) -> _Plan:
        return context.once((self.name, *astuple(self)), lambda: self._planned(context))

    def _planned(self, context: Context) -> _Plan:
        plan = _Plan([], {})
        places = []
        objections: dict[int, str] = {}
        for place in places_of(context, self.smallest).values():
            why = refusal(place.weight, context) or self._objection(place, context, objections)
            if why:
                plan.entries.append(Skip(place.name, why))
            else:
                places.append(place)
        if self.rounding == "least-squares" and context.observe is None:
            plan.entries.append(
                Skip("the model", "without data weights go to the nearest integers")
            )
        for place, moments in self._observed(places, context):
            plan.entries.extend(self._choices(place, moments, plan.fitted))
        return plan

    def _objection(self, place: Place, context: Context, known: dict[int, str]) -> str:
        """Why a weight cannot be stored so."""
        layout = place.layout(self.block)
        if stored_bytes(place, layout, self.bits, self.symmetric) >= place.weight.nbytes:
            return f"it would not be smaller in {self.bits} bits"
        opset = self._opset(place, self.bits)
        if opset not in known:
            found = objection(context.model, opset) if _is_older(context, opset) else ""
            known[opset] = found and f"{self.bits} bits need opset {opset}: {found}"
        return known[opset]

    def _opset(self, place: Place, bits: int) -> int:
        return opset_of(place, place.layout(self.block), bits, form_of(place, self.form))

    def _grid(self, bits: int) -> AffineGrid:
        return AffineGrid.of(bits, signed=self.symmetric)

    def _observed(
        self, places: Sequence[Place], context: Context
    ) -> Iterator[tuple[Place, Moments | str | None]]:
        """Each place with what is known of what its layer reads, or why nothing is; None: not asked."""
        wanted = self.rounding == "least-squares" or (
            self.rounding == "auto" and self.bits < MILDEST and context.data is not None
        )
        if context.observe is None or not wanted:
            yield from ((place, None) for place in places)
            return
        layers = {place.name: place.layer() for place in places}
        seen = [layer for layer in layers.values() if isinstance(layer, Layer)]
        found = moments_of(seen, context.model, context.observe)
        for place in places:
            layer = layers[place.name]
            yield place, layer if isinstance(layer, str) else next(found)

    def _choices(
        self, place: Place, moments: Moments | str | None, fitted: dict[str, Integers]
    ) -> Iterator[Choice]:
        """The levels of a place, the strongest first; what was fitted is kept."""
        layout = place.layout(self.block)
        known = moments if isinstance(moments, Moments) else None
        for bits in dict.fromkeys((self.bits, MILDEST)):
            saving = place.weight.nbytes - stored_bytes(place, layout, bits, self.symmetric)
            if saving <= 0:
                return
            what = f"in {bits} bits" + (f", {layout.block} to a scale" if layout.block else "")
            if bits == self.bits and known is not None:
                found = fitted_to_outputs(place, layout, self._grid(bits), known)
                fitted[place.name] = found
                what += ", by least squares"
            else:
                found = nearest(place, layout, self._grid(bits))
                what += f", to the nearest: {moments}" if isinstance(moments, str) else ""
            yield Choice(place.name, bits, what, loss_of(found, place, known), saving)


def _is_older(context: Context, opset: int) -> bool:
    """Whether a part of the model is written in an older operator set."""
    return any(int(scope.opset) < opset for scope in context.scopes())
