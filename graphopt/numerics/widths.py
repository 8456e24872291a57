"""Widths of groups of units whose savings depend on each other.

The multiply-accumulates of a layer are a product of the widths of its input and its output, so what a
narrower group saves depends on the widths of its neighbours, and there is no table of savings to choose
from. Widths are narrowed step by step instead: always the group that loses least per saving at the present
widths, as in ZipLM (Kurtic et al., 2023). Then steps are exchanged, one group wider for another one
narrower, as long as that lowers the loss.

Losses of different groups are taken to add up. What all groups save together is at most what each would
save alone, the others at full width, as long as their savings overlap: a product of widths saves
``1 - (1 - a)(1 - b) <= a + b``. So the table of what each group saves alone gives a lower bound of the loss
(``allocation.lower_bound``). It holds for multiply-accumulates, parameters and bytes; for latencies it is
an estimate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from graphopt.numerics.allocation import (
    ROUNDING,
    Allocation,
    Table,
    UnreachableError,
    lower_bound,
)

FLOOR = 0.08
"""The share of its width that every group keeps at least."""

EXCHANGES = 200
"""Exchanges after which the search for better widths ends."""

WORTH = 1e-4
"""The share of the loss that an exchange must spare."""

Savings = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""``savings(widths, others)``: what is saved by changing each group *alone* from its width to its other one,
where all groups have the widths given. Both are int64 arrays of shape ``(groups,)``. Negative where the other
width costs more. It must be the difference of a cost that depends on nothing but the widths."""


def allocate_widths(
    losses: Sequence[np.ndarray],
    savings: Savings,
    target: float,
    multiples: int | Sequence[int] = 1,
    floor: float = FLOOR,
) -> Allocation:
    """Narrow groups until enough is saved.

    Args:
        losses: of each group, of shape ``(width,)``: what is lost without its first unit to go, without its
            first two, and so on, as in ``Removal.errors``.
        savings: what a change of width saves.
        target: what is to be saved at least.
        multiples: of what the widths shall be, of each group or of all. A group that is not wider stays as
            it is.
        floor: the share of its width that a group keeps at least.

    Returns:
        The widths, as ``levels``.

    Raises:
        UnreachableError: the floors do not allow to save so much.
    """
    groups = _Groups(losses, savings, target, multiples, floor)
    groups.narrow()
    groups.exchange()
    return Allocation(
        tuple(map(int, groups.widths)),
        float(groups.lost(groups.widths).sum()),
        groups.saved,
        groups.bound(),
    )


class _Groups:
    """The present widths of all groups, and what they save against the full ones."""

    def __init__(
        self,
        losses: Sequence[np.ndarray],
        savings: Savings,
        target: float,
        multiples: int | Sequence[int],
        floor: float,
    ) -> None:
        self.losses = [np.concatenate([[0.0], loss]) for loss in losses]
        self.savings = savings
        self.target = target
        self.full = np.array([len(loss) for loss in losses], np.int64)
        self.multiples = np.broadcast_to(np.asarray(multiples, np.int64), self.full.shape)
        least = np.maximum(np.ceil(self.full * floor - ROUNDING), 1).astype(np.int64)
        self.floor = np.minimum(-(-least // self.multiples) * self.multiples, self.full)
        self.widths = self.full
        self.saved = 0.0

    @property
    def missing(self) -> float:
        """What is still to be saved."""
        return self.target - self.saved

    @property
    def reached(self) -> bool:
        """Whether enough is saved, but for rounding."""
        return self.missing <= ROUNDING * abs(self.target)

    def lost(self, widths: np.ndarray) -> np.ndarray:
        """What each group loses at some widths."""
        gone = self.full - widths
        return np.array([loss[n] for loss, n in zip(self.losses, gone, strict=True)])

    def narrower(self, widths: np.ndarray) -> np.ndarray:
        """The next width of each group; the same one where there is none."""
        below: np.ndarray = (widths - 1) // self.multiples * self.multiples
        return np.where(below >= self.floor, below, widths)

    def wider(self, widths: np.ndarray) -> np.ndarray:
        """The next width up to the full one."""
        above: np.ndarray = (widths // self.multiples + 1) * self.multiples
        return np.asarray(np.minimum(above, self.full))

    def narrow(self) -> None:
        """Take steps until enough is saved."""
        while not self.reached:
            others, gains = self._next(0.0)
            price = np.full(len(gains), np.inf)
            pays = gains > 0
            rise = self.lost(others) - self.lost(self.widths)
            price[pays] = rise[pays] / gains[pays]
            if not np.isfinite(price).any():
                raise UnreachableError(self.target, self.saved)
            self._change(int(np.argmin(price)), others, gains)

    def _next(self, least: float) -> tuple[np.ndarray, np.ndarray]:
        """The next width of each group that saves anything, and at least so much; and what it saves."""
        others = self.narrower(self.widths)
        while True:
            gains = np.asarray(self.savings(self.widths, others), np.float64)
            enough = (gains > 0) & (gains >= least)
            further = np.where(enough, others, self.narrower(others))
            if np.array_equal(further, others):
                return others, gains
            others = further

    def _change(self, group: int, others: np.ndarray, gains: np.ndarray) -> None:
        """Give one group its other width."""
        self.widths = self.widths.copy()
        self.widths[group] = others[group]
        self.saved += float(gains[group])

    def exchange(self) -> None:
        """Widen one group, and narrow another one where that is needed, as long as less is lost."""
        for _ in range(EXCHANGES):
            before = (self.widths, self.saved)
            best = ((1 - WORTH) * float(self.lost(self.widths).sum()), *before)
            wider = self.wider(self.widths)
            gains = np.asarray(self.savings(self.widths, wider), np.float64)
            for group in np.flatnonzero(wider > self.widths):
                self._change(int(group), wider, gains)
                best = self._completed(best)
                self.widths, self.saved = before
            if best[1] is self.widths:
                return
            _, self.widths, self.saved = best

    def _completed(self, best: tuple[float, np.ndarray, float]) -> tuple[float, np.ndarray, float]:
        """The better of the best loss, widths and saving so far and what one step from here gives."""
        here = self.lost(self.widths)
        loss = float(here.sum())
        if self.reached:
            return (loss, self.widths, self.saved) if loss < best[0] else best
        others, gains = self._next(self.missing)
        loss_then = loss + self.lost(others) - here
        loss_then[gains < self.missing] = np.inf
        group = int(np.argmin(loss_then))
        if loss_then[group] < best[0]:
            widths = self.widths.copy()
            widths[group] = others[group]
            return float(loss_then[group]), widths, self.saved + float(gains[group])
        return best

    def bound(self) -> float:
        """What every choice loses at least; see the module."""
        tables = [([0.0], [0.0]) for _ in self.full]
        widths = self.full
        while True:
            others = self.narrower(widths)
            changed = np.flatnonzero(others < widths)
            if not changed.size:
                break
            widths = others
            lost, gains = self.lost(widths), self.savings(self.full, widths)
            for group in changed:
                tables[group][0].append(float(lost[group]))
                tables[group][1].append(float(gains[group]))
        try:
            return lower_bound([Table(np.array(a), np.array(b)) for a, b in tables], self.target)
        except UnreachableError:  # together they save more than each alone: nothing is proven
            return 0.0
