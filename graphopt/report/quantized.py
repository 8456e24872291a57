"""The report's parts that tell in which numbers the nodes of a quantized model compute, and why in these."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from graphopt.report.models import HistogramInfo

Computes = Literal["integers", "stored", "floats"]


@dataclass(frozen=True)
class RangeInfo:
    """The grid that an activation is rounded to, and what it was chosen for.

    Attributes:
        tensor: the name of the activation.
        low: the lowest number of the grid.
        high: its highest number.
        scale: the step between two numbers.
        zero_point: the integer that stands for 0.
        levels: numbers of the grid.
        minimum: the smallest element that the calibration data gave.
        maximum: the largest one.
        kept: the length of the grid's range over that of what was seen, 0 included in both.
        clipped: the share of the elements other than 0 that lie outside.
        zeros: the share of the elements that are 0, which no grid moves.
        method: how the range was chosen, as the pass calls it.
        loss: what rounding this activation alone loses, as a share of the outputs' variance; None where it
            was not measured.
        histogram: of the elements other than 0; None where another row shows it.
    """

    tensor: str
    low: float
    high: float
    scale: float
    zero_point: int
    levels: int
    minimum: float
    maximum: float
    kept: float
    clipped: float
    zeros: float
    method: str
    loss: float | None = None
    histogram: HistogramInfo | None = None


@dataclass(frozen=True)
class StoredInfo:
    """A weight tensor in few bits.

    Attributes:
        tensor: its name in the model before.
        bits: that an element is stored in.
        block: inputs that share a scale; 0: all of a channel, or of the tensor.
        what: how it is stored, in words.
        sqnr_db: signal-to-quantization-noise ratio of its elements, in dB; None where nothing differs.
        loss: as the pass predicted it: a share of the squares of what its layer gives, or of the weights
            where nothing was observed; None where it predicted none.
    """

    tensor: str
    bits: int
    block: int
    what: str
    sqnr_db: float | None = None
    loss: float | None = None


@dataclass(frozen=True)
class QuantizedInfo:
    """A node that could compute on integers, or whose weights are stored in few bits.

    Attributes:
        node: its name.
        op: its operator.
        computes: on integers; on floats, with weights stored in few bits; or on floats as before.
        precision: the same in words, with types.
        why: the reason of the choice.
        tensor: the name of what it gives.
        moves: whether it only moves elements, and so rounds none.
        output: the grid of what it gives; None where it has none.
        inputs: the grids of the activations that it reads.
        weights: those that are stored in few bits.
        loss: what is lost by its running on integers, as predicted from its constants and what it gives,
            each measured alone: a share of the outputs' variance. None where it was not measured.
        seconds_before: measured on this machine, of one run on floats; None where it was not timed.
        seconds_after: the same on integers, without what it takes to quantize and dequantize around it.
        sqnr_db: of what it gives against what the original gives, on samples of the evaluation data, in dB;
            None where nothing differs, or nothing was compared.
    """

    node: str
    op: str
    computes: Computes
    precision: str
    why: str
    tensor: str = ""
    moves: bool = False
    output: RangeInfo | None = None
    inputs: list[RangeInfo] = field(default_factory=list)
    weights: list[StoredInfo] = field(default_factory=list)
    loss: float | None = None
    seconds_before: float | None = None
    seconds_after: float | None = None
    sqnr_db: float | None = None


def worst(rows: Sequence[QuantizedInfo]) -> list[QuantizedInfo]:
    """Rows by how noisy what they give is, then by what they are predicted to lose; the worst first."""
    return sorted(
        rows,
        key=lambda row: (
            math.inf if row.sqnr_db is None or math.isnan(row.sqnr_db) else row.sqnr_db,
            0.0 if row.loss is None or math.isnan(row.loss) else -row.loss,
        ),
    )


def in_words(rows: Sequence[QuantizedInfo]) -> str:
    """How many nodes compute in which numbers, as in ``31 of 45 nodes on 8-bit integers, 14 on floats``.

    Nodes that only move elements are not counted.
    """
    counted = [row for row in rows if not row.moves]
    total = f"of {len(counted):,} {'node' if len(counted) == 1 else 'nodes'}"
    stored = [row for row in counted if row.computes == "stored"]
    bits = sorted({weight.bits for row in stored for weight in row.weights})
    written = " or ".join(f"{count:,}" for count in bits[:4])
    parts = [
        (sum(row.computes == "integers" for row in counted), "on 8-bit integers"),
        (len(stored), f"stored in {written} {'bit' if bits == [1] else 'bits'}"),
        (sum(row.computes == "floats" for row in counted), "on floats"),
    ]
    found = [(count, text) for count, text in parts if count]
    words = [f"{count:,} {text}" for count, text in found]
    if found:
        words[0] = f"{found[0][0]:,} {total} {found[0][1]}"
    return ", ".join(words)
