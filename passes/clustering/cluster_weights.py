"""Let the weights of a tensor share few values, and store which value each takes.

    W  becomes  Gather(C, Cast(Q)),   C the codebook of k values, Q integers of as few bits as hold k

(Han, Mao and Dally, "Deep Compression", 2016.) A runtime folds the nodes when it loads the model, and the
floats that it then has are bit by bit the clustered weights. So the model runs as fast as before, on the same
kernels, and its file holds 8, 4 or 2 bits for a weight, or fewer (``_codes``).

With data the codebook and the assignment are chosen so that the output of each layer changes least, layer
after layer, each on what the clustered layers before it give and towards what the original gives, and its
bias takes up the mean (``_fits``, ``numerics.codebooks``). Layers that cannot be refitted are fitted to what
the original reads. Tables, recurrent layers, weights in bodies and shared ones, and all without data: the
k-means clustering of the weights. Where a tenth of a tensor or more is 0, one value is 0, and zeros stay.

8-bit weights that a DequantizeLinear reads share integers of their grid and stay quantized (``_integers``).

``materialize`` leaves the clustered weights as floats, for whoever compresses the file afterwards.

Each weight tensor is a place. Its levels are the clusters asked for, or 2 to the ``bits``, and more up to 256
as far as they lie on the convex hull of predicted loss over bytes; with ``size`` those that fit that best
come first (``_levels``). The operator set is raised where that lets smaller integers be used (4 bits: 21, 2
bits: 25). Biases and normalizations are left alone.

Refuses what ``quantize-weights`` refuses: tensors that are not floats, or hold NaN or infinity; those that
would not become smaller; those that a graph returns, or that several scopes read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field

import numpy as np

from graphopt.ir.graph import Node
from graphopt.ir.model import Model
from graphopt.ir.surgery import discard
from graphopt.lossy_pass import Choice, LossyPass
from graphopt.pass_base import Context, Edit, Skip

from ..pruning._fitting import places as fitting
from ..pruning._fitting.refit import refit
from ..quantization._layer_moments import Moments, importance, observed
from ..quantization._opsets import ensure_opset, opset_objection
from ..quantization._weight_places import Place, places_of, refusal
from ._codes import Form, cost, packings, store
from ._fits import ClusterLeastSquares, alone, plain, zeros_of
from ._integers import (
    Stored,
    importance_of,
    observed_integers,
    shared_integers,
    stored_places,
)
from ._levels import COUNTS, MOST, Level, allotted, bytes_of, losses, offered

FITTED = "fitted to what the original gives"


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
        if self.bits is not None and not 1 <= self.bits <= 8:
            raise ValueError(f"bits are 1 to 8, not {self.bits}")
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
        levels = {choice.where: int(choice.level) for choice in chosen}
        if not self.materialize:
            places = self._places(context)
            wanted = [_packing(places[name], k, context) for name, k in levels.items()]
            ensure_opset(context, max((packing.opset for packing in wanted), default=0))
        opset = min(int(scope.opset) for scope in context.scopes())
        places = self._places(context)
        how = _clustered(places, levels, context)
        for choice in chosen:
            weight, reader = places[choice.where].weight, places[choice.where].reader
            if weight.dtype.kind == "f":
                weight.values = weight.values + weight.dtype.type(0)  # -0 is stored as 0
            if not self.materialize:
                reader = store(weight, opset)
                for scope in context.scopes():
                    discard(scope, weight)
                weight.values = weight.values[:0].copy()  # what was cut off may live on for long
            yield Edit(reader, f"{choice.where} {choice.what}, {how[choice.where]}")

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
            for level in offers:
                if level.k >= strongest.get(name, 0):
                    saving = held[name] - level.nbytes
                    yield Choice(name, level.k, f"takes {level.k} values", level.loss, saving)

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
        for place, moments in _observed(places, context.model, context, block=1):
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
        lost = losses(values, weights, list(nbytes), zeros_of(values) is not None)
        return place.name, offered(lost, nbytes, min(nbytes))

    def _objection(self, place: Place | Stored, context: Context) -> str:
        """Why it is no use to cluster a weight; empty where it is."""
        if self.materialize:
            few = len(np.unique(place.weight.values)) <= self.first
            return f"it takes no more than {self.first} values already" if few else ""
        smaller = self._nbytes(place, context)
        return "" if smaller else f"it would not be smaller with {self.first} values"

    def _nbytes(self, place: Place | Stored, context: Context) -> dict[int, int]:
        """What numbers of values take; those that take no fewer bytes only where floats stay."""
        counts = sorted({self.first, *(k for k in COUNTS if k > self.first)})
        taken = {k: cost(_packing(place, k, context)) for k in counts}
        most = place.weight.nbytes
        return {k: n for k, n in taken.items() if n < most or self.materialize}


def _packing(place: Place | Stored, k: int, context: Context) -> Form:
    """The smallest that the model's operator set has or can be raised to."""
    every = packings(k, place.size, place.weight.dtype.itemsize)
    return next(each for each in every if not opset_objection(context, each.opset))


def _observed(
    places: Sequence[Place], model: Model, context: Context, block: int | None = None
) -> Iterator[tuple[Place, Moments | str]]:
    """Each place with what is known of what its layer reads, or why nothing is."""
    if context.observe is None or context.data is None:
        yield from ((place, "there is no data") for place in places)
    else:
        yield from observed(places, model, context.observe, block)


def _clustered(
    places: Mapping[str, Place | Stored], levels: Mapping[str, int], context: Context
) -> dict[str, str]:
    """Cluster the weights of places, in place; how, in words, by name."""
    chosen = [places[name] for name in levels]
    floats = {place.name: place for place in chosen if isinstance(place, Place)}
    how = {}
    if floats:
        how = _clustered_floats(floats, {name: levels[name] for name in floats}, context)
    stored = [place for place in chosen if isinstance(place, Stored)]
    for place, layer, moments in observed_integers(stored, context):
        place.weight.values = shared_integers(place, levels[place.name], layer, moments)
        known = "by k-means on its grid" if moments is None else "fitted to what its layer reads"
        how[place.name] = known
    return how


def _clustered_floats(
    places: Mapping[str, Place], levels: Mapping[str, int], context: Context
) -> dict[str, str]:
    """Cluster the weights of floats, in place; how, in words, by name."""
    original = context.model.copy()
    how = _refitted(places, levels, original, context)
    rest = [places[name] for name in levels if how.get(name) != FITTED]
    own = {place.name: place for place in rest}
    for place, moments in _observed(list(own.values()), original, context):
        k, name = levels[place.name], place.name
        if isinstance(moments, Moments):
            place.weight.values = alone(place, k, moments)
            how[name] = "fitted to what its layer reads"
        else:
            place.weight.values = plain(place, k, None)
            how[name] = f"by k-means: {how.get(name) or moments}"
    return how


def _refitted(
    places: Mapping[str, Place], levels: Mapping[str, int], original: Model, context: Context
) -> dict[str, str]:
    """Cluster what can be refitted."""
    if context.data is None:
        return {}
    names = {places[name].reader.uid: name for name in levels}

    def method(compared: fitting.Place) -> ClusterLeastSquares | None:
        layer = compared.layer
        name = names.get(layer.node.uid)
        if name is None or layer.weight is not places[name].weight:
            return None
        return ClusterLeastSquares(compared, levels[name])

    how = {}
    for entry in refit(context.model, original, {}, context, method):
        assert isinstance(entry.node, Node)
        how[names[entry.node.uid]] = FITTED if isinstance(entry, Edit) else entry.why
    return how
