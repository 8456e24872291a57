"""Tensors that only layers read, whose channels can be scaled.

    y = W x = (W diag(s)) (x / s)

The division goes to what makes x (``_channel_division``), the product to the weights of all layers that read
it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.graph import Node
from graphopt.ir.surgery import discard, new_constant
from graphopt.numerics.channel_scaling import Product
from graphopt.pass_base import Context

from ..folding._absorption import layers_after
from ..folding._folded_constants import owned
from ..folding._linear_layers import CONVOLUTIONS, PRODUCTS, LinearLayer
from ._channel_division import Division, Replacement, division, from_the_end, multiplied_inputs

LAYERS = (*CONVOLUTIONS, *PRODUCTS)

Importance = Mapping[int, np.ndarray]
"""By what the squared errors of a layer's outputs count, by the number of the layer."""


@dataclass(frozen=True, eq=False)
class Place:
    """A tensor that only layers read, and what takes up a division of it.

    Attributes:
        node: that gives the tensor.
        axis: of its channels, from the end.
        readers: the layers.
        division: what takes up a division.
    """

    node: Node
    axis: int
    readers: tuple[LinearLayer, ...]
    division: Division

    @property
    def tensor(self) -> gs.Tensor:
        """The tensor."""
        return self.node.outputs[0]

    def products(self, importance: Importance | None = None) -> list[Product]:
        """What it is multiplied with; outputs count by their importance, or alike."""
        found = []
        for layer in self.readers:
            view, own = layer.view, (importance or {}).get(layer.node.uid)
            if own is not None:
                view = view * np.sqrt(own).reshape(*view.shape[:2], 1, 1)
            found.append(Product.of(view))
        return found

    @property
    def replacements(self) -> tuple[Replacement, ...]:
        """The constants that change."""
        return (*self.division.parts, *(multiplied_inputs(layer) for layer in self.readers))


def place_of(node: Node, context: Context, readers: Sequence[str] = LAYERS) -> Place | str | None:
    """The place of what a node gives, why it cannot be scaled, or None where no layer reads it.

    Args:
        node: of the main graph.
        context: what is known.
        readers: the operators of layers that are meant.
    """
    if not node.outputs or not any(user.op in readers for user in node.outputs[0].outputs):
        return None
    tensor, layers = node.outputs[0], layers_after(node, readers, context)
    if context.facts.dtype(tensor) != np.float32:
        return "it is no float32, which alone is quantized"
    if not layers:
        return "not only layers with constant weights read it"
    if not all(owned(layer.weight) for layer in layers):
        return "weights that read it are shared"
    axis = from_the_end(*layers[0].input_axis(context))
    assert axis is not None
    found = division(tensor, axis, layers[0].inputs, context)
    return found if isinstance(found, str) else Place(node, axis, tuple(layers), found)


def importance_of(places: Sequence[Place]) -> dict[int, np.ndarray]:
    """How strongly the outputs of layers are heard where they are read, at the next places.

    So the loss of one place does not depend on how the channels of the next one are scaled.
    """
    found: dict[int, np.ndarray] = {}
    for place in places:
        if place.division.root.op in LAYERS:
            powers = np.sum([product.powers for product in place.products()], axis=0)
            if powers.any():
                found[place.division.root.uid] = powers
    return found


def apply(place: Place, exponents: np.ndarray) -> str:
    """Scale a place; why nothing was changed, or nothing."""
    factors = np.ldexp(1.0, exponents)
    made: list[tuple[Replacement, np.ndarray]] = []
    for part in place.replacements:
        exact = part.scaled(factors)
        dtype = part.node.inputs[part.index].dtype
        with np.errstate(over="ignore", under="ignore"):
            values = exact.astype(dtype)
        if not np.array_equal(values.astype(np.float64), exact):
            return f"a constant of {part.node.label} would leave the range of {dtype.name}"
        made.append((part, values))
    for part, values in made:
        node = part.node
        assert node.graph is not None
        old = node.inputs[part.index]
        held = new_constant(node.graph, old.name.split("/scaled")[0] + "/scaled", values)
        node.inputs = [held if n == part.index else t for n, t in enumerate(node.inputs)]
        discard(node.graph, old)
    return ""
