"""Store weights as sums of a few binary ones, eight signs in a byte.

    W  ~  a_1 B_1 + ... + a_k B_k,   B_i of +1 and -1, a_i for each output channel

with the signs and factors of ``numerics.binarization`` (XNOR-Net, 2016, for k = 1; alternating multi-bit
quantization, 2018, for more). In the file the signs are bits, which standard operators unpack:

    bits = BitShift(BitShift(packed, 7 .. 0, LEFT), 7, RIGHT)
    W    = ReduceSum(Reshape(Cast(bits) - 0.5) * 2 a)

A runtime computes this once, when it loads the model, and then has the weights as floats. So this is for
storage: the file takes k bits for a weight, the model runs as fast as before and on the same kernels, and
there are no kernels for binary weights in it. What it costs is large: of normally distributed weights one
base loses 36 % of their squares, two 12 %, three 4 %, four 1 % (an even grid of 2 bits with a scale for each
channel: 17 %, of 4 bits: 1 %). A model that was not trained for it rarely bears one base anywhere but in few
layers: let a budget say which.

Each weight tensor is a place. Its levels are the numbers of bases from those asked for to 4.

The operator set is raised to 13 where it is older. Refuses what ``quantize-weights`` refuses.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from graphopt.ir.surgery import discard
from graphopt.lossy_pass import Choice, LossyPass
from graphopt.numerics.binarization import Bases, binary_bases, packed
from graphopt.pass_base import Context, Edit, Remark, Skip

from ._opsets import ensure_opset, opset_objection
from ._weight_forms import Chain
from ._weight_notes import Ledger
from ._weight_places import Place, places_of, refusal

OPSET = 13
"""The first with a ReduceSum that takes its axes as an input."""

MOST = 4
"""Bases of the mildest level."""

SAMPLED = 64
"""Channels that the loss is predicted on."""


@dataclass(frozen=True)
class BinarizeWeights(LossyPass):
    """Weights are stored as sums of binary ones and computed with as floats."""

    name = "binarize-weights"

    bases: Literal[1, 2, 3, 4] = field(
        default=1, metadata={"help": "binary weights that one is the sum of"}
    )
    smallest: int = field(
        default=256, metadata={"help": "elements of the smallest tensor to look at"}
    )

    def propose(self, context: Context) -> Iterator[Choice | Skip]:
        """See the module's docstring."""
        for place in places_of(context, self.smallest).values():
            why = refusal(place.weight, context) or opset_objection(context, OPSET)
            if not why and _nbytes(place, self.bases) >= place.weight.nbytes:
                why = "it would not be smaller"
            if why:
                yield Skip(place.name, why)
                continue
            for count in range(self.bases, MOST + 1):
                saving = place.weight.nbytes - _nbytes(place, count)
                if saving > 0:
                    what = "as one binary base" if count == 1 else f"as {count} binary bases"
                    yield Choice(place.name, count, what, _loss(place, count), saving)

    def commit(self, chosen: Sequence[Choice], context: Context) -> Iterator[Remark]:
        """See the module's docstring."""
        if chosen:
            ensure_opset(context, OPSET)
        places, ledger = places_of(context, self.smallest), Ledger()
        for choice in chosen:
            place, count = places[choice.where], int(choice.level)
            key = (self.name, choice.where, count)
            bits, factors = context.once(key, functools.partial(_stored, place, count))
            ledger.add(place, choice, count, 0, _sums(place, bits, factors))
            chain = Chain.before(place.weight)
            _unpack(chain, bits, factors)
            for scope in context.scopes():
                discard(scope, place.weight)
            yield Edit(chain.near, f"{choice.where} {choice.what}")
        yield from ledger.findings()


def _channels(place: Place) -> np.ndarray:
    """The weight as a matrix, a row for each channel."""
    axes = place.channels
    moved = np.moveaxis(place.weight.values, axes, range(len(axes)))
    return moved.reshape(math.prod(moved.shape[: len(axes)]), -1)


def _loss(place: Place, count: int) -> float:
    """The share of the weights' squares that is lost, of some channels."""
    rows = _channels(place)
    some = np.unique(np.linspace(0, len(rows) - 1, SAMPLED).round().astype(int))
    values = rows[some].astype(np.float64)
    power = float(np.square(values).sum())
    gap = binary_bases(values, count).sum() - values
    return float(np.square(gap).sum()) / power if power else 0.0


def _nbytes(place: Place, count: int) -> int:
    factors = int(math.prod(place.weight.shape[axis] for axis in place.channels))
    return -(-count * place.size // 8) + count * factors * int(place.weight.dtype.itemsize)


def _stored(place: Place, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Packed signs of all bases, one after another, each in the weight's shape; and the factors.

    Returns:
        uint8 of shape ``(bytes,)``; the weight's type, of shape ``(count, ...)`` with axes of size 1 where
        channels share a factor.
    """
    shape, axes = place.weight.shape, place.channels
    found: Bases = binary_bases(_channels(place), count)
    own = tuple(shape[axis] for axis in axes)
    rest = tuple(size for axis, size in enumerate(shape) if axis not in axes)
    back = [axis + 1 for axis in axes]
    signs = np.moveaxis(found.signs, 1, 0).reshape(count, *own, *rest)
    factors = found.factors.T.reshape(count, *own, *(1 for _ in rest))
    signs, factors = (np.moveaxis(a, range(1, len(axes) + 1), back) for a in (signs, factors))
    return packed(signs.ravel()), factors.astype(place.weight.dtype)


def _sums(place: Place, bits: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """The weights that packed signs and factors stand for, in the weight's shape."""
    shape = (len(factors), *place.weight.shape)
    ones = np.unpackbits(bits, count=math.prod(shape), bitorder="little").reshape(shape)
    wide = factors.astype(np.float64)
    return np.asarray((np.where(ones == 1, wide, -wide)).sum(axis=0))


def _unpack(chain: Chain, bits: np.ndarray, factors: np.ndarray) -> None:
    """Compute a weight from packed signs and factors."""
    weight, count = chain.weight, len(factors)
    shape = (count, *weight.shape)
    up = chain.constant("up", np.arange(7, -1, -1, dtype=np.uint8))
    down = chain.constant("down", np.array(7, np.uint8))
    held = chain.constant("bits", bits[:, None])
    raised = chain.add("BitShift", [held, up], {"direction": "LEFT"})
    ones = chain.cast(chain.add("BitShift", [raised, down], {"direction": "RIGHT"}))
    half = chain.constant("half", np.array(0.5, weight.dtype))
    signs = chain.add("Sub", [ones, half])
    if math.prod(shape) % 8:
        ends = {"flat": -1, "start": 0, "end": math.prod(shape)}
        flat, *cut = (chain.constant(k, np.array([n], np.int64)) for k, n in ends.items())
        signs = chain.add("Slice", [chain.add("Reshape", [signs, flat]), *cut])
    full = chain.constant("shape", np.array(shape, np.int64))
    terms = [chain.add("Reshape", [signs, full]), chain.constant("factors", 2 * factors)]
    axis = chain.constant("axis", np.array([0], np.int64))
    chain.end("ReduceSum", [chain.add("Mul", terms), axis], {"keepdims": 0})
