"""Second moments of what layers read, a few layers at a time.

The moments of F features take 8 F^2 bytes. A layer whose moments would take more than is held together has
them in blocks of consecutive features, and what connects features of different blocks is not looked at.

The moments of few rows show connections that other rows do not have. So what is to be fitted is fitted to
them with a diagonal that is raised by ``FEW`` times features per row, as a share of its mean: the fewer rows,
the more features count as independent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from graphopt.ir.model import Model
from graphopt.numerics.streaming import Gram, GramSpec
from graphopt.pass_base import Observe
from graphopt.runtime.observing import Answer, Request

from ..pruning._fitting.layers import Layer
from ..pruning._portions import HELD_BYTES, portions
from ._weight_places import Place

FEW = 0.1
"""Of features per row, what the diagonal is raised by. Of 0.03 to 0.3 the best on sentence encoders with 32
sentences; with 128 it hardly matters."""


class Moments(NamedTuple):
    """Second moments, E[x x^T].

    Attributes:
        blocks: the numbers of features, counted through all groups, and their moments, float64; none where
            only the diagonal was asked for.
        second: the diagonal, E[x^2], of shape ``(groups * features,)``.
        rows: that they are of.
    """

    blocks: list[tuple[np.ndarray, np.ndarray]]
    second: np.ndarray
    rows: int

    def damped(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The blocks with raised diagonals."""
        return with_few_rows(self.blocks, self.rows)

    def energy(self, matrices: np.ndarray) -> float:
        """The mean of the squared outputs of a layer with such weights.

        Args:
            matrices: of shape ``(groups, features, outputs)``.
        """
        rows = matrices.reshape(-1, matrices.shape[-1])
        parts = (float(np.vdot(rows[own], gram @ rows[own])) for own, gram in self.blocks)
        return sum(parts, 0.0)


def with_few_rows(
    blocks: Iterable[tuple[np.ndarray, np.ndarray]], rows: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Blocks of moments of so many rows with diagonals that are raised by ``FEW``."""
    found = []
    for features, gram in blocks:
        matrix = gram.copy()
        ridge = FEW * len(features) / rows * float(np.diagonal(matrix).mean())
        matrix[np.diag_indices(len(features))] += ridge
        found.append((features, matrix))
    return found


def moments_of(
    layers: Sequence[Layer], model: Model, observe: Observe, block: int | None = None
) -> Iterator[Moments | str]:
    """The moments of what each layer reads, in their order, or why there are none.

    Args:
        layers: of ``model``.
        model: to run.
        observe: gives statistics of its tensors.
        block: features of a block, 1 for the diagonal alone; None for as many as can be held.
    """

    def nbytes(layer: Layer) -> int:
        width = min(layer.features, block or layer.features)
        return min(8 * layer.groups * layer.features * width, HELD_BYTES)

    for portion in portions(layers, nbytes, HELD_BYTES):
        specs = [_spec(layer, observe, block) for layer in portion]
        asked = [Request(n.node.inputs[0].name, m) for n, m in zip(portion, specs, strict=True)]
        answers = observe(model, asked)
        for request in asked:
            yield _moments(answers[request], block == 1)


def observed(
    places: Sequence[Place], model: Model, observe: Observe, block: int | None = None
) -> Iterator[tuple[Place, Moments | str]]:
    """Each place with the moments of what its layer reads, or why there are none.

    Args:
        places: weights of ``model``.
        model: to run.
        observe: gives statistics of its tensors.
        block: as for ``moments_of``.
    """
    layers = {place.name: place.layer() for place in places}
    seen = [layer for layer in layers.values() if isinstance(layer, Layer)]
    found = moments_of(seen, model, observe, block)
    for place in places:
        layer = layers[place.name]
        yield place, layer if isinstance(layer, str) else next(found)


def layer_with(place: Place) -> Layer:
    """The layer of a weight of which moments are known."""
    found = place.layer()
    assert isinstance(found, Layer)
    return found


def importance(place: Place, moments: Moments | None) -> np.ndarray | None:
    """E[x^2] of what each element of a weight is multiplied with, of its shape; None if it is not known."""
    if moments is None or not moments.second.any():
        return None
    layer = layer_with(place)
    shape = layer.as_matrices(place.weight.values).shape
    second = moments.second.reshape(shape[0], shape[1], 1)
    return layer.as_stored(np.broadcast_to(second, shape))


def loss_of(values: np.ndarray, place: Place, moments: Moments | None) -> float:
    """What a weight loses as a share.

    Args:
        values: what it becomes, of its shape.
        place: the weight.
        moments: of what its layer reads: a share of the squares of its outputs; None: of the weights.
    """
    before = place.weight.values.astype(np.float64)
    gap = values - before
    if moments is None:
        lost, whole = (float(np.square(part).sum()) for part in (gap, before))
    else:
        layer = layer_with(place)
        lost, whole = (moments.energy(layer.as_matrices(part)) for part in (gap, before))
    return max(lost, 0.0) / whole if whole > 0 else 0.0


def _moments(answer: Answer[Gram], diagonal: bool) -> Moments | str:
    gram = answer.value
    if gram is None or not gram.rows:
        return answer.why or "it reads no finite numbers"
    second = gram.second
    if not np.isfinite(second).all():
        return "what it reads is not finite"
    each = [] if diagonal else list(enumerate(gram.blocks))
    blocks = [(rows, gram.product(n) / gram.rows) for n, rows in each]
    return Moments(blocks, second, gram.rows)


def _spec(layer: Layer, observe: Observe, block: int | None) -> GramSpec:
    width = layer.features
    most = block or max(HELD_BYTES // (8 * layer.groups * width), 1)
    return GramSpec(layer.rows, most if most < width else None, observe.sampling(width))
