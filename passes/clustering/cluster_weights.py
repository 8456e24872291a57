"""Let the weights of a tensor share few values, and store which value each takes.

    W  becomes  Gather(C, Cast(Q)),   C the codebook of k values, Q integers of as few bits as hold k

(Han, Mao and Dally, "Deep Compression", 2016.) A runtime folds the nodes when it loads the model, and the
floats that it then has are bit by bit the clustered weights. So the model runs as fast as before, on the same
kernels, and its file holds 8, 4 or 2 bits for a weight, or fewer (``_codes``). Values are rounded to half
precision where that suits them (``_numbers``).

With data the codebook and the assignment are chosen so that the output of each layer changes least, layer
after layer, each on what the clustered layers before it give and towards what the original gives, and its
bias takes up the mean (``_fits``, ``numerics.codebooks``). Layers that cannot be refitted are fitted to what
the original reads. Tables, recurrent layers and shared weights, and all without data: the
k-means clustering of the weights. Where a tenth of a tensor or more is 0, one value is 0, and zeros stay.

8-bit weights that a DequantizeLinear reads share integers of their grid and stay quantized (``_integers``).

``granularity`` gives channels, or groups of them, codebooks of their own; with ``vector`` a code stands for
several weights (``_sharing``, ``numerics.vector_codebooks``). ``merge`` lets the smallest clusters go where
that costs little: codes of those that are left have less entropy, so a packed file shrinks, and now and then
they take fewer bits (``numerics.cluster_merging``).

``materialize`` leaves the clustered weights as floats, for whoever compresses the file afterwards.

Each weight tensor is a place. Its levels are the clusters asked for, or 2 to the ``bits``, and more up to 256
as far as they lie on the convex hull of predicted loss over bytes; with ``size`` those that fit that best
come first (``_levels``). The operator set is raised where that lets smaller integers be used (4 bits: 21, 2
bits: 25). Biases and normalizations are left alone.

Refuses what ``quantize-weights`` refuses: tensors that are not floats, or hold NaN or infinity; those that
would not become smaller; those that a graph returns, or that several scopes read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, field
from typing import Literal

import numpy as np

from graphopt.ir.graph import Constant, Node
from graphopt.ir.surgery import discard
from graphopt.lossy_pass import Choice, LossyPass
from graphopt.pass_base import Context, Edit, Skip

from ..folding.merge_duplicate_initializers import constants_below, merge_equal
from ..quantization._layer_moments import Moments, importance
from ..quantization._opsets import ensure_opset, opset_objection
from ..quantization._weight_places import Place, places_of, refusal
from ._clustering import cluster_places, observed_floats
from ._code_tables import store_books, store_vectors
from ._codes import store
from ._fits import lost_by
from ._integers import (
    Stored,
    importance_of,
    observed_integers,
    stored_places,
)
from ._levels import COUNTS, MOST, Level, allotted, bytes_of, losses, offered
from ._sharing import Granularity, Sharing, Wanted, more, plain_clusters, zeros_of


@dataclass(frozen=True)
class ClusterWeights(LossyPass):
    """The weights of a tensor share few values, and codes are stored."""

    name = "cluster-weights"

    clusters: int = field(
        default=16, metadata={"help": "values that the weights of a tensor share"}
    )
    smallest: int = field(
        default=256, metadata={"help": "elements of the smallest tensor to look at"}
    )
    materialize: bool = field(
        default=False, metadata={"help": "leave the clustered weights as floats"}
    )
    bits: int | None = field(
        default=None, metadata={"help": "bits of a code, in the place of clusters: 2 to the bits"}
    )
    size: str = field(
        default="",
        metadata={"help": "what all weights may take, as in 25% or in bytes; clusters then differ"},
    )

    granularity: Granularity = field(
        default="tensor", metadata={"help": "what has a codebook of its own"}
    )
    group: int = field(
        default=16, metadata={"help": "channels that share a codebook, for granularity=group"}
    )
    vector: Literal[1, 2, 3, 4, 5, 6, 7, 8] = field(
        default=1, metadata={"help": "weights that share a code"}
    )
    merge: float = field(
        default=0.0,
        metadata={"help": "share by which an error may grow as small clusters are merged away"},
    )

    def __post_init__(self) -> None:
        """Refuse options that make no sense.

        Raises:
            ValueError: so it is.
        """
        if not (2 <= self.clusters <= MOST and self.smallest >= 1):
            raise ValueError(
                f"clusters are 2 to {MOST}, smallest is a whole number from 1; "
                f"not {self.clusters} and {self.smallest}"
            )
        Wanted(self.first, self.granularity, self.group, self.vector, self.merge).check()
        if self.bits is not None and not 1 <= self.bits <= 8:
            raise ValueError(f"bits are 1 to 8, not {self.bits}")
        if self.size and self.merge:
            raise ValueError(
                "a size is kept to without merging: clusters fill the bits that there are"
            )
        if self.size:
            bytes_of(self.size, 1)

    @property
    def first(self) -> int:
        """The values of the strongest level."""
        asked = self.clusters if self.bits is None else int(2**self.bits)
        return min(COUNTS) if self.size else asked

    def propose(self, context: Context) -> Iterator[Choice | Skip]:
        """See the module's docstring."""
        key = (self.name, *astuple(self))
        yield from context.once(key, lambda: list(self._proposed(context)))

    def commit(self, chosen: Sequence[Choice], context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        places = self._places(context)
        levels = {c.where: self._sharings(places[c.where])[c.level] for c in chosen}
        if not self.materialize:
            wanted = [_taken(places[name], each, context) for name, each in levels.items()]
            ensure_opset(context, max((opset for _, opset in wanted), default=0))
        opset = min(int(scope.opset) for scope in context.scopes())
        places = self._places(context)
        how = cluster_places(places, levels, context)
        known = _constants(context)
        for choice in chosen:
            weight, reader = places[choice.where].weight, places[choice.where].reader
            if weight.dtype.kind == "f" and not weight.indexed:
                weight.values = weight.values + weight.dtype.type(0)  # -0 is stored as 0
            left = f" ({len(np.unique(weight.values))} left)" if self.merge else ""
            if not self.materialize:
                reader = _stored(weight, levels[choice.where], opset)
                for scope in context.scopes():
                    discard(scope, weight)
                weight.values = weight.values[:0].copy()  # what was cut off may live on for long
            yield Edit(reader, f"{choice.where} {choice.what}{left}, {how[choice.where]}")
        for _ in merge_equal(
            each for name, each in _constants(context).items() if name not in known
        ):
            pass  # codes of the same form have the same tables

    def _places(self, context: Context) -> dict[str, Place | Stored]:
        """All tensors by name, of floats and of integers."""
        found: dict[str, Place | Stored] = {**places_of(context, self.smallest)}
        every = stored_places(context, self.smallest)
        return found | {entry.name: entry for entry in every if isinstance(entry, Stored)}

    def _proposed(self, context: Context) -> Iterator[Choice | Skip]:
        """The choices of all places, those of one together."""
        levels: dict[str, list[Level]] = {}
        for entry in self._known(context):
            if isinstance(entry, Skip):
                yield entry
            else:
                levels[entry[0]] = entry[1]
        every = self._places(context)
        held = {name: every[name].weight.nbytes for name in levels}
        strongest = {}
        if self.size:
            strongest = allotted(levels, bytes_of(self.size, sum(held.values())))
        for name, offers in levels.items():
            sharings = self._sharings(every[name])
            for level in offers:
                if level.k >= strongest.get(name, 0):
                    saving = held[name] - level.nbytes
                    what = f"takes {sharings[level.k].told}"
                    yield Choice(name, level.k, what, level.loss, saving)

    def _known(self, context: Context) -> Iterator[tuple[str, list[Level]] | Skip]:
        """The levels of each tensor, or why it is left."""
        places = []
        for place in places_of(context, self.smallest).values():
            why = refusal(place.weight, context) or self._objection(place, context)
            if why:
                yield Skip(place.name, why)
            else:
                places.append(place)
        if context.observe is None or context.data is None:
            yield Skip("the model", "without data weights are clustered for themselves")
        for place, moments in observed_floats(places, context.model, context, block=1):
            known = moments if isinstance(moments, Moments) else None
            yield self._levels(place, place.weight.values, importance(place, known), context)
        yield from self._known_integers(context)

    def _known_integers(self, context: Context) -> Iterator[tuple[str, list[Level]] | Skip]:
        stored = []
        for entry in stored_places(context, self.smallest):
            name, why = entry if isinstance(entry, tuple) else (entry.name, "")
            if isinstance(entry, Stored):
                why = self._objection(entry, context)
                stored += [] if why else [entry]
            if why:
                yield Skip(name, why)
        for place, layer, moments in observed_integers(stored, context, block=1):
            steps, weights = place.steps(), importance_of(place, layer, moments)
            yield self._levels(place, steps, weights, context)

    def _levels(
        self,
        place: Place | Stored,
        values: np.ndarray,
        weights: np.ndarray | None,
        context: Context,
    ) -> tuple[str, list[Level]]:
        """The levels of a tensor."""
        nbytes = self._nbytes(place, context)
        sharings = self._sharings(place)
        simple = [sharings[level].values for level in nbytes if sharings[level].simple]
        known = losses(values, weights, simple, zeros_of(values) is not None)
        lost = {
            level: known[each.values] if each.simple else lost_by(values, each, weights)
            for level, each in sharings.items()
            if level in nbytes
        }
        merged = [level for level in nbytes if sharings[level].merge]
        whole = {level: n for level, n in nbytes.items() if level not in merged}
        strongest = [Level(level, lost[level], nbytes[level]) for level in merged]
        return place.name, [*strongest, *offered(lost, whole, min(whole))]

    def _objection(self, place: Place | Stored, context: Context) -> str:
        """Why it is no use to cluster a weight; empty where it is."""
        if self.materialize:
            few = self.vector == 1 and len(np.unique(place.weight.values)) <= self.first
            return f"it takes no more than {self.first} values already" if few else ""
        smaller = self._nbytes(place, context)
        return "" if smaller else f"it would not be smaller with {self.first} values"

    def _nbytes(self, place: Place | Stored, context: Context) -> dict[float, int]:
        """What levels take; those that take no fewer bytes only where floats stay."""
        sharings = self._sharings(place)
        taken = {level: _taken(place, each, context)[0] for level, each in sharings.items()}
        most = place.weight.nbytes
        return {level: n for level, n in taken.items() if n < most or self.materialize}

    def _sharings(self, place: Place | Stored) -> dict[float, Sharing]:
        """The ways in which the weights of a place can share values, by level."""
        if isinstance(place, Place):
            wanted = Wanted(self.first, self.granularity, self.group, self.vector, self.merge)
            return wanted.levels(place)
        shape = tuple(place.weight.shape)
        return {k: Sharing(shape, k) for k in more(plain_clusters(self.first, self.vector))}


def _constants(context: Context) -> dict[str, Constant]:
    """Those that nodes read, by name."""
    return {each.name: each for each in constants_below(context.model.graph)}


def _taken(place: Place | Stored, sharing: Sharing, context: Context) -> tuple[int, int]:
    """The bytes and the operator set of the smallest form that the model has or can be raised to."""
    every = sharing.forms(place.weight.values)
    return next(form for form in every if not opset_objection(context, form[1]))


def _stored(weight: Constant, sharing: Sharing, opset: int) -> Node:
    """Store a weight that shares values; a node that reads it."""
    if sharing.axis is None:
        return store(weight, opset)
    if sharing.vector > 1:
        return store_vectors(weight, opset, sharing.axis, sharing.vector)
    return store_books(weight, opset, sharing.axis, sharing.channels)
