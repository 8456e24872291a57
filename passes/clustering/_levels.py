"""How many values the weights of a tensor may share: what each number of them takes in bytes, and loses.

The loss is that of the k-means clustering, as a share: of the squares of the weights, each weighted by E[x^2]
of what it is multiplied with where that is known. Points with prefix sums are made once for all numbers
(``numerics.masses``). More values than asked for are milder levels. Of these only such are offered as are on
the lower convex hull of loss over bytes: where the codes of 16 values take as many bits as those of 9, nobody
wants 9.

``size`` asks for a number of values for each tensor, so that all weights that are looked at take at most so
much and the sum of losses is small: along the hulls, the step of the least loss per byte first
(``numerics.allocation``). These are then the strongest levels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from graphopt.errors import UsageError
from graphopt.numerics.allocation import Table, UnreachableError, efficient, greedy
from graphopt.numerics.kmeans import divided
from graphopt.numerics.masses import Masses

MOST = 256
"""Values at most."""

COUNTS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, MOST)
"""Numbers of values that are offered beside the one asked for."""


class Level(NamedTuple):
    """A number of values.

    Attributes:
        k: it; of vectors, how many values a weight can take.
        loss: a share of the squares.
        nbytes: of codes, tables and codebook, and about those of the nodes that read them.
    """

    k: float
    loss: float
    nbytes: int


def losses(
    values: np.ndarray, weights: np.ndarray | None, counts: Sequence[int], zero: bool
) -> dict[int, float]:
    """What numbers of values lose.

    Args:
        values: of a tensor.
        weights: what each element counts; None: all alike.
        counts: numbers of values.
        zero: whether one of them is 0.
    """
    masses = Masses(values, weights)
    power = masses.power
    return {k: divided(masses, k, zero)[1] / power if power > 0 else 0.0 for k in counts}


def offered(lost: Mapping[float, float], nbytes: Mapping[float, int], first: float) -> list[Level]:
    """The levels of a tensor, the strongest first.

    Args:
        lost: by number of values.
        nbytes: likewise; those that are offered at all.
        first: the number asked for; no level has fewer values.
    """
    milder = [Level(k, lost[k], nbytes[k]) for k in sorted(nbytes) if k >= first]
    table = Table(*(np.array(part, np.float64) for part in _columns(milder)))
    kept = {milder[n].k for n in efficient(table)} | {first}
    return [level for level in milder if level.k in kept]


def _columns(levels: Sequence[Level]) -> tuple[list[float], list[float]]:
    """Losses and savings."""
    return [level.loss for level in levels], [-float(level.nbytes) for level in levels]


def allotted(levels: Mapping[str, Sequence[Level]], target: float) -> dict[str, float]:
    """A number of values for each tensor, so that all take at most so many bytes.

    Args:
        levels: of each, by name.
        target: bytes.

    Raises:
        UsageError: they cannot take so few.
    """
    tables = [
        Table(*(np.array(part, np.float64) for part in _columns(each))) for each in levels.values()
    ]
    try:
        found = greedy(tables, -target)
    except UnreachableError as error:
        raise UsageError(
            f"the weights cannot share so few values that they take {target:.0f} bytes: "
            f"{-error.most:.0f} are the fewest",
            "Ask for a larger size",
        ) from None
    pairs = zip(levels.items(), found.levels, strict=True)
    return {name: each[level].k for (name, each), level in pairs}


def bytes_of(size: str, whole: int) -> float:
    """Read a size: a share of all bytes, as in ``25%``, or bytes.

    Raises:
        ValueError: it is neither.
    """
    try:
        number = float(size.removesuffix("%"))
    except ValueError:
        number = 0.0
    target = number / 100 * whole if size.endswith("%") else number
    if not 0 < target < np.inf:
        raise ValueError(f"size is a share, as in 25%, or bytes; not {size!r}")
    return target
