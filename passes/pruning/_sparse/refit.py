"""Sparse weights of one layer, fitted to what the layer gave in the original.

    W_0 = argmin |X W^T + b - T|^2          X: the layer's input in the model as it is by now
    W   = sparse(W_0), its zeros chosen     T: what the original has at the layer's place
    W   = argmin |X W^T + b - T|^2 over the weights that are not zero

All three steps pull towards the original weights (ridge), so a layer without enough data keeps close to them.
Where the fit is made anew (``_fitting.fits``), the zeros stay where they are.
"""

from __future__ import annotations

import numpy as np

from graphopt.numerics.least_squares import ridge
from graphopt.numerics.sparsity import Sparsity, refitted
from graphopt.numerics.streaming import Cross

from .._fitting import places
from .._fitting.fits import LeastSquares
from .moments import from_gram
from .places import Place
from .solving import Method, Part, Problem

DAMPING = 0.01
"""The ridge as a share of the mean of H's diagonal, as in SparseGPT."""


class SparseLeastSquares(LeastSquares):
    """Least squares over the weights that stay.

    Args:
        place: where the layer is compared with the original.
        weights: of the layer.
        method: how those that become zero are chosen.
        sparsity: how many.
    """

    def __init__(
        self, place: places.Place, weights: Place, method: Method, sparsity: Sparsity
    ) -> None:
        super().__init__(place)
        self.wide = False
        self.weights, self.method, self.sparsity = weights, method, sparsity
        self.problem: Problem | None = None
        self.mean = np.empty(0)
        self.chosen = np.empty(0)

    def _whole(self, found: Cross) -> tuple[np.ndarray, np.ndarray]:
        if self.problem is None:
            known = from_gram(self.weights, found.gram, centred=self.place.biased)
            if known.mean is None:
                raise ValueError(known.why)
            self.problem, self.mean = known.problem, known.mean
        parts = self.problem.parts
        crosses = [self._cross(found, part) for part in parts]
        if not self.chosen.size:
            best = self._dense(self.problem, crosses)
            self.chosen = Problem(best, parts).solve(self.method, self.sparsity)
        new = np.zeros(self.chosen.shape)
        for part, cross in zip(parts, crosses, strict=True):
            assert part.moments is not None
            old = self.problem.matrices[part.group][:, part.features]
            chosen = self.chosen[part.group][:, part.features]
            best = refitted(chosen, part.moments, cross, old, DAMPING)
            new[part.group][:, part.features] = best
        if not np.isfinite(new).all():
            raise ValueError("its moments are not finite")
        means = found.mean.reshape(len(new), -1)
        bias = (means - np.einsum("gi,goi->go", self.mean, new)).ravel()
        return new.transpose(0, 2, 1), bias

    def _dense(self, problem: Problem, crosses: list[np.ndarray]) -> np.ndarray:
        """The best weights without new zeros; what is zero already stays so."""
        wanted = np.zeros(problem.matrices.shape)
        for part, cross in zip(problem.parts, crosses, strict=True):
            assert part.moments is not None
            old = problem.matrices[part.group][:, part.features]
            none = np.zeros(len(part.features)), np.zeros(len(old))
            best = ridge(part.moments, cross.T, *none, old.T, DAMPING).weights.T
            wanted[part.group][:, part.features] = np.where(old == 0, 0.0, best)
        return wanted

    def _cross(self, found: Cross, part: Part) -> np.ndarray:
        """Moments of the targets with the features of a part, of shape ``(outputs, features)``."""
        if self.place.biased:
            return np.asarray(found.covariance(part.group)[part.features].T)
        return np.asarray(found.product(part.group)[part.features].T / found.gram.rows)
