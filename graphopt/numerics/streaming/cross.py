"""What a least-squares refit needs: second moments of X, and of X with Y, over the same rows.

With centred moments ``H = cov(x, x)`` and ``G = cov(x, y)`` the ridge regression of Y on X towards weights
``W_0`` is ``W = (H + lam I)^-1 (G + lam W_0)``, ``b = mean y - mean x W``; what remains of the variance of
y is ``var y - diag(2 W^T G - W^T H W)``. X and Y may come from two models that are run on the same inputs.
As G is linear in Y, a target that is a sum of tensors may be had as the sum of several.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from graphopt.numerics.streaming.accumulator import Accumulator, Shape, Spec, readable
from graphopt.numerics.streaming.blocks import Blocks
from graphopt.numerics.streaming.gram import Gram, GramSpec, shifted, survey
from graphopt.numerics.streaming.rows import FeatureRows, Rows
from graphopt.numerics.streaming.sampling import Sampling


class Cross(Accumulator):
    """Second moments between the features x of a layer's input and its targets y.

    Rows are left out where x or y has an element that is not finite.

    Attributes:
        spec: what was asked for.
        gram: the second moments of x over the rows used.
        shift: a provisional mean of y, float64 of shape ``(targets,)``.
        sums: of y less the shift, float64 of shape ``(targets,)``.
        squares: of y less the shift, summed, float64 of shape ``(targets,)``.
        products: of x and y less their shifts, summed; float64 of shape ``(groups, features of a group,
            targets of a group)``.
    """

    PARTS = ("shift", "sums", "squares", "products")

    def __init__(self, spec: CrossSpec) -> None:
        self.spec = spec
        self.gram = Gram(GramSpec(spec.rows, spec.blocks, spec.sampling))
        self.shift = self.sums = self.squares = np.empty(0)
        self.products = np.empty((0, 0, 0))

    @property
    def mean(self) -> np.ndarray:
        """The mean of each target, float64 of shape ``(targets,)``."""
        return self.shift + self.sums / max(self.gram.rows, 1)

    @property
    def variance(self) -> np.ndarray:
        """The variance of each target, float64 of shape ``(targets,)``."""
        count = max(self.gram.rows, 1)
        return self.squares / count - (self.sums / count) ** 2

    def covariance(self, group: int = 0) -> np.ndarray:
        """G = X^T Y / n - mu_x mu_y^T, float64 of shape ``(features, targets)`` of one group."""
        count = max(self.gram.rows, 1)
        x, y = self._offsets(group)
        centred: np.ndarray = self.products[group] / count - np.outer(x, y) / count**2
        return centred

    def product(self, group: int = 0) -> np.ndarray:
        """X^T Y, float64 of shape ``(features, targets)`` of one group."""
        groups = len(self.products)
        x, y = (part.reshape(groups, -1)[group] for part in (self.gram.shift, self.shift))
        moved, sums = self._offsets(group)
        both = np.outer(x, sums + self.gram.rows * y) + np.outer(moved, y)
        total: np.ndarray = self.products[group] + both
        return total

    def _offsets(self, group: int) -> tuple[np.ndarray, np.ndarray]:
        groups = len(self.products)
        return self.gram.sums.reshape(groups, -1)[group], self.sums.reshape(groups, -1)[group]

    @np.errstate(over="ignore", invalid="ignore")
    def add(self, array: np.ndarray, target: np.ndarray) -> None:
        """Take in an array of inputs and one of targets with as many rows.

        Raises:
            ValueError: they cannot be read as such rows, or have other features than the ones before.
        """
        array, target = readable(array), readable(target)
        self._begin(array.shape, target.shape)
        x, y = self.spec.rows.table(array), self.spec.target.table(target)
        if x.count != y.count:
            raise ValueError(f"{x.count} rows of the input meet {y.count} rows of the target")
        (narrow, clean), (other, known) = survey(array), survey(target)
        dtype = np.promote_types(narrow, other)
        width = self.gram.sums.size + self.sums.size
        number, self.gram.batches = self.gram.batches, self.gram.batches + 1
        for picks in self.spec.sampling.portions(x.count, width, number):
            rows, targets = (table.take(picks).astype(dtype, copy=False) for table in (x, y))
            if not (clean and known):
                used = np.isfinite(rows).all(axis=1) & np.isfinite(targets).all(axis=1)
                self.gram.rejected += len(rows) - int(np.count_nonzero(used))
                rows, targets = rows[used], targets[used]
            self._add_rows(rows, targets)

    def _begin(self, shape: Shape, target: Shape) -> None:
        targets = _targets(self.spec, shape, target)
        self.gram.begin(shape)
        groups, channels, size = map(int, self.gram.layout)
        if not self.sums.size:
            self.shift, self.sums, self.squares = np.zeros((3, targets))
            self.products = np.zeros((groups, channels * size, targets // groups))
        elif self.sums.size != targets:
            raise ValueError(f"it has {targets} targets now, but had {self.sums.size} before")

    def _add_rows(self, rows: np.ndarray, targets: np.ndarray) -> None:
        self.shift = shifted(targets, self.shift, first=not self.gram.rows)
        self.gram.add_rows(rows)
        self.sums += targets.sum(axis=0, dtype=np.float64)
        self.squares += np.einsum("ij,ij->j", targets, targets, dtype=np.float64)
        groups, features, wide = self.products.shape
        for group in range(groups):
            x = rows[:, group * features : (group + 1) * features]
            self.products[group] += x.T @ targets[:, group * wide : (group + 1) * wide]

    def merge(self, other: Cross) -> None:
        """Take in what another one was fed.

        Raises:
            ValueError: it has other features or targets.
        """
        if not other.sums.size:
            return
        if not self.sums.size:
            self.copy_from(other)
            return
        if self.products.shape != other.products.shape:
            raise ValueError("it has other features or targets")
        if not self.gram.rows:
            self.shift, self.gram.shift = other.shift.copy(), other.gram.shift.copy()
        groups, count = len(self.products), other.gram.rows
        x = (other.gram.shift - self.gram.shift).reshape(groups, -1, 1)
        y = other.shift - self.shift
        sums = (other.sums + count * y).reshape(groups, 1, -1)
        moved = other.gram.sums.reshape(groups, -1, 1) * y.reshape(groups, 1, -1)
        self.products += other.products + x * sums + moved
        self.squares += other.squares + y * (2 * other.sums + count * y)
        self.sums += other.sums + count * y
        self.gram.merge(other.gram)

    def state(self) -> dict[str, np.ndarray]:
        """All that it knows, as arrays by name."""
        return super().state() | {f"gram.{k}": v for k, v in self.gram.state().items()}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Know what ``state`` of another accumulator of the same spec gave."""
        super().restore(state)
        inner = {k.removeprefix("gram."): v for k, v in state.items() if k.startswith("gram.")}
        self.gram.restore(inner)


def _targets(spec: CrossSpec, shape: Shape, target: Shape) -> int:
    """How many targets there are.

    Raises:
        ValueError: they cannot be shared out among the groups.
    """
    groups, _, _ = spec.rows.features(shape)
    _, targets, size = spec.target.features(target)
    if targets * size % groups:
        raise ValueError(f"{targets * size} targets are no {groups} groups of equal size")
    return targets * size


@dataclass(frozen=True)
class CrossSpec(Spec[Cross]):
    """Ask for a ``Cross``.

    Args:
        rows: how an input is read as rows.
        target: how a target is read as rows; ``FeatureRows(1)`` for what a convolution computes.
        blocks: which products of inputs are kept; see ``Blocks``. Those with targets are all kept.
        sampling: a limit on the rows of each batch.
    """

    rows: Rows = field(default_factory=FeatureRows)
    target: Rows = field(default_factory=FeatureRows)
    blocks: Blocks = None
    sampling: Sampling = field(default_factory=Sampling)

    arrays = 2

    def start(self) -> Cross:
        """An empty accumulator."""
        return Cross(self)

    def nbytes(self, *shapes: Shape) -> int:
        """Bytes of the sums, and of the products of a portion of rows beside them."""
        _, channels, size = self.rows.features(shapes[0])
        targets = _targets(self, shapes[0], shapes[1])
        inner = GramSpec(self.rows, self.blocks, self.sampling).nbytes(shapes[0])
        return inner + 12 * channels * size * targets + 3 * 8 * targets
