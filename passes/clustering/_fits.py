"""Which values weights share: by k-means, or fitted to what their layer gives.

    plain    the k-means clustering of the weights, each weighted by E[x^2] of its input where that is known.
    alone    with the second moments H of what the layer reads, ``numerics.codebooks``.
    refit    the same around the weights ``W_0 = argmin |X W + b - T|^2``, X the layer's input in the model as
             it is by now, T what the original has at the layer's place: a layer makes up for what the ones
             before it lose. The bias takes up the mean. See ``pruning._fitting``.

Where many weights are 0, they stay 0, and one value is 0. What shares them is said by ``_sharing``, the type
that they are rounded to by ``_numbers``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np

from graphopt.numerics.cluster_merging import merged
from graphopt.numerics.codebooks import Codebooks, clustered_to_fit
from graphopt.numerics.kmeans import centres_of, nearest
from graphopt.numerics.kmeans_rows import cluster_rows
from graphopt.numerics.large_codebooks import shared_to_fit
from graphopt.numerics.rounding import Gram as Blocks
from graphopt.numerics.streaming import Cross, Gram
from graphopt.numerics.vector_codebooks import cluster_vectors, nearest_vectors, vectors_to_fit

from ..pruning._fitting.fits import LeastSquares, Question
from ..pruning._fitting.layers import Layer
from ..pruning._fitting.places import Place as Compared
from ..quantization._layer_moments import Moments, importance, layer_with, with_few_rows
from ..quantization._weight_places import Place
from ._sharing import Sharing, zeros_of

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
        sharing: of values.
    """

    WHAT: ClassVar[str] = "its weights share values that were fitted to the original's outputs"
    again: ClassVar[int] = 1

    def __init__(self, place: Compared, sharing: Sharing) -> None:
        super().__init__(place)
        self.wide, self.blocked = False, place.layer.features > WHOLE
        self.sharing = sharing

    def question(self) -> Question | None:
        """See ``LeastSquares``."""
        asked = super().question()
        if asked is None or not self.blocked:
            return asked
        return replace(asked, spec=replace(asked.spec, blocks=BLOCK))

    def _turns(self) -> int:
        return 1 if self.blocked else super()._turns()

    def _whole(self, found: Cross) -> tuple[np.ndarray, np.ndarray]:
        layer, zeros = self.place.layer, zeros_of(self.old)
        if self.blocked:
            gram = self._damped(found.gram)
            shared = _fitted(self.old, self.sharing, layer, gram, zeros)
            mean = found.gram.mean.reshape(*shared.shape[:2])
            given = np.einsum("gf,gfo->go", mean, shared)
            return shared, found.mean - given.reshape(-1)
        fit, moments, mean = self._best(found)
        shared = _fitted(fit.weights, self.sharing, layer, moments, zeros)
        left = np.einsum("gf,gfo->go", mean, fit.weights - shared)
        return shared, (fit.bias + left).reshape(-1)

    def _damped(self, gram: Gram) -> list[tuple[np.ndarray, np.ndarray]]:
        """Blocks of the moments of what counts, as a bias takes up the mean."""
        part = gram.covariance if self.place.biased else gram.product
        known = [part(n) / (1 if self.place.biased else gram.rows) for n in range(len(gram.blocks))]
        return with_few_rows(zip(gram.blocks, known, strict=True), gram.rows)


def plain(place: Place, sharing: Sharing, moments: Moments | None) -> np.ndarray:
    """The clustered weight, of its shape and type.

    Args:
        place: the weight.
        sharing: of values.
        moments: of what its layer reads; None where that is not known.
    """
    values = place.weight.values
    found = clustered(values, sharing, importance(place, moments))
    return found.astype(sharing.type_for(values)).astype(values.dtype)


def clustered(values: np.ndarray, sharing: Sharing, mass: np.ndarray | None) -> np.ndarray:
    """Weights that share the values of a k-means clustering.

    Args:
        values: of a tensor.
        sharing: of values.
        mass: what each element counts; None: all alike.
    """
    zero = zeros_of(values) is not None
    if sharing.axis is None:
        centres = centres_of(values, sharing.values, mass, zero)
        if sharing.merge > 0:
            centres = merged(values, centres, mass, sharing.merge, zero)
        return np.asarray(centres[nearest(centres, values)])
    if sharing.vector > 1:
        return _nearest_vectors(values, sharing, mass)
    rows = sharing.rows(values)
    masses = sharing.rows(np.ones(values.shape) if mass is None else mass)
    masses[~masses.any(axis=1)] = 1.0
    books = Codebooks(cluster_rows(rows, sharing.values, masses, zero))
    own = np.arange(len(rows))[:, None]
    found = books.dequantized(books.quantized(rows, 1.0, own), 1.0, own)
    return sharing.joined(found)


def lost_by(values: np.ndarray, sharing: Sharing, mass: np.ndarray | None) -> float:
    """What a k-means clustering loses, as a share of the squares; as ``clustered``."""
    wide = values.astype(np.float64)
    weights = np.ones(1) if mass is None or not mass.any() else mass
    whole = float((weights * np.square(wide)).sum())
    gap = np.square(clustered(values, sharing, mass) - wide)
    return float((weights * gap).sum()) / whole if whole > 0 else 0.0


def _nearest_vectors(values: np.ndarray, sharing: Sharing, mass: np.ndarray | None) -> np.ndarray:
    """A weight of the nearest vectors of its k-means clustering; inputs count, outputs count alike."""
    assert sharing.axis is not None
    moved = np.moveaxis(values, sharing.axis, -1)
    vectors = moved.reshape(-1, sharing.vector)
    own = None if mass is None else np.moveaxis(mass, sharing.axis, -1)
    centres = cluster_vectors(
        vectors, sharing.values, None if own is None else own.reshape(vectors.shape)[:, 0]
    )
    found = centres[nearest_vectors(centres, vectors)].reshape(moved.shape)
    return np.ascontiguousarray(np.moveaxis(found, -1, sharing.axis))


def alone(place: Place, sharing: Sharing, moments: Moments) -> np.ndarray:
    """The weight clustered so that the output of its layer changes least; as ``plain``."""
    layer = layer_with(place)
    matrices = layer.as_matrices(place.weight.values.astype(np.float64))
    found = _fitted(matrices, sharing, layer, moments.damped(), zeros_of(matrices))
    return np.ascontiguousarray(layer.as_stored(found).astype(place.weight.dtype))


def _fitted(
    matrices: np.ndarray, sharing: Sharing, layer: Layer, gram: Blocks, zeros: np.ndarray | None
) -> np.ndarray:
    """Weights of a layer, as ``Layer.matrices``, that share values which are fitted to its output."""
    k, dtype = sharing.values, sharing.type_for(layer.weight.values)
    if sharing.vector > 1:
        return vectors_to_fit(matrices, k, sharing.vector, gram, dtype).values()
    books = None if sharing.axis is None else sharing.of_outputs(layer)
    if books is None:
        found = shared_to_fit(matrices, k, gram, zeros, dtype, sharing.merge)
        return found.astype(layer.weight.dtype, copy=False)
    return clustered_to_fit(matrices, k, gram, zeros, dtype, books=books).values()
