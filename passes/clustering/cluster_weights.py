"""Let the weights of a tensor share few values, and store which value each takes.

    W  becomes  Gather(C, Cast(Q)),   C the codebook of k values, Q integers of as few bits as hold k

(Han, Mao and Dally, "Deep Compression", 2016.) A runtime folds the nodes when it loads the model, and the
floats that it then has are bit by bit the clustered weights. So the model runs as fast as before, on the same
kernels, and its file holds 8, 4 or 2 bits for a weight, or fewer (``_codes``).

With data the codebook and the assignment are chosen so that the output of each layer changes least, layer
after layer, each on what the clustered layers before it give and towards what the original gives, and its
bias takes up the mean (``_fits``, ``numerics.codebooks``). Layers that cannot be refitted are fitted to what
the original reads. Tables, recurrent layers and shared weights, and all without data: the
k-means clustering of the weights. Where a tenth of a tensor or more is 0, one value is 0, and zeros stay.

8-bit weights that a DequantizeLinear reads share integers of their grid and stay quantized (``_integers``).

``materialize`` leaves the clustered weights as floats, for whoever compresses the file afterwards.

Each weight tensor is a place. Its levels are the clusters asked for and twice as many, up to 256. The
operator set is raised where that lets smaller integers be used (4 bits: 21, 2 bits: 25). Biases and
normalizations are left alone.

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
from ..pruning._fitting.fits import WIDE
from ..pruning._fitting.refit import refit
from ..quantization._layer_moments import Moments, loss_of, observed
from ..quantization._opsets import ensure_opset, opset_objection
from ..quantization._weight_places import Place, places_of, refusal
from ._codes import Packing, packings, store
from ._fits import ClusterLeastSquares, alone, plain
from ._integers import Stored, observed_integers, shared_integers, stored_places

MOST = 256
"""Clusters of the mildest level."""

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
            yield Edit(reader, f"{choice.where} {choice.what}, {how[choice.where]}")

    def _places(self, context: Context) -> dict[str, Place | Stored]:
        """All tensors by name, of floats and of integers."""
        found: dict[str, Place | Stored] = {**places_of(context, self.smallest)}
        every = stored_places(context, self.smallest)
        return found | {entry.name: entry for entry in every if isinstance(entry, Stored)}

    def _proposed(self, context: Context) -> Iterator[Choice | Skip]:
        places = []
        for place in places_of(context, self.smallest).values():
            why = refusal(place.weight, context) or self._objection(place, context)
            if why:
                yield Skip(place.name, why)
            else:
                places.append(place)
        if context.observe is None or context.data is None:
            yield Skip("the model", "without data weights are clustered for themselves")
        for place, moments in _observed(places, context.model, context):
            known = moments if isinstance(moments, Moments) else None
            for k, saving in self._levels(place, context).items():
                loss = loss_of(plain(place, k, known), place, known)
                yield Choice(place.name, k, f"takes {k} values", loss, saving)
        yield from self._proposed_integers(context)

    def _proposed_integers(self, context: Context) -> Iterator[Choice | Skip]:
        stored = []
        for entry in stored_places(context, self.smallest):
            name, why = entry if isinstance(entry, tuple) else (entry.name, "")
            if isinstance(entry, Stored):
                why = self._objection(entry, context)
                stored += [] if why else [entry]
            if why:
                yield Skip(name, why)
        for place, layer, moments in observed_integers(stored, context):
            for k, saving in self._levels(place, context).items():
                loss = shared_integers(place, k, layer, moments)[1]
                yield Choice(place.name, k, f"takes {k} values", loss, saving)

    def _objection(self, place: Place | Stored, context: Context) -> str:
        """Why it is no use to cluster a weight; empty where it is."""
        if self.materialize:
            few = len(np.unique(place.weight.values)) <= self.clusters
            return f"it takes no more than {self.clusters} values already" if few else ""
        smaller = self._levels(place, context)
        return "" if smaller else f"it would not be smaller with {self.clusters} values"

    def _levels(self, place: Place | Stored, context: Context) -> dict[int, int]:
        """What each number of clusters saves in bytes; none that saves nothing, unless floats stay."""
        counts = [self.clusters]
        while counts[-1] < MOST:
            counts.append(min(2 * counts[-1], MOST))
        savings = {k: place.weight.nbytes - _packing(place, k, context).nbytes for k in counts}
        return {k: saving for k, saving in savings.items() if saving > 0 or self.materialize}


def _packing(place: Place | Stored, k: int, context: Context) -> Packing:
    """The smallest that the model's operator set has or can be raised to."""
    every = packings(k, place.size, place.weight.dtype.itemsize)
    return next(each for each in every if not opset_objection(context, each.opset))


def _observed(
    places: Sequence[Place], model: Model, context: Context
) -> Iterator[tuple[Place, Moments | str]]:
    """Each place with what is known of what its layer reads, or why nothing is."""
    if context.observe is None or context.data is None:
        yield from ((place, "there is no data") for place in places)
    else:
        yield from observed(places, model, context.observe)


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
        place.weight.values, _ = shared_integers(place, levels[place.name], layer, moments)
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
        if layer.as_matrices(layer.weight.values).shape[1] > WIDE:
            return None
        return ClusterLeastSquares(compared, levels[name])

    how = {}
    for entry in refit(context.model, original, {}, context, method):
        assert isinstance(entry.node, Node)
        how[names[entry.node.uid]] = FITTED if isinstance(entry, Edit) else entry.why
    return how
