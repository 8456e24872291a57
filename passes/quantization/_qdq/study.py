"""What is known of a model before it is quantized: units, their grids, times and losses, and the choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .calibration import Histograms
from .choice import Problem
from .insertion import Scale
from .racing import Seconds
from .units import Unit
from .weights import Rounded


@dataclass(frozen=True)
class Evidence:
    """What the choice went by, also of units that were out of the question.

    Attributes:
        units: all that the target has kernels for, in order.
        known: the distributions of what they read and give, by name.
        times: what those take that could be timed.
        wholes: what choices lose, everything that they round together.
        basis: what ranges rest on where there is no data; empty where there is.
    """

    units: Sequence[Unit] = ()
    known: Histograms = field(default_factory=dict)
    times: Problem = field(default_factory=lambda: Problem({}, {}, {}, [], 0.0))
    wholes: Mapping[frozenset[int], float] = field(default_factory=dict)
    basis: str = ""


@dataclass(frozen=True)
class Study:
    """What is known of a model.

    Attributes:
        units: those that may run on integers, in order.
        scales: of activations, by name.
        path: choices by the numbers of units, from the fastest to none.
        problem: what they were chosen by.
        refused: why nodes stay on floats, by label.
        constants: weights as integers, by the number of the unit.
        seconds: measured, of a run with each choice of the path and others; empty where nothing was timed.
        evidence: what they were chosen by, for the report.
    """

    units: Sequence[Unit]
    scales: Mapping[str, Scale]
    path: Sequence[frozenset[int]]
    problem: Problem
    refused: Mapping[str, str]
    constants: Mapping[int, Rounded] = field(default_factory=dict)
    seconds: Seconds = field(default_factory=dict)
    evidence: Evidence = field(default_factory=Evidence)
