"""Which values weights share: by k-means, or fitted to what their layer gives.

    plain    the k-means clustering of the weights, each weighted by E[x^2] of its input where that is known.
    alone    with the second moments H of what the layer reads, ``numerics.codebooks``.
    refit    the same around the weights ``W_0 = argmin |X W + b - T|^2``, X the layer's input in the model as
             it is by now, T what the original has at the layer's place: a layer makes up for what the ones
             before it lose. The bias takes up the mean. See ``pruning._fitting``.

Where many weights are 0, they stay 0, and one value is 0.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np

from graphopt.numerics.kmeans import cluster
from graphopt.numerics.large_codebooks import shared_to_fit
from graphopt.numerics.streaming import Cross, Gram

from ..pruning._fitting.fits import LeastSquares, Question
from ..pruning._fitting.places import Place as Compared
from ..quantization._layer_moments import Moments, importance, layer_with, with_few_rows
from ..quantization._weight_places import Place

NOTABLE = 0.1
"""The share of zeros from which on zeros stay zeros."""

WHOLE = 2048
"""Features up to which all second moments of a layer's input are held, 32 MiB."""

BLOCK = 1024
"""Features of a block where they are not: what connects features of different blocks is not looked at."""


class ClusterLeastSquares(LeastSquares):
    """Least squares over weights that share few values.

    Of a layer with more than ``WHOLE`` features, blocks of the moments of its input are held; its weights are
    then fitted to themselves, and its bias to the original.

    Args:
        place: where the layer is compared with the original.
        k: values at most.
    """

    WHAT: ClassVar[str] = "its weights share values that were fitted to the original's outputs"
    again: ClassVar[int] = 1

    def __init__(self, place: Compared, k: int) -> None:
        super().__init__(place)
        self.wide, self.blocked = False, place.layer.features > WHOLE
        self.k = k

    def question(self) -> Question | None:
        """See ``LeastSquares``."""
        asked = super().question()
        if asked is None or not self.blocked:
            return asked
        return replace(asked, spec=replace(asked.spec, blocks=BLOCK))

    def _turns(self) -> int:
        return 1 if self.blocked else super()._turns()

    def _whole(self, found: Cross) -> tuple[np.ndarray, np.ndarray]:
        dtype = self.place.layer.weight.dtype
        zeros = zeros_of(self.old)
        if self.blocked:
            shared = shared_to_fit(self.old, self.k, self._damped(found.gram), zeros, dtype)
            mean = found.gram.mean.reshape(*shared.shape[:2])
            given = np.einsum("gf,gfo->go", mean, shared)
            return shared, found.mean - given.reshape(-1)
        fit, gram, mean = self._best(found)
        shared = shared_to_fit(fit.weights, self.k, gram, zeros, dtype)
        left = np.einsum("gf,gfo->go", mean, fit.weights - shared)
        return shared, (fit.bias + left).reshape(-1)

    def _damped(self, gram: Gram) -> list[tuple[np.ndarray, np.ndarray]]:
        """Blocks of the moments of what counts, as a bias takes up the mean."""
        part = gram.covariance if self.place.biased else gram.product
        known = [part(n) / (1 if self.place.biased else gram.rows) for n in range(len(gram.blocks))]
        return with_few_rows(zip(gram.blocks, known, strict=True), gram.rows)


def zeros_of(weights: np.ndarray) -> np.ndarray | None:
    """Which weights are 0, where that are many; else None."""
    zeros = weights == 0
    return zeros if zeros.mean() >= NOTABLE else None


def plain(place: Place, k: int, moments: Moments | None) -> np.ndarray:
    """The clustered weight, of its shape and type.

    Args:
        place: the weight.
        k: values at most.
        moments: of what its layer reads; None where that is not known.
    """
    values = place.weight.values
    centres, index = cluster(
        values, k, importance(place, moments), zero=zeros_of(values) is not None
    )
    return np.asarray(centres[index].astype(values.dtype))


def alone(place: Place, k: int, moments: Moments) -> np.ndarray:
    """The weight clustered so that the output of its layer changes least; as ``plain``."""
    layer = layer_with(place)
    matrices = layer.as_matrices(place.weight.values.astype(np.float64))
    blocks, dtype = moments.damped(), place.weight.dtype
    found = shared_to_fit(matrices, k, blocks, zeros_of(matrices), dtype)
    return np.ascontiguousarray(layer.as_stored(found))
