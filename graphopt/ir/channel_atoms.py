"""Which places along the axes of tensors can only leave a model together: the algebra of it.

Each place along an axis has an *atom*, a number. Places with the same atom are the same channel seen at two
places of the graph. What operators say of atoms is of four kinds:

    join(a, b)          these leave together, one to one
    lock(a, why)        these stay
    split(w, p1..pn)    axis w is the product of the axes p1..pn in row order, as Reshape makes it
    batch(a)            these count independent matrix products, as attention heads do

Joins are an equivalence relation; its classes are found by hooking labels onto smaller neighbours and
jumping pointers (Shiloach, Vishkin, An O(log n) parallel connectivity algorithm, 1982), on whole arrays.

A split is a choice. A plane can be cut out of the product only along one of its parts: whole heads, or the
same place of every head. Parts that are locked anyway (height and width of a flattened map) leave no choice.
Otherwise a part that counts matrix products is taken, else the one of most places, else the first. The other
parts stay then.

An array of atoms has one entry per place. A negative entry stands for a place that stays, -1 - r for reason
r. A scalar array is an axis that stays as a whole, be its length known or not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Atoms = npt.NDArray[np.int64]
"""Atoms of the places along one axis, shape [places], or a negative scalar."""

MAX_ROUNDS = 64
"""Rounds in which splits are settled; what is open then stays."""

MAX_PLACES = 1 << 21
"""Places along one axis beyond which it is not followed."""

MAX_ATOMS = 1 << 25
"""Atoms of a model beyond which no more are made."""


@dataclass
class _Split:
    whole: Atoms
    parts: list[Atoms]
    node: str
    open: bool = True


@dataclass
class AtomTable:
    """All atoms of a model and what is known of them.

    Attributes:
        count: how many atoms there are.
        reasons: why places stay, by number.
    """

    count: int = 0
    reasons: list[str] = field(default_factory=list)
    _numbers: dict[str, int] = field(default_factory=dict)
    _joins: list[tuple[Atoms, Atoms]] = field(default_factory=list)
    _splits: list[_Split] = field(default_factory=list)
    _batches: list[Atoms] = field(default_factory=list)

    def fresh(self, places: int) -> Atoms:
        """New atoms for an axis of so many places; an axis that is too long stays."""
        if places > MAX_PLACES or self.count + places > MAX_ATOMS:
            return self.fixed("it lies along an axis that is too long to be followed")
        self.count += places
        return np.arange(self.count - places, self.count, dtype=np.int64)

    def fixed(self, why: str) -> Atoms:
        """An axis that stays, whatever its length."""
        number = self._numbers.setdefault(why, len(self.reasons))
        if number == len(self.reasons):
            self.reasons.append(why)
        return np.array(-1 - number, dtype=np.int64)

    def join(self, a: Atoms, b: Atoms) -> None:
        """These leave together, one to one; what meets a scalar stays."""
        if a is b or (a.ndim == 0 and b.ndim == 0):
            return
        if a.ndim and b.ndim and len(a) != len(b):
            self.lock(a, "axes of unequal lengths meet")
            self.lock(b, "axes of unequal lengths meet")
            return
        self._joins.append((a, b))

    def lock(self, atoms: Atoms, why: str) -> None:
        """These stay."""
        if atoms.ndim:
            self.join(atoms, self.fixed(why))

    def split(self, whole: Atoms, parts: Sequence[Atoms], node: str) -> None:
        """One axis is the product of others, the last of them running fastest.

        Args:
            whole: shape [p1 * ... * pn]; where it stays as a whole, so do the parts.
            parts: shapes [p1] to [pn]; where one of them is of unknown length, all stay.
            node: the name of the node that says so.
        """
        if whole.ndim == 0 or any(part.ndim == 0 for part in parts):
            for atoms in (whole, *parts):
                self.join(atoms, next(a for a in (whole, *parts) if a.ndim == 0))
            return
        self._splits.append(_Split(whole, list(parts), node))

    def batch(self, atoms: Atoms) -> None:
        """These count independent matrix products."""
        if atoms.ndim and len(atoms) > 1:
            self._batches.append(atoms)

    def solve(self) -> Solution:
        """The classes of atoms that leave together, every split settled."""
        solution = self._classes()
        for _ in range(MAX_ROUNDS):
            waiting = [split for split in self._splits if split.open]
            if not waiting:
                break
            settled = [self._settle(split, solution) for split in waiting]
            if not any(settled):
                self._choose(waiting, solution)
            solution = self._classes()
        for split in self._splits:
            if split.open:
                self._keep(split, f"how {split.node} divides it was not settled")
        return self._classes()

    def _classes(self) -> Solution:
        left, right = _pairs(self._joins)
        free = (left >= 0) & (right >= 0)
        label = components(self.count, left[free], right[free])
        lock = np.full(self.count, len(self.reasons), dtype=np.int64)
        for atoms, other in ((left, right), (right, left)):
            held = (atoms >= 0) & (other < 0)
            np.minimum.at(lock, label[atoms[held]], -1 - other[held])
        lock = lock[label]
        return Solution(label, np.where(lock < len(self.reasons), lock, -1), self.reasons)

    def _settle(self, split: _Split, solution: Solution) -> bool:
        """Settle a split that leaves no choice; whether it did."""
        free = [i for i, part in enumerate(split.parts) if not solution.held(part)]
        if solution.held(split.whole) or not free:
            why = solution.why(split.whole) if solution.held(split.whole) else None
            held = [part for part in split.parts if len(np.atleast_1d(part)) > 1]
            why = why or next((solution.why(part) for part in held), "") or "it has one place only"
            self._keep(split, why)
            return True
        if len(free) == 1:
            self._take(split, free[0])
            return True
        return False

    def _choose(self, splits: list[_Split], solution: Solution) -> None:
        """Settle splits by preference, none against another; those of matrix products come first."""
        counts = self._products(splits, solution)
        lost = np.zeros(self.count, dtype=bool)
        wishes = [self._wish(split, solution, counts, lost) for split in splits]
        first = any(wish is not None and wish[0] for wish in wishes)
        for split in splits:
            wish = self._wish(split, solution, counts, lost)
            if wish is None or wish[0] < first:
                continue
            self._take(split, wish[1])
            for index, part in enumerate(split.parts):
                if index != wish[1]:
                    lost[solution.labels(part)] = True

    def _products(self, splits: list[_Split], solution: Solution) -> npt.NDArray[np.bool_]:
        """Which classes count matrix products, or are a part of an axis that does, [atoms]."""
        counts = np.zeros(self.count, dtype=bool)
        for atoms in self._batches:
            counts[solution.labels(atoms)] = True
        for _ in range(MAX_ROUNDS):
            before = counts.sum()
            for split in splits:
                if counts[solution.labels(split.whole)].any():
                    for part in split.parts:
                        counts[solution.labels(part)] = True
            if counts.sum() == before:
                break
        return counts

    def _wish(
        self,
        split: _Split,
        solution: Solution,
        counts: npt.NDArray[np.bool_],
        lost: npt.NDArray[np.bool_],
    ) -> tuple[bool, int] | None:
        """The part that a split would take, and whether it counts matrix products."""
        free = []
        for index, part in enumerate(split.parts):
            labels = solution.labels(part)
            if not solution.held(part) and not lost[labels].any():
                product = bool(counts[labels].any())
                free.append((product, 0 if product else len(part), -index))
        if not free:
            return None
        product, _, index = max(free)
        return product, -index

    def _keep(self, split: _Split, why: str) -> None:
        split.open = False
        for atoms in (split.whole, *split.parts):
            self.lock(atoms, why)

    def _take(self, split: _Split, taken: int) -> None:
        """Let planes of one part leave; the others stay."""
        split.open = False
        sizes = [len(part) for part in split.parts]
        inner = math.prod(sizes[taken + 1 :])
        outer = math.prod(sizes[:taken])
        self.join(split.whole, np.tile(np.repeat(split.parts[taken], inner), outer))
        for index, part in enumerate(split.parts):
            if index != taken:
                self.lock(part, f"{split.node} keeps it whole in every block of channels")


@dataclass(frozen=True)
class Solution:
    """Which atoms leave together, and which stay.

    Attributes:
        label: the smallest atom of each atom's class, [atoms].
        lock: the reason why each atom stays by number, -1 where it may leave, [atoms].
        reasons: by number.
    """

    label: Atoms
    lock: Atoms
    reasons: list[str]

    def labels(self, atoms: Atoms) -> Atoms:
        """The classes of those of an axis that are not fixed from the start."""
        found: Atoms = self.label[atoms[atoms >= 0]]
        return found

    def held(self, atoms: Atoms) -> bool:
        """Whether a whole axis stays, or has nothing to leave."""
        if atoms.ndim == 0 or len(atoms) < 2:
            return True
        return bool((self.lock[atoms[atoms >= 0]] >= 0).all())

    def why(self, atoms: Atoms) -> str:
        """A reason why places of an axis stay; empty where all may leave."""
        flat = np.atleast_1d(atoms)
        numbers = np.where(
            flat < 0, -1 - flat, self.lock[np.maximum(flat, 0)] if len(self.lock) else -1
        )
        numbers = numbers[numbers >= 0]
        return self.reasons[int(numbers.min())] if len(numbers) else ""


def _pairs(joins: Sequence[tuple[Atoms, Atoms]]) -> tuple[Atoms, Atoms]:
    pairs = [np.broadcast_arrays(a, b) for a, b in joins]
    if not pairs:
        empty = np.zeros(0, dtype=np.int64)
        return empty, empty
    return np.concatenate([a for a, _ in pairs]), np.concatenate([b for _, b in pairs])


def components(count: int, left: Atoms, right: Atoms) -> Atoms:
    """The connected components of an undirected graph.

    Args:
        count: of vertices.
        left: one end of each edge, [edges].
        right: the other end.

    Returns:
        The smallest vertex of each vertex's component, [count].
    """
    label = np.arange(count, dtype=np.int64)
    while len(left):
        a, b = label[left], label[right]
        low = np.minimum(a, b)
        np.minimum.at(label, a, low)
        np.minimum.at(label, b, low)
        while True:
            jumped = label[label]
            if np.array_equal(jumped, label):
                break
            label = jumped
        apart = label[left] != label[right]
        left, right = left[apart], right[apart]
    return label
