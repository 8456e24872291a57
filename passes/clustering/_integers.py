"""8-bit weights that a DequantizeLinear reads, and which values they share.

    W = s (Q - z),   Q int8 or uint8, s one scale or one per channel, z one zero point

The values that are shared are integers of the grid, so that the result is quantized as before: the pattern
``DequantizeLinear(Gather(C, Cast(codes)))``, with C of the type of Q, becomes ``DequantizeLinear(Q)`` where a
runtime folds it, and then the integer kernel that there was.

Values come from k-means over ``Q - z``, each integer weighted by ``s^2``, and by E[x^2] of what it is
multiplied with, where that is known, and are rounded to the grid. With the second moments of what the layer
reads, each integer takes the value with which the output changes least (``numerics.rounding``): the scale of
an output is a factor of its whole error, so it has no say there. Where a tenth or more of Q is z, those stay.

Refuses: weights that several nodes read or a graph returns, scales that are no constants, zero points that
differ within a tensor, for no one value stands for all zeros then.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from graphopt.ir.graph import Constant, Node
from graphopt.ir.surgery import constant, input_or_none, sole_user, users
from graphopt.numerics.codebooks import Codebook
from graphopt.numerics.kmeans import cluster
from graphopt.numerics.rounding import rounded_to_fit
from graphopt.pass_base import Context, is_main
from graphopt.runtime.observing_layers import rows_of

from ..pruning._fitting.layers import LAYERS, Layer
from ..quantization._layer_moments import Moments, moments_of
from ._sharing import zeros_of

TYPES = ("int8", "uint8")
"""Of the weights that are looked at."""


@dataclass(frozen=True)
class Stored:
    """Integers that are dequantized.

    Attributes:
        weight: Q.
        reader: the DequantizeLinear.
        scale: s, float64, of a shape that broadcasts to that of Q.
        zero: z.
        main: whether the node lies in the main graph.
    """

    weight: Constant
    reader: Node
    scale: np.ndarray
    zero: int
    main: bool

    @property
    def name(self) -> str:
        """The tensor's name."""
        return str(self.weight.name)

    @property
    def size(self) -> int:
        """Elements."""
        return math.prod(self.weight.shape)

    def steps(self) -> np.ndarray:
        """``Q - z``, float64."""
        return self.weight.values.astype(np.float64) - self.zero

    def layer(self) -> Layer | None:
        """The layer that multiplies by W, with W as its weight; None where there is none to observe."""
        node = sole_user(self.reader.outputs[0])
        if node is None or not self.main or not node.standard or node.op not in LAYERS:
            return None
        shape = self.weight.shape
        second = input_or_none(node, 1) is self.reader.outputs[0]
        flat = node.op != "MatMul" or (len(shape) >= 2 and math.prod(shape[:-2]) == 1)
        if not second or not flat or isinstance(input_or_none(node, 0), Constant):
            return None
        rows = rows_of(node, shape=shape)
        if isinstance(rows, str):
            return None
        floats = (self.scale * self.steps()).astype(np.float32)
        return Layer(node, Constant(self.name, floats), rows)


def stored_places(context: Context, smallest: int) -> Iterator[Stored | tuple[str, str]]:
    """The tensors of at least so many 8-bit weights, or a name and why it is none."""
    for scope in context.scopes():
        returned = {id(output) for output in scope.outputs}
        for node in context.nodes(scope, "DequantizeLinear"):
            weight = input_or_none(node, 0)
            if not isinstance(weight, Constant) or weight.dtype.name not in TYPES:
                continue
            if math.prod(weight.shape) < smallest:
                continue
            if id(weight) in returned:
                yield weight.name, "a graph returns it"
            elif len(users(weight)) > 1:
                yield weight.name, "several nodes read it"
            else:
                found = _stored(weight, node, is_main(scope, context))
                yield (weight.name, found) if isinstance(found, str) else found


def _stored(weight: Constant, node: Node, main: bool) -> Stored | str:
    scale = constant(input_or_none(node, 1))
    third = input_or_none(node, 2)
    zeros = np.zeros(1) if third is None else constant(third)
    if scale is None or zeros is None:
        return "its scale is no constant"
    if not np.isfinite(scale).all():
        return "its scale is not finite"
    if not zeros.size or (zeros != zeros.flat[0]).any():
        return "its zero points differ"
    spread = _spread(np.asarray(scale, np.float64), node, tuple(weight.shape))
    if isinstance(spread, str):
        return spread
    return Stored(weight, node, spread, int(zeros.flat[0]), main)


def _spread(scale: np.ndarray, node: Node, shape: tuple[int, ...]) -> np.ndarray | str:
    """A scale in a shape that broadcasts to that of what it scales."""
    if scale.size == 1:
        return scale.reshape((1,) * len(shape))
    axis, block = int(node.attrs.get("axis", 1)), int(node.attrs.get("block_size", 0))
    if not -len(shape) <= axis < len(shape):
        return "its scale has no axis"
    axis %= len(shape)
    if scale.ndim == 1 and not block and len(scale) == shape[axis]:
        return scale.reshape([-1 if n == axis else 1 for n in range(len(shape))])
    if block and scale.ndim == len(shape):
        whole = np.repeat(scale, block, axis).take(range(shape[axis]), axis, mode="clip")
        if whole.shape == shape:
            return whole
    return "its scale does not fit it"


def observed_integers(
    places: Sequence[Stored], context: Context, block: int | None = None
) -> Iterator[tuple[Stored, Layer | None, Moments | None]]:
    """Each tensor with its layer, and with the moments of what that reads, as far as there are any.

    Args:
        places: the tensors.
        context: observes.
        block: as for ``moments_of``.
    """
    observe = context.observe if context.data is not None else None
    layers = [None if observe is None else place.layer() for place in places]
    seen = [layer for layer in layers if layer is not None]
    found = iter(()) if observe is None else moments_of(seen, context.model, observe, block)
    for place, layer in zip(places, layers, strict=True):
        moments = None if layer is None else next(found)
        yield place, layer, moments if isinstance(moments, Moments) else None


def importance_of(place: Stored, layer: Layer | None, moments: Moments | None) -> np.ndarray:
    """What each integer counts: its scale squared, times E[x^2] of what it is multiplied with, if known."""
    shape = tuple(place.weight.shape)
    weighted = np.broadcast_to(np.square(place.scale), shape)
    if layer is None or moments is None or not moments.second.any():
        return weighted
    matrices = (layer.groups, layer.features, -1)
    second = moments.second.reshape(matrices)
    outputs = layer.as_matrices(weighted).shape[-1]
    spread = layer.as_stored(np.broadcast_to(second, (*second.shape[:2], outputs)))
    return np.asarray(weighted * spread)


def shared_integers(
    place: Stored, k: int, layer: Layer | None, moments: Moments | None
) -> np.ndarray:
    """Integers that share few values, of their shape and type.

    Args:
        place: the integers.
        k: values at most.
        layer: that multiplies by them, if any.
        moments: of what it reads, if known.
    """
    steps = place.steps()
    zeros = zeros_of(steps)
    centres, index = cluster(steps, k, importance_of(place, layer, moments), zeros is not None)
    grid = np.rint(centres)
    if layer is not None and moments is not None and moments.second.any():
        pinned = False if zeros is None else layer.as_matrices(zeros)
        book = np.unique(grid)
        codes = rounded_to_fit(
            layer.as_matrices(steps), 1.0, 0.0, Codebook(book), moments.damped(), pinned=pinned
        )
        shared = layer.as_stored(book[codes])
    else:
        shared = grid[index]
    return np.asarray((shared + place.zero).astype(place.weight.dtype))
