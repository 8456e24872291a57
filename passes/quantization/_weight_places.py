"""Which weights there are, which of them can be stored otherwise, and which elements of one share a scale.

Per channel, all elements of a filter, a unit or a row of a table share one. In blocks, the elements of a
channel are cut along the inputs that they are multiplied with, and each block has a scale of its own:

    [.., inputs, ..]  ->  [.., blocks, block, ..]

the last block filled up with zeros. A product's weights can be cut, and a table's rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from graphopt.ir.graph import Constant, Node
from graphopt.ir.operators import WEIGHTS, weight_channels
from graphopt.ir.surgery import input_or_none, users
from graphopt.numerics.grids import FURTHEST, SMALLEST_SCALE
from graphopt.pass_base import Context, is_main

from ..pruning._fitting.layers import Layer, layer_of


@dataclass(frozen=True)
class Layout:
    """Which elements of a weight share a scale.

    Args:
        shape: of the weight.
        channels: the axes that count channels.
        axis: the one that is cut into blocks; None where none is.
        block: elements of a block.
    """

    shape: tuple[int, ...]
    channels: tuple[int, ...]
    axis: int | None = None
    block: int = 0

    @property
    def blocks(self) -> int:
        """Blocks along the axis that is cut; 1 where none is."""
        return 1 if self.axis is None else -(-self.shape[self.axis] // self.block)

    @property
    def filled(self) -> bool:
        """Whether the last block is filled up."""
        return self.axis is not None and self.shape[self.axis] % self.block != 0

    @property
    def padded(self) -> tuple[int, ...]:
        """The shape of the weight with all blocks whole."""
        return tuple(
            self.blocks * self.block if n == self.axis else size
            for n, size in enumerate(self.shape)
        )

    @property
    def cut_shape(self) -> tuple[int, ...]:
        """The shape with an axis for the blocks and one for what lies in them."""
        if self.axis is None:
            return self.shape
        return (*self.shape[: self.axis], self.blocks, self.block, *self.shape[self.axis + 1 :])

    @property
    def shared(self) -> tuple[int, ...]:
        """The axes of the cut shape that share a scale."""
        if self.axis is not None:
            return (self.axis + 1,)
        return tuple(n for n in range(len(self.shape)) if n not in self.channels)

    @property
    def scales(self) -> int:
        """How many scales there are."""
        return math.prod(n for i, n in enumerate(self.cut_shape) if i not in self.shared)

    def cut(self, values: np.ndarray) -> np.ndarray:
        """An array of the weight's shape in the cut shape."""
        if self.filled:
            room = [
                (0, large - small) for large, small in zip(self.padded, self.shape, strict=True)
            ]
            values = np.pad(values, room)
        return values.reshape(self.cut_shape)

    def joined(self, values: np.ndarray) -> np.ndarray:
        """An array of the cut shape in the weight's shape."""
        whole = values.reshape(self.padded)
        return whole[tuple(slice(size) for size in self.shape)]

    def spread(self, parameters: np.ndarray) -> np.ndarray:
        """One number for each scale, of the cut shape with shared axes of size 1, for each element."""
        return self.joined(np.broadcast_to(parameters, self.cut_shape))


@dataclass(frozen=True)
class Place:
    """A weight tensor as its first reader sees it.

    Attributes:
        weight: the tensor.
        reader: the node.
        index: at which input.
        main: whether the node lies in the main graph.
    """

    weight: Constant
    reader: Node
    index: int
    main: bool

    @property
    def name(self) -> str:
        """The tensor's name."""
        return str(self.weight.name)

    @property
    def size(self) -> int:
        """Elements."""
        return math.prod(self.weight.shape)

    @property
    def channels(self) -> tuple[int, ...]:
        """The axes that count what the reader gives out."""
        rank = len(self.weight.shape)
        return weight_channels(self.reader.op, self.index, self.reader.attrs, rank)

    @property
    def inputs(self) -> int | None:
        """The axis that counts the inputs of a product, or the elements of a table's rows; None for none."""
        rank, op = len(self.weight.shape), self.reader.op
        if op == "MatMul" and rank >= 2:
            return rank - 1 - self.index
        if rank == 2 and len(self.channels) == 1 and op in ("Gemm", "Gather"):
            return 1 - self.channels[0]
        return None

    def layout(self, block: int = 0) -> Layout:
        """Blocks of so many elements where there is an axis longer than that; else one scale per channel."""
        shape, axis = tuple(self.weight.shape), self.inputs
        if not block or axis is None or shape[axis] <= block:
            return Layout(shape, self.channels)
        return Layout(shape, self.channels, axis, block)

    def layer(self) -> Layer | str:
        """The layer whose input shows what each element matters, or why there is none."""
        if len(users(self.weight)) > 1:
            return "several nodes read it"
        found = layer_of(self.reader)
        if isinstance(found, Layer) and (self.index != 1 or found.weight is not self.weight):
            return f"it is not the second input of {self.reader.label}"
        return found


def places_of(context: Context, smallest: int) -> dict[str, Place]:
    """The weight tensors of at least so many elements, by name, in the order of their first readers."""
    found: dict[str, Place] = {}
    for scope in context.scopes():
        main = is_main(scope, context)
        for node in context.nodes(scope, *WEIGHTS):
            for index in WEIGHTS[node.op]:
                tensor = input_or_none(node, index)
                if isinstance(tensor, Constant) and math.prod(tensor.shape) >= smallest:
                    found.setdefault(tensor.name, Place(tensor, node, index, main))
    return found


def refusal(weight: Constant, context: Context) -> str:
    """Why a weight stays as it is; empty where it need not."""
    if weight.dtype.name not in ("float16", "float32", "float64"):
        return f"it is {weight.dtype.name}"
    if any(weight is output for scope in context.scopes() for output in scope.outputs):
        return "a graph returns it"
    if len({id(user.graph) for user in users(weight)}) > 1:
        return "several scopes read it"
    if not np.isfinite(weight.values).all():
        return "it holds NaN or infinity"
    largest = float(np.abs(weight.values).max(initial=0.0))
    if largest and not SMALLEST_SCALE <= largest <= FURTHEST:
        return f"its largest element, {largest:.3g}, is beyond what scales can express"
    return ""
