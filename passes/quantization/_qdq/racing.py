"""Of a path of choices, those that pay on the clock.

Times of nodes foresee what a choice takes; whole models are timed to know. A choice counts where no milder
one is as fast, and where it loses notably less than the faster ones: what is measured on few samples does not
tell choices apart that lose nearly as much.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .choice import Problem

MOST = 16
"""Choices of a path that are timed as whole models."""

FASTER = 0.01
"""The share of its time by which a choice must be faster than one that loses less."""

MILDER = 0.75
"""The share of a faster choice's loss that a slower one may have."""

LEAST_LOSS = 1e-12
"""A loss that counts as none where losses are compared by their ratio."""

Seconds = Mapping[frozenset[int], float]
"""What a run takes with each of some choices."""

Losses = Mapping[frozenset[int], float]
"""What each of some choices loses, measured as a whole."""


def thinned(path: Sequence[frozenset[int]], problem: Problem) -> list[frozenset[int]]:
    """At most ``MOST`` choices of a path: the one goes first that leaves the smallest gap of losses behind.

    Args:
        path: choices that lose less and less.
        problem: tells what they lose.
    """
    found = list(path)
    while len(found) > MOST:
        gaps = [_gap(problem, found[n - 1], found[n + 1]) for n in range(1, len(found) - 1)]
        del found[1 + gaps.index(min(gaps))]
    return found


def paying(
    path: Sequence[frozenset[int]], seconds: Seconds, losses: Losses
) -> list[frozenset[int]]:
    """The choices that are faster than all that lose less, and lose notably less than all faster ones.

    Args:
        path: choices that lose less and less; the last one always stays.
        seconds: that each of them takes.
        losses: of each of them.
    """
    kept = [path[-1]]
    for chosen in reversed(path[:-1]):
        if seconds[chosen] < (1 - FASTER) * seconds[kept[-1]]:
            kept.append(chosen)
    found: list[frozenset[int]] = []
    for chosen in kept[:0:-1]:
        if not found or losses[chosen] <= MILDER * losses[found[-1]]:
            found.append(chosen)
    return [*found, path[-1]]


def _gap(problem: Problem, before: frozenset[int], after: frozenset[int]) -> float:
    """The ratio of two losses, the larger one first."""
    high, low = (max(problem.loss(chosen), LEAST_LOSS) for chosen in (before, after))
    return high / low
