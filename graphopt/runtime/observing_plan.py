"""What can be observed, what it needs, and what fits into one run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.graph import Constant
from graphopt.ir.model import Model
from graphopt.ir.surgery import producer
from graphopt.numerics.streaming.accumulator import Shape
from graphopt.runtime.observing_child import Watch
from graphopt.runtime.observing_inner import InnerTensors

ELEMENT_BYTES = 4
"""Bytes that an element of an inner tensor is taken to have."""

NEVER_RUN = "the data never runs the body that it lies in"

_PLAIN = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}
"""The attributes of a Constant node that hold numbers as such."""


class Tensors:
    """The tensors of a model by name, and why others cannot be observed."""

    def __init__(self, model: Model) -> None:
        self.main: dict[str, gs.Tensor] = {}
        graph = model.graph
        for tensor in (*graph.initializers, *graph.inputs, *graph.outputs):
            self.main[tensor.name] = tensor
        for node in graph.nodes:
            for tensor in (*node.inputs, *node.outputs):
                self.main.setdefault(tensor.name, tensor)
        self.main.pop("", None)
        self.inner = InnerTensors(model)

    def objection(self, name: str) -> str:
        """Why a tensor cannot be observed; empty where it can."""
        return "" if name in self.main else self.inner.objection(name)

    def constant(self, name: str) -> np.ndarray | None:
        """The values of a constant; None for a tensor that may depend on the data."""
        tensor = self.main[name] if name in self.main else self.inner.tensor(name)
        if isinstance(tensor, Constant):
            return tensor.values
        made = producer(tensor)
        if made is None or made.op != "Constant" or not made.standard:
            return None
        for key, value in made.attrs.items():
            if isinstance(value, Constant):
                return value.values
            if key in _PLAIN:
                return np.array(value, _PLAIN[key])
        return None


@dataclass
class Group:
    """Watches that are served by one run over the data.

    Attributes:
        numbers: of the watches.
        nbytes: of their accumulators and of the tensors that they take in.
        tensors: those that the run returns.
    """

    numbers: list[int] = field(default_factory=list)
    nbytes: int = 0
    tensors: set[tuple[int, str]] = field(default_factory=set)


Shapes = Mapping[tuple[int, str], Sequence[Shape]]
"""Of tensors on one batch, by number of the model and name: one for each run of the scope of the tensor."""


def group(
    watches: Mapping[int, Watch], shapes: Shapes, most_bytes: int
) -> tuple[list[Group], dict[int, str]]:
    """Share watches out among as few runs as a first fit, in the order given, finds.

    A run holds the accumulators of its watches and, of one batch, the tensors that they take in. A tensor
    that is too large by itself gets a run of its own, for the model computes it anyway; one in a body does
    not, for the model forgets it.

    Args:
        watches: by number.
        shapes: of the tensors on the first batch that computes them.
        most_bytes: that a run may hold.

    Returns:
        The runs, and for each watch that cannot be served the reason.
    """
    groups: list[Group] = []
    refused: dict[int, str] = {}
    for number, watch in watches.items():
        if not all(shapes[source] for source in watch.sources):
            refused[number] = NEVER_RUN
            continue
        try:
            own = watch.spec.nbytes(*(shapes[source][0] for source in watch.sources))
        except ValueError as error:
            refused[number] = str(error)
            continue
        if own > most_bytes:
            refused[number] = (
                f"its statistics take {own} bytes, more than the {most_bytes} allowed; "
                "ask for blocks of it"
            )
            continue
        runs = max(len(shapes[source]) for source in watch.sources)
        if runs > 1 and own + _more(Group(), watch, shapes) > most_bytes:
            refused[number] = (
                f"in {runs} runs of its body on one batch it takes more than the {most_bytes} bytes allowed"
            )
            continue
        place = next((g for g in groups if _fits(g, watch, shapes, own, most_bytes)), None)
        if place is None:
            place = Group()
            groups.append(place)
        place.nbytes += own + _more(place, watch, shapes)
        place.tensors.update(watch.sources)
        place.numbers.append(number)
    return groups, refused


def _fits(
    place: Group,
    watch: Watch,
    shapes: Shapes,
    own: int,
    most_bytes: int,
) -> bool:
    return place.nbytes + own + _more(place, watch, shapes) <= most_bytes


def _more(place: Group, watch: Watch, shapes: Shapes) -> int:
    """Bytes of the tensors that a watch adds to those of a run."""
    new: Iterable[tuple[int, str]] = {*watch.sources} - place.tensors
    return sum(ELEMENT_BYTES * math.prod(shape) for source in new for shape in shapes[source])


def outputs_of(watches: Sequence[Watch], model: int) -> list[str]:
    """The tensors of one model that watches take in, each once, in the order of first use."""
    names = (name for watch in watches for number, name in watch.sources if number == model)
    return list(dict.fromkeys(names))
