"""Gram matrices of a layer's input: X^T X with sum and count, in one pass.

With mu = sum x / n the centred second moments are ``H = X^T X / n - mu mu^T``, which cancels where means are
large. So a provisional mean s, that of the first rows, is taken off every row ("shifted data": Chan, Golub
and LeVeque, "Algorithms for computing the sample variance", 1983); with t = sum (x - s)

    H     = sum (x - s)(x - s)^T / n - t t^T / n^2
    X^T X = sum (x - s)(x - s)^T + s t^T + t s^T + n s s^T

Products of up to ``MOST_ROWS`` rows are summed in the type of the rows, float32 as a rule, and these sums in
float64. Elements so large or small that their squares leave float32 are multiplied in float64. A row with an
element that is not finite is left out and counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from graphopt.numerics.streaming.accumulator import Accumulator, Shape, Spec, owned, readable
from graphopt.numerics.streaming.blocks import Blocks, Stack, partition, stacks
from graphopt.numerics.streaming.rows import FeatureRows, Rows
from graphopt.numerics.streaming.sampling import Sampling

SAFE = (1e-12, 1e15)
"""Largest magnitudes of an array between which sums of its squares stay within float32."""


class Gram(Accumulator):
    """Second moments of the features of rows, whole or in blocks.

    Attributes:
        spec: what was asked for.
        blocks: the features of each block, int64; all in one where the spec names no blocks and the layer has
            one group. Empty before the first array.
        rows: rows that were used.
        rejected: rows that were left out for an element that is not finite.
        batches: arrays that were taken in.
        shift: the provisional mean, float64 of shape ``(features,)``.
        sums: of the rows less the shift, float64 of shape ``(features,)``.
    """

    PARTS = ("rows", "rejected", "batches", "layout", "shift", "sums")

    def __init__(self, spec: GramSpec) -> None:
        self.spec = spec
        self.rows = 0
        self.rejected = 0
        self.batches = 0
        self.layout = np.empty(0, np.int64)
        self.shift = self.sums = np.empty(0)
        self.blocks: list[np.ndarray] = []
        self._stacks: list[Stack] = []
        self._places: list[tuple[int, int]] = []

    @property
    def mean(self) -> np.ndarray:
        """The mean of each feature, float64 of shape ``(features,)``."""
        return self.shift + self.sums / max(self.rows, 1)

    @property
    def second(self) -> np.ndarray:
        """E[x^2] of each feature, float64 of shape ``(features,)``."""
        found = np.empty(self.sums.shape)
        for stack in self._stacks:
            found[stack.features] = np.diagonal(stack.sums, axis1=1, axis2=2)
        found += self.shift * (2 * self.sums + self.rows * self.shift)
        return found / max(self.rows, 1)

    def product(self, block: int = 0) -> np.ndarray:
        """X^T X of one block, float64 of shape ``(size, size)``."""
        features = self.blocks[block]
        shift, sums = self.shift[features], self.sums[features]
        mixed = np.outer(shift, sums + self.rows / 2 * shift)
        return self._shifted(block) + mixed + mixed.T

    def covariance(self, block: int = 0) -> np.ndarray:
        """H = X^T X / n - mu mu^T of one block, float64 of shape ``(size, size)``."""
        count = max(self.rows, 1)
        offset = self.sums[self.blocks[block]] / count
        return self._shifted(block) / count - np.outer(offset, offset)

    def _shifted(self, block: int) -> np.ndarray:
        stack, place = self._places[block]
        found: np.ndarray = self._stacks[stack].sums[place]
        return found

    @np.errstate(over="ignore", invalid="ignore")
    def add(self, array: np.ndarray) -> None:
        """Take in an array of floats.

        Raises:
            ValueError: it cannot be read as such rows, or has other features than the ones before.
        """
        array = readable(array)
        self.begin(array.shape)
        table = self.spec.rows.table(array)
        dtype, finite = survey(array)
        number, self.batches = self.batches, self.batches + 1
        for picks in self.spec.sampling.portions(table.count, self.sums.size, number):
            rows = table.take(picks).astype(dtype, copy=False)
            if not finite:
                used = np.isfinite(rows).all(axis=1)
                self.rejected += len(rows) - int(np.count_nonzero(used))
                rows = rows[used]
            self.add_rows(rows)

    def begin(self, shape: Shape) -> None:
        """Lay out the blocks for arrays of a shape, or check that they are as before.

        Raises:
            ValueError: the features are others.
        """
        layout = np.asarray(self.spec.rows.features(shape), np.int64)
        if not self.layout.size:
            self._lay_out(layout)
        elif not np.array_equal(layout, self.layout):
            raise ValueError(
                f"it has {layout.prod()} features now, but had {self.layout.prod()} before"
            )

    def _lay_out(self, layout: np.ndarray) -> None:
        self.layout = layout
        groups, channels, size = map(int, layout)
        self.blocks = partition(self.spec.blocks, groups, channels, size)
        self._stacks, self._places = stacks(self.blocks)
        self.shift = np.zeros(groups * channels * size)
        self.sums = np.zeros(groups * channels * size)

    def add_rows(self, rows: np.ndarray) -> None:
        """Take in finite rows ``(rows, features)`` of float32 or float64; the shift is taken off them."""
        self.shift = shifted(rows, self.shift, first=not self.rows)
        self.rows += len(rows)
        self.sums += rows.sum(axis=0, dtype=np.float64)
        for stack in self._stacks:
            stack.add(rows)

    def merge(self, other: Gram) -> None:
        """Take in what another one was fed.

        Raises:
            ValueError: it has other features.
        """
        if not other.layout.size:
            return
        if not self.layout.size:
            self._lay_out(other.layout)
        elif not np.array_equal(other.layout, self.layout):
            raise ValueError("it has other features")
        if not self.rows:
            self.shift = other.shift.copy()
        moved = other.shift - self.shift
        for mine, theirs in zip(self._stacks, other._stacks, strict=True):
            gap, sums = moved[mine.features], other.sums[mine.features]
            mixed = gap[:, :, None] * (sums + other.rows / 2 * gap)[:, None, :]
            mine.sums += theirs.sums + mixed + mixed.transpose(0, 2, 1)
        self.sums += other.sums + other.rows * moved
        self.rows += other.rows
        self.rejected += other.rejected
        self.batches += other.batches

    def state(self) -> dict[str, np.ndarray]:
        """All that it knows, as arrays by name."""
        products = {f"products.{n}": stack.sums for n, stack in enumerate(self._stacks)}
        return super().state() | products

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Know what ``state`` of another accumulator of the same spec gave."""
        if state["layout"].size:
            self._lay_out(state["layout"])
        super().restore(state)
        for number, stack in enumerate(self._stacks):
            stack.sums = owned(state[f"products.{number}"])


def survey(array: np.ndarray) -> tuple[np.dtype, bool]:
    """The type to multiply rows of an array in, and whether all its elements are finite."""
    if not array.size:
        return np.dtype(np.float32), True
    peak = max(-float(array.min()), float(array.max()))
    wide = array.dtype.itemsize > 4 or array.dtype.kind != "f"
    safe = SAFE[0] < peak < SAFE[1] or peak == 0
    return np.dtype(np.float32 if safe and not wide else np.float64), math.isfinite(peak)


def shifted(rows: np.ndarray, shift: np.ndarray, first: bool) -> np.ndarray:
    """Take a provisional mean off rows, in place.

    Args:
        rows: float32 or float64 of shape ``(rows, features)``.
        shift: what was taken off the rows before, float64 of shape ``(features,)``.
        first: whether there were none, so that the mean of these is to be used.

    Returns:
        What was taken off.
    """
    if first and len(rows):
        shift = rows.mean(axis=0, dtype=np.float64).astype(rows.dtype).astype(np.float64)
    rows -= shift.astype(rows.dtype)
    return shift


@dataclass(frozen=True)
class GramSpec(Spec[Gram]):
    """Ask for a ``Gram``.

    Args:
        rows: how an array is read as rows.
        blocks: which products are kept; see ``Blocks``.
        sampling: a limit on the rows of each array.
    """

    rows: Rows = field(default_factory=FeatureRows)
    blocks: Blocks = None
    sampling: Sampling = field(default_factory=Sampling)

    def start(self) -> Gram:
        """An empty accumulator."""
        return Gram(self)

    def nbytes(self, *shapes: Shape) -> int:
        """Bytes of the sums, and of the products of a portion of rows beside them."""
        groups, channels, size = self.rows.features(shapes[0])
        squares = _block_squares(self.blocks, groups, channels, size)
        return 12 * squares + 2 * 8 * groups * channels * size


def _block_squares(blocks: Blocks, groups: int, channels: int, size: int) -> int:
    """Elements of all blocks; the blocks are not laid out, for they may not fit."""
    width = channels * size
    if blocks is None:
        return groups * width * width
    if blocks == "position":
        return groups * size * channels * channels
    if isinstance(blocks, int):
        whole, rest = divmod(width, max(1, blocks))
        return groups * (whole * blocks * blocks + rest * rest)
    return sum(len(block) ** 2 for block in blocks)
