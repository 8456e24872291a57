"""Optimal Brain Surgeon for units: which rows of a weight matrix can go, and how the others make up for it.

A layer computes X W, and a unit is a block j of rows of W: a channel has one row per kernel position.
Without the unit

    min tr((W' - W)^T H (W' - W))  over W' with W'_j = 0,   H the second moments of X

is reached at ``W' = W - H^-1[:, j] (H^-1_jj)^-1 W_j`` and is ``e_j = tr(W_j^T (H^-1_jj)^-1 W_j)`` (Hassibi
and Stork, "Second order derivatives for network pruning", 1993; for blocks Kurtic, Frantar and Alistarh,
"ZipLM", 2023). Without the block's rows and columns of H the inverse becomes
``H^-1 - H^-1[:, j] (H^-1_jj)^-1 H^-1[j, :]``, so one pass removes unit after unit, always the one of the
least error. The errors add up: their sum is exactly the error of the best weights without all units removed
so far. With a centred H the bias takes up the mean.

With ``H^-1_jj = L L^T``, ``u = L^-1 H^-1[j, :]`` and ``v = L^-1 W_j`` a removal takes ``u^T u`` off H^-1 and
``u^T v`` off W, and ``e_j = |v|^2``. That is a pivoted block Cholesky factorisation, and is done
as one: u and v are kept in a panel, only what the next choice needs is updated at once (``H^-1_jj`` and
``W_j W_j^T`` of every unit), and a full panel is applied as one product. For F rows the work is about 2 F^3
and the memory that of four matrices H.

H may be block-diagonal: then the blocks do not know of each other, and their errors add. So the groups of a
grouped convolution, and a layer too wide for a whole H, are removed from in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from graphopt.numerics.positive import factor, inverse, transposed

PANEL = 256
"""Removed rows whose updates of H^-1 and W are put off and made in one product."""

LEAST_DAMPING = 1e-9
"""Least share of the mean diagonal of H on its diagonal: half of the digits of H^-1 survive all updates."""

Hessian = np.ndarray | Sequence[tuple[np.ndarray, np.ndarray]]
"""A matrix ``(rows, rows)``, or the blocks of a block-diagonal one: ``(rows of W, matrix)`` of each block."""

Consumer = tuple[Hessian, np.ndarray, Sequence[np.ndarray]]
"""H; W of shape ``(rows, outputs)``; and for each unit the numbers of its rows, none where it has none. For a
grouped convolution the rows of all groups, under each other, with the outputs of one group."""


class Removal(NamedTuple):
    """In which order units go, and what that costs.

    Attributes:
        order: int64, the units in the order of their removal.
        errors: float64, for each of them the error of removing it and all before it, as a share of the energy
            ``tr(W^T H W)``; of several consumers, the sum of their shares. Never falls.
    """

    order: np.ndarray
    errors: np.ndarray


def damped(hessian: np.ndarray, share: float = 0.01) -> np.ndarray:
    """H + c I with c a share of the mean of its diagonal; c = share where H is zero.

    Args:
        hessian: float of shape ``(rows, rows)``.
        share: 0.01 as in SparseGPT and ZipLM.

    Returns:
        A new float64 matrix.
    """
    found = np.array(hessian, np.float64)
    found[np.diag_indices(len(found))] += share * (float(np.mean(np.diag(found))) or 1.0)
    return found


def joint_removal_order(consumers: Sequence[Consumer], stop: int | None = None) -> Removal:
    """Remove units one by one, each time the one of the least error, and make up for it in the others.

    Where several layers read the units, what counts is the sum of their relative errors.

    Args:
        consumers: all that read the units; H as ``damped`` gives it. Rows of no unit stay.
        stop: units to remove; all where this is None.

    Raises:
        ValueError: consumers differ in their number of units, shapes do not fit, a row is in two units, or
            an element is not finite.
    """
    counts = {len(blocks) for _, _, blocks in consumers}
    if len(counts) != 1:
        raise ValueError(f"consumers of the same units count {sorted(counts)} units")
    units = counts.pop()
    parts = [part for consumer in consumers for part in _parts(*consumer)]
    touched: list[list[_Part]] = [[] for _ in range(units)]
    total = np.zeros(units)
    for part in parts:
        for stack in part.stacks:
            total[stack.units] += stack.scores
            for unit in stack.units:
                touched[unit].append(part)
    steps = units if stop is None else min(max(stop, 0), units)
    order, errors = np.empty(steps, np.int64), np.empty(steps)
    for step in range(steps):
        order[step] = unit = int(np.argmin(total))
        total[unit] = np.inf
        errors[step] = sum(part.remove(unit, total) for part in touched[unit])
    return Removal(order, np.cumsum(errors))


def _parts(hessian: Hessian, weights: np.ndarray, blocks: Sequence[np.ndarray]) -> list[_Part]:
    """The diagonal blocks of H with their share of W, scaled so that the energy of all is 1."""
    count = len(weights)
    blocks = [np.asarray(rows, np.int64) for rows in blocks]
    matrices = [(np.arange(count), hessian)] if isinstance(hessian, np.ndarray) else list(hessian)
    _check(matrices, weights, blocks)
    place, owner = np.empty(count, np.int64), np.empty(count, np.int64)
    for number, (rows, _) in enumerate(matrices):
        place[rows], owner[rows] = np.arange(len(rows)), number
    local: list[list[tuple[int, np.ndarray]]] = [[] for _ in matrices]
    for unit, rows in enumerate(blocks):
        for number in np.unique(owner[rows]) if len(rows) else ():
            local[number].append((unit, place[rows[owner[rows] == number]]))
    safe = [damped(matrix, LEAST_DAMPING) for _, matrix in matrices]
    wide = np.asarray(weights, np.float64)
    slices = [wide[rows] for rows, _ in matrices]
    energy = sum(float(np.vdot(w, h @ w)) for h, w in zip(safe, slices, strict=True))
    scale = 1 / np.sqrt(energy) if energy > 0 else 0.0
    return [_Part(h, w * scale, own) for h, w, own in zip(safe, slices, local, strict=True) if own]


def _check(
    matrices: list[tuple[np.ndarray, np.ndarray]], weights: np.ndarray, blocks: Sequence[np.ndarray]
) -> None:
    """Refuse shapes that do not fit; see ``joint_removal_order``."""
    if weights.ndim != 2 or not np.isfinite(weights).all():
        raise ValueError(f"weights of shape {weights.shape} are no matrix of finite numbers")
    every = np.arange(len(weights))
    if not np.array_equal(np.sort(np.concatenate([rows for rows, _ in matrices])), every):
        raise ValueError(f"the blocks of H do not hold each of {len(every)} rows exactly once")
    if any(matrix.shape != (len(rows), len(rows)) for rows, matrix in matrices):
        raise ValueError(f"H does not have the {len(every)} rows of the weights")
    used = np.concatenate([np.empty(0, np.int64), *blocks])
    if len(np.unique(used)) < len(used) or not np.isin(used, every).all():
        raise ValueError("a row is in two units, or there is no such row")


class _Stack:
    """Units of a part that have equally many rows: what the errors of their removal follow from.

    Attributes:
        units: their numbers, int64 of shape ``(units,)``.
        rows: of each, in the part, int64 of shape ``(units, k)``.
        spread: ``H^-1_jj`` of each, of shape ``(units, k, k)``.
        energy: ``W_j W_j^T`` of each, of the same shape.
        scores: e_j of each, of shape ``(units,)``.
    """

    def __init__(self, units: list[int], rows: list[np.ndarray]) -> None:
        self.units = np.asarray(units, np.int64)
        self.rows = np.stack(rows)

    def load(self, inverse_: np.ndarray, weights: np.ndarray) -> None:
        """Read everything off H^-1 and W anew."""
        self.spread = inverse_[self.rows[:, :, None], self.rows[:, None, :]]
        own = weights[self.rows]
        self.energy = own @ transposed(own)
        self._score()

    def update(self, u: np.ndarray, z: np.ndarray, inner: np.ndarray) -> None:
        """Take in a removal, ``u^T u`` off H^-1 and ``u^T v`` off W; z is ``v W^T``, inner ``v v^T``."""
        left = u.T[self.rows]
        mixed = z.T[self.rows] @ transposed(left)
        self.spread -= left @ transposed(left)
        self.energy += left @ inner @ transposed(left) - mixed - transposed(mixed)
        self._score()

    def drop(self, unit: int) -> None:
        """Forget a unit."""
        kept = self.units != unit
        for name in ("units", "rows", "spread", "energy", "scores"):
            setattr(self, name, getattr(self, name)[kept])

    def _score(self) -> None:
        if self.rows.shape[1] == 1:
            self.scores = (self.energy / self.spread)[:, 0, 0]
        else:
            self.scores = np.trace(np.linalg.solve(self.spread, self.energy), axis1=1, axis2=2)


class _Part:
    """One diagonal block of H with its rows of W: ``H^-1 - left^T left`` and ``W - left^T right``."""

    def __init__(
        self, hessian: np.ndarray, weights: np.ndarray, units: list[tuple[int, np.ndarray]]
    ) -> None:
        self.inverse = inverse(hessian)
        self.weights = weights
        by_size: dict[int, list[tuple[int, np.ndarray]]] = {}
        for unit, rows in units:
            by_size.setdefault(len(rows), []).append((unit, rows))
        self.stacks = [_Stack(*map(list, zip(*same, strict=True))) for same in by_size.values()]
        self.home = {int(unit): stack for stack in self.stacks for unit in stack.units}
        capacity = max(min(PANEL, len(weights)), *by_size)
        self.left = np.empty((capacity, len(weights)))
        self.right = np.empty((capacity, weights.shape[1]))
        self.used = 0
        self.alive = np.ones(len(weights), np.bool_)
        for stack in self.stacks:
            stack.load(self.inverse, self.weights)

    def remove(self, unit: int, total: np.ndarray) -> float:
        """Remove a unit and return its error; the changed errors of the others go into ``total``."""
        stack = self.home[unit]
        if self.used + stack.rows.shape[1] > len(self.left):
            self._apply()
        before = [stack.scores.copy() for stack in self.stacks]
        rows = stack.rows[np.flatnonzero(stack.units == unit)[0]]
        u, v, z = self._step(rows)
        self.alive[rows] = False
        for stack, old in zip(self.stacks, before, strict=True):
            old = old[stack.units != unit]
            if unit in stack.units:
                stack.drop(unit)
            stack.update(u, z, v @ v.T)
            total[stack.units] += stack.scores - old
        return float(np.vdot(v, v))

    def _step(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """u, v and ``z = v W^T`` of the removal of rows; u and v join the panel."""
        left, right = self.left[: self.used], self.right[: self.used]
        across = left[:, rows].T
        columns = self.inverse[rows] - across @ left
        root = factor(columns[:, rows])
        u = np.linalg.solve(root, columns)
        v = np.linalg.solve(root, self.weights[rows] - across @ right)
        z = v @ self.weights.T - (v @ right.T) @ left
        end = self.used + len(rows)
        self.left[self.used : end], self.right[self.used : end] = u, v
        self.used = end
        return u, v, z

    def _apply(self) -> None:
        """Apply the panel, and leave out the rows that are gone."""
        kept = np.flatnonzero(self.alive)
        left = self.left[: self.used, kept]
        self.inverse = self.inverse[np.ix_(kept, kept)]
        self.inverse -= left.T @ left
        self.weights = self.weights[kept] - left.T @ self.right[: self.used]
        place = np.cumsum(self.alive) - 1
        self.left = np.empty((len(self.left), len(kept)))
        self.used = 0
        self.alive = np.ones(len(kept), np.bool_)
        for stack in self.stacks:
            stack.rows = place[stack.rows]
            stack.load(self.inverse, self.weights)
