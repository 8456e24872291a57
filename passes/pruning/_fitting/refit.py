"""Least squares after slicing: each layer learns to give again what it gave before, from what it gets now.

    W = argmin ||X W + b - T||^2 + c ||W - W_0||^2

X is the layer's input in the changed model, T what the original has at its place, kept channels only.

Layers are refitted in the order of computation, so each makes up for what the ones before it still lose.
``places`` says where a layer is compared with the original, and what of it counts: at a Relu the fit is made
anew a few times, with targets that take up what the Relu hides anyway (Zhang et al., 2016). The ridge pulls
towards the sliced weights, not towards 0, so a layer without enough data degrades to plain slicing; how
strongly, generalized cross-validation says. Of a layer with very many inputs only blocks of their moments are
held, and steps taken instead (``least_squares.ridge_in_blocks``).

Where only moments are restored, each output channel is scaled and shifted to its former mean and variance.

Both models run side by side from one place to the next, and what they have come to is kept in files
(``graphopt.runtime.relay``), so that no part of them runs for every layer behind it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.errors import NativeError
from graphopt.ir.graph import Node
from graphopt.ir.model import Model
from graphopt.ir.parts import live, live_counts, part
from graphopt.ir.surgery import insert, new_constant, new_tensor, producer
from graphopt.numerics.streaming import Cross
from graphopt.pass_base import Context, Edit, Observe, Skip
from graphopt.runtime.observing import Request
from graphopt.runtime.relay import Relay

from .fits import Fit, LeastSquares, MomentMatch, Question
from .places import Place, places_of, together

Refit = Literal["least-squares", "moments", "none"]

METHODS: dict[Refit, type[Fit] | None] = {
    "least-squares": LeastSquares,
    "moments": MomentMatch,
    "none": None,
}
"""By the name that users give."""

Method = Callable[[Place], Fit | None]

LEG = 8
"""Places after which a relay is due at the latest."""

ORIGINAL = "original"
"""What names of the original's tensors begin with, beside the changed model's."""


def refit(
    model: Model,
    dense: Model,
    kept: Mapping[int, np.ndarray],
    context: Context,
    method: Method | None = LeastSquares,
) -> Iterator[Edit | Skip]:
    """Refit the layers of a changed model to the original.

    Args:
        model: the changed model; its weights are changed in place.
        dense: the original, whose nodes have the same numbers.
        kept: by node, the outputs that are left.
        context: observes.
        method: how a layer is fitted; None, and where it gives None: not at all.
    """
    if method is None or context.observe is None:
        return
    original = _Original(dense, kept)
    known = [place for place in places_of(model) if original.knows(place)]
    fits = {place.layer.node.uid: fit for place in known if (fit := method(place)) is not None}
    groups = list(together([place for place in known if place.layer.node.uid in fits]))
    with contextlib.closing(context.observe.relay()) as relay:
        pair = _Pair(model, original, context.observe, relay)
        due = set(_stops(model, groups))
        for number, group in enumerate(groups):
            if number in due:
                pair.advance(group[0].layer.node)
            yield from _fit(pair, [fits[place.layer.node.uid] for place in group])


class _Original:
    """The model before the change, its tensors renamed, with the kept part of what is compared."""

    def __init__(self, dense: Model, kept: Mapping[int, np.ndarray]) -> None:
        self.model = dense.copy()
        self.kept = kept
        self.nodes = {node.uid: node for node in self.model.graph.nodes}
        self._picked: dict[str, gs.Tensor] = {}
        taken = self.model.names()
        prefix = ORIGINAL
        while any(name.startswith(f"{prefix}/") for name in taken):
            prefix += "_"
        for node in self.model.graph.nodes:
            for tensor in node.outputs:
                if tensor.name:
                    tensor.name = f"{prefix}/{tensor.name}"

    def knows(self, place: Place) -> bool:
        """Whether a layer and what it is compared with stood in the original."""
        made = producer(place.output)
        return place.layer.node.uid in self.nodes and made is not None and made.uid in self.nodes

    def target(self, place: Place) -> gs.Tensor:
        """The original's tensor at a place, as far as its channels are left."""
        made = producer(place.output)
        assert made is not None
        twin = self.nodes[made.uid]
        output: gs.Tensor = twin.outputs[0]
        keep = self.kept.get(place.layer.node.uid)
        if keep is None:
            return output
        if output.name not in self._picked:
            graph = self.model.graph
            picked = new_tensor(graph, f"{output.name}/kept")
            places = new_constant(graph, f"{output.name}/places", keep.astype(np.int64))
            axis = -1 if place.layer.node.op == "MatMul" else 1
            insert(twin, "Gather", [output, places], [picked], {"axis": axis}).order += 0.5
            self._picked[output.name] = picked
        return self._picked[output.name]


@dataclass
class _Pair:
    """The changed model and the original, and how far both have come."""

    model: Model
    original: _Original
    observe: Observe
    relay: Relay
    stuck: bool = field(default=False)

    def answers(self, asked: Mapping[int, Question]) -> dict[int, Cross | str]:
        """What is known at places, by key; a text where there is nothing, which says why."""
        own: list[gs.Tensor] = []
        targets: list[gs.Tensor] = []
        requests: dict[int, Request[Cross]] = {}
        for key, question in asked.items():
            target = self.original.target(question.place)
            first, *others = question.tensors
            more = tuple(tensor.name for tensor in others)
            spec = replace(question.spec, sampling=self.observe.sampling(question.features))
            requests[key] = Request(first.name, spec, target.name, True, more)
            own += question.tensors
            targets.append(target)
        student = part(self.model, self.relay.types, own)
        teacher = part(self.original.model, self.relay.types, targets)
        try:
            found = self.observe(student, list(requests.values()), other=teacher, over=self.relay)
        except NativeError as error:
            return dict.fromkeys(asked, str(error))
        answers = {key: found[request] for key, request in requests.items()}
        return {k: a.why if a.value is None else a.value for k, a in answers.items()}

    def advance(self, node: Node) -> None:
        """Let both come as far as a layer, whose predecessors are final."""
        if self.stuck:
            return
        parts, kept = [], []
        for model, first in (
            (self.model, node),
            (self.original.model, self.original.nodes[node.uid]),
        ):
            nodes = model.graph.nodes
            needed = live(model, next(n for n, other in enumerate(nodes) if other is first))
            there = [t for t in needed if t.name in self.relay.types or producer(t) is None]
            kept += [tensor.name for tensor in there]
            wanted = [t for t in needed if not any(t is other for other in there)]
            parts.append(part(model, self.relay.types, wanted))
        self.stuck = not self.relay.advance(parts, list(dict.fromkeys(kept)))


def _stops(model: Model, groups: Sequence[Sequence[Place]]) -> Iterator[int]:
    """The groups before which least is alive of those ahead, the nearest of equal ones."""
    numbers = {id(node): number for number, node in enumerate(model.graph.nodes)}
    counts = live_counts(model)
    alive = [counts[numbers[id(group[0].layer.node)]] for group in groups]
    stop = 0
    while stop + 1 < len(groups):
        ahead = range(stop + 1, min(stop + LEG, len(groups) - 1) + 1)
        stop = min(ahead, key=lambda number: (alive[number], number))
        yield stop


def _fit(pair: _Pair, fits: Sequence[Fit]) -> Iterator[Edit | Skip]:
    """Fit layers side by side, in as many turns as the slowest one takes."""
    failed: dict[int, str] = {}
    while True:
        asked = {n: fit.question() for n, fit in enumerate(fits) if n not in failed}
        open_ = {n: question for n, question in asked.items() if question is not None}
        if not open_:
            break
        for number, found in pair.answers(open_).items():
            why = fits[number].take(found)
            if why:
                failed[number] = why
    for number, fit in enumerate(fits):
        node = fit.place.layer.node
        if fit.fitted:
            yield Edit(node, fit.WHAT)
        else:
            yield Skip(node, f"its weights stay as they are: {failed.get(number, 'no data')}")
