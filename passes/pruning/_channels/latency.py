"""What a run of a model takes at other widths of its groups, from measured tables.

    seconds = sum over layers of  s t(inner width, outer width)
            + sum over other nodes of  seconds now * share of its channels that is kept  +  rest

Every layer with weights that a group narrows is timed alone on this machine, at a grid of its two widths;
equal layers once (``timed_layers``, ``graphopt.numerics.surfaces``). A profile of the whole model says what
each node takes now (``attribution``); s makes the tables agree with it. Where a narrower layer drops out of
the blocked layout of ONNX Runtime (NCHWc) its neighbours do not, so it is charged with the reordering of the
channels between them: what that takes at full width, in proportion to the channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphopt.errors import NativeError, OutputError
from graphopt.ir.channels import ChannelGroup
from graphopt.ir.costs import macs_of
from graphopt.ir.excerpts import Excerpt
from graphopt.ir.frames import Frame, UnprovenError
from graphopt.ir.graph import Constant, Node
from graphopt.ir.model import Model
from graphopt.numerics.surfaces import Surfaces, levels, rising
from graphopt.pass_base import Measure
from graphopt.runtime.profiling import NodeSeconds

from .attribution import Work, attribute
from .costs import Costs, Places, ProductCosts, Term, places_of, shares, widths_of
from .timed_layers import TimedLayer, Width, timed_layer

LEVELS = (8, 6, 4, 3, 2)
"""Levels of a width that are measured at most, the first number that time allows."""

SECONDS = 40.0
"""How long measuring the tables of a model may take, as estimated."""

RATE = 5e9
"""Multiply-accumulates in a second of one thread of a slow machine, for that estimate."""

LEAST_SECONDS = 0.02
"""What measuring the smallest layer takes, for that estimate."""

RUNS = 9
"""Runs of a large layer, for that estimate."""

READS, WRITES = "ReorderInput", "ReorderOutput"
"""What ONNX Runtime puts before and behind a node in the blocked layout."""


class UnmeasuredError(ValueError):
    """What the layers of a model take cannot be measured."""


class LatencyCosts(Costs):
    """Seconds of a run as a function of the widths of groups.

    Args:
        model: the model.
        frame: shapes and sizes of one run.
        groups: the groups.
        measure: gives the times of nodes.

    Raises:
        UnmeasuredError: nothing could be measured.
    """

    def __init__(
        self, model: Model, frame: Frame, groups: Sequence[ChannelGroup], measure: Measure
    ) -> None:
        self.full = widths_of(groups)
        nodes = list(model.nodes())
        layers = _layers(nodes, frame, groups)
        if not layers:
            raise UnmeasuredError("no layer that a group narrows has proven shapes")
        try:
            tables = _tables(layers, frame, measure)
            (profile,) = measure([model])
        except (NativeError, OutputError) as error:
            raise UnmeasuredError(f"its nodes cannot be timed: {error.what}") from None
        timed = {id(layer.node): table for layer, table in zip(layers, tables, strict=True)}
        works = [_work(node, frame, timed.get(id(node))) for node in nodes]
        found = attribute(profile, works)
        self.total = found.total
        if not self.total > 0:
            raise UnmeasuredError("the profiler shows no time at all")
        taken = {id(node): value for node, value in zip(nodes, found.seconds, strict=True)}
        others = [node for node in nodes if id(node) not in timed]
        self._others = ProductCosts(self.full, _terms(others, taken, frame, groups))
        self._inner, self._outer = (
            [layer.inner for layer in layers],
            [layer.outer for layer in layers],
        )
        self._tables = Surfaces(
            [table.axes for table in tables],
            [table.scaled(taken[id(t.node)]) for t, table in zip(layers, tables, strict=True)],
        )

    def savings(self, widths: np.ndarray, others: np.ndarray) -> np.ndarray:
        """See ``Costs``."""
        gone = (self.full - widths).astype(np.int64)
        more = np.diag(widths - others).astype(np.int64)
        now = self._tables.read(*(_at(axis, gone[:, None]) for axis in (self._inner, self._outer)))
        each = gone[:, None] + more
        then = self._tables.read(*(_at(axis, each) for axis in (self._inner, self._outer)))
        return np.asarray((now - then).sum(axis=0) + self._others.savings(widths, others))


def _at(widths: Sequence[Width], gone: np.ndarray) -> np.ndarray:
    """Widths of layers without some units of the groups, of shape ``(layers, n)``."""
    full = np.array([width.full for width in widths])
    places = np.stack([width.places for width in widths])
    return np.asarray(np.maximum(full[:, None] - places @ gone, 0))


@dataclass(frozen=True)
class _Table:
    """What a layer takes alone.

    Attributes:
        axes: the levels of its inner and of its outer width.
        seconds: at these.
    """

    axes: tuple[np.ndarray, np.ndarray]
    seconds: np.ndarray

    @property
    def whole(self) -> float:
        """At full width."""
        return float(self.seconds[-1, -1])

    def scaled(self, whole: float) -> np.ndarray:
        """The table, so that the layer takes so much at full width."""
        return self.seconds * (whole / self.whole if self.whole > 0 else 0.0)


def _layers(
    nodes: Sequence[Node], frame: Frame, groups: Sequence[ChannelGroup]
) -> list[TimedLayer]:
    """The layers that a group narrows, as far as their shapes are proven."""
    places = places_of(groups, read=True)
    sizes = tuple(group.size for group in groups)
    found = []
    for node in nodes:
        mine = {index: places[node.uid, index] for index in (1, 2) if (node.uid, index) in places}
        try:
            layer = timed_layer(node, frame, mine, sizes) if mine else None
        except UnprovenError:
            continue
        if layer is not None and (layer.inner.places.any() or layer.outer.places.any()):
            found.append(layer)
    return found


def _tables(layers: Sequence[TimedLayer], frame: Frame, measure: Measure) -> list[_Table]:
    """The measured table of each layer; equal excerpts are measured once."""
    most = _affordable(layers, frame)
    grids = [_grid(layer, most) for layer in layers]
    places: dict[Excerpt, int] = {}
    for layer, (inner, outer) in zip(layers, grids, strict=True):
        for a in inner:
            for b in outer:
                places.setdefault(layer.sized(int(a), int(b)), len(places))
    times = measure([excerpt.model() for excerpt in places])
    found = []
    for layer, (inner, outer) in zip(layers, grids, strict=True):
        whole = times[places[layer.sized(layer.inner.full, layer.outer.full)]]
        seconds = [
            [
                _charged(
                    times[places[layer.sized(int(a), int(b))]],
                    whole,
                    (int(a) / layer.inner.full, int(b) / layer.outer.full),
                )
                for b in outer
            ]
            for a in inner
        ]
        found.append(_Table((inner, outer), rising(np.array(seconds))))
    return found


def _grid(layer: TimedLayer, most: int) -> tuple[np.ndarray, np.ndarray]:
    inner, outer = (
        levels(width.least, width.full, most) if width.places.any() else np.array([width.full])
        for width in (layer.inner, layer.outer)
    )
    return inner, outer


def _affordable(layers: Sequence[TimedLayer], frame: Frame) -> int:
    """How many levels of a width can be measured; the same for the same model on every machine."""
    for most in LEVELS:
        seconds: dict[Excerpt, float] = {}
        for layer in layers:
            inner, outer = _grid(layer, most)
            try:
                products = macs_of(layer.node, frame)
            except UnprovenError:
                products = 0
            part = float((inner / layer.inner.full).sum() * (outer / layer.outer.full).sum())
            fixed = LEAST_SECONDS * len(inner) * len(outer)
            seconds[layer.whole] = max(fixed, part * products * RUNS / RATE)
        if sum(seconds.values()) <= SECONDS:
            break
    return most


def _charged(
    times: Sequence[NodeSeconds], whole: Sequence[NodeSeconds], kept: tuple[float, float]
) -> float:
    """Seconds of a layer, and of reordering channels where only the whole layer keeps the blocked layout."""
    reorders = {node.op: node.seconds for node in whole}
    present = {node.op for node in times}
    seconds = sum(node.seconds for node in times if node.op not in (READS, WRITES))
    for reorder, part in zip((READS, WRITES), kept, strict=True):
        if reorder not in present:
            seconds += reorders.get(reorder, 0.0) * part
    return seconds


def _work(node: Node, frame: Frame, table: _Table | None) -> Work:
    try:
        products = macs_of(node, frame)
    except UnprovenError:
        products = 0
    try:
        tensors = [t for t in (*node.inputs, *node.outputs) if t.name]
        elements = sum(
            math.prod(frame.shape(tensor)) for tensor in tensors if not isinstance(tensor, Constant)
        )
    except UnprovenError:
        elements = 0
    return Work(node.op, products, elements, None if table is None else table.whole)


def _terms(
    nodes: Sequence[Node],
    seconds: dict[int, float],
    frame: Frame,
    groups: Sequence[ChannelGroup],
) -> list[Term]:
    """Nodes without tables: their time is in proportion to the channels that they compute."""
    places: Places = places_of(groups, read=False)
    found = []
    for node in nodes:
        axes: tuple[dict[int, float], ...] = ()
        for index, tensor in enumerate(node.outputs):
            if not axes and (node.uid, index) in places:
                try:
                    axes = shares(places[node.uid, index], frame.shape(tensor))
                except UnprovenError:
                    continue
        found.append(Term(seconds[id(node)], axes))
    return found
