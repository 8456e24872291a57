"""One level for each group, so that enough is saved and as little as possible is lost.

The multiple-choice knapsack problem, in its covering form: of the levels l of each group g choose one with

    min sum_g loss[g, l_g]   such that   sum_g saving[g, l_g] >= target

Only levels matter that save more than every level of no greater loss (the Pareto front), and for the
relaxed problem, where a group may be between two levels, only those on the lower convex hull of loss over
saving. The relaxed problem is solved by taking the steps along all hulls in the order of loss per saving,
the last one in part (Sinha and Zoltners, "The multiple-choice knapsack problem", Operations Research 27,
1979). Its loss is a lower bound of that of every choice, so the gap of a choice is proven, whatever way it
was found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

ROUNDING = 1e-9
"""What a sum of savings may miss of the target, as a share of it."""


class UnreachableError(ValueError):
    """More is to be saved than can be.

    Args:
        target: what was asked for.
        most: what can be saved.
    """

    def __init__(self, target: float, most: float) -> None:
        super().__init__(f"at most {most:g} of the {target:g} asked for can be saved")
        self.target = target
        self.most = most


class Table(NamedTuple):
    """The levels of a group, in any order: what each one loses and saves.

    Attributes:
        losses: of each level, float of shape ``(levels,)``; infinite for one that must not be taken.
        savings: of each level, finite, in the unit of the target; one that saves less than nothing is fine.
    """

    losses: np.ndarray
    savings: np.ndarray


@dataclass(frozen=True)
class Allocation:
    """A choice of one level for each group.

    Attributes:
        levels: of each group.
        loss: their sum.
        saving: their sum.
        bound: what every choice that reaches the target loses at least.
    """

    levels: tuple[int, ...]
    loss: float
    saving: float
    bound: float

    @property
    def gap(self) -> float:
        """The share of the loss that the best choice could spare; 0 proves that this one is the best."""
        return max(self.loss - self.bound, 0.0) / abs(self.loss) if self.loss else 0.0


def greedy(tables: Sequence[Table], target: float) -> Allocation:
    """Take steps along the convex hulls by loss per saving, then give back what is not needed.

    Args:
        tables: of each group.
        target: what is to be saved at least.

    Raises:
        UnreachableError: no choice saves so much.
        ValueError: a table is not one.
    """
    fronts = _fronts(tables, target)
    places = [front.hull[0] for front in fronts]
    missing = target - sum(float(front.savings[0]) for front in fronts)
    for step in _steps(fronts):
        if missing <= 0:
            break
        places[step.group] = max(places[step.group], step.place)
        missing -= step.saving
    _give_back(fronts, places, -missing)
    return _allocation(fronts, places, _relaxed(fronts, target))


def lower_bound(tables: Sequence[Table], target: float) -> float:
    """What every choice that saves ``target`` loses at least: the loss of the relaxed problem.

    Args:
        tables: of each group.
        target: what is to be saved at least.

    Raises:
        UnreachableError: no choice saves so much.
        ValueError: a table is not one.
    """
    return _relaxed(_fronts(tables, target), target)


def efficient(table: Table) -> list[int]:
    """The levels of a group on the lower convex hull of loss over saving, those of the least loss first.

    No other level is ever worth its loss, whatever a unit of saving is worth.

    Raises:
        ValueError: the table is not one.
    """
    front = _front(table, 0)
    return [int(level) for level in front.levels[front.hull]]


class _Front(NamedTuple):
    """The Pareto front of a group: rising losses and savings, and which of them are on the hull."""

    levels: np.ndarray
    losses: np.ndarray
    savings: np.ndarray
    hull: list[int]


class _Step(NamedTuple):
    """From one point of a hull to the next."""

    price: float
    group: int
    place: int
    loss: float
    saving: float


def _fronts(tables: Sequence[Table], target: float) -> list[_Front]:
    """The front of each group; refuses what ``greedy`` refuses."""
    fronts = [_front(table, number) for number, table in enumerate(tables)]
    most = sum(float(front.savings[-1]) for front in fronts)
    if not np.isfinite(target):
        raise ValueError(f"a target of {target}")
    if most < target - ROUNDING * abs(target):
        raise UnreachableError(target, most)
    return fronts


def _front(table: Table, number: int) -> _Front:
    losses, savings = (np.asarray(part, np.float64) for part in table)
    allowed = losses < np.inf
    if losses.shape != savings.shape or not allowed.any():
        raise ValueError(
            f"group {number} has no level, or losses and savings that differ in number"
        )
    if not (np.isfinite(losses[allowed]) & np.isfinite(savings[allowed])).all():
        raise ValueError(f"group {number} has a loss or a saving that is not a number")
    order = np.lexsort((-savings, losses))
    order = order[allowed[order]]
    best = np.maximum.accumulate(savings[order])
    levels = order[np.concatenate([[True], best[1:] > best[:-1]])]
    return _Front(levels, losses[levels], savings[levels], _hull(losses[levels], savings[levels]))


def _hull(losses: np.ndarray, savings: np.ndarray) -> list[int]:
    """The points of the lower convex hull of a front (Andrew's monotone chain)."""
    hull: list[int] = []
    for point in range(len(losses)):
        while len(hull) > 1:
            a, b = hull[-2:]
            rise = (losses[b] - losses[a]) * (savings[point] - savings[b])
            if rise < (losses[point] - losses[b]) * (savings[b] - savings[a]):
                break
            hull.pop()
        hull.append(point)
    return hull


def _steps(fronts: Sequence[_Front]) -> list[_Step]:
    """The steps along all hulls, the cheapest first; those of one group in their order."""
    steps = []
    for group, front in enumerate(fronts):
        for a, b in zip(front.hull, front.hull[1:], strict=False):
            loss = float(front.losses[b] - front.losses[a])
            saving = float(front.savings[b] - front.savings[a])
            steps.append(_Step(loss / saving, group, b, loss, saving))
    return sorted(steps)


def _relaxed(fronts: Sequence[_Front], target: float) -> float:
    loss = sum(float(front.losses[0]) for front in fronts)
    missing = target - sum(float(front.savings[0]) for front in fronts)
    for step in _steps(fronts):
        if missing <= 0:
            break
        loss += step.loss * min(1.0, missing / step.saving)
        missing -= step.saving
    return loss


def _give_back(fronts: Sequence[_Front], places: list[int], spare: float) -> None:
    """Move groups to levels of less loss, the largest relief first, while what is spare allows it."""
    while True:
        best = (0.0, 0, 0)
        for group, (front, place) in enumerate(zip(fronts, places, strict=True)):
            other = int(np.searchsorted(front.savings, front.savings[place] - spare))
            if other < place:
                best = max(best, (float(front.losses[place] - front.losses[other]), group, other))
        relief, group, other = best
        if relief <= 0:
            return
        spare -= float(fronts[group].savings[places[group]] - fronts[group].savings[other])
        places[group] = other


def _allocation(fronts: Sequence[_Front], places: Sequence[int], bound: float) -> Allocation:
    chosen = list(zip(fronts, places, strict=True))
    return Allocation(
        levels=tuple(int(front.levels[place]) for front, place in chosen),
        loss=sum(float(front.losses[place]) for front, place in chosen),
        saving=sum(float(front.savings[place]) for front, place in chosen),
        bound=bound,
    )
