"""Store weights in 8, 4 or 2 bits, to be computed with as floats.

    W  becomes  Mul(Cast(Q), s),   Q = clip(round(W / s)),  s per output channel

A runtime folds the Cast and the Mul when it loads the model, so it computes with float weights as before,
as fast as before and with the same kernels, while the file holds the integers. (ONNX Runtime does so from
its basic optimizations on; a DequantizeLinear in the place of the two would not be folded before a float
operator.) A scale is the one of the least squared error of those that it belongs to.

``block``       the weights of a product, and the rows of a table, get a scale for each so many inputs of a
                channel: 16 where there are fewer than 8 bits and nothing else is asked for. Layers with fewer
                inputs and all other operators keep one scale per channel.
``rounding``    ``least-squares``: a weight goes to the integer with which the output of its layer changes
                least on the calibration data, given what the others of its channel went to (GPTQ and
                coordinate descent, see ``numerics.rounding``), and the scale is chosen by what each weight is
                multiplied with. ``auto`` is that where there is data and fewer than 8 bits, else ``nearest``.
                Tables, recurrent layers and shared weights go to the nearest.
``symmetric``   ``false`` gives each scale a zero point: W = (Q - z) s. A block of few weights hardly ever
                lies evenly about 0; there it takes a quarter off the squared error. ``none``: for blocks.
``form``        ``dequantize`` writes DequantizeLinear in front of a MatMul, or of a Gemm without factors and
                transposes; others keep the foldable form. ONNX Runtime's CPU kernels then keep the weights in
                few bits in memory, too (MatMulNBits). Unless a session says
                ``session.qdq_matmulnbits_accuracy_level=1`` they also round what the layer reads to 8 bits,
                in blocks: faster (a sentence encoder: 1.0 to 1.3 times in 4 bits, 1.2 to 1.35 times in 8),
                and an error on top of what was judged. With 1 they are slower than floats.

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

from graphopt.ir.surgery import discard
from graphopt.lossy_pass import Choice, LossyPass
from graphopt.pass_base import Context, Edit, Remark, Skip

from ._layer_moments import Moments, loss_of, observed
from ._opsets import ensure_opset, opset_objection
from ._weight_formats import Form, Format
from ._weight_forms import store
from ._weight_integers import Integers, fitted_to_outputs, nearest
from ._weight_notes import Ledger
from ._weight_places import Place, places_of, refusal

Bits = Literal[2, 4, 8]

MILDEST = 8
"""Bits of the mildest level."""

FEW_BITS_BLOCK = 16
"""Inputs that share a scale where a weight has fewer than 8 bits, unless said otherwise."""


class _Plan(NamedTuple):
    """What can be done to a model, and the weights whose rounding took data, by name."""

    entries: list[Choice | Skip]
    fitted: dict[str, Integers]


@dataclass(frozen=True)
class QuantizeWeights(LossyPass):
    """Weights are stored in few bits and computed with as floats."""

    name = "quantize-weights"

    bits: Bits = field(default=8, metadata={"help": "bits that a weight is stored in"})
    block: Literal["auto", 0, 16, 32, 64, 128] = field(
        default="auto",
        metadata={"help": "inputs that share a scale; 0: all of an output channel"},
    )
    rounding: Literal["auto", "nearest", "least-squares"] = field(
        default="auto", metadata={"help": "to the nearest integers, or to those that fit the data"}
    )
    symmetric: bool | None = field(
        default=None,
        metadata={"help": "whether 0 is the zero point; none: not where scales belong to blocks"},
    )
    form: Form = field(
        default="foldable", metadata={"help": "folded when loaded, or taken in by kernels"}
    )
    smallest: int = field(
        default=256, metadata={"help": "elements of the smallest tensor to look at"}
    )

    def propose(self, context: Context) -> Iterator[Choice | Skip]:
        """See the module's docstring."""
        yield from self._plan(context).entries

    def commit(self, chosen: Sequence[Choice], context: Context) -> Iterator[Remark]:
        """See the module's docstring."""
        fitted = self._plan(context).fitted
        places = places_of(context, self.smallest)
        formats = [self._format(places[entry.where], int(entry.level)) for entry in chosen]
        ensure_opset(context, max((wanted.opset for wanted in formats), default=0))
        places, ledger = places_of(context, self.smallest), Ledger()
        for choice in chosen:
            place, bits = places[choice.where], int(choice.level)
            known = fitted.get(choice.where) if bits == self.bits else None
            found = known or nearest(place, self._format(place, bits))
            ledger.add(place, choice, bits, found.format.layout.block, found.values())
            reader = store(place.weight, found)
            for scope in context.scopes():
                discard(scope, place.weight)
            yield Edit(reader, f"{choice.where} {choice.what}")
        yield from ledger.findings()

    def _plan(self, context: Context) -> _Plan:
        return context.once((self.name, *astuple(self)), lambda: self._planned(context))

    def _planned(self, context: Context) -> _Plan:
        plan = _Plan([], {})
        places = []
        for place in places_of(context, self.smallest).values():
            why = refusal(place.weight, context) or self._objection(place, context)
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

    def _objection(self, place: Place, context: Context) -> str:
        """Why a weight cannot be stored so."""
        wanted = self._format(place, self.bits)
        if wanted.nbytes >= place.weight.nbytes:
            return f"it would not be smaller in {self.bits} bits"
        why = opset_objection(context, wanted.opset)
        return why and f"{self.bits} bits need opset {wanted.opset}: {why}"

    def _format(self, place: Place, bits: int) -> Format:
        automatic = FEW_BITS_BLOCK if bits < MILDEST else 0
        block = automatic if self.block == "auto" else self.block
        return Format.of(place, bits, block, self.symmetric, self.form)

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
        yield from observed(places, context.model, context.observe)

    def _choices(
        self, place: Place, moments: Moments | str | None, fitted: dict[str, Integers]
    ) -> Iterator[Choice]:
        """The levels of a place, the strongest first; what was fitted is kept."""
        known = moments if isinstance(moments, Moments) else None
        for bits in dict.fromkeys((self.bits, MILDEST)):
            wanted = self._format(place, bits)
            saving = place.weight.nbytes - wanted.nbytes
            if saving <= 0:
                return
            block = wanted.layout.block
            what = f"in {bits} bits" + (f", {block} to a scale" if block else "")
            if bits == self.bits and known is not None:
                found = fitted[place.name] = fitted_to_outputs(place, wanted, known)
                what += ", by least squares"
            else:
                found = nearest(place, wanted)
                what += f", to the nearest: {moments}" if isinstance(moments, str) else ""
            yield Choice(place.name, bits, what, loss_of(found.values(), place, known), saving)
